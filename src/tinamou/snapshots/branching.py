"""How the memory of a forkable machine becomes that of a checkpoint: frozen where it lies, kept with changes, or copied.

*Frozen*: while the machine stands still, its QEMU maps its own memory anew, privately. From then on forks are made of the
file under it, and the machine goes on as one of its own forks: nothing is copied, nothing grows with the memory.

*Changes*: of memory that is frozen already only what the machine changed since is saved, to be written into each fork.

*Renewed*: where that is much, the frozen memory, which nobody writes to, is copied while the machine runs; standing still,
the changes are written over the copy, and the machine goes on over that.

*Copied*: where its QEMU cannot be made to do that, a copy is made while it runs, and corrected while it stands still.
"""

from __future__ import annotations

import contextlib
import mmap
import os
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import TypeVar

from tinamou.control import Session
from tinamou.control.commands import add_fd_numbered, remove_fd
from tinamou.errors import StateError
from tinamou.snapshots import changes
from tinamou.system import ram
from tinamou.system.closing import Closing
from tinamou.system.holding import why_not
from tinamou.system.inject import Caller, begin, held
from tinamou.system.loop_thread import in_thread
from tinamou.system.mappings import Mapping, changed, clear_shelf, mapping_of, move, read_into

__all__ = ["Way", "put_on", "reached", "tidied", "way", "why_not"]

T = TypeVar("T")

_FEW = 4
"""Changes are kept apart up to one part in so many of the memory in use: each fork has a copy of them."""
_FEW_BYTES = 16 << 20


class Way:
    """What is done while the machine runs, and while it stands still.

    The result, once it is `tidied`, is ``memory``, and what is to be written over that.
    """

    why: str
    changes: int | None = None

    def __init__(self, memory: int) -> None:
        self.memory = memory

    async def ahead(self) -> None:
        """The machine runs."""

    async def at_rest(self) -> None:
        """The machine stands still, its state is saved."""
        raise NotImplementedError


@contextlib.asynccontextmanager
async def way(session: Session, pid: int, name: str, size: int, *, merge: bool, works_elsewhere: bool) -> AsyncIterator[Way]:
    """The best way for this QEMU, whose memory of that many bytes has been found. Raises StateError.

    ``name`` is the machine's; ``merge`` whether equal pages of its memory may be merged, ``works_elsewhere`` whether another
    process has it mapped too.
    """
    with reached(pid, name, size) as (source, numbers, mapping):
        reason = "the helpers of its shared folders work in it" if works_elsewhere else why_not() or await _refusal(pid)
        if reason and mapping.private:
            what = f"the memory of {name}, which an earlier checkpoint froze, cannot be taken up"
            raise StateError(what, why=reason, fix="do it as the user who took that one, or take a portable one")
        if reason:
            with _room(name, source, f"checkpoint of {name}") as target:
                yield _Copied(source, target, f"its memory is copied while it runs: {reason}")
        elif not mapping.private:
            yield _Frozen(pid, source, numbers[0], mapping, merge=merge)
        elif (few := await _few(pid, source, mapping)) is not None:
            with Closing(changes.room_for(few + few // _FEW)) as side:
                yield _Changes(pid, source, side, mapping)
        else:
            with _room(name, source, ram.NAME) as target:
                async with _handed(session, target) as their:
                    yield _Renewed(pid, source, target, (numbers, their), mapping, merge=merge)


async def tidied(pid: int) -> None:
    """Have the machine, which runs on, give up how it had its memory before: from then on that can be sealed."""
    await _done(lambda: clear_shelf(pid), ptrace=True)


async def put_on(pid: int, template: int, changed: int | None, size: int, *, merge: bool) -> None:
    """Put the still empty memory of a QEMU that waits for its state on a template, its descriptor ``template``.

    ``changed`` is a descriptor here, of changes to write over that. Raises StateError.
    """

    def work() -> None:
        mapping = mapping_of(pid, size)
        blank, numbers = ram.memory_of(pid, mapping.inode, size)
        os.close(blank)
        with held(pid) as caller:
            move(caller, mapping, template, merge=merge)
            _replace(caller, numbers, template)
            caller.call("close", template)
        clear_shelf(pid)
        if changed is not None:
            changes.apply(changed, pid, mapping)

    await _done(work, ptrace=True)


@contextlib.contextmanager
def reached(pid: int, name: str, size: int) -> Iterator[tuple[int, list[int], Mapping]]:
    """The memory of a running machine: a descriptor here, its numbers there, how it is mapped. Raises StateError."""
    try:
        mapping = mapping_of(pid, size)
        source, numbers = ram.memory_of(pid, mapping.inode, size)
    except OSError as error:
        fix = "stop it and start it again, where an older tinamou started it; or take a portable one"
        raise StateError(f"the memory of {name} cannot be reached", why=str(error), fix=fix) from error
    with Closing(source):
        yield source, numbers, mapping


async def _refusal(pid: int) -> str:
    """Why this QEMU cannot be made to map its memory anew, by holding it once; what was left of an earlier time goes."""

    def work() -> None:
        with held(pid) as caller:
            caller.call("getpid")
        clear_shelf(pid)

    try:
        await in_thread(lambda: begin(work).result())
    except OSError as error:
        return error.strerror or str(error)
    return ""


@contextlib.contextmanager
def _room(name: str, source: int, called: str) -> Iterator[int]:
    """Empty memory for a copy. Raises StateError where the host has too little.

    Memory without a name has no bound of its own: where it runs out, the kernel kills whom it likes.
    """
    from tinamou.probe.topology import kib

    status = os.fstat(source)
    used, left = status.st_blocks * 512, int(kib(Path("/proc/meminfo").read_text(), "MemAvailable"))
    if used > left:
        why = f"{used >> 20} MiB of it are in use, and the host has {left >> 20} MiB left"
        raise StateError(f"the memory of {name} cannot be copied", why=why, fix="remove checkpoints, or end machines")
    with Closing(ram.blank(called, status.st_size)) as target:
        yield target


async def _few(pid: int, source: int, mapping: Mapping) -> int | None:
    """How many bytes the machine has changed by now, None where they are too many to be kept apart."""
    runs = await _done(lambda: changed(pid, mapping))
    size = sum(end - begin for begin, end in runs)
    return size if size < max(_FEW_BYTES, os.fstat(source).st_blocks * 512 // _FEW) else None


@contextlib.asynccontextmanager
async def _handed(session: Session, descriptor: int) -> AsyncIterator[int]:
    """The number QEMU has it under, for as long as the block lasts."""
    fdset, number = await add_fd_numbered(session, descriptor)
    try:
        yield number
    finally:
        await remove_fd(session, fdset)


def _replace(caller: Caller, numbers: list[int], new: int) -> None:
    """Nothing of the old memory stays open, under whatever number: neither to be written to, nor to take room."""
    for number in numbers:
        caller.call("dup3", new, number, os.O_CLOEXEC)


async def _done(work: Callable[[], T], *, ptrace: bool = False) -> T:
    try:
        return await in_thread(lambda: begin(work).result() if ptrace else work())
    except OSError as error:
        fix = "remove checkpoints, or end machines"
        raise StateError("the machine's memory cannot be taken over", why=str(error), fix=fix) from error


class _Copied(Way):
    def __init__(self, source: int, target: int, why: str) -> None:
        super().__init__(target)
        self.why, self._source = why, source

    async def ahead(self) -> None:
        await _done(lambda: ram.copy_all(self._source, self.memory))

    async def at_rest(self) -> None:
        await _done(lambda: ram.copy_changed(self._source, self.memory))


class _Frozen(Way):
    why = "its memory is frozen where it lies"

    def __init__(self, pid: int, source: int, number: int, mapping: Mapping, *, merge: bool) -> None:
        super().__init__(source)
        self._pid, self._number, self._mapping, self._merge = pid, number, mapping, merge

    async def at_rest(self) -> None:
        def work() -> None:
            with held(self._pid) as caller:
                move(caller, self._mapping, self._number, merge=self._merge)

        await _done(work, ptrace=True)


class _Changes(Way):
    why = "its memory is frozen, and what it changed since is saved"

    def __init__(self, pid: int, source: int, side: int, mapping: Mapping) -> None:
        super().__init__(source)
        self.changes = self._side = side
        self._pid, self._mapping = pid, mapping

    async def at_rest(self) -> None:
        def work() -> None:
            changes.save(self._side, self._pid, self._mapping, changed(self._pid, self._mapping))

        await _done(work)


class _Renewed(Way):
    why = "its memory is frozen, and what it changed since is written over a copy of that"

    def __init__(
        self, pid: int, source: int, target: int, numbers: tuple[list[int], int], mapping: Mapping, *, merge: bool
    ) -> None:
        super().__init__(target)
        self._source, self._pid = source, pid
        self._numbers, self._mapping, self._merge = numbers, mapping, merge

    async def ahead(self) -> None:
        await _done(lambda: ram.copy_all(self._source, self.memory))

    async def at_rest(self) -> None:
        def work() -> None:
            old, new = self._numbers
            runs = changed(self._pid, self._mapping)
            with ram.mapped(self.memory, self._mapping.size, mmap.PROT_READ | mmap.PROT_WRITE) as address:
                read_into(self._pid, self._mapping, runs, [address + begin for begin, _ in runs])
            with held(self._pid) as caller:
                move(caller, self._mapping, new, merge=self._merge)
                _replace(caller, old, new)

        await _done(work, ptrace=True)
