"""What exists on this host, as a program gets hold of it by name: machines, checkpoints, forks of those."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import overload

from tinamou.images.progress import Progress, silent
from tinamou.machine.blocking import Forks, Machine
from tinamou.machine.connected import READY_SECONDS, Connected
from tinamou.machine.facade import AsyncMachine
from tinamou.snapshots.checkpoint import Checkpoint
from tinamou.state.machines import machines as records
from tinamou.system.loop_thread import wait_for

__all__ = [
    "async_fork",
    "async_inject_drivers",
    "async_machines",
    "async_open",
    "build_image",
    "checkpoints",
    "fork",
    "import_machine",
    "inject_drivers",
    "machines",
    "open",
]


def open(name: str, *, timeout: float = READY_SECONDS, progress: Progress = silent) -> Machine:
    """A machine that exists, running or not, by its name; leaving the block leaves it as it is. Raises StateError.

    ``timeout`` is how long its guest may take to answer when it is started, in seconds.
    """
    return Machine.open(name, timeout=timeout, progress=progress)


def async_open(name: str, *, timeout: float = READY_SECONDS, progress: Progress = silent) -> AsyncMachine:
    """As `open`, for programs with asyncio."""
    return AsyncMachine.open(name, timeout=timeout, progress=progress)


def import_machine(source: Path, name: str = "", *, trust: bool = False, progress: Progress = silent) -> Machine:
    """A machine, off and kept, from a file that `Machine.export` wrote, under its own name or another.

    What its description says of the host it was on is left out, and told by ``progress``, unless ``trust``: anybody may have
    made the file. Raises StateError, ImageError, SpecError, PrepareError; there is no machine then.
    """
    from tinamou.machine.importing import take_in

    made = wait_for(take_in(source, name, trust=trust, progress=progress))
    for note in made.notes:
        progress(note, None)
    return Machine.open(made.record.name)


def build_image(file: Path | str, *, arch: str = "", refresh: bool = False, progress: Progress = silent) -> str:
    """Make the image that a TOML file describes (docs/guides/images.md), layer by layer; its name, for `Machine`.

    Layers that are here already are not made again, unless ``refresh``. Raises SpecError for the file; ImageError for a base
    that cannot be one and for a step that fails: the image is what it was then.
    """
    from tinamou.machine.image_building import build_file

    return wait_for(build_file(Path(file), arch=arch, refresh=refresh, progress=progress)).image.name


def inject_drivers(source: Path | str, name: str, drivers: Path | str, *, progress: Progress = silent) -> str:
    """Make an image of an installed Windows (x86_64) that starts from virtio; its name: ``Machine(name, os="windows-11")``.

    ``source`` is an image by its name, or the file of a disk of any format, with a slash in it or an ending such as
    ``.vhdx``; it stays as it is. ``drivers`` is the disc virtio-win.iso. Drivers and registry are written into a layer over
    the disk by a throw-away machine without a network, in some minutes (900 s at most for each of its steps); where an image
    of that name was made of the same disk and disc before, it is found again. ``progress`` is told what goes on, with None
    for the fraction done, and at the end what must be said of it.

    Raises ImageError for a source without a Windows, one that may not be changed now (hibernated, encrypted), and a disc
    without its drivers, and a name that is none. The name stands for what it stood for before then.
    """
    return wait_for(async_inject_drivers(source, name, drivers, progress=progress))


async def async_inject_drivers(source: Path | str, name: str, drivers: Path | str, *, progress: Progress = silent) -> str:
    """As `inject_drivers`, for programs with asyncio."""
    from tinamou.machine.injecting import inject

    made = await inject(str(source), name, Path(drivers), progress=progress)
    for note in made.done.notes if made.done else ():
        progress(note, None)
    return made.image.name


def machines() -> list[Machine]:
    """Every machine there is, running or not, by name, as `Machine.open` gives it."""
    return [Machine.around(one) for one in async_machines()]


def async_machines() -> list[AsyncMachine]:
    """As `machines`, for programs with asyncio."""
    return [AsyncMachine.open(record.name) for record in records()]


def checkpoints() -> list[Checkpoint]:
    """Every checkpoint there is, oldest first."""
    from tinamou.machine.checkpoints import every

    return every()


@overload
def fork(of: Checkpoint | str, *, progress: Progress = silent) -> Machine: ...
@overload
def fork(of: Checkpoint | str, count: int, *, progress: Progress = silent) -> Forks: ...
def fork(of: Checkpoint | str, count: int | None = None, *, progress: Progress = silent) -> Machine | Forks:
    """A machine from a checkpoint, or from the one of that name, or ``count`` of them; gone when the block ends.

    Each has an identity of its own; ``progress`` is told of clocks and addresses that could not be set. Raises StateError
    for a checkpoint that cannot be loaded here, and for addresses or ports two would have, GuestError, LaunchError.
    """
    made = wait_for(async_fork(of, 1 if count is None else count, progress=progress))
    forks = Forks(Machine.around(one) for one in made)
    return forks[0] if count is None else forks


async def async_fork(
    of: Checkpoint | str, count: int = 1, *, names: Sequence[str] = (), progress: Progress = silent
) -> list[AsyncMachine]:
    """As `fork`, for programs with asyncio: always a list; ``names`` are those of the first ones."""
    from tinamou.machine.checkpoints import find
    from tinamou.machine.forking import fork_many, notes_of

    checkpoint = find(of) if isinstance(of, str) else of
    forks = await fork_many(checkpoint, count, names=names)
    for note in notes_of(forks):
        progress(note, None)
    return [AsyncMachine.around(Connected.of_fork(one)) for one in forks]
