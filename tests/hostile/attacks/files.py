"""Attacks by files: what it can open, make, lock or keep, by path and by the descriptors it was handed."""

from __future__ import annotations

import ctypes
import fcntl
import functools
import os
import stat
from collections.abc import Callable
from pathlib import Path

from attacks.attacker import CWD, Attacker, House, Tries, Walled, attack, unix
from attacks.puppet import Refused

PRIVATE = ("machine.json", "serial.log", "qemu.log", "disk0.qcow2", "tpm/tpm2-00.permall")
DESCRIPTIVE = ("plan.json", "image.json", "journal.jsonl", "uid")
SOCKETS = ("qmp.sock", "qmp2.sock", "agent.sock", "console.sock", "resident.sock", "tpm/swtpm.sock")
COMMON = ("/tmp", "/var/tmp", "/dev/shm", "/run/lock")
DEVICES = (
    "kvm",
    "net/tun",
    "fuse",
    "vda",
    "kmsg",
    "userfaultfd",
    "vsock",
    "mem",
    "vhost-net",
    "vfio/vfio",
    "rtc0",
    "uinput",
)
SETTINGS = (
    "/proc/sys/kernel/core_pattern", "/proc/sysrq-trigger", "/proc/sys/vm/drop_caches", "/sys/kernel/mm/ksm/run",
    "/sys/kernel/mm/transparent_hugepage/enabled", "/sys/power/state", "/sys/kernel/uevent_helper",
)  # fmt: skip


def _of_neighbours(house: House, names: tuple[str, ...]) -> list[Path]:
    return [path for folder, _ in house.neighbours.values() for name in names if os.path.lexists(path := folder / name)]


@attack("read another machine's record, logs, disk, TPM")
def other_machines_data(house: House) -> Tries:
    return {str(path): lambda a, path=path: a.reads(path) for path in _of_neighbours(house, PRIVATE) if path.stat().st_size}


@attack("read another machine's plan, image, journal, user id")
def other_machines_plan(house: House) -> Tries:
    return {str(path): lambda a, path=path: a.reads(path) for path in _of_neighbours(house, DESCRIPTIVE)}


@attack("list all machines")
def list_machines(house: House) -> Tries:
    others = {folder.parent: folder.name for folder, _ in house.neighbours.values()}
    return {str(folder): lambda a, folder=folder, name=name: a.lists(folder, name) for folder, name in others.items()}


@attack("connect to another machine's monitor, agent, console, resident, TPM")
def other_machines_sockets(house: House) -> Tries:
    return {str(path): lambda a, path=path: a.connects(1, unix(path)) for path in _of_neighbours(house, SOCKETS)}


@attack("read its owner's private files: a secret, /etc/shadow, /root")
def private_files(house: House) -> Tries:
    return {
        str(house.secret): lambda a: a.reads(house.secret),
        "/etc/shadow": lambda a: a.reads("/etc/shadow"),
        "/root": lambda a: a.lists("/root"),
    }


@attack("read what everybody may: /etc/passwd, the host's name, the owner's open files, the image cache, /")
def public_files(house: House) -> Tries:
    files = (house.readable, house.image, Path("/etc/passwd"), Path("/etc/machine-id"), Path("/proc/mounts"))
    found: Tries = {str(path): lambda a, path=path: a.reads(path) for path in files if path.exists()}
    return found | {
        "/proc/mounts": lambda a: a.reads("/proc/mounts", b" /sys "),
        "/": lambda a: a.lists("/", "root"),
        "/sys/class/net": lambda a: a.lists("/sys/class/net"),
        "..": lambda a: (a.call("chdir", "/"), a.lists("../../..", "home")),
    }


@attack("make files where everybody may, that outlive the machine: /tmp, /var/tmp, /dev/shm, /run/lock")
def common_folders(house: House) -> Tries:
    name = f"tinamou-attack-{house.process}"
    places = [Path(folder, f"{name}-{number}") for number, folder in enumerate(COMMON) if Path(folder).is_dir()]
    return {str(path.parent): lambda a, path=path: a.makes(path) for path in places}


@attack("make files in /run, the image cache, the state directory, its own machine's folder")
def owners_folders(house: House) -> Tries:
    folders = (Path("/run"), house.image.parent, house.own.parent.parent, house.own.parent, house.own, house.scratch)
    return {str(folder): lambda a, folder=folder: a.makes(folder / "attack") for folder in folders}


@attack("take the names tinamou might use in /dev/shm and /tmp before it does")
def names_of_tinamou(house: House) -> Tries:
    uid = house.secret.stat().st_uid
    paths = (Path(f"/dev/shm/tinamou-{uid}-attack"), Path(f"/tmp/tinamou-{uid}.attack"))
    return {str(path): lambda a, path=path: a.makes(path) for path in paths}


def _locks(a: Attacker, path: Path) -> None:
    a.call("flock", a.opens(path), fcntl.LOCK_EX | fcntl.LOCK_NB)


@attack("hold locks others wait for: /run, the run folder, the image cache, a machine's lock")
def locks(house: House) -> Tries:
    state = house.own.parent.parent
    paths = [Path("/run"), house.image.parent / ".lock", house.image.parent.parent / ".lock", state / "networks.lock"]
    paths += [folder / "machine.lock" for folder, _ in house.neighbours.values()]
    return {str(path): functools.partial(_locks, path=path) for path in paths if path.exists()}


@attack("replace its own sockets and files, to catch who connects next")
def own_folder(house: House) -> Tries:
    path = house.own / "decoy"

    def on(*call: object) -> Callable[[Attacker], None]:
        """A call on a file of the owner's in that folder, whatever it does to it is undone."""

        def tries(a: Attacker) -> None:
            path.touch(0o600)
            os.chown(path, house.secret.stat().st_uid, -1)
            try:
                a.call(*call)  # type: ignore[arg-type]
                if [made.name for made in house.own.glob("decoy*")] == [path.name]:
                    raise Walled("a folder of its own, which the host does not see")
            finally:
                for made in house.own.glob("decoy*"):
                    made.rmdir() if made.is_dir() else made.unlink()

        return tries

    return {
        "rename": on("renameat2", CWD, str(path), CWD, f"{path}2", 0),
        "unlink": on("unlinkat", CWD, str(path), 0),
        "symlink": on("symlinkat", "/etc/passwd", CWD, f"{path}2"),
        "mkdir": on("mkdirat", CWD, f"{path}2", 0o700),
    }


@attack("open the host's devices, but those it has open: a QEMU under KVM has /dev/kvm")
def devices(house: House) -> Tries:
    has = {os.path.realpath(fd) for fd in Path(f"/proc/{house.process}/fd").iterdir()}
    paths = [path for name in DEVICES if str(path := Path("/dev", name)) not in has]
    return {str(path): lambda a, path=path: a.opens(path, os.O_RDWR) for path in paths if path.exists()}


@attack("open a terminal of its own, or its owner's")
def terminals(house: House) -> Tries:
    return {"/dev/ptmx": lambda a: a.opens("/dev/ptmx", os.O_RDWR | os.O_NOCTTY)}


@attack("change the host's settings by /proc and /sys; leave its control group, or be spared when memory is short")
def settings(house: House) -> Tries:
    groups = [Path("/sys/fs/cgroup", "cgroup.procs"), *Path("/sys/fs/cgroup").glob("*/cgroup.procs")]
    paths = [Path(path) for path in SETTINGS] + groups
    found: Tries = {str(path): lambda a, path=path: a.opens(path, os.O_WRONLY) for path in paths if path.exists()}
    spared = "/proc/self/oom_score_adj"
    return found | {spared: lambda a: a.call("write", a.opens(spared, os.O_WRONLY), "-900", 4)}


def _watches(a: Attacker, path: Path) -> None:
    """What is done on the host is told."""
    told = a.call("inotify_init1", os.O_NONBLOCK)
    a.call("inotify_add_watch", told, str(path), 0xFFF)
    if path.is_dir():
        made = path / f"tinamou-attack-seen-{a.house.process}"
        made.touch()
        made.unlink()
    else:
        path.read_bytes()
    try:
        a.call("read", told, bytearray(4096), 4096)
    except Refused:
        raise Walled("nothing was told") from None


@attack("watch what others do with their files (inotify, fanotify)")
def watching(house: House) -> Tries:
    paths = [*(folder for folder, _ in house.neighbours.values()), house.own.parent, Path("/dev/shm"), Path("/etc/passwd")]
    found: Tries = {str(path): functools.partial(_watches, path=path) for path in paths}
    return found | {"fanotify": lambda a: a.call("fanotify_init", 0x200, 0)}


@attack("keep files by hard links, or open them by handles")
def hard_links(house: House) -> Tries:
    into = Path("/tmp", f"tinamou-attack-link-{house.process}")

    def link(a: Attacker, path: Path) -> None:
        a.call("linkat", CWD, str(path), CWD, str(into), 0)
        if not os.path.lexists(into):
            raise Walled("a folder of its own, which the host does not see")
        into.unlink()

    empty = bytearray(b"\x80\0\0\0" + bytes(132))
    handle, libc = bytes(empty), ctypes.CDLL(None)
    found_there = ctypes.create_string_buffer(handle, len(handle))
    by_handle = libc.name_to_handle_at(CWD, os.fsencode(house.secret), found_there, ctypes.byref(ctypes.c_int()), 0) == 0
    handle = found_there.raw
    paths = [path for path in (house.image, house.secret) if path.stat().st_dev == Path("/tmp").stat().st_dev]
    found: Tries = {str(path): functools.partial(link, path=path) for path in paths}
    found["name_to_handle_at"] = lambda a: a.call("name_to_handle_at", CWD, "/etc/passwd", bytearray(empty), bytearray(4), 0)
    if by_handle:
        found["open_by_handle_at"] = lambda a: a.call("open_by_handle_at", a.opens(house.readable), handle, 0)
    return found


def held(house: House) -> dict[int, tuple[str, os.stat_result, int]]:
    """The descriptors of the process: what each is, its status, and the flags it was opened with."""
    found = {}
    for entry in Path(f"/proc/{house.process}/fd").iterdir():
        flags = Path(f"/proc/{house.process}/fdinfo/{entry.name}").read_text().split("flags:")[1].split()[0]
        found[int(entry.name)] = (str(entry.readlink()), entry.stat(), int(flags, 8))
    return found


def _plain(house: House) -> dict[int, tuple[str, os.stat_result, int]]:
    return {number: one for number, one in held(house).items() if stat.S_ISREG(one[1].st_mode)}


@attack("climb out of a folder it holds open", control=False)
def open_folders(house: House) -> Tries:
    folders = {n: what for n, (what, status, _) in held(house).items() if stat.S_ISDIR(status.st_mode)}
    return {f"{n} {what}": lambda a, n=n: a.call("openat", n, "../etc/passwd", 0) for n, what in folders.items()}


@attack("open what it holds for reading again for writing, and its log's pipe for reading (/proc/self/fd)", control=False)
def reopening(house: House) -> Tries:
    read = {what for what, _, flags in held(house).values() if flags & os.O_ACCMODE == os.O_RDONLY}
    closed = {
        n: (what, os.O_RDWR if not stat.S_ISFIFO(status.st_mode) else os.O_RDONLY)
        for n, (what, status, flags) in held(house).items()
        if (stat.S_ISREG(status.st_mode) and flags & os.O_ACCMODE == os.O_RDONLY and not _sealed(house, n))
        or (stat.S_ISFIFO(status.st_mode) and flags & os.O_ACCMODE == os.O_WRONLY and what not in read)
    }
    return {
        f"{n} {what}": lambda a, n=n, flags=flags: a.opens(f"/proc/self/fd/{n}", flags)
        for n, (what, flags) in closed.items()
    }


def _sealed(house: House, number: int) -> bool:
    """Whether the kernel refuses every write to it, however it is opened."""
    descriptor = os.open(f"/proc/{house.process}/fd/{number}", os.O_RDONLY)
    try:
        return bool(fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & fcntl.F_SEAL_WRITE)
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _writes(a: Attacker, number: int) -> None:
    old = bytearray(1)
    a.call("pread64", number, old, 1, 0)
    a.call("pwrite64", number, bytes([old[0] ^ 1]), 1, 0)
    a.call("pwrite64", number, bytes(old), 1, 0)


@attack("change what others have too: kernels, base images, the memory forks are made of", control=False)
def shared_files(house: House) -> Tries:
    found: Tries = {}
    for n, (what, status, flags) in _plain(house).items():
        if flags & os.O_ACCMODE == os.O_RDONLY or _sealed(house, n):
            size = max(status.st_size, 4096)
            found |= {
                f"{n} write {what}": functools.partial(_writes, number=n),
                f"{n} map {what}": lambda a, n=n: a.call("mmap", 0, 4096, 3, 1, n, 0),
                f"{n} cut {what}": lambda a, n=n, size=size: a.call("ftruncate", n, size + 1),
                f"{n} punch {what}": lambda a, n=n: a.call("fallocate", n, 3, 0, 4096),
                f"{n} owner {what}": lambda a, n=n: a.call("fchown", n, 12345, 12345),
                f"{n} name {what}": lambda a, n=n: a.call("fsetxattr", n, "user.x", "x", 1, 0),
                f"{n} lease {what}": lambda a, n=n: a.call("fcntl", n, 1024, fcntl.F_RDLCK),
            }
            if not what.startswith(f"{house.own}/"):
                found[f"{n} mode {what}"] = lambda a, n=n, mode=status.st_mode: a.call("fchmod", n, mode & 0o7777)
    return found


@attack("cut its own log, or make it 1 TiB", control=False)
def own_log(house: House) -> Tries:
    return {f"ftruncate {n}": lambda a, n=n: a.call("ftruncate", n, 1 << 40) for n in (1, 2)}


def _far(a: Attacker, number: int, call: tuple[object, ...]) -> None:
    path = Path(f"/proc/{a.house.process}/fd/{number}")
    size = path.stat().st_size
    a.call(call[0], number, *call[1:])
    reached = path.stat().st_size
    a.call("ftruncate", number, size)
    if reached <= 1 << 43:
        raise Walled("it writes at the end alone")


@attack("make its own disk's file 8 TiB long, to fill the host's disk", control=False)
def own_disk(house: House) -> Tries:
    written = {
        n: what
        for n, (what, _, flags) in _plain(house).items()
        if flags & os.O_ACCMODE == os.O_RDWR and "memfd:" not in what and not what.startswith("/dev/shm")
    }
    calls = {"write": ("pwrite64", b"x", 1, 1 << 43), "length": ("ftruncate", (1 << 43) + 1)}
    return {
        f"{way} {n} {what}": functools.partial(_far, number=n, call=call)
        for n, what in written.items()
        for way, call in calls.items()
    }
