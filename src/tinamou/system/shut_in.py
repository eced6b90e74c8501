"""Programs that read files nobody vouches for: each runs without rights, network, or more of the host than those files.

Whatever such a file makes the program do, it does as a user nobody else is (for root), in a network of its own without
cards, and with Landlock, where the kernel has it, it opens nothing but the files named. Its time and its memory are bounded.
"""

from __future__ import annotations

import contextlib
import functools
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

from tinamou.system import confine, landlock
from tinamou.system.exec import CommandError, find_tool
from tinamou.system.namespaces import may_unshare

__all__ = ["ENVIRONMENT", "MEMORY", "ask", "handed", "leased", "shut_in"]

ENVIRONMENT = {**confine.ENVIRONMENT, "MALLOC_ARENA_MAX": "1"}
"""What it sees; the C library is kept from reserving addresses for each of its threads."""

MEMORY = 4 << 30
"""Bytes of addresses: most of what qemu-img takes are the stacks of its worker threads."""
_SAID = 1 << 20
"""Bytes a program may say, or write into any one file, where it is asked something."""
_FIRST_UID = 1_900_200_000
"""User ids of such programs: above all that are leased to machines and their helpers, one for each process of tinamou."""
_SYSTEM = ("/usr", "/lib", "/lib64", "/bin", "/sbin", "/etc/ld.so.cache", "/dev/null", "/dev/zero", "/dev/urandom")
"""What any program needs to start."""
_OWN_TREE = ("bin", "sbin", "libexec")


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
    ``owner``, whom it runs as then. A limit of 0 is none. Where the kernel has no Landlock, it may read what its user may,
    and for root every file: it has no network to send it to. Raises FileNotFoundError where there is no such program.
    """
    program = find_tool(argv[0])
    if program is None:
        raise FileNotFoundError(f"{argv[0]} is not installed")
    limits = {"--as": memory, "--cpu": cpu_seconds, "--fsize": file_bytes}
    words = ["prlimit", *(f"{name}={most}" for name, most in limits.items() if most), "--", *_apart()]
    uid = _uid() if owner is None or os.geteuid() else owner
    words += confine.prefix(uid, dies_with_parent=True, keeps=("dac_read_search",) if uid is not None else ())
    return [*words, *_walls(program, reads, writes), program, *argv[1:]]


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
    descriptor = os.memfd_create("handed", os.MFD_CLOEXEC)
    try:
        view = memoryview(data)
        while view:
            view = view[os.write(descriptor, view) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        yield descriptor
    finally:
        os.close(descriptor)


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
def _apart() -> tuple[str, ...]:
    """The words that give it namespaces of its own, of those the kernel permits."""
    user = () if os.geteuid() == 0 else ("--user", "--map-current-user")
    for kinds in (("--net", "--ipc"), ("--net",)):
        if may_unshare(*user, *kinds):
            return ("unshare", *user, *kinds, "--")
    return ()


def _walls(program: str, reads: Sequence[str | Path], writes: Sequence[str | Path]) -> list[str]:
    if not landlock.abi():
        return []
    folder = os.path.dirname(os.path.realpath(program))  # noqa: PTH120
    tree = os.path.dirname(folder) if os.path.basename(folder) in _OWN_TREE else folder  # noqa: PTH119, PTH120
    words = [sys.executable, "-I", "-S", landlock.__file__]
    for path in (*_SYSTEM, tree, *reads):
        words += ["--read", str(path)]
    for path in writes:
        words += ["--write", str(path)]
    return [*words, "--"]
