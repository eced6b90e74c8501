"""Which process is one that tinamou started: never by its command line alone, which anybody can have."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Collection, Sequence
from pathlib import Path

from tinamou.system import proc
from tinamou.system.exec import find_tool
from tinamou.system.spawn import Process, alive, process_of

__all__ = ["every", "find", "matching"]

_LONGEST = 4 << 20
"""Bytes of a command line: more than any of ours has."""


def find(argv: Sequence[str], users: Collection[int], started: Process | None = None) -> Process | None:
    """The process of this command line that runs its program, as one of these users; None where it has ended.

    ``started`` is it where its number was written down: then no other one is, and the rest is compared all the same. Where
    the number is not known, who started it was killed a moment later, and no two of ours have one command line.
    """
    if started is not None:
        return started if alive(started) and _is(started.pid, argv, users) else None
    return next(iter(every(argv, users)), None)


def every(argv: Sequence[str], users: Collection[int]) -> list[Process]:
    """All processes of this command line that run its program, as one of these users."""
    wanted = b"".join(os.fsencode(word) + b"\0" for word in argv)
    return [one for one in matching(wanted.__eq__, users) if _is(one.pid, argv, users)]


def matching(match: Callable[[bytes], bool], users: Collection[int]) -> list[Process]:
    """The processes of these users whose command line, each word with a zero byte after it, matches."""
    found = []
    for pid in proc.numbers():
        with contextlib.suppress(OSError):
            if match(proc.read(pid, "cmdline", _LONGEST)) and _user_is(pid, users):
                found.append(process_of(pid))
    return found


def _is(pid: int, argv: Sequence[str], users: Collection[int]) -> bool:
    return _user_is(pid, users) and _runs(pid, argv[0])


def _user_is(pid: int, users: Collection[int]) -> bool:
    """Whether it has these user ids alone."""
    try:
        return bool(found := proc.user_ids(pid)) and found <= set(users)
    except OSError:
        return False


def _runs(pid: int, program: str) -> bool:
    """Whether it runs this program, or a variant for its processor, ``passt.avx2``; also where that may not be seen.

    It may not of a process that has shut itself off (source: proc_pid_exe(5), PR_SET_DUMPABLE); its user is ours then.
    """
    try:
        running = str(Path(f"/proc/{pid}/exe").readlink()).removesuffix(" (deleted)")
    except PermissionError:
        return True
    except OSError:
        return False
    wanted = os.path.realpath(find_tool(program) or program)
    return running == wanted or running.startswith(f"{wanted}.")
