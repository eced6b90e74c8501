"""A QEMU that was taken over looks around: each wall keeps it from something, and without that wall it gets it."""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import os
import re
import secrets
import signal
import socket
import struct
import subprocess
import sys
import time
from pathlib import Path

import pytest
from made_facts import facts

from tinamou.facts import WallFacts
from tinamou.facts.walls import NAMESPACES
from tinamou.launch.process import jail_of
from tinamou.monitor.walls import look
from tinamou.planner import plan
from tinamou.probe.walls import probe_walls
from tinamou.spec import load_spec
from tinamou.system import jail, landlock
from tinamou.system.ended import status_of
from tinamou.system.own_programs import own_program
from tinamou.system.spawn import alive, end, exit_code, start_exactly, wait_gone

pytestmark = pytest.mark.root

UID = 1_899_999_998
"""A user id nobody has."""
PYTHON = "/usr/bin/python3"
LOOK = """
import ctypes, os, socket, sys
def gets(work):
    try:
        return bool(work())
    except OSError:
        return False
def connects(family, address):
    with socket.socket(family) as one:
        one.settimeout(5)
        one.connect(address)
        return True
"""
NOBODY = WallFacts(dict.fromkeys(NAMESPACES, "the test refuses it"), landlock=landlock.abi())
"""A host whose kernel makes no namespace."""


def planned(walls: WallFacts, *without: str, uid: int | None = UID) -> jail.Jail:
    """What the planner decides for a machine without a network, as its QEMU would be started."""
    spec = load_spec({"net": [], "confine": {"without": list(without)}})
    known = facts(uid=uid)
    host = dataclasses.replace(known.host, groups={}, device_groups={})
    made = jail_of(plan(spec, dataclasses.replace(known, walls=walls, host=host)), {}, dies_with_parent=False)
    return dataclasses.replace(made, writes=(), call_filter=b"")  # the machine has no folder, and what is tried ends it


def said(around: jail.Jail, code: str, inherit=()) -> str:
    """What a program of Python says inside."""
    log = os.memfd_create("said")
    try:
        process = jail.spawn(around, [PYTHON, "-I", "-S", "-c", LOOK + code], log=log, inherit=inherit)
        assert wait_gone(process, 60)
        exit_code(process.pid)
        return os.pread(log, 1 << 16, 0).decode().strip()
    finally:
        os.close(log)


@pytest.fixture(scope="module")
def stage():
    """What a neighbour and the host have that is to be had: a file, a process, a queue, sockets; as code that gets it."""
    with contextlib.ExitStack() as stack:
        tcp = stack.enter_context(socket.create_server(("127.0.0.1", 0)))
        hidden, name = stack.enter_context(socket.socket(socket.AF_UNIX)), f"tinamou-test-{secrets.token_hex(8)}"
        hidden.bind(f"\0{name}")
        hidden.listen()
        neighbour = subprocess.Popen(["sleep", "600"], user=UID, group=UID, extra_groups=[])
        stack.callback(neighbour.wait)
        stack.callback(neighbour.kill)
        folder = stack.enter_context(_folder())
        libc, key = ctypes.CDLL(None), secrets.randbits(31)
        memory = libc.shmget(key, 4096, 0o1666)
        assert memory >= 0
        stack.callback(libc.shmctl, memory, 0, None)
        yield {
            "passwd": ("files", "gets(lambda: open('/etc/passwd').read())"),
            "neighbour's file": ("files", f"gets(lambda: open({str(folder / 'disk0.qcow2')!r}).read())"),
            "file on the host": ("files", f"gets(lambda: open({str(folder / 'left')!r}, 'w').write('x'))"),
            "process": ("processes", f"gets(lambda: os.kill({neighbour.pid}, 0) is None)"),
            "memory": ("ipc", f"ctypes.CDLL(None).shmget({key}, 0, 0) >= 0"),
            "name": ("hostname", f"os.uname().nodename == {os.uname().nodename!r}"),
            "group": ("cgroups", f"os.readlink('/proc/self/ns/cgroup') == {str(Path('/proc/self/ns/cgroup').readlink())!r}"),
            "port": ("network", f"gets(lambda: connects(socket.AF_INET, ('127.0.0.1', {tcp.getsockname()[1]})))"),
            "hidden": ("network", f"gets(lambda: connects(socket.AF_UNIX, {chr(0) + name!r}))"),
        }


@contextlib.contextmanager
def _folder():
    """A folder anybody may write to, with a file anybody may read."""
    path = Path("/var/tmp", f"tinamou-test-{secrets.token_hex(8)}")
    path.mkdir(mode=0o777)
    path.chmod(0o777)
    (path / "disk0.qcow2").write_text("secret")
    try:
        yield path
    finally:
        for one in path.iterdir():
            one.unlink()
        path.rmdir()


THINGS = ["passwd", "neighbour's file", "file on the host", "process", "memory", "name", "group", "port", "hidden"]


@pytest.mark.parametrize("thing", THINGS)
def test_each_wall_keeps_something_back(stage, thing):
    wall, code = stage[thing]
    here = probe_walls(cached=False)
    assert here.refused == {}, "this host makes no namespaces: run the test where it does"
    assert said(planned(here), f"print({code})") == "False"
    assert said(planned(here, wall), f"print({code})") == "True"


@pytest.mark.parametrize("thing", ["passwd", "neighbour's file", "file on the host", "process", "port", "hidden"])
@pytest.mark.skipif(landlock.abi() < 6, reason="this kernel's Landlock is older than version 6")
def test_landlock_keeps_it_back_where_there_are_no_namespaces(stage, thing):
    code = stage[thing][1]
    assert said(planned(NOBODY), f"print({code})") == "False"
    assert said(planned(NOBODY, "files", "network", "processes"), f"print({code})") == "True"


def test_what_there_is_inside(stage):
    code = "print(sorted(os.listdir('/')), sorted(os.listdir('/dev')), os.listdir('/proc'), os.listdir('/tmp'), os.getpid())"
    seen = said(planned(probe_walls()), code)
    root, devices, rest = re.match(r"(\[.*?\]) (\[.*?\]) (.*)", seen).groups()
    assert set(eval(root)) <= {"bin", "dev", "etc", "lib", "lib32", "lib64", "proc", "sbin", "tmp", "usr"}
    assert set(eval(devices)) == {"fd", "full", "null", "random", "shm", "urandom", "zero"}
    assert rest == "['self'] [] 1"


def test_nothing_of_it_can_be_changed():
    paths = ["/x", "/usr/x", "/etc/x", "/dev/x", "/proc/self/comm"]
    code = f"print([gets(lambda: open(path, 'w').write('x')) for path in {[*paths, '/tmp/x']}])"
    assert said(planned(probe_walls()), code) == "[False, False, False, False, False, True]"
    full = "print(gets(lambda: [open(f'/dev/shm/{n}', 'wb').write(bytes(1 << 20)) for n in range(80)]))"
    assert said(planned(probe_walls()), full) == "False"


def test_a_wall_that_cannot_be_built_keeps_the_program_from_running():
    around = dataclasses.replace(planned(probe_walls()), writes=("/nowhere/at/all",))
    assert said(around, "print('it runs')") == "jail: open_tree /nowhere/at/all: error 2"


def test_who_has_no_root_has_the_walls_too(stage):
    """Inside a user namespace of its own, made without any right."""
    child = os.fork()
    if not child:
        status = 1
        try:
            os.setgroups([])
            os.setresgid(UID, UID, UID)
            os.setresuid(UID, UID, UID)
            here = probe_walls(cached=False)
            got = {thing: said(planned(here, uid=None), f"print({stage[thing][1]})") for thing in THINGS}
            print(here, got, flush=True)
            status = int(here.refused != {} or not here.user or set(got.values()) != {"False"})
        finally:
            os._exit(status)
    assert os.waitpid(child, 0)[1] == 0


def test_the_keys_of_the_caller_are_not_its_own():
    """Who has a keyring may use what is in it, whoever he is (source: keyrings(7), possession)."""
    add_key, keyctl = {"x86_64": (248, 250)}.get(os.uname().machine, (217, 219))
    libc, name = ctypes.CDLL(None), secrets.token_hex(8)
    assert libc.syscall(keyctl, 1, None) > 0 and libc.syscall(add_key, b"user", name.encode(), b"secret", 6, -3) > 0
    code = f"print(ctypes.CDLL(None).syscall({keyctl}, 10, -3, b'user', {name.encode()!r}, 0) > 0)"
    around = planned(probe_walls())
    assert said(around, code) == "False"
    assert said(dataclasses.replace(around, uid=None), code) == "True"


def test_a_program_from_elsewhere_brings_its_tree(tmp_path):
    assert jail.tree_of("sh") == jail.tree_of("/usr/bin/env") == ()
    (tmp_path / "opt/bin").mkdir(parents=True)
    for path in (tmp_path / "opt/bin/tool", tmp_path / "alone"):
        path.touch(mode=0o755)
    assert jail.tree_of(str(tmp_path / "opt/bin/tool")) == (str(tmp_path / "opt"),)
    assert jail.tree_of(str(tmp_path / "alone")) == (str(tmp_path / "alone"),)
    assert jail.beyond_the_system(["/nix/store/a/lib", "/nix/store/b/lib", "/usr/lib/x", "/lib/y"]) == ("/nix/store",)


def test_what_is_let_in_may_lie_in_tmp(tmp_path):
    """The folder of a machine in a test, a QEMU unpacked there: below the process's own /tmp, which is there too."""
    (tmp_path / "run").mkdir()
    (tmp_path / "run").chmod(0o777)
    around = dataclasses.replace(planned(probe_walls()), writes=(str(tmp_path / "run"),))
    code = f"print(gets(lambda: open({str(tmp_path / 'run/x')!r}, 'w').write('x')), os.listdir({str(tmp_path)!r}))"
    assert said(around, code) == "True ['run']"
    assert (tmp_path / "run/x").read_text() == "x"
    assert said(around, "print(gets(lambda: open('/tmp/x', 'w').write('x')))") == "True"


NUMBER = {"x86_64": 63, "aarch64": 160, "riscv64": 160}.get(os.uname().machine)
"""uname(2)."""


@pytest.mark.parametrize(("card", "seen"), [("user", True), ("none", False)])
def test_qemus_own_network_finds_the_name_servers(card, seen):
    made = plan(load_spec({"net": [{"type": card}]}), dataclasses.replace(facts(uid=UID), walls=probe_walls()))
    around = dataclasses.replace(jail_of(made, {}, dies_with_parent=False), writes=(), call_filter=b"", groups=())
    assert said(around, "print(gets(lambda: open('/etc/resolv.conf').read()))") == str(seen)
    assert said(around, "print(gets(lambda: open('/etc/passwd').read()))") == "False"


def test_its_files_are_no_longer_than_allowed_until_that_is_raised_from_outside(tmp_path):
    code = """
import os, sys, time, errno
file = os.open('/tmp/x', os.O_RDWR | os.O_CREAT)
def tried(length):
    try:
        os.ftruncate(file, length)
        os.pwrite(file, b'x', length)
    except OSError as error:
        return errno.errorcode[error.errno]
    return 'done'
print(tried(1 << 20), tried(1 << 21), flush=True)
deadline = time.monotonic() + 60
while tried(1 << 21) != 'done' and time.monotonic() < deadline:
    time.sleep(0.01)
print(tried(1 << 21))
"""
    log = os.memfd_create("said")
    around = dataclasses.replace(planned(probe_walls()), longest=(1 << 20) + 1)
    process = jail.spawn(around, [PYTHON, "-I", "-S", "-c", code], log=log)
    while b"EFBIG" not in os.pread(log, 100, 0):
        assert alive(process), os.pread(log, 100, 0)
    jail.longer(process.pid, (1 << 21) + 1)
    assert wait_gone(process, 60)
    assert exit_code(process.pid) == 0
    assert os.pread(log, 100, 0).decode().split() == ["done", "EFBIG", "done"]
    os.close(log)


@pytest.mark.skipif(NUMBER is None, reason="the number of uname(2) is not known for this architecture")
def test_a_filter_is_the_last_thing_that_is_laid():
    lines = [(0x20, 0, 0, 0), (0x15, 0, 1, NUMBER), (0x06, 0, 0, 0x00050001), (0x06, 0, 0, 0x7FFF0000)]
    program = b"".join(struct.pack("<HBBI", *line) for line in lines) + bytes(24)
    code = "print(gets(os.uname), [line for line in open('/proc/self/status') if line.startswith('Seccomp:')])"
    around = planned(probe_walls())
    assert said(dataclasses.replace(around, call_filter=program), code) == "False ['Seccomp:\\t2\\n']"
    assert said(around, code) == "True ['Seccomp:\\t0\\n']"


STARTS = f"""
import os, sys, time
from tinamou.system import jail
around = jail.Jail({UID}, (), sys.argv[1], jail.SYSTEM, dies_with_parent=True)
print(jail.spawn(around, ["sleep", "600"], log=2).pid, flush=True)
time.sleep(600)
"""


@pytest.mark.parametrize("letters", ["mpiucn", ""])
def test_it_dies_with_its_parent(letters):
    with subprocess.Popen([sys.executable, "-c", STARTS, letters], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
        assert Path(f"/proc/{pid}").exists()
        parent.kill()
    deadline = time.monotonic() + 60
    while Path(f"/proc/{pid}").exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not Path(f"/proc/{pid}").exists()


def test_it_does_not_begin_when_its_parent_is_gone_already():
    gone = subprocess.Popen(["true"])
    handle = os.pidfd_open(gone.pid)
    gone.wait()
    words = [own_program("jail"), "-D", str(handle), "--", "/bin/sh", "sh", "-c", "exit 7"]
    pid = start_exactly(words, 2, (handle,), {})
    os.close(handle)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == jail.STATUS


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_it_can_be_ended_as_the_first_of_its_namespace(how):
    log = os.memfd_create("said")
    code = "import signal, time; signal.signal(15, lambda *_: os._exit(3)); print('on', flush=True); time.sleep(600)"
    process = jail.spawn(planned(probe_walls()), [PYTHON, "-I", "-S", "-c", LOOK + code], log=log)
    while not os.pread(log, 10, 0):
        assert alive(process)
    end(process, grace=10.0 if how == signal.SIGTERM else 0.0)
    assert not alive(process)
    os.close(log)


def test_how_one_ends_that_gives_up_is_told():
    """As the first process of its namespace it does not end by SIGABRT."""
    log = os.memfd_create("said")
    process = jail.spawn(planned(probe_walls()), [PYTHON, "-I", "-S", "-c", "import os; os.abort()"], log=log)
    assert wait_gone(process, 60)
    os.close(log)
    assert "gave up" in status_of(process.pid)


def test_the_way_to_what_is_let_in_is_no_hole_seen_from_outside():
    """A QEMU below /var brings that folder to the root, and nothing else that is there."""
    log = os.memfd_create("said")
    made = plan(load_spec({"net": []}), dataclasses.replace(facts(uid=UID), walls=probe_walls()))
    let_in = dataclasses.replace(made.confinement, reads=("/var/lib/dpkg",), writes=())
    around = jail_of(dataclasses.replace(made, confinement=let_in), {}, dies_with_parent=False)
    process = jail.spawn(around, ["sleep", "600"], log=log)
    try:
        while Path(f"/proc/{process.pid}/comm").read_text() != "sleep\n":
            assert alive(process)
        seen = [
            next(wall for wall in look(process.pid, one) if wall.name == "files")
            for one in (let_in, *(dataclasses.replace(let_in, reads=other) for other in ((), ("/var/cache/x",))))
        ]
        held = bool(let_in.landlock[0])  # by what is not seen from outside
        assert [wall.stands for wall in seen] == [True, held, held]
    finally:
        end(process)
        os.close(log)


def test_what_is_seen_of_one_from_outside():
    log = os.memfd_create("said")
    spec = load_spec({"net": []})
    known = dataclasses.replace(facts(uid=UID), walls=probe_walls())
    made = plan(spec, known)
    around = dataclasses.replace(jail_of(made, {}, dies_with_parent=False), writes=())
    process = jail.spawn(around, ["sleep", "600"], log=log)
    bare = jail.spawn(dataclasses.replace(planned(probe_walls()), uid=None, namespaces=""), ["sleep", "600"], log=log)
    try:
        while any(Path(f"/proc/{one.pid}/comm").read_text() != "sleep\n" for one in (process, bare)):
            assert alive(process) and alive(bare)
        around = {wall.name: wall for wall in look(process.pid, made.confinement)}
        assert {name for name, wall in around.items() if wall.missing} == set()
        assert around["identity"].found == f"user {UID}, groups 104" or around["identity"].found.endswith("groups none")
        missing = {wall.name for wall in look(bare.pid, made.confinement) if wall.missing}
        assert missing == {wall.name for wall in made.confinement.walls}
    finally:
        for one in (process, bare):
            end(one)
        os.close(log)
