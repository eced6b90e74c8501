"""Making an image of a description: in a throw-away machine, step by step, from the last layer that is here already."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from pathlib import Path

from tinamou.errors import GuestError, ImageError
from tinamou.facts.image import ImageFacts
from tinamou.guest import copy
from tinamou.images import layers
from tinamou.images.chain import read_chain
from tinamou.images.offline import made
from tinamou.images.progress import Progress, silent
from tinamou.images.recipe import ImageSpec, Step, read_recipe, steps_of
from tinamou.images.resolve import resolve
from tinamou.late import dataclass
from tinamou.machine.disks import opened
from tinamou.machine.facade import AsyncMachine
from tinamou.machine.gather import native_arch
from tinamou.machine.snapshots import take
from tinamou.snapshots.layers import read_forest
from tinamou.system.lock import exclusive
from tinamou.system.loop_thread import in_thread

__all__ = ["Built", "build", "build_file"]

_DISK = "disk0"
_QUIESCE_SECONDS = 30.0


@dataclass(frozen=True)
class Built:
    """An image, and how many of its layers were ``made`` now and ``found`` here."""

    image: ImageFacts
    made: int
    found: int


async def build_file(file: Path, *, arch: str = "", refresh: bool = False, progress: Progress = silent) -> Built:
    """Make the image that a TOML file describes; as `build`. Raises SpecError for the file, too."""
    return await build(await in_thread(read_recipe, file), arch=arch, refresh=refresh, progress=progress)


async def build(spec: ImageSpec, *, arch: str = "", refresh: bool = False, progress: Progress = silent) -> Built:
    """Make an image, from its last layer that is here; every layer is kept for the next time.

    ``refresh`` makes every layer anew, of a base that is asked for anew. Raises ImageError for what the base cannot be, and
    for a step that fails, which is named; the layers before it stay, the image is what it was.
    """
    arch = spec.arch or arch or native_arch()
    base = await in_thread(resolve, spec.base, arch, progress=progress, refresh=refresh)
    _refuse(spec, base)
    first, steps = await in_thread(steps_of, spec, base)
    folder = layers.folder_of(spec.name, arch)
    folder.mkdir(parents=True, exist_ok=True)
    with exclusive(folder / ".lock", lambda: progress(f"another process builds {spec.name}: waiting for it", None)):
        below = layers.add_base(spec.name, first, base)
        keys = [first, *(step.key for step in steps)]
        found = 0 if refresh else _found(spec.name, arch, keys)
        if found < len(steps):
            below = layers.layer(spec.name, arch, keys[found]) or below
            await _carry_out(spec, keys[found], below, steps[found:], progress)
        return Built(layers.point(spec.name, arch, keys[-1]), len(steps) - found, found)


def _refuse(spec: ImageSpec, base: ImageFacts) -> None:
    if not base.disk or base.format == "iso":
        why = "its guest lives in memory" if not base.disk else "it is an optical disc"
        raise ImageError(f"no image can be made of {spec.base}", why=why, fix="name an image with a disk: debian")
    if base.format != "qcow2":
        fix = f"tinamou image import {spec.base} NAME, and name that"
        raise ImageError(f"no layer can rest on {spec.base}", why=f"it is {base.format}, not qcow2", fix=fix)
    if not base.agent and not base.resident:
        why = "nothing is known of its guest that commands could be given to"
        raise ImageError(f"no image can be made of {spec.base}", why=why, fix="tinamou image import FILE NAME --like debian")


def _found(name: str, arch: str, keys: Sequence[str]) -> int:
    """How many steps need not be done: up to the last one whose layer is here with all below it."""
    here = [layers.layer(name, arch, key) is not None for key in keys[1:]]
    return next((place for place, there in enumerate(here) if not there), len(here))


async def _carry_out(spec: ImageSpec, key: str, below: ImageFacts, steps: Sequence[Step], progress: Progress) -> None:
    machine = AsyncMachine(
        image=f"{spec.name}@{key}",
        name=f"build-{spec.name.replace('.', '-').replace('_', '-')[:40]}-{secrets.token_hex(3)}",
        arch=below.arch,
        memory=spec.memory,
        cpus=spec.cpus,
        net=[{"type": "user"}] if spec.network else [],
        progress=progress,
    )
    progress(f"starting a machine of {spec.base}", None)
    async with machine:
        for number, step in enumerate(steps, 1):
            progress(f"step {number} of {len(steps)}: {step.kind} {step.text}"[:100], None)
            await _step(machine, spec, step)
            with layers.filed(spec.name, step.key, below) as target:
                await _store(machine, below, target, progress)
            below = layers.layer(spec.name, below.arch, step.key) or below


async def _step(machine: AsyncMachine, spec: ImageSpec, step: Step) -> None:
    try:
        for here, there in step.copies:
            inside = f"{here}/." if Path(here).is_dir() else here  # noqa: ASYNC240
            agent = await machine.connected.settled_agent()
            await copy.into_guest(agent, inside, there, directory=machine.record.directory)
        if step.script:
            await machine.run(step.script, timeout=spec.timeout)
    except GuestError as error:
        what = f"{spec.name} is not built: the step {step.kind} {step.text!r} failed"
        said = "\n".join(error.evidence.get("it said", "").strip().splitlines()[-20:])
        evidence = {"it said": said} if said else {}
        raise ImageError(what, why=f"{error.what}{f': {error.why}' if error.why else ''}", evidence=evidence) from error


async def _store(machine: AsyncMachine, below: ImageFacts, target: Path, progress: Progress) -> None:
    """What the guest has written since the layer below, as a file over that.

    The snapshot stays: so the next one holds what came after it alone, and all of them end with the machine.
    """
    record = machine.record
    taken = await take(record, quiesce=_QUIESCE_SECONDS if record.agent else 0.0, depth=0)
    async with opened(record, "image build") as (disks, history):
        file = taken.snapshot.files[_DISK]
        forest = read_forest(disks, history, _DISK)
        layer = forest.layers[file]
        reads = [*forest.files(file), *(one.path for one in await in_thread(read_chain, below.disk))]
        over = ["-B", below.disk, "-F", "qcow2"]
        argv = [disks.qemu_img, "convert", "-p", "-U", "-f", layer.format, "-O", "qcow2", *over, layer.path, str(target)]
        await made(argv, "storing the layer", reads, target, progress=progress)
