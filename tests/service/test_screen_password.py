"""The service makes a password for a machine's screen, which a viewer gets in with, and no one without its verb."""

from __future__ import annotations

import json
import socket
from pathlib import Path

import pytest
from service_here import operation, serving
from vnc_client import looked

from tinamou.errors import TinamouError
from tinamou.service.auth import Caller
from tinamou.service.descriptions import described

pytestmark = pytest.mark.vm


def test_a_viewer_is_let_in(state: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    screen = {"type": "vnc", "listen": f"127.0.0.1:{port}"}
    with serving(state) as served:
        spec = {"name": "web", "net": [], "display": screen}
        made = operation(served, served.ask("POST", "/v1/machines", {"spec": spec}))
        assert made["state"] == "done", made
        answer = served.ask("POST", "/v1/machines/web/screen/password", {"seconds": 600})
        said = json.loads(answer.body)
        assert (said["address"], said["tls"], said["seconds"]) == (f"127.0.0.1:{port}", False, 600)
        assert looked(port, said["password"], None)[0] >= 640
        assert served.ask("POST", "/v1/machines/web/screen/password", {"seconds": 0}).status == 422
        assert said["password"].encode() not in served.ask("GET", "/v1/machines/web").body
        operation(served, served.ask("DELETE", "/v1/machines/web?force=true"))


def test_who_may_not_name_things_of_the_host_has_no_port_made() -> None:
    data = {"display": {"type": "vnc", "listen": "127.0.0.1:5901"}}
    with pytest.raises(TinamouError, match=r"display\.listen"):
        described(data, Caller("token:ops", frozenset({"create"})))
    assert described(data, Caller("token:ops", frozenset({"create", "host"}))).display.listen
