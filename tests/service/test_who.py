"""Who may do what with which machine: every verb of every caller, by tokens and by the kernel's word."""

from __future__ import annotations

import os
import pwd
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from service_here import machine, serving
from starlette.routing import Route as HttpRoute
from starlette.testclient import TestClient

from tinamou import late
from tinamou.errors import SpecError, StateError
from tinamou.parts.disk import DiskSpec
from tinamou.parts.net import NetSpec
from tinamou.service.app import application
from tinamou.service.auth import Caller, by_peer
from tinamou.service.descriptions import HARMLESS, described
from tinamou.service.door import Door
from tinamou.service.page.describing import parts
from tinamou.service.routes import ROUTES
from tinamou.service.shared import Service
from tinamou.service.table import made
from tinamou.state import tokens
from tinamou.state.allowed import Allowed, change_allowed

STRANGER, GUEST = 54321, 54322
ALL = frozenset(tokens.VERBS)
GUESTS = frozenset({"exec", "cp", "console", "logs", "show"})

WHO: dict[str, dict[str, frozenset[str]]] = {
    "owner": {"web": ALL, "ci-1": ALL, "": ALL},
    "guest": {"web": GUESTS, "ci-1": frozenset(), "": frozenset()},
    "stranger": {"web": frozenset(), "ci-1": frozenset(), "": frozenset()},
    "token *": {"web": ALL, "ci-1": ALL, "": ALL},
    "token ls,show": {"web": frozenset({"ls", "show"}), "ci-1": frozenset({"ls", "show"}), "": frozenset({"ls", "show"})},
    "token exec ci-*": {"web": frozenset(), "ci-1": frozenset({"exec"}), "": frozenset({"exec"})},
}
"""Caller → machine (none: "") → what they may do."""
REFUSED = ("nobody", "expired", "revoked", "made up")


@pytest.fixture
def headers(state: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, dict[str, Any]]:
    """Caller → what their requests bring: a token, or what the kernel says of them."""
    for name in ("web", "ci-1"):
        machine(state, name)
    change_allowed(state / "machines/web", Allowed(frozenset({GUEST})))
    made_of = {
        "token *": tokens.create("all", verbs=["*"]),
        "token ls,show": tokens.create("looks", verbs=["ls", "show"]),
        "token exec ci-*": tokens.create("ci", verbs=["exec"], machines=["ci-*"]),
        "expired": tokens.create("expired", verbs=["*"], seconds=1e-9),
        "revoked": tokens.create("revoked", verbs=["*"]),
        "made up": "tnm_" + "0" * 64,
    }
    tokens.revoke("revoked")
    found: dict[str, dict[str, Any]] = {who: {"token": text} for who, text in made_of.items()}
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    return found | {"owner": {"peer": 0}, "guest": {"peer": GUEST}, "stranger": {"peer": STRANGER}, "nobody": {}}


def door(routes: list[Any]) -> Any:
    from starlette.applications import Starlette

    inner = Door(Starlette(routes=routes))

    async def as_peer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "lifespan":
            named = dict(scope["headers"]).get(b"x-test-peer")
            scope["state"] = {"peer": int(named)} if named else {}
        await inner(scope, receive, send)

    return as_peer


@pytest.fixture
def client(state: Path) -> Iterator[TestClient]:
    """The real table behind the real door; what its functions do is left out, but for saying that they were reached."""

    async def reached(asked: Any) -> Any:
        return {"reached": True}

    async def reached_socket(socket: Any, _: Any) -> None:
        await socket.accept()
        await socket.close()

    calls = {"WEBSOCKET": reached_socket}
    stubs = [late.replace(one, call=calls.get(one.method, reached), streams=True) for one in ROUTES]
    yield TestClient(door(made(stubs, Service())), base_url="http://localhost")


def status(client: TestClient, route: Any, machine: str, given: dict[str, Any]) -> int:
    path = route.path.format(name=machine, snapshot="one", nic="net0", operation="0" * 16)
    sent = {"x-test-peer": str(given["peer"])} if "peer" in given else {}
    sent |= {"authorization": f"Bearer {given['token']}"} if "token" in given else {}
    if route.method == "WEBSOCKET":
        from starlette.websockets import WebSocketDisconnect

        try:
            with client.websocket_connect(f"ws://localhost{path}", headers=sent):
                return 200
        except WebSocketDisconnect as closed:
            return closed.code - 4000
    return client.request(route.method, path, headers=sent).status_code


@pytest.mark.parametrize("who", [*WHO, *REFUSED])
def test_every_cell(client, headers, who):
    wrong = []
    for route in ROUTES:
        for name in ("web", "ci-1") if "{name}" in route.path else ("",):
            got = status(client, route, name, headers[who])
            if who in REFUSED:
                right = got == 401
            else:
                may = not route.verb or route.verb in WHO[who][name]
                right = got in (200, 202) if may else got == 403
            if not right:
                wrong.append((route.method, route.path, name, got))
    assert wrong == []


def test_the_table_names_known_verbs():
    assert {one.verb for one in ROUTES} - {""} <= ALL
    assert sum("{name}" in one.path and not one.verb for one in ROUTES) == 0


def test_a_user_who_is_not_root_serves_root_and_themself_alone(monkeypatch):
    monkeypatch.setattr(os, "geteuid", lambda: GUEST)
    assert by_peer(GUEST).may("rm", "web")
    assert by_peer(0).may("rm", "web")
    assert by_peer(STRANGER) is None


@pytest.mark.root
def test_the_kernel_says_who_calls(state):
    machine(state, "web")
    change_allowed(state / "machines/web", Allowed(frozenset({GUEST})))
    with serving(state, "--mode", "0666") as served:
        assert served.ask("GET", "/v1/me").json["name"] == f"user:{pwd.getpwuid(0).pw_name}"
        assert served.ask("GET", "/v1/me", uid=STRANGER).status == 200  # root serves whom root's lists may name
        assert served.ask("GET", "/v1/machines", uid=STRANGER).json["machines"] == []
        assert [one["name"] for one in served.ask("GET", "/v1/machines", uid=GUEST).json["machines"]] == ["web"]
        assert served.ask("GET", "/v1/machines/web", uid=GUEST).status == 200
        for uid in (GUEST, STRANGER):
            assert served.ask("POST", "/v1/machines/web/start", {}, uid=uid).status == 403
            assert served.ask("DELETE", "/v1/machines/web", uid=uid).status == 403
            assert served.ask("POST", "/v1/machines", {"spec": {}}, uid=uid).status == 403
        assert served.ask("GET", "/v1/machines/web", uid=STRANGER).status == 403


@pytest.mark.root
def test_only_whom_the_mode_lets_connects(state):
    with serving(state) as served, pytest.raises(PermissionError):
        served.ask("GET", "/v1/me", uid=STRANGER)


def test_a_token_does_less_than_the_user_who_holds_it(state):
    text = tokens.create("looks", verbs=["ls"])
    with serving(state) as served:
        assert served.ask("POST", "/v1/machines", {"spec": {}}, authorization=f"Bearer {text}").status == 403
        assert served.ask("GET", "/v1/me", x_api_key=text).json["verbs"] == ["ls"]


def test_tokens_are_kept_as_digests_alone(state):
    text = tokens.create("ci", verbs=["ls"], seconds=60)
    assert text.startswith("tnm_")
    assert text not in (state / "tokens.json").read_text() and text[4:] not in (state / "tokens.json").read_text()
    assert (state / "tokens.json").stat().st_mode & 0o777 == 0o600
    assert tokens.holder(text).name == "ci"
    assert tokens.holder(text[:-1] + ("0" if text[-1] != "0" else "1")) is None
    with pytest.raises(StateError, match="already"):
        tokens.create("ci", verbs=["ls"])
    tokens.revoke("ci")
    assert tokens.holder(text) is None
    with pytest.raises(StateError, match="no token"):
        tokens.revoke("ci")


@pytest.mark.parametrize(
    ("name", "verbs", "seconds"), [("A B", ["ls"], 0), ("a", ["fly"], 0), ("a", [], 0), ("a", ["ls"], -1), ("", ["ls"], 0)]
)
def test_refused_tokens(state, name, verbs, seconds):
    with pytest.raises(SpecError):
        tokens.create(name, verbs=verbs, seconds=seconds)


HOST_FIELDS = [
    {"image": "/etc/passwd"},
    {"image": "~/x"},
    {"image": "x.qcow2"},
    {"disk": [{"path": "/etc/shadow"}]},
    {"disk": ["/dev/sda"]},
    {"share": ["/:/mnt"]},
    {"kernel": "/boot/vmlinuz", "image": "none"},
    {"net": [{"forward": ["22:22"]}]},
    {"net": ["tap"]},
    {"net": ["user"]},
    {"net": ["none", {"type": "user"}]},
    {"forkable": True},
    {"net": [{"type": "bridge", "bridge": "br0"}]},
    {"net": [{"type": "stream", "socket": "/run/x"}]},
    {"pci": ["65:00.0"]},
    {"qemu_args": ["-chardev", "file,path=/etc/x"]},
    {"confine": {"without": ["files"]}},
    {"security": {"syscalls": "qemu"}},
    {"cpu": {"realtime": 10, "pin": "auto"}},
    {"memory": {"hugepages": "2M"}},
    {"boot": {"secure_keys": "/root"}},
    {"devices": {"vsock": 5}},
    {"display": {"type": "vnc", "video": "virtio-gl"}},
]


@pytest.mark.parametrize("data", HOST_FIELDS, ids=str)
def test_naming_things_of_the_host_is_a_right_of_its_own(state, data):
    without = Caller("token:ci", frozenset({"create", "plan"}))
    with pytest.raises(SpecError, match="may not have this machine made"):
        described(data, without)
    assert described(data, Caller("token:ops", frozenset({"create", "host"})))


def test_what_is_harmless_needs_no_such_right(state):
    without = Caller("token:ci", frozenset({"create"}), ("ci-*",))
    data = {"name": "ci-1", "cpus": 2, "memory": "1G", "disk": [{"size": "1G"}]}
    data |= {"forkable": True, "net": [{"type": "user", "isolated": True}]}
    assert described({**data, "limits": {"cpu": 1.0}, "seed": {"packages": ["jq"]}}, without).cpu.count == 2
    with pytest.raises(StateError, match="may not create web"):
        described({**data, "name": "web"}, without)


def test_a_network_leads_to_nothing_of_the_host_without_that_right(state):
    without = Caller("token:ci", frozenset({"create"}))
    for data in ({}, {"net": ["auto", "passt", "none"]}):
        assert {one.type for one in described({"name": "a", **data}, without).net} <= {"passt", "none"}
    assert [one.type for one in described({"net": [{"isolated": True}]}, without).net] == ["auto"]
    assert [one.type for one in described({}, Caller("token:ops", frozenset({"create", "host"}))).net] == ["auto"]


def test_who_may_plan_need_not_create(state):
    planner = Caller("token:ci", frozenset({"plan"}))
    assert described({"name": "web"}, planner, "plan").name == "web"
    with pytest.raises(StateError, match="may not create web"):
        described({"name": "web"}, planner)


def test_an_application_answers_no_one_it_does_not_know(state):
    with TestClient(application(Service()), base_url="http://localhost") as client:
        for path in ("/v1/me", "/v1/openapi.json", "/metrics", "/", "/v1/nothing"):
            assert client.get(path).status_code == 401, path


def test_every_path_is_one_of_the_table():
    served = {
        (method, route.path) for route in made(ROUTES, None) if isinstance(route, HttpRoute) for method in route.methods
    }
    assert {(one.method, one.path) for one in ROUTES if one.method != "WEBSOCKET"} <= served


def test_served_over_the_real_socket(state):
    with serving(state) as served:
        assert served.ask("GET", "/v1/openapi.json").json["openapi"].startswith("3.1")


def test_what_is_called_harmless_is_a_field_of_a_description():
    known = {field.name for part in parts() for field in part.fields}
    for kind, name in ((DiskSpec, "disk"), (NetSpec, "net")):
        known |= {f"{name}.{field.name}" for field in late.fields(kind)}
    assert known >= HARMLESS
