"""Root lets others use a machine: they reach its guest, and nothing else of it; who is not allowed reaches nothing."""

from __future__ import annotations

import errno
import json
import os
import pwd
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import pytest
from test_neighbours import OTHER, as_other
from typed import call, eventually, tinamou

from tinamou.operations import allowing
from tinamou.state import record as records
from tinamou.state.allowed import Allowed, allowed, change_allowed
from tinamou.state.machines import making

pytestmark = pytest.mark.root

STRANGER, GROUP = OTHER - 1, 60
USED = {"agent.sock", "console.sock"}
READ = {"machine.json", "serial.log", "qemu.log", "agent.sock.lock", "agent.sock.lock.wait", "console.sock.lock"}


def by(uid: int, *words: str, group: int = OTHER, input: str = "") -> subprocess.CompletedProcess[str]:
    """The command, by another user with a home of their own, who is told where root's machines are."""
    with tempfile.TemporaryDirectory(prefix="home-") as home:
        os.chown(home, uid, group)
        places = {"HOME": home, "PATH": os.environ["PATH"], "TINAMOU_OTHERS": os.environ["TINAMOU_STATE"]}
        places["PYTHONPATH"] = str(Path(allowing.__file__).parent.parent.parent.absolute())
        return subprocess.run(
            [sys.executable, "-m", "tinamou", *words], env=places, user=uid, group=group, extra_groups=[], cwd="/",
            capture_output=True, text=True, input=input, check=False, timeout=300,
        )  # fmt: skip


@pytest.fixture
def machine(state: Path) -> Iterator[Path]:
    if as_other(lambda: os.access(sys.executable, os.X_OK) and os.access(allowing.__file__, os.R_OK)) is not True:
        pytest.skip("other users cannot run this checkout")
    tinamou("run", "-d", "--name", "web")
    change_allowed(state / "machines/web", Allowed(frozenset({OTHER}), frozenset({GROUP})))
    yield state / "machines/web"
    call("rm", "-f", "web")


@pytest.mark.vm
def test_the_allowed_reach_the_guest_and_no_more(machine: Path) -> None:
    for _ in range(2):
        done = by(OTHER, "exec", "web", "--", "id", "-u")
        assert done.stdout == "0\n", done.stderr
        assert by(STRANGER, "exec", "web", "--", "id", "-u", group=GROUP).stdout == "0\n"
        for word in ("exec", "console", "show", "logs"):
            done = by(STRANGER, word, "web", *(("--", "id") if word == "exec" else ()), group=STRANGER)
            assert done.returncode == 118
            assert "there is no machine named web" in done.stderr
        assert reach(machine) == {**dict.fromkeys(USED, "connect"), **dict.fromkeys(READ, "read")}
        assert as_other(lambda: (machine / "more").touch()) == "EACCES"
        tinamou("stop", "web")
        tinamou("start", "web")
    assert by(OTHER, "cp", "-", "web:/tmp", input="").returncode != 118
    assert json.loads(by(OTHER, "show", "web", "--json").stdout)["state"] == "running"
    # the end of its input detaches from a guest that takes longer to answer
    eventually(lambda: "from outside" in by(OTHER, "console", "web", input="echo from outside\n").stdout, "the console")
    for words in ("stop web", "pause web", "rm -f web", "ssh web", "fork web", "disk ls web"):
        done = by(OTHER, *words.split())
        assert done.returncode == 118
        assert "QEMU's monitor" in done.stderr
    assert "only root's machines" in by(OTHER, "allow", "web", "root").stderr
    assert tinamou("exec", "web", "--", "echo", "root too") == "root too\n"
    held = hold(machine / "agent.sock")
    said = call("allow", "--revoke", "web").stderr
    held.kill()
    held.communicate()
    assert "somebody is connected to agent.sock" in said
    assert reach(machine) == {}
    assert by(OTHER, "exec", "web", "--", "id").returncode == 118


def reach(folder: Path) -> dict[str, str]:
    """Every file of the machine that another user can do something with, and what; nothing of it can be written to."""
    names = [str(path.relative_to(folder)) for path in sorted(folder.rglob("*")) if not path.is_dir()]

    def one(name: str) -> str:
        path = folder / name
        tries: tuple[tuple[str, Callable[[], object]], ...] = (
            ("write", lambda: os.close(os.open(path, os.O_WRONLY))),
            ("connect", lambda: socket.socket(socket.AF_UNIX).connect(str(path))),
            ("read", lambda: os.close(os.open(path, os.O_RDONLY))),
        )
        for what, attempt in tries:
            try:
                attempt()
                return what
            except OSError as error:
                if error.errno not in (errno.EACCES, errno.EPERM, errno.ENXIO, errno.ECONNREFUSED, errno.ENOTSOCK):
                    raise
        return ""

    found = as_other(lambda: {name: what for name in names if (what := one(name))})
    assert isinstance(found, dict), found
    return found


def hold(path: Path) -> subprocess.Popen[str]:
    """Another user who is connected and stays so."""
    code = "import socket, sys; s = socket.socket(socket.AF_UNIX); s.connect(sys.argv[1]); print(1, flush=True); input()"
    words = [sys.executable, "-I", "-c", code, str(path)]
    held = subprocess.Popen(words, user=OTHER, group=OTHER, extra_groups=[], stdin=-1, stdout=-1, text=True)
    assert held.stdout
    assert held.stdout.readline() == "1\n"
    return held


@pytest.fixture
def folder(state: Path) -> Path:
    with making("web") as path:
        records.create(records.Record("web", str(path), {}))
    return path


def test_who_may_is_written_down(folder: Path) -> None:
    change_allowed(folder, Allowed(frozenset({OTHER}), frozenset({GROUP})))
    assert as_other(lambda: len((folder / "machine.json").read_bytes())) != "EACCES"
    records.change(records.read(folder), pid=0, image="other")  # type: ignore[arg-type]
    assert as_other(lambda: "other" in (folder / "machine.json").read_text()) is True
    assert as_other(lambda: (folder / "allowed.json").read_text()) == "EACCES"
    assert as_other(lambda: (folder / "machine.json").read_text(), uid=STRANGER) == "EACCES"
    assert allowing.shown() == {"web": [str(OTHER), f"@{GROUP}" if not _group() else f"@{_group()}"]}
    assert allowing.change("web", [str(OTHER)], revoke=True) == []
    assert allowed(folder) == Allowed(frozenset(), frozenset({GROUP}))
    assert as_other(lambda: (folder / "machine.json").read_text()) == "EACCES"
    assert allowing.change("web", [], revoke=True) == []
    assert (folder / "machine.json").stat().st_mode & 0o777 == 0o600
    assert os.listxattr(folder / "machine.json") == []


def _group() -> str:
    import grp

    try:
        return grp.getgrgid(GROUP).gr_name
    except KeyError:
        return ""


@pytest.mark.parametrize("text", ['{"users": [-1], "groups": []}', '{"users": ["0"], "groups": []}', "[]", "{"])
def test_an_odd_list_lets_nobody_in(folder: Path, text: str) -> None:
    from tinamou.errors import StateError
    from tinamou.state.allowed import apply

    (folder / "allowed.json").write_text(text)
    (folder / "allowed.json").chmod(0o600)
    with pytest.raises(StateError, match="cannot be read"):
        apply(folder)


def test_names_that_mean_nobody(folder: Path) -> None:
    from tinamou.errors import SpecError

    with pytest.raises(SpecError) as error:
        allowing.change("web", ["nosuchuser", "@nosuchgroup"])
    assert [one.reason for one in error.value.problems] == [f"this host has no such {kind}" for kind in ("user", "group")]


def test_what_the_lists_open(folder: Path) -> None:
    """Every name a machine's folder can have, without a machine: the sockets listen, the files are there."""
    names = ("qmp.sock", "qmp2.sock", "resident.sock", "agent.sock", "console.sock", "share0.sock")
    listening = []
    for name in names:
        listening.append(socket.socket(socket.AF_UNIX))
        listening[-1].bind(str(folder / name))
        (folder / name).chmod(0o600)
        listening[-1].listen()
    for name in (
        "serial.log",
        "serial.log.1",
        "qemu.log",
        "plan.json",
        "image.json",
        "journal.jsonl",
        "disk0.qcow2",
        "vars.fd",
    ):
        (folder / name).touch(0o600)
    assert reach(folder) == {}
    change_allowed(folder, Allowed(frozenset({OTHER})))
    assert reach(folder) == {**dict.fromkeys(USED, "connect"), **dict.fromkeys(READ | {"serial.log.1"}, "read")}
    change_allowed(folder, Allowed(frozenset({STRANGER})))
    assert reach(folder) == {}
    (folder / "agent.sock").unlink()
    again = socket.socket(socket.AF_UNIX)
    again.bind(str(folder / "agent.sock"))
    (folder / "agent.sock").chmod(0o600)
    again.listen()
    change_allowed(folder, Allowed(frozenset({OTHER})))
    (folder / "agent.sock").unlink()
    for one in (*listening, again):
        one.close()


@pytest.mark.parametrize("revoke", [False, True])
def test_of_many_who_change_it_at_once_none_is_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, revoke: bool) -> None:
    users = sorted(entry.pw_uid for entry in pwd.getpwall())[:12]
    monkeypatch.setattr(allowing.machines, "find", lambda name: SimpleNamespace(name=name, path=tmp_path))
    if revoke:
        change_allowed(tmp_path, Allowed(frozenset(users)))
    with ThreadPoolExecutor(len(users)) as pool:
        list(pool.map(lambda uid: allowing.change("web", [str(uid)], revoke=revoke), users))
    assert allowed(tmp_path).users == frozenset(() if revoke else users)


def test_a_lock_is_taken_by_who_may_only_read_it(folder: Path) -> None:
    """Turns are taken with others, and the file cannot be made to grow."""
    from tinamou.system.turns import Turn

    change_allowed(folder, Allowed(frozenset({OTHER})))
    path = str(folder / "agent.sock.lock")

    def take() -> list[object]:
        turn = Turn(path)
        return [turn.take(), turn.held, turn.give(), turn.held]

    assert as_other(take) == [True, True, None, False]
    mine = Turn(path)
    assert mine.take()
    assert as_other(lambda: Turn(path).take()) is False
    assert Path(path).read_text() == str(os.getpid())
    mine.give()
    assert as_other(lambda: os.truncate(path, 10)) == "EACCES"
