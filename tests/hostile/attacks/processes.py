"""Attacks on other processes, and by new ones: seeing, reading, signalling, stopping, imitating, multiplying."""

from __future__ import annotations

import os
import signal
import struct
import time
from pathlib import Path

from attacks.attacker import Attacker, House, Tries, Walled, attack

_HARMLESS = signal.SIGURG


def _alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def _maps(pid: int) -> int:
    """An address the process has memory at."""
    return int(Path(f"/proc/{pid}/maps").read_text().split("-")[0], 16)


def _reads_memory(a: Attacker, pid: int) -> int:
    said = a.copy.room(4096)
    return a.call("process_vm_readv", pid, a.vector(said, 16), 1, a.vector(_maps(pid), 16), 1, 0)


def _against(pid: int, what: str) -> Tries:
    """Every way to reach into a process."""
    return {
        f"{what}: kill": lambda a: a.call("kill", pid, _HARMLESS),
        f"{what}: pidfd_send_signal": lambda a: a.call("pidfd_send_signal", a.call("pidfd_open", pid, 0), _HARMLESS, 0, 0),
        f"{what}: rt_sigqueueinfo": lambda a: a.call(
            "rt_tgsigqueueinfo", pid, pid, _HARMLESS, struct.pack("<iii", 23, 0, -1)
        ),
        f"{what}: ptrace": lambda a: a.call("ptrace", 0x4206, pid, 0, 0),
        f"{what}: process_vm_readv": lambda a: _reads_memory(a, pid),
        f"{what}: mem": lambda a: a.opens(f"/proc/{pid}/mem", os.O_RDWR),
        f"{what}: environ": lambda a: a.reads(f"/proc/{pid}/environ"),
        f"{what}: descriptors": lambda a: a.lists(f"/proc/{pid}/fd"),
        f"{what}: root": lambda a: a.lists(f"/proc/{pid}/root/"),
        f"{what}: pidfd_getfd": lambda a: a.call("pidfd_getfd", a.call("pidfd_open", pid, 0), 1, 0),
        f"{what}: prlimit": lambda a: a.call("prlimit64", pid, 7, 0, bytearray(16)),
        f"{what}: kcmp": lambda a: a.call("kcmp", pid, pid, 2, 0, 1),
        f"{what}: move_pages": lambda a: a.call("move_pages", pid, 1, struct.pack("<Q", _maps(pid)), 0, bytearray(4), 0),
        f"{what}: perf_event_open": lambda a: a.call("perf_event_open", _counter(), pid, -1, -1, 8),
    }


def _counter() -> bytes:
    """A perf_event_attr: time on the CPU, of the process alone."""
    return struct.pack("<IIQQQQQ", 1, 128, 0, 0, 0, 0, 1 << 5 | 1 << 6) + bytes(128 - 48)


@attack("reach into a process of its owner's: signals, memory, descriptors, ptrace")
def owners_process(house: House) -> Tries:
    return _against(house.victim, "victim")


@attack("reach into another machine's QEMU of the same state directory")
def same_state(house: House) -> Tries:
    return _against(house.neighbours["same"][1], "same") if "same" in house.neighbours else {}


@attack("reach into another machine's QEMU of another state directory")
def other_state(house: House) -> Tries:
    return _against(house.neighbours["other"][1], "other") if "other" in house.neighbours else {}


@attack("reach into its own machine's other processes: QEMU, swtpm, passt, virtiofsd, the writer of its log")
def own_helpers(house: House) -> Tries:
    found: Tries = {}
    for name, pid in {**house.helpers, "qemu": house.qemu}.items():
        if pid != house.process:
            found |= _against(pid, name)
    return found


@attack("see the host's processes, and a secret among a process's words")
def see_processes(house: House) -> Tries:
    return {
        "/proc": lambda a: a.lists("/proc", str(house.victim)),
        "cmdline": lambda a: a.reads(f"/proc/{house.victim}/cmdline", b"secret"),
        "/proc/1": lambda a: a.reads("/proc/1/cmdline", Path("/proc/1/cmdline").read_bytes()),
        "/proc/1/environ": lambda a: a.reads("/proc/1/environ"),
        "getsid": lambda a: a.call("getsid", house.victim),
        "pidfd_open": lambda a: a.call("pidfd_open", house.victim, 0),
        "sched_getaffinity": lambda a: a.call("sched_getaffinity", house.victim, 128, bytearray(128)),
        "get_robust_list": lambda a: a.call("get_robust_list", house.victim, bytearray(8), bytearray(8)),
    }


def _by_descriptor(a: Attacker) -> None:
    pid = a.house.sacrifice()
    ends = bytearray(8)
    a.call("pipe2", ends, 0)
    reading, writing = struct.unpack("<ii", ends)
    a.call("fcntl", reading, 8, pid)  # F_SETOWN
    a.call("fcntl", reading, 10, signal.SIGUSR1)  # F_SETSIG
    a.call("fcntl", reading, 4, os.O_ASYNC | os.O_NONBLOCK)
    a.call("write", writing, "x", 1)
    deadline = time.monotonic() + 0.3
    while _alive(pid):
        if time.monotonic() > deadline:
            raise Walled("the signal did not arrive")
        time.sleep(0.01)


@attack("have a descriptor send signals to a process of its owner's (F_SETOWN)")
def signals_by_descriptor(house: House) -> Tries:
    return {"pipe": _by_descriptor}


def _forges(a: Attacker) -> int:
    ends = bytearray(8)
    a.call("socketpair", 1, 1, 0, ends)
    vector = a.copy.put(a.vector(a.copy.put(b"x"), 1))
    control = struct.pack("<QiiIIIxxxx", 28, 1, 2, 1, 0, 0)  # SCM_CREDENTIALS: pid 1, uid 0, gid 0
    header = struct.pack("<QIxxxxQQQQi4x", 0, 0, vector, 1, a.copy.put(control), len(control), 0)
    return a.call("sendmsg", struct.unpack("<ii", ends)[0], header, 0)


@attack("pass for root, or for process 1, on a socket (SCM_CREDENTIALS)")
def forged_credentials(house: House) -> Tries:
    return {"SCM_CREDENTIALS": _forges}


@attack("start processes: fork, vfork, clone, clone3, execve, execveat, an executable memfd")
def new_processes(house: House) -> Tries:
    plain = struct.pack("<QQQQQQQQ", 0, 0, 0, 0, signal.SIGCHLD, 0, 0, 0)
    shell = "/bin/sh"
    return {
        "fork": lambda a: a.call("fork"),
        "vfork": lambda a: a.call("clone", 0x100 | signal.SIGCHLD),
        "clone": lambda a: a.call("clone", signal.SIGCHLD),
        "clone as the C library does": lambda a: a.call("clone", 0x1200011, 0, 0, a.copy.room(8), 0),
        "clone3": lambda a: a.call("clone3", plain, len(plain)),
        "execve": lambda a: a.gets_to("execve", shell, 0, 0),
        "execve of nothing": lambda a: a.gets_to("execve", "/nonexistent", 0, 0, past=(2,)),
        "execveat": lambda a: a.gets_to("execveat", a.call("memfd_create", "x", 0), "", 0, 0, 0x1000, past=(8, 13)),
    }


@attack("get rights: setuid, setgid, groups, capabilities, new namespaces, another root, a session of its own")
def rights(house: House) -> Tries:
    capabilities = struct.pack("<II", 0x20080522, 0), struct.pack("<IIIIII", 0xA0, 0xA0, 0, 0, 0, 0)
    own = lambda a: a.call("pidfd_open", a.call("getpid"), 0)  # noqa: E731
    return {
        "setuid": lambda a: a.call("setuid", 0),
        "setresuid": lambda a: a.call("setresuid", 0, 0, 0),
        "setgid": lambda a: a.call("setgid", 0),
        "setgroups": lambda a: a.call("setgroups", 1, bytes(4)),
        "capset": lambda a: a.call("capset", *capabilities),
        "user namespace": lambda a: a.call("unshare", 0x10000000),
        "mount namespace": lambda a: a.call("unshare", 0x20000),
        "network namespace": lambda a: a.call("unshare", 0x40000000),
        "clone user namespace": lambda a: a.call("clone", 0x10000000 | signal.SIGCHLD),
        "setns": lambda a: a.call("setns", own(a), 0x40000000),
        "chroot": lambda a: a.call("chroot", "/"),
        "setsid": lambda a: a.call("setsid"),
    }
