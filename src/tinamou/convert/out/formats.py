"""Which formats a machine can be written in."""

from __future__ import annotations

from tinamou.convert.out.asked import Asked, Place
from tinamou.convert.result import RANKS, Note
from tinamou.errors import SpecError
from tinamou.late import dataclass
from tinamou.spec import MachineSpec

__all__ = ["FORMATS", "Written", "write"]

FORMATS = {
    "libvirt": "a libvirt domain, for virsh define",
    "qemu": "a QEMU command line",
    "script": "a shell script with a QEMU command line",
}
"""Format → what it is."""


@dataclass(frozen=True)
class Written:
    """The text for the other tool, and what it has otherwise, the dearest first."""

    text: str
    notes: list[Note]


def write(spec: MachineSpec, place: Place, to: str) -> Written:
    """The machine for a tool, with what its system needs and it leaves open. Raises SpecError for a format that is none."""
    import shlex

    from tinamou.convert.out import libvirt, qemu
    from tinamou.parts.windows import settled

    if to not in FORMATS:
        raise SpecError(f"{to} is no format a machine is written in", fix=f"choose among {', '.join(FORMATS)}")
    asked = Asked(settled(spec), to)
    if to == "libvirt":
        text = libvirt.write(asked, place)
    else:
        text = qemu.script(asked, place) if to == "script" else shlex.join(qemu.line(asked, place)) + "\n"
    notes = sorted(dict.fromkeys(asked.done()), key=lambda note: RANKS.index(note.rank))
    return Written(text, notes)
