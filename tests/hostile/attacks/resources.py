"""Attacks on what the host has: memory, processes, descriptors, disk; and staying when the machine is gone."""

from __future__ import annotations

import os
import struct
from pathlib import Path

from attacks.attacker import Attacker, House, Tries, Walled, attack

_THREAD = 0x3D0F00
"""What glibc's pthread_create asks for (CLONE_THREAD, CLONE_VM, …), which is what QEMU's filter lets through."""
THREADS = 3000
DESCRIPTORS = 19_976
GIB = 1 << 30


@attack(f"{THREADS} threads")
def many_threads(house: House) -> Tries:
    def multiplies(a: Attacker) -> None:
        for _ in range(THREADS):
            a.call("clone", _THREAD, 0, a.copy.room(64), a.copy.room(128), 0)

    return {"clone": multiplies}


@attack(f"{DESCRIPTORS} descriptors")
def many_descriptors(house: House) -> Tries:
    return {"dup2": lambda a: a.call("dup3", a.call("eventfd2", 0, 0), DESCRIPTORS, 0)}


@attack("touch 1.5 GiB of memory beyond its guest's")
def much_memory(house: House) -> Tries:
    return {"mmap": lambda a: a.call("mmap", 0, house.memory + 3 * GIB // 2, 3, 0x8022, -1, 0)}


@attack("lock 256 MiB in memory")
def locked_memory(house: House) -> Tries:
    return {"mlock": lambda a: a.call("mlock", a.call("mmap", 0, 1 << 28, 3, 0x22, -1, 0), 1 << 28)}


@attack("fill /tmp and /dev/shm with 2 GiB")
def full_folders(house: House) -> Tries:
    def fills(a: Attacker, folder: str) -> None:
        path = Path(folder, f"tinamou-attack-full-{house.process}")
        made = a.opens(path, os.O_RDWR | os.O_CREAT)
        try:
            a.call("fallocate", made, 0, 0, 2 * GIB)
            if not path.exists():
                raise Walled("a folder of its own, which the host does not see")
        finally:
            path.unlink(missing_ok=True)

    return {folder: lambda a, folder=folder: fills(a, folder) for folder in ("/tmp", "/dev/shm") if Path(folder).is_dir()}


@attack("raise its own limits, be spared by them, dump its memory to disk")
def own_limits(house: House) -> Tries:
    everything = struct.pack("<QQ", (1 << 64) - 1, (1 << 64) - 1)
    many = struct.pack("<QQ", 1 << 20, 1 << 20)
    return {
        "core": lambda a: a.call("prlimit64", 0, 4, everything, 0),
        "nofile": lambda a: a.call("prlimit64", 0, 7, many, 0),
        "memlock": lambda a: a.call("prlimit64", 0, 8, everything, 0),
        "priority": lambda a: a.call("prlimit64", 0, 14, struct.pack("<QQ", 99, 99), 0),
    }


@attack("leave shared memory, semaphores and queues behind (System V, POSIX)")
def shared_memory(house: House) -> Tries:
    def segment(a: Attacker) -> None:
        made = a.call("shmget", 0, 1 << 26, 0o1600)
        seen = any(line.split()[1:2] == [str(made)] for line in Path("/proc/sysvipc/shm").read_text().splitlines())
        a.call("shmctl", made, 0, 0)
        if not seen or not _same(a, "ipc"):
            raise Walled("a namespace of its own")

    def queue(a: Attacker) -> None:
        a.call("mq_open", f"attack{a.copy.pid}", os.O_CREAT | os.O_RDWR, 0o600, 0)
        a.call("mq_unlink", f"attack{a.copy.pid}")
        if not _same(a, "ipc"):
            raise Walled("a namespace of its own")

    return {"shmget": segment, "mq_open": queue}


def _same(a: Attacker, kind: str) -> bool:
    return Path(f"/proc/{a.copy.pid}/ns/{kind}").readlink() == Path(f"/proc/self/ns/{kind}").readlink()


@attack("make its log's pipe larger, or keep others from reading it", control=False)
def log_pipe(house: House) -> Tries:
    if not Path(f"/proc/{house.process}/fd/1").is_fifo():
        return {}
    return {
        "F_SETPIPE_SZ": lambda a: a.gets_to("fcntl", 1, 1031, 1 << 24),
        "read": lambda a: a.call("read", 1, bytearray(8), 8),
    }
