"""Logs of QEMU and its helpers, which may write whatever they like: pipes, kept in files of bounded length.

Whoever writes has the pipe alone, and can neither cut the file off nor make it longer than it may be. The file is written
by a process of some kilobytes (images/programs/logwriter.c), one for each QEMU or helper, which outlives the command that
started it and ends with the pipes.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from tinamou.errors import PrepareError
from tinamou.system.logs import FULL, older
from tinamou.system.own_programs import own_program
from tinamou.system.spawn import beside

__all__ = ["pipes_into"]


@contextlib.contextmanager
def pipes_into(*logs: Path) -> Iterator[list[int]]:
    """For each log a descriptor to write to, open in the block; what an earlier start has put aside goes.

    Each log is locked from before the block until nobody has its pipe any more, which `found_started` relies on. Raises
    PrepareError, OSError.
    """
    with contextlib.ExitStack() as stack:
        ends: list[int] = []
        words = [own_program("logwriter"), str(FULL)]
        inherit: list[int] = []
        for log in logs:
            older(log).unlink(missing_ok=True)
            file = _opened(log)
            stack.callback(os.close, file)
            fcntl.flock(file, fcntl.LOCK_SH)
            read, write = os.pipe2(os.O_CLOEXEC)
            os.fchmod(write, 0o200)  # who writes to it cannot open it again to read (/proc/self/fd), the same user neither
            for end in (read, write):
                stack.callback(os.close, end)
            ends.append(write)
            inherit += [read, file]
            words += [str(read), str(file), str(log)]
        try:
            with beside(words, inherit=inherit):
                yield ends
        except ChildProcessError as error:
            raise PrepareError("the logs cannot be kept", why=str(error)) from error


def _opened(log: Path) -> int:
    """The log; a file that is not ours makes way: its folder may be a helper's own."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
    with contextlib.suppress(OSError):
        file = os.open(log, flags, 0o600)
        found = os.fstat(file)
        if stat.S_ISREG(found.st_mode) and found.st_uid == os.geteuid() and found.st_nlink == 1:
            return file
        os.close(file)
    log.unlink(missing_ok=True)
    return os.open(log, flags | os.O_EXCL, 0o600)
