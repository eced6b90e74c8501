"""Memory that the guest and a viewer on this host share, for pictures of a graphics card of the guest's own (Looking Glass).

Source: https://looking-glass.io/docs/B7/ivshmem_shm (how large it must be), QEMU docs/specs/ivshmem-spec.rst.
"""

from __future__ import annotations

import re

from tinamou.blueprint import Contribution, Element, HandOver, MakeSharedFile, Note, Value, Why
from tinamou.errors import Problem
from tinamou.parts.protocol import Need, Part, PciSlot, Resolved
from tinamou.units import Size

__all__ = ["PART", "size_of"]

_DEVICE, _SEAT, _MEMORY = "ivshmem-plain", "frames0", "frames"
_FOLDER = "/dev/shm"  # noqa: S108 the machine's file is its maker's, and known by its inode
_PIXEL, _BUFFERS, _BESIDE = 4, 2, Size(10 << 20)
"""Bytes of a pixel, pictures that are there at once, and what the program keeps beside them."""


def size_of(asked: str) -> Size:
    """The power of two in which pictures of that resolution fit, or the size that is asked for itself."""
    if match := re.fullmatch(r"(\d+)x(\d+)", asked):
        wanted = int(match[1]) * int(match[2]) * _PIXEL * _BUFFERS + _BESIDE
        return Size(1 << (wanted - 1).bit_length())
    return Size.parse(asked)


def needs(resolved: Resolved) -> tuple[Need, ...]:
    """A slot for the device by which the guest reaches it."""
    return (PciSlot(_SEAT),) if resolved.spec.display.looking_glass else ()


def check(resolved: Resolved) -> list[Problem]:
    """What such a machine cannot be, and who cannot be let to its pictures."""
    display, facts = resolved.spec.display, resolved.facts
    if not display.looking_glass:
        return []
    found = []
    if not facts.qemu.has(f"type:{_DEVICE}"):
        reason = f"{facts.qemu.binary} has no {_DEVICE}"
        found.append(Problem("display.looking_glass", display.looking_glass, reason, "use another QEMU, or leave it out"))
    if resolved.spec.memory.forkable:
        reason = "a fork would draw into the same memory"
        found.append(Problem("display.looking_glass", display.looking_glass, reason, "leave it or memory.forkable out"))
    if resolved.encryption is not None:
        reason = "who looks reads the guest's pictures in memory that is not encrypted"
        found.append(Problem("display.looking_glass", display.looking_glass, reason, "leave it or confidential out"))
    if display.looking_glass_user and not facts.host.is_root:
        reason = "only root can let another user open it"
        found.append(Problem("display.looking_glass_user", display.looking_glass_user, reason, "leave it out: it is yours"))
    return found


def contribute(resolved: Resolved) -> Contribution:
    """A file in memory of the right size, which QEMU is handed open, and the device that shows it to the guest."""
    display = resolved.spec.display
    if not display.looking_glass:
        return Contribution()
    path, size = f"{_FOLDER}/looking-glass-{resolved.facts.place.name}", size_of(display.looking_glass)
    for_what = f" of {display.looking_glass}" if "x" in display.looking_glass else ""
    why = Why("spec display.looking_glass", f"{size} for pictures{for_what}: looking-glass-client -f {path}")
    backend: dict[str, Value] = {
        "qom-type": "memory-backend-file",
        "id": _MEMORY,
        "size": int(size),
        "mem-path": path,
        "share": True,
    }
    device: dict[str, Value] = {"driver": _DEVICE, "id": _SEAT, **resolved.slot(_SEAT), "memdev": _MEMORY}
    viewer = display.looking_glass_user
    told = f"{viewer} can write to {path}, as viewers do, and so also shorten it, which ends QEMU"
    return Contribution(
        (Element("object", backend, why), Element("device", device, why)),
        steps=(
            MakeSharedFile(path, int(size), viewer, why, resolved.owner),
            HandOver(path, "write", Why("confinement", "QEMU is handed the open memory")),
        ),
        notes=(Note("note", told, Why("spec display.looking_glass_user", "who may write may shorten")),) if viewer else (),
    )


PART = Part(contribute, needs, check)
