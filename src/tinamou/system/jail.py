"""Starts a process with nothing of the host but what it is given: the words for images/programs/jail.c."""

from __future__ import annotations

import errno
import functools
import os
import resource
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from tinamou.late import dataclass, field
from tinamou.system import confine
from tinamou.system.confine import ENVIRONMENT
from tinamou.system.exec import find_tool, run
from tinamou.system.own_programs import own_program
from tinamou.system.spawn import Process, process_of, start_exactly

__all__ = [
    "STATUS",
    "SYSTEM",
    "Jail",
    "JailError",
    "beyond_the_system",
    "in_memory",
    "longer",
    "named",
    "nodes",
    "spawn",
    "tree_of",
]

STATUS = 125
"""How it exits when a wall cannot be built."""

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/etc/ld.so.cache")
"""Where any program's libraries are; those that are links stay so."""
_STORES = ("/nix/store", "/gnu/store")
"""Where every program and library has a folder of its own, and needs those of others."""
_OWN_TREE = ("bin", "sbin", "libexec")
_NODES = ("/dev/null", "/dev/zero", "/dev/full", "/dev/random", "/dev/urandom")


class JailError(OSError):
    """A wall cannot be built."""


@dataclass(frozen=True)
class Jail:
    """What the process is held in by; with nothing given, only new privileges and core dumps are refused.

    ``uid`` is whom it runs as, with the groups beside, and no capability but those of the mask ``keeps``; None: as the
    caller. ``namespaces`` are letters of jail.c, those of its own. ``reads`` and ``writes`` are what it sees of the host's
    files with ``m`` or Landlock, ``devices`` what it uses, ``reopens`` open files it may open again; ``fixed`` is a folder
    it sees as it is, and read only, without ``m``. ``landlock`` are the masks of what that refuses: of files, network,
    scopes. ``limits`` are resource limits by their numbers (resource.RLIMIT_*), ``longest`` the bytes a file of its may
    have, which may be raised from outside (`longer`), ``room`` those of its /tmp, ``profile`` the AppArmor profile it
    enters, ``label`` the SELinux context; with ``own_cores`` no thread of others is beside its own on a core.
    ``call_filter`` is a system-call filter and the key to it (`tinamou.system.syscalls.keyed`).
    """

    uid: int | None = None
    groups: tuple[int, ...] = ()
    namespaces: str = ""
    reads: tuple[str, ...] = ()
    writes: tuple[str, ...] = ()
    devices: tuple[str, ...] = ()
    reopens: tuple[int, ...] = ()
    landlock: tuple[int, int, int] = (0, 0, 0)
    limits: Mapping[int, int] = field(default_factory=dict)
    longest: int | None = None
    keeps: int = 0
    room: int = 64 << 20
    dies_with_parent: bool = False
    fixed: str = ""
    profile: str = ""
    label: str = ""
    own_cores: bool = False
    call_filter: bytes = b""

    def words(self) -> list[str]:
        """The launcher's options, but for those about descriptors of the moment."""
        uid, groups = self.uid, self.groups
        if "U" in self.namespaces:
            uid, groups = os.geteuid(), (os.getegid(),)
        pairs = [("-n", self.namespaces)] if self.namespaces else []
        pairs += [("-t", str(self.room))] if "m" in self.namespaces else []
        pairs += [("-u", str(uid))] if uid is not None else []
        pairs += [("-g", str(group)) for group in groups]
        if "m" in self.namespaces or self.landlock[0]:
            seen = (("-r", self.reads), ("-w", self.writes), ("-d", self.devices))
            pairs += [(option, path) for option, paths in seen for path in paths]
        if any(self.landlock):
            pairs += [("-l", ",".join(map(str, self.landlock))), *(("-o", str(file)) for file in self.reopens)]
        pairs += [("-L", f"{what},{_at_most(what, most)}") for what, most in self.limits.items()]
        pairs += [("-s", str(self.longest))] if self.longest else []
        pairs += [("-k", str(self.keeps))] if self.keeps else []
        pairs += [("-R", self.fixed)] if self.fixed else []
        pairs += [("-a", self.profile)] if self.profile else []
        pairs += [("-e", self.label)] if self.label else []
        pairs += [("-c", "own")] if self.own_cores else []
        return [word for pair in pairs for word in pair]


def _at_most(what: int, wanted: int) -> int:
    """No more than this process has, which only some may raise; all of the memory to be locked, or it does not start."""
    most = resource.getrlimit(what)[1]
    return wanted if most == resource.RLIM_INFINITY or what == resource.RLIMIT_MEMLOCK else min(wanted, most)


def longer(pid: int, size: int) -> None:
    """Let a process that was started with ``longest`` make files of this size. Raises OSError, CommandError."""
    uid = os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116
    as_it = confine.prefix(uid) if uid != os.geteuid() else []
    run([*as_it, "prlimit", f"--pid={pid}", f"--fsize={size}:"])


def beyond_the_system(paths: Iterable[str]) -> tuple[str, ...]:
    """The same files and folders as few as they can be, without links on the way, and without what lies in `SYSTEM`."""
    kept = [os.path.realpath(path) for path in SYSTEM]
    for path in sorted(map(os.path.realpath, paths)):
        whole = next((store for store in _STORES if path.startswith(f"{store}/")), path)
        if not any(whole == above or whole.startswith(f"{above}/") for above in kept):
            kept.append(whole)
    return tuple(kept[len(SYSTEM) :])


def nodes() -> tuple[str, ...]:
    """The devices anybody may use, of those that are here."""
    return tuple(filter(os.path.exists, _NODES))


def tree_of(program: str) -> tuple[str, ...]:
    """What a program from outside the system's folders is loaded from: the tree it is installed in, or itself."""
    real = Path(os.path.realpath(find_tool(program) or program))
    return beyond_the_system([str(real.parent.parent if real.parent.name in _OWN_TREE else real)])


def spawn(
    jail: Jail, argv: Sequence[str], *, log: int, inherit: Sequence[int] = (), environment: Mapping[str, str] = ENVIRONMENT
) -> Process:
    """Start ``argv`` held in by ``jail``; descriptors as for `tinamou.system.spawn.spawn`. Returns before it has begun.

    What cannot be done is said in the log, and it ends with `STATUS`. Raises FileNotFoundError for a missing program,
    JailError where it could not even begin, OSError.
    """
    read, write = os.pipe2(os.O_CLOEXEC)
    ours = [read, write]
    try:
        words = [own_program("jail"), *jail.words()]
        if jail.dies_with_parent:
            ours.append(me := os.pidfd_open(os.getpid()))
            words, inherit = [*words, "-D", str(me)], (*inherit, me)
        if jail.call_filter:
            ours.append(loaded := in_memory(jail.call_filter))
            words, inherit = [*words, "--filter", str(loaded)], (*inherit, loaded)
        if apart := "p" in jail.namespaces:
            words, inherit = [*words, "-p", str(write)], (*inherit, write)
        words += ["--", *named(argv, environment)] if argv else []
        first = start_exactly(words, log, inherit, environment)
        ours.remove(write)
        os.close(write)
        return process_of(_second(read, first) if apart else first)
    finally:
        for descriptor in ours:
            os.close(descriptor)


def in_memory(data: bytes) -> int:
    """An open file that holds the data."""
    file = os.memfd_create("filter", os.MFD_CLOEXEC)
    os.pwrite(file, data, 0)
    return file


def _second(read: int, first: int) -> int:
    """The number of the process the launcher goes on as; it is our child like the first, which has ended then."""
    said = os.read(read, 32)
    status = os.waitstatus_to_exitcode(os.waitpid(first, 0)[1])
    if not said:
        raise JailError(f"the launcher ended with status {status}")
    return int(said)


def named(argv: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """The program's file without links on the way, and its words: by the name it was called by, where PATH leads there."""
    program = _found(argv[0])
    known = str(Path(program).parent) in environment.get("PATH", "").split(":")
    return [_variant(os.path.realpath(program)), argv[0] if known else program, *argv[1:]]


def _variant(program: str) -> str:
    """The build for this processor, ``passt.avx2``, which the program would become: it becomes nothing now."""
    better = f"{program}.avx2"
    return better if os.path.exists(better) and _has_avx2() else program  # noqa: PTH110


@functools.cache
def _has_avx2() -> bool:
    return " avx2 " in Path("/proc/cpuinfo").read_text()


def _found(program: str) -> str:
    found = find_tool(program)
    if found is None:
        raise FileNotFoundError(errno.ENOENT, "there is no such program", program)
    return found
