"""Persistent memory: files of the host that the guest has in its address space (virtio-pmem), as /dev/pmem0 and so on.

What the guest writes is in the page cache of the host's kernel at once, and so in the file.
Source: QEMU docs/system/devices/virtio-pmem.rst.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import ClassVar

from tinamou.blueprint import Contribution, Element, HandOver, LendFile, Note, Step, Value, Why
from tinamou.errors import Problem
from tinamou.fields import option
from tinamou.late import dataclass
from tinamou.parts import windows
from tinamou.parts.protocol import Need, Part, PciSlot, Resolved
from tinamou.parts.security import has_labels
from tinamou.units import Size

__all__ = ["DEVICE", "PART", "PmemSpec", "files", "room"]

DEVICE = "virtio-pmem-pci"
_PIECE = Size(2 << 20)
"""Linux maps persistent memory in pieces of that size, and leaves out one that does not begin and end with such
(source: Linux include/linux/mmzone.h, SUBSECTION_SHIFT)."""
_HAND = Why("confinement", "QEMU is handed the open file, which it opens anew by its descriptor")


@dataclass(frozen=True)
class PmemSpec:
    """One file."""

    shorthand: ClassVar[str] = "path"

    path: str = option("", "a raw file of this host, whose length is a multiple of 2 MiB; what the guest writes is in it")
    readonly: bool = option(
        False,
        "what the guest writes is dropped, and it is not told; several machines share the file, and one copy in memory",
    )

    def problems(self) -> list[Problem]:
        """One without a file."""
        return (
            [] if self.path else [Problem("path", None, "no file is named", "add path = …; fallocate -l 1G FILE makes one")]
        )


def files(resolved: Resolved) -> dict[str, tuple[PmemSpec, Size]]:
    """What is asked for, and how long its file is, by the name of the memory: ``pmem0``. 0 where nobody has looked."""
    chains = resolved.facts.chains
    named = {f"pmem{number}": one for number, one in enumerate(resolved.spec.pmem)}
    return {name: (one, Size(chains[name][0].size if name in chains else 0)) for name, one in named.items()}


def room(resolved: Resolved) -> Size:
    """Bytes of the guest's address space beside its memory."""
    return Size(sum(size for _, size in files(resolved).values()))


def needs(resolved: Resolved) -> tuple[Need, ...]:
    """A slot for each device by which the guest finds one."""
    return tuple(PciSlot(f"{name}-dev") for name in files(resolved))


def check(resolved: Resolved) -> list[Problem]:
    """What such a machine cannot be, and files that cannot be mapped."""
    if not resolved.spec.pmem:
        return []
    found = [Problem("pmem", None, reason, fix) for reason, fix in _against(resolved)]
    paths = [one.path for one in resolved.spec.pmem]
    doubled = sorted({one for one in paths if paths.count(one) > 1})
    found += [Problem("pmem", path, "it is named twice", "leave one out") for path in doubled]
    for number, (one, size) in enumerate(files(resolved).values()):
        if not size or size % _PIECE:
            whole = Size(max(-(-size // _PIECE), 1) * _PIECE)
            reason = f"it has {size:d} bytes, and Linux has no use for what is no multiple of 2 MiB"
            found.append(Problem(f"pmem[{number}].path", one.path, reason, f"truncate -s {whole:d} {one.path}"))
    return found


def _against(resolved: Resolved) -> Iterator[tuple[str, str]]:
    """Why the machine cannot have any, and what to do."""
    spec, qemu = resolved.spec, resolved.facts.qemu
    if not qemu.has(f"type:{DEVICE}"):
        yield f"{qemu.binary} has no {DEVICE}: QEMU has it for x86_64 alone", "name the file as a disk: [[disk]]"
    if windows.release(spec):
        yield "Windows has no driver for it", "name the file as a disk: [[disk]]"
    if spec.memory.forkable:
        yield "QEMU saves nothing of its state, and a fork would write into the same file", "leave it or memory.forkable out"
    if resolved.encryption is not None:
        yield "it is memory that the host reads, and the guest's is encrypted", "leave it or confidential out"
    if spec.pci:
        yield (
            "a device of the host needs all memory pinned, and Linux since 6.5 pins no page of a file",
            "leave it or pci out",
        )
    if spec.replicate.to and (written := _written(resolved)):
        yield (
            f"what is written to {written} is on no disk, and would not be in the replica",
            "set readonly = true, or a disk",
        )
    if has_labels(resolved):
        fix = 'set security.selinux = "off"'
        yield "QEMU opens the file anew, and tinamou's SELinux policy lets it open none", fix


def _written(resolved: Resolved) -> str:
    return ", ".join(one.path for one in resolved.spec.pmem if not one.readonly)


def contribute(resolved: Resolved) -> Contribution:
    """Memory that is the file, the device that shows it, and the right to open the file for a QEMU that is another user."""
    return Contribution.merge([_one(resolved, name, spec, size) for name, (spec, size) in files(resolved).items()])


def _one(resolved: Resolved, name: str, spec: PmemSpec, size: Size) -> Contribution:
    asked = f"spec {name.replace('pmem', 'pmem[')}]"
    does = "is read, never written" if spec.readonly else "what the guest writes is in it"
    why = Why(asked, f"{spec.path} as memory of the guest's ({size}): {does}")
    backend: dict[str, Value] = {
        **{"qom-type": "memory-backend-file", "id": name, "size": int(size), "mem-path": spec.path},
        **{"share": True, "align": int(_PIECE), **({"readonly": True} if spec.readonly else {})},
    }
    device: dict[str, Value] = {"driver": DEVICE, "id": f"{name}-dev", **resolved.slot(f"{name}-dev"), "memdev": name}
    dropped = f"{spec.path} is not changed: what the guest writes to /dev/{name} is dropped, and it is not told"
    return Contribution(
        (Element("object", backend, why), Element("device", device, why)),
        steps=tuple(_steps(resolved, spec)),
        notes=(Note("info", dropped, Why(f"{asked}.readonly", "virtio-pmem has no word for it")),) if spec.readonly else (),
    )


def _steps(resolved: Resolved, spec: PmemSpec) -> Iterator[Step]:
    if resolved.owner is not None:
        yield LendFile(
            spec.path, not spec.readonly, Why("confinement", "QEMU opens it anew, as another user"), resolved.owner
        )
    yield HandOver(spec.path, "read" if spec.readonly else "write", _HAND, locked=True)


PART = Part(contribute, needs, check)
