"""Real machines under the filter: it is there by every door, says which call it ended a QEMU for, and can be left out."""

from __future__ import annotations

import json
import os
import re
import shutil
import struct
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from bpf import ALLOW, ERRNO, verdict
from typed import call, eventually, tinamou

from tinamou import Machine
from tinamou.control.session import DisconnectedError
from tinamou.errors import LaunchError
from tinamou.images.programs import path as own_program
from tinamou.state import machines
from tinamou.system.ended import refused_call
from tinamou.system.kernel_log import kernel_log, lately_audited
from tinamou.system.syscall_numbers import AUDIT, number_of
from tinamou.system.syscalls import program
from tinamou.tuning.syscalls import EVERY

pytestmark = [pytest.mark.vm, pytest.mark.skipif(os.uname().machine not in AUDIT, reason="no list for this architecture")]

OPENS_A_SOCKET = ["-netdev", "user,id=x,hostfwd=tcp:127.0.0.1:0-:22"]


def filters(pid: int) -> int:
    return int(re.search(r"Seccomp_filters:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1])


def qemu_of(name: str) -> int:
    return machines.find(name).pid


def test_it_is_there_by_every_door(state):
    with Machine(forkable=True) as vm, vm.fork(1)[0] as fork:
        assert [filters(one.record.pid) for one in (vm, fork)] == [2, 2]
    with Machine(forkable=True, security={"syscalls": "qemu"}) as vm, vm.fork(1)[0] as fork:
        assert [filters(one.record.pid) for one in (vm, fork)] == [1, 1]


def test_what_it_needs_is_in_the_plan():
    plain = tinamou("plan", "--why")
    assert "system calls QEMU may make" in plain
    assert "internet" not in tinamou("plan", "--why", "--net", "none")
    assert "libslirp" in tinamou("plan", "--why", "--net", "user")
    left_out = call("plan", "--why", "--set", "security.syscalls=qemu")
    assert "system calls QEMU may make" not in left_out.stdout
    assert "QEMU's own filter of system calls is the only one" in left_out.stderr
    wrong = call("plan", "--set", "security.syscalls=all")
    assert wrong.returncode == 110
    assert "security.syscalls" in wrong.stderr


def silent() -> bool:
    """Whether the kernel's log does not name our processes: it may not be read, or has the host's numbers of processes."""
    return kernel_log() is None or os.readlink("/proc/self/ns/pid") != "pid:[4026531836]"  # noqa: PTH115  proc_pid_ns


def test_a_call_that_is_not_listed_ends_it_and_is_named(state):
    for _ in range(5):
        with pytest.raises(LaunchError) as told, Machine(net=[{"type": "none"}], qemu_args=OPENS_A_SOCKET):
            pass
        assert "signal 31" in str(told.value)
        if "call: socket" in str(told.value) or silent():
            break
        time.sleep(6)  # the kernel prints ten such lines in five seconds, whoever they are of, and drops the others
    assert "call: socket" in str(told.value) or silent()
    with Machine(net=[{"type": "none"}], qemu_args=OPENS_A_SOCKET, security={"syscalls": "qemu"}) as vm:
        assert vm.run("true").status == 0


def test_a_machine_that_ran_says_why_it_is_gone(state):
    tinamou("run", "-d", "--name", "web", "--net", "none")
    pid = qemu_of("web")
    forward = {"type": "user", "id": "x", "hostfwd": [{"str": "tcp:127.0.0.1:0-:22"}]}
    with Machine.open("web") as vm, pytest.raises(DisconnectedError):
        vm.qmp("netdev_add", forward)
    eventually(lambda: not Path(f"/proc/{pid}/exe").exists(), "the end of QEMU")
    said = call("ls").stderr
    dropped = not any(refused_call(line, pid) for line in lately_audited())
    assert "its filter refuses: socket" in said or dropped
    tinamou("rm", "-f", "web")


def test_what_is_plugged_in_keeps_to_the_list(state):
    """A disk queues its requests in a way that is allowed; a card that would end QEMU is refused, and changes nothing."""
    tinamou("run", "-d", "--name", "web", "--net", "none", "--set", "confine.without=network")
    assert tinamou("disk", "add", "web", "size=8M").strip() == "disk0"
    plan = (machines.find("web").path / "plan.json").read_text()
    assert '"aio": "io_uring"' not in plan
    assert '"aio": "native"' not in plan
    asked = call("disk", "add", "web", "size=8M,aio=io_uring")
    assert asked.returncode != 0
    assert "filter of system calls" in asked.stderr
    card = call("net", "add", "web", "user")
    assert card.returncode != 0
    assert "system calls (internet)" in card.stderr
    assert "security.syscalls=qemu" in card.stderr
    assert tinamou("exec", "web", "--", "echo", "alive") == "alive\n"
    tinamou("rm", "-f", "web")


@pytest.fixture
def recorder(open_folder: Path) -> Iterator[Path]:
    """A QEMU that writes down its calls, for the user it runs as; in place of the filter, which would end the recorder."""
    if not shutil.which("strace"):
        pytest.skip("no strace on this host")
    (open_folder / "calls").mkdir(mode=0o777)
    (open_folder / "calls").chmod(0o1777)
    script = open_folder / "qemu-system-x86_64"
    real, tracer = shutil.which("qemu-system-x86_64"), f"strace -D -f -qq -o {open_folder}/calls/$$"
    script.write_text(f'#!/bin/sh\ncase "$*" in *opaque=*) exec {tracer} {real} "$@";; esac\nexec {real} "$@"\n')
    script.chmod(0o755)
    yield open_folder


def observed(folder: Path) -> set[str]:
    return {found[1] for file in folder.iterdir() for line in file.open() if (found := re.match(r"\d+ +(\w+)\(", line))}


@pytest.mark.slow
def test_every_call_that_is_recorded_is_listed(state, recorder, monkeypatch):
    """A machine boots, is copied, gives a disk and a snapshot, and ends: what it called is in the list, or gets an error."""
    monkeypatch.setenv("TINAMOU_QEMU", str(recorder / "qemu-system-x86_64"))
    with Machine(forkable=True, security={"syscalls": "qemu"}) as vm, vm.fork(1)[0] as fork:
        fork.run("true")
    tinamou("run", "-d", "--name", "web", "--disk", "size=8M", "--set", "security.syscalls=qemu")
    tinamou("disk", "add", "web", "size=8M")
    tinamou("snapshot", "create", "web", "one")
    tinamou("stop", "web")
    tinamou("rm", "-f", "web")
    monkeypatch.delenv("TINAMOU_QEMU")
    code = program(os.uname().machine, _groups("--net", "user", "--disk", "size=8M"), (1, 2, 3))
    audit = AUDIT[os.uname().machine]
    called = observed(recorder / "calls")
    assert len(called) > 50
    judged = {"socket", "clone", "execve", "prctl", "ioctl", "socketpair"}
    unknown = {name for name in called - judged if not _listed(name)}
    assert unknown == set(), "calls that are not in the table"
    answers = {name: verdict(code, number_of(name, os.uname().machine), audit) for name in called - judged}
    refused = {name for name, answer in answers.items() if answer != ALLOW and answer & 0xFFFF0000 != ERRNO}
    assert refused == set(), "calls that would end it"


def _listed(name: str) -> bool:
    try:
        return number_of(name, os.uname().machine) is not None
    except KeyError:
        return False


def _groups(*words: str) -> list[str]:
    return [one["group"] for one in json.loads(tinamou("plan", "--json", *words))["confinement"]["calls"]]


@pytest.mark.slow
@pytest.mark.parametrize("arch", sorted(AUDIT))
def test_the_loader_and_the_filter_on_a_kernel_of_each_architecture(state, tmp_path, arch):
    """In a guest: a program starts under the filter and works, another one cannot follow it."""
    if not shutil.which(f"qemu-system-{arch}"):
        pytest.skip(f"no qemu-system-{arch}")
    key = (1, 2 << 40, 3)
    (tmp_path / "filter").write_bytes(program(arch, EVERY, key) + struct.pack("<3Q", *key))
    shutil.copy(own_program("jail", arch), tmp_path / "jail")
    tinamou("run", "-d", "--name", "web", "--arch", arch, "--net", "none")
    for name in ("filter", "jail"):
        tinamou("cp", str(tmp_path / name), f"web:/tmp/{name}")
    start = "chmod +x /tmp/jail; /tmp/jail --filter /tmp/filter -- /bin/busybox busybox"
    assert tinamou("exec", "web", "--", "sh", "-c", f"{start} echo alive") == "alive\n"
    assert call("exec", "web", "--", "sh", "-c", f"{start} sh -c 'exec /bin/busybox true'").returncode == 128 + 31
    assert call("exec", "web", "--", "sh", "-c", f"{start} unshare true").returncode == 128 + 31
    tinamou("rm", "-f", "web")
