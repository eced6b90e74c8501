"""Which formats a machine can be written in, and the machine of a name or a file with the place of its image."""

from __future__ import annotations

from pathlib import Path

from tinamou.arch import ARCHES
from tinamou.convert.out.asked import Asked, Place
from tinamou.convert.result import RANKS, Note
from tinamou.errors import SpecError
from tinamou.facts import ImageFacts
from tinamou.late import dataclass, replace
from tinamou.spec import MachineSpec, load_spec

__all__ = ["FORMATS", "Written", "of_name", "write"]

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
    """The machine for a tool. Raises SpecError for a format that is none."""
    import shlex

    from tinamou.convert.out import libvirt, qemu

    if to not in FORMATS:
        raise SpecError(f"{to} is no format a machine is written in", fix=f"choose among {', '.join(FORMATS)}")
    asked = Asked(spec, to)
    if to == "libvirt":
        text = libvirt.write(asked, place)
    else:
        text = qemu.script(asked, place) if to == "script" else shlex.join(qemu.line(asked, place)) + "\n"
    notes = sorted(dict.fromkeys(asked.done()), key=lambda note: RANKS.index(note.rank))
    return Written(text, notes)


def of_name(source: Path) -> tuple[MachineSpec, Place]:
    """A machine of that name, or of a machine file, and where its image lies. Raises SpecError, StateError, ImageError."""
    import tomllib

    from tinamou.machine.gather import resolve_image
    from tinamou.state import machines
    from tinamou.state.folder import image_of

    kvm = _runs_kvm()
    if source.suffix == ".toml":
        spec = load_spec(tomllib.loads(source.read_text()), source=str(source))
        return spec, _place(resolve_image(spec, build=True), kvm)
    record = machines.find_usable(str(source))
    place, overlay = _place(image_of(record), kvm), Path(record.directory) / "disk0.qcow2"
    return load_spec(record.spec), replace(place, image=str(overlay), format="qcow2") if overlay.exists() else place


def _place(image: ImageFacts, kvm: bool) -> Place:
    where = Place(image.disk, image.format or "raw", image.arch, kvm)
    if image.disk:
        return where
    cmdline = f"console={ARCHES[image.arch].console} {image.cmdline}".strip()
    return replace(where, kernel=image.kernel, initrd=image.initrd, cmdline=cmdline)


def _runs_kvm() -> bool:
    """Whether KVM runs guests here, as it was tried."""
    from tinamou.machine.gather import native_arch
    from tinamou.probe.accel import probe_accel
    from tinamou.probe.qemu import find_binary, probe_qemu

    arch = native_arch()
    best = probe_accel(probe_qemu(find_binary(arch), arch)).best()
    return best is not None and best.accel == "kvm"
