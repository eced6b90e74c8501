"""A machine of a name or a file as another tool must know it: its description, where its image lies, whether KVM runs."""

from __future__ import annotations

import tomllib
from pathlib import Path

from tinamou.arch import ARCHES
from tinamou.convert.out.asked import Place
from tinamou.facts import ImageFacts
from tinamou.late import replace
from tinamou.machine.gather import native_arch, resolve_image
from tinamou.probe.accel import probe_accel
from tinamou.probe.qemu import find_binary, probe_qemu
from tinamou.snapshots import history
from tinamou.spec import MachineSpec, load_spec
from tinamou.state import machines
from tinamou.state.folder import image_of

__all__ = ["of_name"]


def of_name(source: Path) -> tuple[MachineSpec, Place]:
    """A machine of that name, or of a machine file, and where its image lies. Raises SpecError, StateError, ImageError."""
    kvm = _runs_kvm()
    if source.suffix == ".toml":
        spec = load_spec(tomllib.loads(source.read_text()), source=str(source))
        return spec, _place(resolve_image(spec, build=True), kvm)
    record = machines.find_usable(str(source))
    return load_spec(record.spec), _own(_place(image_of(record), kvm), Path(record.directory))


def _own(place: Place, folder: Path) -> Place:
    """The machine's own disk over the image, where it has one: the file that is written after all its snapshots."""
    entry = history.load(folder).present.get("disk0")
    file = folder / (entry.top if entry else "disk0.qcow2")
    return replace(place, image=str(file), format="qcow2", own=True) if file.exists() else place


def _place(image: ImageFacts, kvm: bool) -> Place:
    where = Place(image.disk and str(Path(image.disk).absolute()), image.format or "raw", image.arch, kvm)
    if image.disk:
        return where
    cmdline = f"console={ARCHES[image.arch].console} {image.cmdline}".strip()
    return replace(where, kernel=image.kernel, initrd=image.initrd, cmdline=cmdline)


def _runs_kvm() -> bool:
    """Whether KVM runs guests here, as it was tried."""
    arch = native_arch()
    best = probe_accel(probe_qemu(find_binary(arch), arch)).best()
    return best is not None and best.accel == "kvm"
