"""What a program that was shut in cannot do, tried: for root and for a user, with a root of its own, with Landlock alone."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tinamou.system import landlock, shut_in
from tinamou.system.exec import CommandError
from tinamou.system.namespaces import may_unshare
from tinamou.system.syscall_numbers import AUDIT

TRIAL = """
import json, os, signal, socket, sys
given, other, written, port, pid = sys.argv[1:6]
def tried(act):
    try:
        act()
    except OSError as error:
        return error.strerror or "no"
    return ""
def connect():
    socket.create_connection(("127.0.0.1", int(port)), 2).close()
def made():
    open(written + ".more", "w").close()
print(json.dumps({
    "uid": os.getuid(),
    "groups": os.getgroups(),
    "caps": [line.split()[1] for line in open("/proc/self/status") if "CapEff" in line] if len(sys.argv) > 6 else [],
    "reads": tried(lambda: open(given).close()),
    "reads another": tried(lambda: open(other).close()),
    "reads the host's": tried(lambda: open("/etc/shadow").close()),
    "lists": tried(lambda: os.listdir(os.path.dirname(given))),
    "writes": tried(lambda: open(written, "w").write("done")),
    "writes what it reads": tried(lambda: open(given, "a").close()),
    "makes": tried(made),
    "connects": tried(connect),
    "signals": tried(lambda: os.kill(int(pid), 0)),
    "interfaces": [name for _, name in socket.if_nameindex() if name != "lo"],
}))
"""


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """One it is given, another, one it may write."""
    made = [tmp_path / name for name in ("given", "other", "written")]
    for path in made:
        path.write_bytes(b"content")
        path.chmod(0o600)
    return made


@pytest.fixture
def any_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the filter of system calls, which would end who tries."""
    monkeypatch.setattr(shut_in, "AUDIT", {})


def trial(files: list[Path], *, proc: bool = False) -> dict[str, object]:
    given, other, written = files
    with socket.create_server(("127.0.0.1", 0)) as listening, written.open("r+b") as file, shut_in.leased(file.fileno()):
        port = str(listening.getsockname()[1])
        words = ["/usr/bin/python3", "-I", "-S", "-c", TRIAL, str(given), str(other), str(written), port, str(os.getpid())]
        said = shut_in.ask(
            [*words, *(["proc"] if proc else [])], reads=[given], writes=[written], seconds=20, cpu_seconds=10
        )
    assert not Path(f"{written}.more").exists()
    return dict(json.loads(said))


needs_landlock = pytest.mark.skipif(not landlock.abi(), reason="this kernel has no Landlock, or it is not active")
needs_network = pytest.mark.skipif(not may_unshare("--net"), reason="this process may not make a network namespace")


needs_root_folder = pytest.mark.skipif("m" not in shut_in._apart(), reason="this process may not make a mount namespace")


@pytest.mark.usefixtures("any_call")
@pytest.mark.parametrize(
    "by", [pytest.param("root", marks=needs_root_folder), pytest.param("landlock", marks=needs_landlock)]
)
def test_it_opens_what_it_is_given_and_nothing_else(files: list[Path], by: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if by == "landlock":
        monkeypatch.setattr(shut_in, "_apart", lambda: "")
    found = trial(files)
    for may in ("reads", "writes"):
        assert found[may] == ""
    for may_not in ("reads another", "reads the host's", "writes what it reads", "makes"):
        assert found[may_not], may_not
    assert bool(found["lists"]) == (by == "landlock")  # of its own root it sees all
    assert files[2].read_text() == "done"
    assert files[2].stat().st_uid == os.geteuid()


@needs_root_folder
def test_links_lead_to_what_is_given(files: list[Path], tmp_path: Path) -> None:
    (tmp_path / "folder").symlink_to(tmp_path)
    (tmp_path / "second").symlink_to("folder/given")
    (tmp_path / "first").symlink_to(tmp_path / "second")
    code = "import sys; print(open(sys.argv[1]).read())"
    words = ["/usr/bin/python3", "-I", "-S", "-c", code, str(tmp_path / "first")]
    assert shut_in.ask(words, reads=[tmp_path / "first"], seconds=20, cpu_seconds=5) == "content\n"


@pytest.mark.skipif(os.uname().machine not in AUDIT, reason="no list for this architecture")
@pytest.mark.parametrize("code", ["import socket; socket.socket()", "import os; os.execv('/bin/true', ['true'])"])
def test_it_is_ended_for_a_call_that_no_reader_makes(code: str, monkeypatch: pytest.MonkeyPatch) -> None:
    words = ["/usr/bin/python3", "-I", "-S", "-c", code]
    with pytest.raises(CommandError) as ended:
        shut_in.ask(words, reads=[], seconds=20, cpu_seconds=5)
    assert ended.value.status == -31
    monkeypatch.setattr(shut_in, "AUDIT", {})
    shut_in.ask(words, reads=[], seconds=20, cpu_seconds=5)


@pytest.mark.root
@needs_network
@pytest.mark.usefixtures("any_call")
def test_it_is_nobody_and_has_no_network(files: list[Path]) -> None:
    found = trial(files)
    assert found["uid"] == shut_in._FIRST_UID + os.getpid() and found["groups"] in ([], [found["uid"]])
    assert found["interfaces"] == [] and found["connects"] and found["signals"]


@pytest.mark.root
@pytest.mark.usefixtures("any_call")
def test_with_neither_it_reads_and_neither_writes_nor_signals(files: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(landlock, "abi", lambda: 0)
    monkeypatch.setattr(shut_in, "_apart", lambda: "in")
    found = trial(files, proc=True)
    assert found["caps"] == ["0000000000000004"]  # to read, and to pass through folders
    assert found["reads"] == found["writes"] == "" and found["writes what it reads"] and found["makes"] and found["signals"]


@pytest.mark.root
def test_for_a_user_it_is_that_user_without_a_network(tmp_path: Path) -> None:
    whoever = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"]
    code = "import tinamou.system.shut_in, pytest"
    source = str(Path(shut_in.__file__).parents[2])
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": f"{source}:{Path(__file__).parent}", "HOME": "/"}
    if subprocess.run([*whoever, sys.executable, "-c", code], env=environment, capture_output=True, check=False).returncode:
        pytest.skip("another user cannot read this checkout")
    folder = Path("/tmp") / f"shut-in-{os.getpid()}"
    folder.mkdir(mode=0o700)
    shutil.chown(folder, 65534, 65534)
    body = (
        "import json, sys, test_shut_in as t; from pathlib import Path\n"
        "t.shut_in.AUDIT = {}\n"
        "files = [Path(sys.argv[1]) / n for n in ('given', 'other', 'written')]\n"
        "[f.write_bytes(b'x') for f in files]; [f.chmod(0o600) for f in files]\n"
        "print(json.dumps([t.trial(files), t.landlock.abi(), t.may_unshare('--user', '--net')]))"
    )
    try:
        words = [*whoever, sys.executable, "-c", body, str(folder)]
        said = subprocess.run(words, env=environment, capture_output=True, text=True, check=True)
    finally:
        shutil.rmtree(folder)
    found, walls, apart = json.loads(said.stdout)
    assert found["uid"] == 65534 and found["reads"] == found["writes"] == ""
    assert not walls or found["reads another"]
    assert not apart or (found["connects"] and found["interfaces"] == [])


def test_its_time_and_memory_are_bounded() -> None:
    def asked(code: str, seconds: float = 120.0) -> None:
        shut_in.ask(["/usr/bin/python3", "-I", "-S", "-c", code], reads=[], seconds=seconds, cpu_seconds=1)

    with pytest.raises(TimeoutError, match="did not finish within 1 seconds"):
        asked("import time; time.sleep(60)", 1.0)
    with pytest.raises(CommandError) as computed:
        asked("while True: pass")
    assert computed.value.status == -9
    with pytest.raises(CommandError, match="MemoryError"):
        asked("bytearray(8 << 30)")
    with pytest.raises(CommandError, match=r"File too large|-25"):
        asked("import sys; sys.stdout.write('x' * (2 << 20))")


def test_a_program_that_is_not_there_is_said() -> None:
    with pytest.raises(FileNotFoundError, match="no-such-program is not installed"):
        shut_in.ask(["no-such-program"], reads=[], seconds=1, cpu_seconds=1)


def test_it_ends_with_who_started_it(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys, time; from tinamou.system import shut_in\n"
        "words = shut_in.shut_in(['/usr/bin/sleep', '1000'])\n"
        "print(subprocess.Popen(words, env=shut_in.ENVIRONMENT).pid, flush=True); time.sleep(1000)"
    )
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as starter:
        assert starter.stdout is not None
        pid = int(starter.stdout.readline())
        while b"sleep" not in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")[0]:
            time.sleep(0.02)
        starter.kill()
    handle = None
    for _ in range(3000):
        if not Path(f"/proc/{pid}").exists() or "Z" in Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2][:3]:
            break
        time.sleep(0.02)
    else:
        handle = pid
    assert handle is None
