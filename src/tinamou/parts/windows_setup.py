"""The discs of Windows' setup: answers, and the drivers that virtio-win.iso has."""

from __future__ import annotations

from collections.abc import Iterator

from tinamou.blueprint import BuildIso, Contribution, Element, HandOver, MakeSshKey, Value, Why
from tinamou.errors import Problem
from tinamou.parts import windows
from tinamou.parts.disk.contribute import on_sata
from tinamou.parts.protocol import Part, Resolved

__all__ = ["PART"]


def _discs(resolved: Resolved) -> Iterator[tuple[str, str, Why]]:
    """Name, file, and reason of each disc."""
    spec = resolved.spec.windows
    if spec.user:
        yield "answers", resolved.file("answers.iso"), Why("spec windows.user", "the setup finds its answers on this disc")
    if spec.drivers:
        yield "drivers", spec.drivers, Why("spec windows.drivers", "drivers for virtio, and the guest agent")


def check(resolved: Resolved) -> list[Problem]:
    """Settings of a Windows that is none; more discs than ports."""
    spec, discs = resolved.spec.windows, list(_discs(resolved))
    if windows.release(resolved.spec) is None:
        asked = [name for name, given in (("user", spec.user), ("drivers", spec.drivers), ("virtio", spec.virtio)) if given]
        reason = "no os is named that this is for"
        return [Problem(f"windows.{name}", getattr(spec, name), reason, 'add os = "windows-11"') for name in asked]
    count, ports = len(on_sata(resolved)) + len(discs), resolved.arch.sata_ports
    if not discs or count <= ports:
        return []
    reason = f"the board has {ports} SATA ports, and {count} disks and discs are on them"
    return [Problem("windows.drivers", spec.drivers, reason, "leave disks out, or put them on virtio or nvme")]


def contribute(resolved: Resolved) -> Contribution:
    """A drive for each disc, on the ports behind the disks'."""
    first = len(on_sata(resolved))
    parts = [_drive(name, path, first + n, why) for n, (name, path, why) in enumerate(_discs(resolved))]
    if resolved.spec.windows.user:
        parts.insert(0, _answers(resolved))
    return Contribution.merge(parts)


def _drive(name: str, path: str, port: int, why: Why) -> Contribution:
    file: dict[str, Value] = {"driver": "file", "filename": path, "read-only": True}
    node: dict[str, Value] = {"driver": "raw", "node-name": name, "read-only": True, "file": file}
    device: dict[str, Value] = {"driver": "ide-cd", "id": f"{name}-dev", "drive": name, "bus": f"ide.{port}"}
    hand = HandOver(path, "read", Why("confinement", "QEMU is handed the open disc"))
    return Contribution((Element("blockdev", node, why), Element("device", device, why)), steps=(hand,))


def _answers(resolved: Resolved) -> Contribution:
    """The disc is written when the machine is prepared: the password is never in the plan."""
    from tinamou.parts.answers import Target, documents

    spec = resolved.spec.windows
    target = Target(resolved.spec.os, resolved.facts.place.name, resolved.boot == "uefi", bool(spec.drivers))
    why = Why("spec windows.user", "the setup of Windows asks nothing: it is answered by this disc")
    key = MakeSshKey(resolved.file("id_ed25519"), Why("spec windows.ssh", "ssh works with a key of the machine's own"))
    disc = BuildIso(
        resolved.file("answers.iso"), "ANSWERS", documents(spec, target), why, resolved.owner, spec.password_file
    )
    return Contribution(steps=(*((key,) if spec.ssh else ()), disc))


PART = Part(contribute, check=check)
"""A disc in a drive that the setup knows."""
