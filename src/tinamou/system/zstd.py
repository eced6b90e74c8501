"""A stream on its way between another process and a file, compressed by zstd(1), which is confined like QEMU itself."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from fcntl import F_SETPIPE_SZ, fcntl

from tinamou.system import confine
from tinamou.system.closing import Closing, IfFailed
from tinamou.system.exec import CommandError, find_tool

__all__ = ["Piped", "compressing", "decompressing"]

_PIPE_BYTES = 1 << 20

"""As much as an ordinary user may ask for (source: proc_sys_fs(5), pipe-max-size)."""


class Piped:
    """The command at work; ``end`` is the descriptor to hand to the other process, and is closed here by `let_go`."""

    def __init__(self, process: subprocess.Popen[bytes], end: int) -> None:
        self._process = process
        self.end: int = end

    def let_go(self) -> None:
        """Close our copy of ``end``: the other process has its own, and the stream ends with it."""
        if self.end >= 0:
            os.close(self.end)
            self.end = -1

    def ends_within(self, seconds: float) -> bool:
        """Whether it has ended after so many seconds, for which it is waited."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(seconds)
        return self._process.returncode is not None

    def finish(self) -> None:
        """Return when all has gone through. Raises CommandError with what the command said when it failed."""
        self.let_go()
        _, said = self._process.communicate()
        if self._process.returncode:
            raise CommandError(("zstd",), self._process.returncode, "", said.decode(errors="replace"))

    def give_up(self) -> None:
        """End the command, whatever it has done."""
        self.let_go()
        self._process.kill()
        self._process.wait()
        assert self._process.stderr is not None
        self._process.stderr.close()


@contextlib.contextmanager
def compressing(target: int, uid: int | None) -> Iterator[Piped]:
    """What is written to ``end`` goes to the file ``target``, compressed. Raises FileNotFoundError without zstd(1)."""
    with _piped(["-1", "-T0"], uid, target, writes=True) as piped:
        yield piped


@contextlib.contextmanager
def decompressing(source: int, uid: int | None) -> Iterator[Piped]:
    """What the compressed file ``source`` holds can be read from ``end``. Raises FileNotFoundError without zstd(1)."""
    with _piped(["-d"], uid, source, writes=False) as piped:
        yield piped


@contextlib.contextmanager
def _piped(options: list[str], uid: int | None, file: int, *, writes: bool) -> Iterator[Piped]:
    if find_tool("zstd") is None:
        raise FileNotFoundError("zstd is not installed")
    reading, writing = os.pipe2(os.O_CLOEXEC)
    with contextlib.suppress(OSError):
        fcntl(writing, F_SETPIPE_SZ, _PIPE_BYTES)
    ours, theirs = (writing, reading) if writes else (reading, writing)
    source, target = (theirs, file) if writes else (file, theirs)
    with Closing(theirs), IfFailed(os.close, ours):
        process = subprocess.Popen(
            [*confine.prefix(uid), "zstd", "-q", "-c", *options],
            stdin=source,
            stdout=target,
            stderr=subprocess.PIPE,
            env=confine.ENVIRONMENT,
        )
    piped = Piped(process, ours)
    try:
        yield piped
    finally:
        piped.give_up()
