"""Attacks by calls of the kernel that no machine needs, or that need rights."""

from __future__ import annotations

import errno
import socket
import struct

from attacks.attacker import CWD, Attacker, House, Tries, Walled, attack


@attack("io_uring: calls the filter does not see")
def io_uring(house: House) -> Tries:
    return {"io_uring_setup": lambda a: a.call("io_uring_setup", 8, bytearray(120))}


@attack("keyrings: keep keys, ask for them, join others")
def keyrings(house: House) -> Tries:
    return {
        "add_key": lambda a: a.call("add_key", "user", "tinamou-attack", "x", 1, -2),
        "keyctl": lambda a: a.call("keyctl", 0, -3, 1),
        "request_key": lambda a: a.gets_to("request_key", "user", "tinamou-none", "", -3, past=(errno.ENOKEY, errno.ENOENT)),
    }


@attack("load programs into the kernel, and watch it: bpf, perf, userfaultfd, its log")
def kernel_programs(house: House) -> Tries:
    table = struct.pack("<IIII", 2, 4, 4, 1) + bytes(112)
    own = struct.pack("<IIQQQQQ", 1, 128, 0, 0, 0, 0, 1 << 5 | 1 << 6) + bytes(80)
    return {
        "bpf": lambda a: a.call("bpf", 0, table, 128),
        "perf_event_open": lambda a: a.call("perf_event_open", own, 0, -1, -1, 8),
        "userfaultfd": lambda a: a.call("userfaultfd", 0),
        "userfaultfd of user mode": lambda a: a.call("userfaultfd", 1),
        "syslog": lambda a: a.call("syslog", 3, bytearray(4096), 4096),
    }


@attack("mount, and change what is mounted")
def mounts(house: House) -> Tries:
    return {
        "mount": lambda a: a.gets_to("mount", "none", "/", "nosuchfs", 0, 0, past=(errno.ENODEV,)),
        "umount": lambda a: a.gets_to("umount2", "/etc/passwd", 0, past=(errno.EINVAL,)),
        "pivot_root": lambda a: a.gets_to("pivot_root", "/", "/", past=(errno.EINVAL, errno.EBUSY)),
        "fsopen": lambda a: a.call("fsopen", "tmpfs", 0),
        "open_tree": lambda a: a.call("open_tree", CWD, "/", 1),
        "move_mount": lambda a: a.gets_to("move_mount", CWD, "/", CWD, "/", 0, past=(errno.EINVAL, errno.ELOOP)),
        "mount_setattr": lambda a: a.gets_to("mount_setattr", CWD, "/", 0, bytes(32), 32),
    }


@attack("make devices: mknod")
def mknod(house: House) -> Tries:
    def makes(a: Attacker) -> None:
        path = house.scratch / "device"
        a.call("mknodat", CWD, str(path), 0o20600, 0x103)
        path.unlink()

    return {"mknod": makes}


@attack("administer the host: reboot, kexec, swap, modules, clock, name, I/O ports, accounting")
def administration(house: House) -> Tries:
    name = socket.gethostname()
    return {
        "reboot": lambda a: a.gets_to("reboot", 1, 2, 3, 0, past=(errno.EINVAL,)),
        "kexec_load": lambda a: a.gets_to("kexec_load", 0, 1 << 20, 0, 0, past=(errno.EINVAL,)),
        "swapon": lambda a: a.gets_to("swapon", "/nonexistent", 0, past=(errno.ENOENT,)),
        "init_module": lambda a: a.gets_to("init_module", "x", 1, "", past=(errno.ENOEXEC,)),
        "settimeofday": lambda a: a.call("settimeofday", 0, bytes(8)),
        "sethostname": lambda a: a.call("sethostname", name, len(name)),
        "iopl": lambda a: a.call("iopl", 3),
        "acct": lambda a: a.gets_to("acct", "/nonexistent", past=(errno.ENOENT,)),
        "vhangup": lambda a: a.call("vhangup"),
    }


@attack("run before others: real-time priority, niceness, disk priority, CPUs it was not given")
def priority(house: House) -> Tries:
    deadline = struct.pack("<IIQiIQQQ", 48, 6, 0, 0, 0, 1 << 20, 1 << 24, 1 << 24)
    return {
        "SCHED_FIFO": lambda a: a.call("sched_setscheduler", 0, 1, struct.pack("<i", 1)),
        "SCHED_DEADLINE": lambda a: a.call("sched_setattr", 0, deadline, 0),
        "niceness": lambda a: a.call("setpriority", 0, 0, -20),
        "disk": lambda a: a.call("ioprio_set", 1, 0, 1 << 13),
        "CPUs": lambda a: a.call("sched_setaffinity", 0, 128, b"\xff" * 128),
    }


@attack("rarely used calls that exploits begin with")
def rare_calls(house: House) -> Tries:
    own = lambda a: a.call("getpid")  # noqa: E731
    return {
        "personality": lambda a: a.call("personality", 0x0040000),
        "modify_ldt": lambda a: a.gets_to("modify_ldt", 1, bytes(16), 16, past=(errno.EINVAL,)),
        "process_madvise": lambda a: a.call("process_madvise", a.call("pidfd_open", own(a), 0), 0, 0, 20, 0),
        "memfd_secret": lambda a: a.call("memfd_secret", 0),
        "remap_file_pages": lambda a: a.gets_to("remap_file_pages", 0, 4096, 0, 0, 0, past=(errno.EINVAL,)),
        "vmsplice": lambda a: a.gets_to("vmsplice", 1, 0, 0, 0, past=(errno.EBADF,)),
        "map_shadow_stack": lambda a: a.gets_to("map_shadow_stack", 0, 4096, 0, past=(errno.EOPNOTSUPP,)),
    }


@attack("learn the host's name and kernel")
def host_name(house: House) -> Tries:
    def asks(a: Attacker) -> None:
        a.call("uname", said := bytearray(390))
        if said[65:130].rstrip(b"\0").decode() != socket.gethostname():
            raise Walled("a name of its own")

    return {"uname": asks}
