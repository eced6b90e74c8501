"""A machine of a name or a file as another tool must know it: its description, where its image lies, whether KVM runs."""

from __future__ import annotations

import asyncio
import contextlib
import tarfile
import tempfile
import tomllib
from collections.abc import Sequence
from pathlib import Path

from tinamou.arch import ARCHES
from tinamou.convert.out import formats, ovf, vagrant
from tinamou.convert.out.asked import Place
from tinamou.convert.out.formats import Written
from tinamou.digest import file_digest
from tinamou.errors import ImageError, SpecError
from tinamou.facts import ImageFacts
from tinamou.images.importing import convert
from tinamou.images.inspect import inspect_image
from tinamou.images.progress import Progress, silent
from tinamou.late import replace
from tinamou.machine.gather import native_arch, resolve_image
from tinamou.parts.windows import driven
from tinamou.probe.accel import probe_accel
from tinamou.probe.qemu import find_binary, probe_qemu
from tinamou.snapshots import history
from tinamou.spec import MachineSpec, load_spec
from tinamou.state import machines
from tinamou.state.folder import image_of

__all__ = ["of_name", "write_box", "write_ova"]


def of_name(source: Path) -> tuple[MachineSpec, Place]:
    """A machine of that name, or of a machine file, and where its image lies. Raises SpecError, StateError, ImageError."""
    kvm = _runs_kvm()
    if source.suffix == ".toml":
        spec = load_spec(tomllib.loads(source.read_text()), source=str(source))
        image = resolve_image(spec, build=True)
        return driven(spec, image.drivers), _sized(spec, _place(image, kvm))
    record = machines.find_usable(str(source))
    spec, image = load_spec(record.spec), image_of(record)
    return driven(spec, image.drivers), _sized(spec, _own(_place(image, kvm), Path(record.directory)))


def _sized(spec: MachineSpec, place: Place) -> Place:
    """With the virtual size of each disk that is here and can be looked at."""
    sizes: dict[str, int] = {}
    for path in (place.image, *(disk.path for disk in spec.disk)):
        if path and Path(path).exists():
            with contextlib.suppress(ImageError):
                sizes[path] = int(inspect_image(path).size)
    return replace(place, sizes=sizes)


async def write_ova(spec: MachineSpec, place: Place, target: Path, progress: Progress = silent) -> Written:
    """An archive with the machine's description and its disks, each compared with its source, and their checksums.

    Raises SpecError for a target that is there; ImageError for a disk that is missing or in use; nothing is left then.
    """
    if target.exists():  # noqa: ASYNC240
        raise SpecError(f"{target} exists already", fix="remove it, or name another file")
    name = spec.name or "machine"
    written = formats.write(spec, place, "ovf")
    disks = ovf.copies(name, place, list(spec.disk))
    made = [file for _, _, file in disks]
    notes = [note for note in written.notes if note.value not in made]
    with tempfile.TemporaryDirectory(prefix=".ova-", dir=target.absolute().parent) as folder:  # noqa: ASYNC240
        for source, _, file in disks:
            words = ["-o", "subformat=streamOptimized"]
            await convert(Path(source), Path(folder, file), "vmdk", more=words, progress=progress)
        Path(folder, f"{name}.ovf").write_text(written.text)  # noqa: ASYNC240
        await asyncio.to_thread(_pack, Path(folder), [f"{name}.ovf", *made], name, target)
    return Written(written.text, notes)


async def write_box(spec: MachineSpec, place: Place, target: Path, progress: Progress = silent) -> Written:
    """A box of Vagrant's, packed by gzip: description, Vagrantfile, and each disk as qcow2, compared with its source.

    Raises SpecError for a target that is there, and for a machine without a disk; ImageError for a disk in use.
    """
    disks = vagrant.copies(place, spec.disk)
    if target.exists() or not disks:  # noqa: ASYNC240
        what = f"{target} exists already" if disks else "a box is a disk, and the machine has none"
        raise SpecError(what, fix="remove it, or name another file" if disks else "name an image that has one")
    written = formats.write(spec, place, "vagrant")
    notes = [note for note in written.notes if "-O qcow2" not in note.fix]
    with tempfile.TemporaryDirectory(prefix=".box-", dir=target.absolute().parent) as name:  # noqa: ASYNC240
        folder = Path(name)
        for source, file in disks:
            await convert(Path(source), folder / file, "qcow2", progress=progress)
        (folder / "metadata.json").write_text(vagrant.metadata(place, spec.disk))
        (folder / "Vagrantfile").write_text(written.text)
        members = ["metadata.json", "Vagrantfile", *(file for _, file in disks)]
        await asyncio.to_thread(_pack_box, folder, members, target)
    return Written(written.text, notes)


def _pack_box(folder: Path, members: Sequence[str], target: Path) -> None:
    with tarfile.open(folder / "packed", "x:gz", compresslevel=1) as archive:
        for member in members:
            archive.add(folder / member, member, filter=_anonymous)
    (folder / "packed").rename(target)


def _pack(folder: Path, members: Sequence[str], name: str, target: Path) -> None:
    """The description first, then the checksums, then the disks. Source: DSP0243, *Distribution as a single file*."""
    sums = [f"SHA256({member})= {file_digest(folder / member)}\n" for member in members]
    (folder / f"{name}.mf").write_text("".join(sums))
    packed = folder / "packed"
    with tarfile.open(packed, "x", format=tarfile.USTAR_FORMAT if _small(folder) else tarfile.GNU_FORMAT) as archive:
        for member in (members[0], f"{name}.mf", *members[1:]):
            archive.add(folder / member, member, filter=_anonymous)
    packed.rename(target)


def _small(folder: Path) -> bool:
    """Whether the plain form of tar can hold all: 8 GiB a file."""
    return all(one.stat().st_size < 8 << 30 for one in folder.iterdir())


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mode = 0o644
    return member


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
