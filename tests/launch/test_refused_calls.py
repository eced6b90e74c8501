"""The real kernel under the filter: what a QEMU that was taken over would call ends it, or gets an error."""

from __future__ import annotations

import ctypes
import errno
import os
import signal
import struct
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from typed import eventually

from tinamou.system import ended, jail, kernel_log, threads
from tinamou.system.ended import refused_call
from tinamou.system.kernel_log import lately_audited
from tinamou.system.spawn import exit_code, wait_gone
from tinamou.system.syscall_numbers import AUDIT, number_of
from tinamou.system.syscalls import keyed, program
from tinamou.tuning.syscalls import EVERY

ARCH = os.uname().machine
pytestmark = pytest.mark.skipif(ARCH not in AUDIT, reason=f"no filter for {ARCH}")

MAKE_FILTER, NO_NEW_PRIVS, THREAD = 22, 38, 0x3D0F00
AF_UNIX, AF_INET, AF_NETLINK, AF_VSOCK, AF_PACKET = 1, 2, 16, 40, 17
NEW_USER = 0x10000000


def doing(code: bytes, calls: Callable[[Callable[..., int]], int]) -> int:
    """How a child of this process ends that loads the filter and then makes calls: its exit status, or -N for a signal."""
    child = os.fork()
    if not child:
        libc = ctypes.CDLL(None, use_errno=True)
        buffer = ctypes.create_string_buffer(code, len(code))
        loaded = struct.pack("HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer))

        def call(name: str, *arguments: int) -> int:
            words = [ctypes.c_ulong(word & (1 << 64) - 1) for word in arguments]
            done = libc.syscall(number_of(name, ARCH), *words)
            return done if done >= 0 else -ctypes.get_errno()

        if not code or (libc.prctl(NO_NEW_PRIVS, 1, 0, 0, 0) == 0 and libc.prctl(MAKE_FILTER, 2, loaded) == 0):
            os._exit(calls(call) & 0x7F)
        os._exit(126)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


FATAL: dict[str, tuple[object, ...]] = {
    "ptrace": ("ptrace", 0, 0, 0, 0),
    "execve": ("execve", 0, 0, 0),
    "execve with a guessed key": ("execve", 0, 0, 0, 1, 2, 3),
    "execveat": ("execveat", -1, 0, 0, 0, 0),
    "a process": ("clone", 17, 0, 0, 0, 0),
    "a thread in a namespace of its own": ("clone", THREAD | NEW_USER, 0, 0, 0, 0),
    "unshare": ("unshare", NEW_USER),
    "setns": ("setns", -1, 0),
    "mount": ("mount", 0, 0, 0, 0, 0),
    "bpf": ("bpf", 0, 0, 0),
    "keyctl": ("keyctl", 0, 0, 0, 0, 0),
    "add_key": ("add_key", 0, 0, 0, 0, 0),
    "request_key": ("request_key", 0, 0, 0, 0),
    "perf_event_open": ("perf_event_open", 0, 0, 0, 0, 0),
    "process_vm_readv": ("process_vm_readv", 0, 0, 0, 0, 0, 0),
    "pidfd_getfd": ("pidfd_getfd", -1, -1, 0),
    "name_to_handle_at": ("name_to_handle_at", -1, 0, 0, 0, 0),
    "io_uring_enter": ("io_uring_enter", -1, 0, 0, 0, 0, 0),
    "shmget": ("shmget", 0, 4096, 0o1600),
    "mq_open": ("mq_open", 0, 0, 0, 0),
    "setuid": ("setuid", 0),
    "an internet socket": ("socket", AF_INET, 1, 0),
    "netlink": ("socket", AF_NETLINK, 3, 0),
    "netlink with a disguise": ("socket", AF_NETLINK | 1 << 32, 3, 0),
    "vsock": ("socket", AF_VSOCK, 1, 0),
    "packets": ("socket", AF_PACKET, 3, 0),
    "words put into a terminal": ("ioctl", 0, 0x5412, 0),
    "bind": ("bind", -1, 0, 0),
    "connect": ("connect", -1, 0, 0),
}


@pytest.mark.parametrize("what", FATAL)
def test_it_ends_the_process(what):
    code = program(ARCH, EVERY, (7, 8, 9))
    assert doing(code, lambda call: call(*FATAL[what])) == -signal.SIGSYS
    if what in ("a process", "a thread in a namespace of its own"):
        return  # it would go on as two
    assert doing(b"", lambda call: call(*FATAL[what])) >= 0, "without the filter it goes on"


@pytest.mark.parametrize(
    ("words", "error"),
    [
        (("clone3", 0, 0), errno.ENOSYS),
        (("io_uring_setup", 1, 0), errno.ENOSYS),
        (("userfaultfd", 0), errno.EPERM),
        (("socket", AF_UNIX, 1, 0), errno.EACCES),
        (("prctl", 35, 1, 0, 0, 0), errno.EINVAL),
        (("prlimit64", 0, 4, 1 << 32, 0), errno.EPERM),
        (("ioctl", 0, 0xAE00, 0), errno.ENOTTY),
        (("unlinkat", -100, 0, 0), errno.EACCES),
        (("sched_setaffinity", 0, 0, 0), errno.EPERM),
        (("getpid",), 0),
        (("socketpair", AF_UNIX, 1, 0, 0), errno.EFAULT),
    ],
)
def test_it_gets_an_error_and_goes_on(words, error):
    code = program(ARCH, EVERY)
    assert doing(code, lambda call: 0 if (got := call(*words)) == -error or (not error and got > 0) else 1) == 0


def test_a_group_allows_more():
    asks = ("socket", AF_INET, 1, 0)
    assert doing(program(ARCH, EVERY), lambda call: call(*asks)) == -signal.SIGSYS
    assert doing(program(ARCH, [*EVERY, "internet"]), lambda call: call(*asks)) >= 0


def test_the_kernel_log_names_the_call():
    """The kernel prints ten such lines in five seconds, whoever they are of, and drops the others."""

    def logged():
        assert doing(program(ARCH, EVERY), lambda call: call("ptrace", 0, 0, 0, 0)) == -signal.SIGSYS
        return [line for line in lately_audited() if "sig=31" in line]

    lines = logged()
    if not lines and not (time.sleep(6) or logged()):
        pytest.skip("this host's kernel does not log it, or not to us")

    def named():
        lines[:] = logged()
        return {refused_call(line, int(line.split(" pid=")[1].split()[0])) for line in lines}

    eventually(lambda: "ptrace" in named(), "the call by its name")
    assert refused_call(lines[0], 1) == ""


def test_the_log_is_waited_for(monkeypatch):
    """Its line is written by a thread of the kernel, after the process has ended."""
    line, looks = (
        f"audit: type=1326 audit(1.0:1): pid=77 comm=qemu sig=31 arch={AUDIT[ARCH]:x} syscall={number_of('ptrace', ARCH)}",
        [],
    )

    def audited():
        looks.append(1)
        return [line] if len(looks) > 2 else []

    monkeypatch.setattr(kernel_log, "lately_audited", audited)
    monkeypatch.setattr(ended, "exit_code", lambda _: -signal.SIGSYS)
    assert "refused a system call: ptrace" in ended.status_of(77)


def loaded(*words: str, calls: tuple[str, ...] = EVERY, data: bytes | None = None, **more: object) -> tuple[int, str]:
    """How a program ends that the launcher becomes under a filter, and what it said."""
    held = keyed(calls) if data is None else data
    said = os.memfd_create("said")
    try:
        process = jail.spawn(jail.Jail(call_filter=held, **more), words, log=said)
        assert wait_gone(process, 60)
        return exit_code(process.pid), os.pread(said, 65536, 0).decode()
    finally:
        os.close(said)


OPEN = "import os\nprint([f for f in range(3, 64) if os.path.exists(f'/proc/self/fd/{f}')])\n"


def test_the_launcher_becomes_the_program_and_leaves_nothing_open():
    assert loaded(sys.executable, "-I", "-S", "-c", OPEN) == (0, "[]\n")


def test_cores_of_its_own_are_had_or_nothing_starts():
    """A host whose cores have one hardware thread, or whose kernel cannot, refuses; elsewhere it has a cookie."""
    status, said = loaded("/bin/cat", "/proc/self/stat", own_cores=True)
    if threads.schedules_cores():
        assert status == 0
    else:
        assert status == jail.STATUS
        assert "security.sched_core" in said


def test_a_profile_is_entered_or_nothing_starts():
    if Path("/sys/kernel/security/apparmor").exists():
        pytest.skip("AppArmor is active: tests/lab/test_lab_apparmor.py")
    status, said = loaded("/bin/echo", "started", profile="tinamou-x")
    assert status == jail.STATUS
    assert "AppArmor profile cannot be entered: tinamou-x" in said
    assert "started" not in said


def test_the_program_it_became_becomes_no_other():
    assert loaded("/bin/sh", "-c", "exec /bin/true")[0] == -signal.SIGSYS
    assert loaded("/bin/sh", "-c", "exec /bin/true", calls=(*EVERY, "wrapper"))[0] == 0


@pytest.mark.parametrize("data", [b"x" * 8, b"x" * 24, b"x" * 32, bytes(range(64))])
def test_a_filter_that_is_none_starts_nothing(data):
    status, said = loaded("/bin/echo", "started", data=data)
    assert status == jail.STATUS
    assert said.startswith("jail: ")
