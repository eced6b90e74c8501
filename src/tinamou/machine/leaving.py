"""A machine that is to leave for another host while it runs: what keeps it here, its disks, and all of it that is small."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from tinamou import late
from tinamou.blueprint import Plan
from tinamou.errors import Problem, StateError
from tinamou.images.chain import read_layer
from tinamou.machine.disks import opened
from tinamou.machine.exporting import BOOTS, small
from tinamou.machine.portable import said_outright
from tinamou.machine.stand_in import reason_against
from tinamou.snapshots.graph import attached
from tinamou.snapshots.outgoing import Volume
from tinamou.spec import load_spec
from tinamou.state import moves
from tinamou.state.folder import image_of
from tinamou.state.record import Record

__all__ = ["boots", "described", "marked", "refuse_unmovable", "volumes"]

_CONNECTED = ("user", "tap", "hubport")


def refuse_unmovable(machine: Record, plan: Plan, *, cut: bool) -> None:
    """Raises StateError with everything that keeps a running machine from being moved, before anything is done.

    With ``cut`` connections that another process of this host holds for it are no reason: they end.
    """
    found = [*_of_its_record(machine), *_of_its_plan(plan), *([] if cut else _of_its_networks(plan))]
    if found:
        raise StateError(f"{machine.name} cannot be moved while it runs", problems=found)


def _of_its_record(machine: Record) -> Iterable[Problem]:
    if machine.ephemeral:
        yield Problem("ephemeral", None, "it is thrown away when it ends", "tinamou run -d makes one that stays")
    if machine.owned:
        yield Problem("owner", machine.owner_pid, "a process owns it", "let it be released first")
    if machine.encrypted:
        yield Problem("memory.encrypt", machine.encrypted, "no host can read its memory")
    if machine.later:
        yield Problem("later", None, "changes of it wait for its next start", f"tinamou restart {machine.name} first")
    if load_spec(machine.spec).display.listen:
        yield Problem(
            "display.listen", None, "its screen is served on this host's address", "set it to nothing, and restart"
        )
    if machine.has("share"):
        yield Problem("share", None, "its guest has folders of this host open", "take them out: tinamou set")
    for number, part in enumerate(load_spec(machine.spec).pmem):
        yield Problem(
            f"pmem[{number}]", part.path, "a file of this host is its guest's memory, and QEMU saves no state of it"
        )
    for one in load_spec(machine.spec).disk:
        if one.key:
            yield Problem("disk.key", one.key, "an encrypted disk would be written there in the clear")


def _of_its_plan(plan: Plan) -> Iterable[Problem]:
    if why := reason_against(plan):
        yield Problem("devices", None, why)


def _of_its_networks(plan: Plan) -> Iterable[Problem]:
    for element in plan.elements:
        if element.kind == "netdev" and (kind := str(element.props.get("type"))) not in _CONNECTED:
            reason = f"its connections are in another process ({kind}), and would be lost"
            yield Problem(f"net {element.id}", None, reason, "--cut moves it without them")


async def volumes(machine: Record) -> tuple[Volume, ...]:
    """Its disks. Raises StateError for one with snapshots, whose files would be lost; ControlError."""
    async with opened(machine, "move") as (disks, history):
        if history.snapshots:
            names = ", ".join(one.name or str(one.number) for one in history.snapshots)
            fix = f"tinamou snapshot rm {machine.name} … first, or keep them in a backup"
            raise StateError(f"{machine.name} has snapshots ({names}), which cannot be moved yet", fix=fix)
        assert disks.session is not None
        nodes = await attached(disks.session)
        found = []
        for name, entry in sorted(history.present.items()):
            layer = read_layer(disks.path(entry.top), entry.format)
            size = int(layer.header.size) if layer.header else layer.length
            used = sum(disks.path(file).stat().st_blocks * 512 for file in nodes[entry.device].files)
            kind = "raw" if entry.format == "raw" and not layer.header else "qcow2"
            path = disks.path(entry.top)
            outside = "" if path.is_relative_to(machine.path) else str(path)
            found.append(Volume(name, nodes[entry.device].top, kind, size, used, outside))
        return tuple(found)


@contextlib.contextmanager
def marked(disks: Sequence[Volume], token: str) -> Iterator[dict[str, str]]:
    """The files outside the machine, by disk, with a mark beside each while the block lasts.

    A host that sees the mark sees the same folder, so the same file. Where none can be made the disk is not shared.
    """
    marks, found = set(), {}
    try:
        for disk in disks:
            if disk.outside:
                mark = moves.mark(disk.outside, token)
                with contextlib.suppress(OSError):
                    mark.touch(mode=0o600)
                    marks.add(mark)
                    found[disk.name] = disk.outside
        yield found
    finally:
        for mark in marks:
            mark.unlink(missing_ok=True)


def boots(machine: Record) -> dict[str, Path]:
    """The files it boots from without a boot loader, by the field of `ImageFacts` that names each."""
    image = image_of(machine)
    return {field: Path(path) for field in BOOTS if (path := getattr(image, field))}


def described(machine: Record, plan: Plan, disks: Sequence[Volume], without: Collection[str]) -> bytes:
    """All of the machine that is small: its description, what it boots from, its keys, UEFI variables and TPM, as `packed`.

    What tinamou chose for it, so its addresses, is said outright. Of what it boots from, ``without`` is left out.
    """
    spec = said_outright(late.asdict(machine), plan, machine.name, same=True)
    return small(late.replace(machine, spec=spec, later={}), {one.name: one.size for one in disks}, without)
