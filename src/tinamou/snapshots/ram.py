"""Who keeps the memory of an instant checkpoint: sealed, without a name, open in one process that nobody else can look into.

A checkpoint that is gone with its process has its memory there. For every other one a shell holds it, for as long as the
checkpoint's entry exists: that shell killed, the memory is gone, as after a restart of the host.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from tinamou.errors import StateError
from tinamou.late import dataclass
from tinamou.system import ram
from tinamou.system.spawn import Process, alive, end, process_of, spawn

__all__ = ["Held", "held", "let_go"]

_HOLD = """
cd /
[ "$(cat /dev/fd/$0)" = hold ] || exit 0
trap 'kill $! 2>/dev/null; exit 0' TERM
while [ -e "$1" ]; do sleep 60 </dev/null & wait $!; done
"""
"""Waits for a word, gives up when there will be none, and then holds what its standard input is.

A shell's own ``read`` would put something else there meanwhile.
"""

_READERS, _WRITERS = 0o444, 0o666
"""Who may open the memory anew through a descriptor: a QEMU under a user id of its own, which may have to say "for writing".

Nobody else has a descriptor, and whoever has one cannot write all the same: the memory is sealed.
"""

_LEFT_SECONDS = 2.0

_ours: dict[str, int] = {}
"""The memory this process keeps, by the checkpoint's folder."""


@dataclass(frozen=True)
class Held:
    """Sealed memory as process ``pid``, started at ``started``, has it open under ``descriptor``.

    ``alone`` tells whether that process is there for nothing else.
    """

    pid: int
    started: int
    descriptor: int
    inode: int
    size: int
    alone: bool = False

    def open(self) -> int:
        """A descriptor of it, for reading. Raises OSError when it is gone, or is not what was saved."""
        process = Process(self.pid, self.started)
        if not alive(process):
            raise ProcessLookupError(f"process {self.pid}, which kept it, is gone")
        found = ram.opened(self.pid, self.descriptor)
        try:
            status = os.fstat(found)
            as_saved = (status.st_uid, status.st_ino, status.st_size) == (os.geteuid(), self.inode, self.size)
            if as_saved and ram.is_sealed(found):
                return os.dup(found)
        finally:
            os.close(found)
        raise FileNotFoundError(f"process {self.pid} does not keep it any more")


@contextlib.contextmanager
def held(memory: int, directory: Path, *, writable: bool, ephemeral: bool) -> Iterator[Held]:
    """Seal the memory and give it to whoever keeps it once the block has ended well. Raises StateError.

    ``directory`` is the checkpoint's folder; the block writes the entry there. ``ephemeral`` memory this process keeps.
    ``writable`` allows to open it for writing, which some versions of QEMU do without ever writing.
    """
    ram.seal(memory, _WRITERS if writable else _READERS)
    status = os.fstat(memory)
    if ephemeral:
        mine = _ours[str(directory)] = os.dup(memory)
        me = process_of(os.getpid())
        yield Held(me.pid, me.started, mine, status.st_ino, status.st_size)
        return
    with _holder(memory, directory) as process:
        yield Held(process.pid, process.started, 0, status.st_ino, status.st_size, alone=True)


@contextlib.contextmanager
def _holder(memory: int, directory: Path) -> Iterator[Process]:
    """A shell that holds the memory from the end of the block on; it ends by itself when this process is killed before.

    Raises StateError when it cannot be started, and for an OSError of the block.
    """
    word, say = os.pipe()
    process = None
    try:
        process = _shell(memory, directory, word)
        yield process
        os.write(say, b"hold")
    except BaseException as error:
        if process is not None:
            end(process)
        if isinstance(error, OSError):
            raise StateError(f"the memory of checkpoint {directory.name} cannot be kept", why=str(error)) from error
        raise
    finally:
        os.close(word)
        os.close(say)


def _shell(memory: int, directory: Path, word: int) -> Process:
    words = ["sh", "-c", _HOLD, str(word), str(directory / "checkpoint.json")]
    return spawn(words, log=str(directory / "memory.log"), inherit=(word,), stdin=memory, environment={"PATH": os.defpath})


def let_go(directory: Path, kept: Held | None) -> None:
    """Have nobody keep the memory of a checkpoint that is removed; another process's own is left to that."""
    mine = _ours.pop(str(directory), None)
    if mine is not None:
        os.close(mine)
    if kept is not None and kept.alone:
        with contextlib.suppress(OSError):
            os.close(kept.open())
            end(Process(kept.pid, kept.started), grace=_LEFT_SECONDS)
