"""Programs that read files nobody vouches for: each runs without rights, network, or more of the host than those files.

Whatever such a file makes the program do, it does as a user nobody else is (for root), with the few system calls that
reading takes, in a root of its own that holds the files named and nothing else of the host's, and in a network of its own.
Where the kernel gives it no root, Landlock keeps it from all other files. Its time, memory and processes are bounded. Where
AppArmor is active, it is under a profile besides (for root); where tinamou's SELinux policy is loaded, under a label.
"""

from __future__ import annotations

import contextlib
import functools
import os
import re
import resource
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from tinamou.system import confine, jail, landlock, reader_label, reader_profile
from tinamou.system.closing import Closing
from tinamou.system.exec import CommandError, find_tool
from tinamou.system.own_programs import own_program
from tinamou.system.syscall_numbers import AUDIT
from tinamou.system.syscalls import READER, is_script, keyed

__all__ = ["ENVIRONMENT", "MEMORY", "ask", "handed", "leased", "shut_in"]

ENVIRONMENT = {**confine.ENVIRONMENT, "MALLOC_ARENA_MAX": "1"}
"""What it sees; the C library is kept from reserving addresses for each of its threads."""

MEMORY = 1 << 30
"""Bytes of addresses: most of what qemu-img takes are the stacks of its worker threads, up to 64 of a MiB each."""
_STACK = 1 << 20
_TASKS, _FILES = 128, 1024
_LINKS = 40
_SAID = 1 << 20
"""Bytes a program may say, or write into any one file, where it is asked something."""
_FIRST_UID = 1_900_200_000
"""User ids of such programs: above all that are leased to machines and their helpers, one for each process of tinamou."""
_ANY_OWNERS = 1 << 2
"""CAP_DAC_READ_SEARCH: to read what its user may not."""
_COUNTED_APART = (5, 14)
"""Since this version of the kernel what a user runs in a namespace of users is counted alone."""


def shut_in(
    argv: Sequence[str],
    *,
    reads: Sequence[str | Path] = (),
    writes: Sequence[str | Path] = (),
    memory: int = MEMORY,
    cpu_seconds: int = 0,
    file_bytes: int = 0,
    owner: int | None = None,
) -> list[str]:
    """``argv`` with the words before it that shut it in; it ends with the thread that started it.

    ``reads`` and ``writes`` are all the files it may open; for root, those it writes must be `leased` to it, or belong to
    ``owner``, whom it runs as then. A limit of 0 is none. Where the kernel gives it neither a root nor Landlock, it may read
    what its user may, and for root every file: it has no network to send it to. Raises FileNotFoundError where there is no
    such program.
    """
    program = find_tool(argv[0])
    if program is None:
        raise FileNotFoundError(f"{argv[0]} is not installed")
    spaces, root = _apart(), os.geteuid() == 0
    limits = {resource.RLIMIT_AS: memory, resource.RLIMIT_CPU: cpu_seconds, resource.RLIMIT_FSIZE: file_bytes}
    limits |= {resource.RLIMIT_STACK: _STACK, resource.RLIMIT_NOFILE: _FILES}
    if (root and owner is None) or ("U" in spaces and _kernel() >= _COUNTED_APART):
        limits[resource.RLIMIT_NPROC] = _TASKS
    around = jail.Jail(
        _uid() if owner is None or not root else owner,
        namespaces=spaces,
        reads=(*jail.SYSTEM, *jail.tree_of(program), *_with_targets(map(str, reads))),
        writes=tuple(map(str, writes)),
        devices=jail.nodes(),
        landlock=(0, 0, 0) if "m" in spaces else landlock.masks(),
        limits={what: most for what, most in limits.items() if most},
        keeps=_ANY_OWNERS if root and ("m" not in spaces or not all(map(_for_all, reads))) else 0,
        profile=reader_profile.entered(script=is_script(program)),
        label=reader_label.entered(program),
    )
    words = [own_program("jail"), *around.words(), "-P", str(os.getpid())]
    words += ["--filter", _filter(os.getpid(), program)] if os.uname().machine in AUDIT else []
    return [*words, "--", *jail.named((program, *argv[1:]), ENVIRONMENT)]


def _with_targets(paths: Iterable[str]) -> Iterator[str]:
    """The same, and what links among them lead to."""
    for path in paths:
        for _ in range(_LINKS):
            yield path
            if not os.path.islink(path):  # noqa: PTH114
                break
            path = os.path.join(os.path.dirname(path), os.readlink(path))  # noqa: PTH118, PTH120, PTH115
        yield os.path.realpath(path)


def _for_all(path: str | Path) -> bool:
    """Whether anybody may read it; also where it is not there."""
    try:
        return bool(os.stat(path).st_mode & 0o004)  # noqa: PTH116
    except OSError:
        return True


def _kernel() -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", os.uname().release)[:2]))


@functools.cache
def _filter(pid: int, program: str) -> str:
    """A path to the filter of system calls, for whoever this process of that number starts."""
    return f"/proc/{pid}/fd/{jail.in_memory(keyed(READER, program))}"


@contextlib.contextmanager
def leased(descriptor: int) -> Iterator[None]:
    """A file of ours, open here, belongs to the programs shut in meanwhile: they cannot write to it otherwise (for root)."""
    uid = _uid()
    if uid is None:
        yield
        return
    os.fchown(descriptor, uid, uid)
    try:
        yield
    finally:
        os.fchown(descriptor, os.geteuid(), os.getegid())


@contextlib.contextmanager
def handed(data: bytes) -> Iterator[int]:
    """The data in memory, open: a program that is given the descriptor finds it as a file in /proc/self/fd."""
    with Closing(os.memfd_create("handed", os.MFD_CLOEXEC)) as descriptor:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor


def ask(
    argv: Sequence[str],
    *,
    reads: Sequence[str | Path],
    seconds: float,
    cpu_seconds: int,
    pass_fds: Sequence[int] = (),
    writes: Sequence[str | Path] = (),
    file_bytes: int = _SAID,
) -> str:
    """What a program, shut in, says on stdout, 1 MiB at most. Raises CommandError, FileNotFoundError, TimeoutError.

    It writes no more than ``file_bytes`` into any one file.
    """
    words = shut_in(argv, reads=reads, writes=writes, cpu_seconds=cpu_seconds, file_bytes=file_bytes)
    with open(os.memfd_create("stdout"), "rb") as out, open(os.memfd_create("stderr"), "rb") as err:  # noqa: PTH123
        process = subprocess.Popen(
            words,
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=ENVIRONMENT,
            pass_fds=tuple(pass_fds),
        )
        try:
            status = process.wait(seconds)
        except subprocess.TimeoutExpired as error:
            raise TimeoutError(f"{Path(argv[0]).name} did not finish within {seconds:.0f} seconds") from error
        finally:
            process.kill()
            process.wait()
        said, complaints = (os.pread(file.fileno(), _SAID, 0).decode(errors="replace") for file in (out, err))
    if status:
        raise CommandError(tuple(argv), status, said, complaints)
    return said


def _uid() -> int | None:
    """Whom it runs as; for a user without root, as that user."""
    return _FIRST_UID + os.getpid() if os.geteuid() == 0 else None


@functools.cache
def _apart() -> str:
    """The letters of the namespaces it has of its own, of those the kernel permits."""
    user = "" if os.geteuid() == 0 else "U"
    return next((user + kinds for kinds in ("miucn", "iucn", "in", "n") if _stands(user + kinds)), "")


def _stands(spaces: str) -> bool:
    around = jail.Jail(_uid(), namespaces=spaces, reads=jail.SYSTEM, devices=jail.nodes())
    with Closing(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)) as null:
        return os.waitstatus_to_exitcode(os.waitpid(jail.spawn(around, [], log=null).pid, 0)[1]) == 0
