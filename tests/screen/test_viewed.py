"""A screen on a TCP port: by TLS, with a password that lasts a while, and nowhere is written down."""

from __future__ import annotations

import json
import os
import socket
import ssl
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from made_certificates import FILES, made_certificates
from made_facts import TINY, facts
from typed import call, eventually, tinamou
from vnc_client import looked

from tinamou import Machine
from tinamou.errors import LaunchError, SpecError, StateError, TinamouError
from tinamou.machine.leaving import refuse_unmovable
from tinamou.planner import plan
from tinamou.spec import load_spec
from tinamou.state.record import Record


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return made_certificates(tmp_path_factory.mktemp("made") / "tls")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def served(certificates: Path) -> Iterator[tuple[int, Path]]:
    """A machine called ``served`` whose screen is on a port of this host, and the authority of its certificate."""
    port = free_port()
    settings = (f"display.listen=127.0.0.1:{port}", f"display.tls={certificates}")
    words = [word for one in settings for word in ("--set", one)]
    tinamou("run", "-d", "--name", "served", "--display", "vnc", "--net", "none", "--no-wait", *words)
    yield port, certificates / FILES[0]
    call("rm", "-f", "served")


def refused(port: int, password: str, trusted: Path | None) -> bool:
    try:
        looked(port, password, trusted)
    except PermissionError:
        return True
    return False


def made(*words: str) -> dict[str, Any]:
    said: dict[str, Any] = json.loads(tinamou("display", "served", "--password", "--json", *words))
    return said


def written(folder: str, word: str) -> list[str]:
    """Files of a folder that have the word in them."""
    files = (path for path in Path(folder).rglob("*") if path.is_file())
    return [str(path) for path in files if word.encode() in path.read_bytes()]


@pytest.mark.vm
@pytest.mark.timeout(600)
def test_who_has_the_password_looks_by_tls_and_nobody_else(every_qemu: str, served, certificates: Path):
    port, trusted = served
    record = json.loads(tinamou("show", "served", "--json"))
    assert refused(port, "", trusted) and refused(port, "password", trusted), "before there is one"
    first = made()
    assert first["address"] == f"127.0.0.1:{port}" and first["tls"] is True and first["seconds"] == 300
    assert looked(port, first["password"], trusted)[0] >= 640
    assert refused(port, first["password"][::-1], trusted)
    with pytest.raises(ssl.SSLCertVerificationError):
        looked(port, first["password"], Path(ssl.get_default_verify_paths().openssl_cafile))
    second = made("--seconds", "600")
    assert second["password"] != first["password"]
    assert refused(port, first["password"], trusted) and not refused(port, second["password"], trusted)
    third = made("--seconds", "1")
    eventually(lambda: refused(port, third["password"], trusted), "the end of that second")
    _left_nowhere([first["password"], second["password"], third["password"]], record)
    _walls_stand(record, certificates)


def _left_nowhere(passwords: list[str], record: dict[str, Any]) -> None:
    line = Path(f"/proc/{record['pid']}/cmdline").read_bytes()
    for one in passwords:
        assert one.encode() not in line
        assert written(os.environ["TINAMOU_STATE"], one) == []


def _walls_stand(record: dict[str, Any], certificates: Path) -> None:
    """Its QEMU has a network of its own all the same, where one can be had; the key is for nobody else."""
    walls = {wall["name"]: wall for wall in json.loads(tinamou("plan", "served", "--json"))["confinement"]["walls"]}
    apart = Path(f"/proc/{record['pid']}/ns/net").readlink() != Path("/proc/self/ns/net").readlink()
    assert apart == (walls["network"]["stands"] and "Landlock" not in walls["network"]["why"])
    key = Path(record["directory"]) / "tls" / FILES[2]
    assert key.read_bytes() == (certificates / FILES[2]).read_bytes()
    assert stat.S_IMODE(key.stat().st_mode) == 0o400
    if os.geteuid() == 0:
        assert key.parent.stat().st_uid == 0, "QEMU cannot put another file in its place"


@pytest.mark.vm
@pytest.mark.slow
def test_it_is_there_again_and_its_password_is_not(served, certificates: Path):
    """After a restart, and after it was suspended; with a certificate that was renewed meanwhile."""
    port, trusted = served
    before = made()["password"]
    for words in (("restart", "served"), ("suspend", "served"), ("resume", "served")):
        assert call(*words).returncode == 0, words
        if words[0] != "suspend":
            eventually(lambda: refused(port, before, trusted), "the port, and no password")
            assert looked(port, made()["password"], trusted)


@pytest.mark.vm
@pytest.mark.slow
def test_a_renewed_certificate_is_that_of_the_next_start(served, tmp_path: Path, certificates: Path):
    port, _ = served
    renewed = made_certificates(tmp_path / "renewed")
    tinamou("set", "served", f"display.tls={renewed}")
    tinamou("restart", "served")
    assert looked(port, made()["password"], renewed / FILES[0])


@pytest.mark.vm
def test_on_the_loopback_it_needs_no_tls(leftovers):
    port = free_port()
    with Machine(net="none", display={"type": "vnc", "listen": f"127.0.0.1:{port}"}) as machine:
        assert refused(port, "password", None)
        let = machine.let_in(60)
        assert looked(port, let.password, None)
        assert (let.address, let.tls, let.seconds) == (f"127.0.0.1:{port}", False, 60)
        with pytest.raises(SpecError, match="not good for 0 seconds"):
            machine.let_in(0)
    assert leftovers.found() == []


@pytest.mark.vm
def test_a_port_that_is_taken_is_said_and_nothing_is_left(leftovers):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        listen = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(LaunchError, match="is not served on") as error:
            Machine(net="none", display={"type": "vnc", "listen": listen}).start()
        assert "in use" in error.value.why
    assert leftovers.found() == []


@pytest.mark.vm
def test_a_screen_without_a_port_has_no_password():
    with Machine(net="none", display="vnc") as machine, pytest.raises(StateError, match="has no password"):
        machine.let_in()


@pytest.mark.parametrize(
    ("display", "field", "reason"),
    [
        ({"type": "vnc", "listen": "0.0.0.0:5901"}, "display.listen", "in the clear"),
        ({"type": "vnc", "listen": "[::]:5901"}, "display.listen", "in the clear"),
        ({"type": "spice", "listen": "127.0.0.1:5901"}, "display.listen", "only VNC"),
        ({"type": "none", "listen": "127.0.0.1:5901"}, "display.listen", "only VNC"),
        ({"type": "vnc", "listen": "999.0.0.1:5901"}, "display.listen", "not an address"),
        ({"type": "vnc", "listen": "5901"}, "display.listen", "not an address"),
        ({"type": "vnc", "listen": "127.0.0.1:65536"}, "display.listen", "1 to 65535"),
        ({"type": "vnc", "listen": "localhost:5901"}, "display.listen", "not an address"),
        ({"type": "vnc", "tls": "/etc"}, "display.tls", "no listen"),
    ],
)
def test_what_cannot_be_is_refused(display: dict[str, Any], field: str, reason: str):
    with pytest.raises(TinamouError) as error:
        load_spec({"display": display})
    assert field in str(error.value) and reason in str(error.value)


def test_it_does_not_leave_its_host_while_it_runs(tmp_path: Path):
    spec = {"display": {"type": "vnc", "listen": "127.0.0.1:5901"}, "net": []}
    made = plan(load_spec(spec), facts(TINY))
    with pytest.raises(StateError) as error:
        refuse_unmovable(Record(name="m", directory=str(tmp_path), spec=spec), made, cut=False)
    assert [one.path for one in error.value.problems] == ["display.listen"]
