"""Who keeps the memory of an instant checkpoint: sealed, without a name, open in one process that nobody else can look into.

A checkpoint that is gone with its process has its memory there. For every other one a shell holds it, for as long as the
checkpoint's entry exists: that shell killed, the memory is gone, as after a restart of the host.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tinamou.errors import StateError
from tinamou.late import dataclass
from tinamou.system import ram
from tinamou.system.closing import Closing
from tinamou.system.spawn import Process, alive, end, process_of, spawn

__all__ = ["Held", "held", "let_go", "shut"]

_HOLD = """
cd /
[ "$(cat /dev/fd/$0)" = hold ] || exit 0
trap 'kill $! 2>/dev/null; exit 0' TERM
while [ -e "$1" ]; do sleep 60 </dev/null & wait $!; done
"""
"""Waits for a word, gives up when there will be none, and then holds what its standard input is.

A shell's own ``read`` would put something else there meanwhile.
"""

_READERS, _WRITERS = 0o644, 0o666
"""Who may open the memory anew through a descriptor: a QEMU under a user id of its own, which may have to say "for writing".

Whoever seals it has to say that, too.

Nobody else has a descriptor, and whoever has one cannot write all the same: the memory is sealed.
"""

_LEFT_SECONDS = 2.0

_ours: dict[str, list[int]] = {}
"""The memories this process keeps, by the checkpoint's folder."""


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
        with Closing(ram.opened(self.pid, self.descriptor)) as found:
            status = os.fstat(found)
            as_saved = (status.st_uid, status.st_ino, status.st_size) == (os.geteuid(), self.inode, self.size)
            if as_saved and ram.is_closed(found):
                return os.dup(found)
        raise FileNotFoundError(f"process {self.pid} does not keep it any more")


@contextlib.contextmanager
def held(memories: Sequence[int], directory: Path, *, writable: bool, ephemeral: bool) -> Iterator[list[Held]]:
    """Seal memories and give them to whoever keeps them once the block has ended well. Raises StateError.

    ``directory`` is the checkpoint's folder; the block writes the entry there. ``ephemeral`` memory this process keeps, and
    seals it against those who had it mapped before by `shut`. ``writable`` allows to open it for writing, which some
    versions of QEMU do without ever writing.
    """
    for memory in memories:
        (ram.close_to_writers if ephemeral else ram.seal)(memory)
        os.fchmod(memory, _WRITERS if writable else _READERS)
    if ephemeral:
        mine = _ours[str(directory)] = [os.dup(memory) for memory in memories]
        yield [_held(process_of(os.getpid()), memory, number) for memory, number in zip(memories, mine, strict=True)]
        return
    with _holder(memories, directory) as process:
        numbers = (0, *memories[1:])
        yield [_held(process, memory, number, alone=True) for memory, number in zip(memories, numbers, strict=True)]


def _held(process: Process, memory: int, number: int, *, alone: bool = False) -> Held:
    status = os.fstat(memory)
    return Held(process.pid, process.started, number, status.st_ino, status.st_size, alone)


@contextlib.contextmanager
def _holder(memories: Sequence[int], directory: Path) -> Iterator[Process]:
    """A shell that holds memories from the end of the block on; it ends by itself when this process is killed before.

    Raises StateError when it cannot be started, and for an OSError of the block.
    """
    word, say = os.pipe()
    process = None
    try:
        process = _shell(memories, directory, word)
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


def _shell(memories: Sequence[int], directory: Path, word: int) -> Process:
    words = ["sh", "-c", _HOLD, str(word), str(directory / "checkpoint.json")]
    beside = (word, *memories[1:])
    return spawn(
        words, log=str(directory / "memory.log"), inherit=beside, stdin=memories[0], environment={"PATH": os.defpath}
    )


def shut(directory: Path) -> None:
    """Seal the memory this process keeps for that checkpoint, which nobody may have mapped for writing any more.

    Raises OSError.
    """
    for mine in _ours.get(str(directory), ()):
        ram.seal(mine)


def let_go(directory: Path, kept: Held | None) -> None:
    """Have nobody keep the memory of a checkpoint that is removed; another process's own is left to that."""
    for mine in _ours.pop(str(directory), ()):
        os.close(mine)
    if kept is not None and kept.alone:
        with contextlib.suppress(OSError):
            os.close(kept.open())
            end(Process(kept.pid, kept.started), grace=_LEFT_SECONDS)
