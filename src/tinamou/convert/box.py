"""Reader of archives that hold a machine's disks: Vagrant's boxes of every provider, and images of Google's cloud.

::

    metadata.json  {"provider": "libvirt", "format": "qcow2", "virtual_size": 10}   GB, whole
    Vagrantfile    Ruby: CPUs and memory stand only there; it is read, never run
    box.img        the disk (libvirt) │ box.ovf and *.vmdk (virtualbox) │ *.vmx and *.vmdk (vmware) │ disk.raw (Google)
    NAME.pvm       the folder of a machine (parallels)

Source: Vagrant's documentation, *Box file format*; vagrant-libvirt's, *Box format*; Google's, *Manually importing disks*.
"""

from __future__ import annotations

import gzip
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath
from typing import IO

from tinamou.convert import nets, ovf, parallels, vmx
from tinamou.convert.result import Disk, Draft
from tinamou.convert.tree import Node, of_json
from tinamou.convert.values import machine_name, size, whole
from tinamou.convert.vma import Pieces
from tinamou.errors import ImageError, SpecError
from tinamou.system.codecs import CodecError, unpacked

__all__ = ["DAMAGE", "is_box", "opened", "read", "unpack"]

_DESCRIBED = (".ovf", ".vmx", f"/{parallels.DESCRIPTION}")
_TEXTS = (*_DESCRIBED, f"/{parallels.DESCRIPTOR}")
_PIECE, _BLOCK = 1 << 20, 1 << 16
_LARGEST_TEXT, _LARGEST_DISK, _MOST = 1 << 20, 1 << 44, 256
_SETTING = re.compile(r"""[\w.]*\.(memory|cpus)\s*=\s*["']?(\d+)["']?|["']--(memory|cpus)["']\s*,\s*["']?(\d+)["']?""")
_FORWARDED = re.compile(r"""\s*\w+\.vm\.network\s+["':]forwarded_port["']?\s*,(.*)""")
_OPTION = re.compile(r""":?(\w+)(?::|\s*=>)\s*["']?([^"',\s]+)["']?""")
_SAID = re.compile(r"""\s*\w+\.(?:(vm\.hostname|machine_arch)\s*=\s*["']([\w.-]+)["'])\s*""")
_FRAME = re.compile(r"\s*(#.*|end|Vagrant\.configure\(.*\) do \|\w+\||\w+\.vm\.provider .* do \|\w+(, *\w+)?\|)?\s*")
DAMAGE: tuple[type[Exception], ...] = (
    CodecError,
    RecursionError,
    tarfile.TarError,
    EOFError,
    zlib.error,
    gzip.BadGzipFile,
    ValueError,
    UnicodeError,
    OverflowError,
)
"""What an archive that is damaged raises when it is read."""


def is_box(path: Path) -> bool:
    """Whether a file is an archive, packed or not, that begins as one of these may."""
    try:
        with opened(path) as archive:
            return archive.next() is not None
    except OSError:
        return False
    except DAMAGE:
        return False


def read(path: Path) -> Draft:
    """The machine in an archive. Raises SpecError for one without any, and for one that is damaged."""
    texts, members = dict[str, str](), dict[str, int]()
    try:
        with opened(path) as archive:
            for member, name in _files(archive):
                if name in members or name in texts:
                    raise SpecError(f"{path} has the file {name} twice", fix="pack it again")
                members[name] = member.size
                if name in ("metadata.json", "Vagrantfile") or name.endswith(_TEXTS):
                    texts[name] = _text(archive, member)
    except DAMAGE as error:
        raise SpecError(f"{path} is a damaged archive", why=str(error)[:200], fix="fetch it again") from error
    draft = _described(path, texts, members)
    for disk in draft.disks:
        if disk.file and disk.file not in members:
            raise ImageError(f"{path} is incomplete", why=f"its description names {disk.file}, which is not in it")
        if disk.file:
            disk.member, disk.file, disk.part = disk.file, str(path.resolve()), (0, members[disk.file])
    return draft


def _described(path: Path, texts: dict[str, str], members: dict[str, int]) -> Draft:
    metadata = of_json(texts["metadata.json"], "metadata.json") if "metadata.json" in texts else Node({})
    described = next((name for name in texts if name.endswith(_DESCRIBED)), "")
    if described:
        draft = _machine(described, texts)
        draft.source = "a Vagrant box"
        draft.done("metadata.json", metadata.shown(), "the machine is described beside it")
    elif metadata.at("provider") and (names := _images(metadata, members)):
        draft = Draft("a Vagrant box", confined=True)
        draft.disks = [Disk(name, name, order=None if at else 0) for at, name in enumerate(names)]
        draft.done("metadata.json", metadata.shown(), "what is in a disk is told by its content")
    elif "disk.raw" in members:
        draft = Draft("an image of Google's cloud", confined=True)
        draft.disks = [Disk("disk.raw", "disk.raw", order=0)]
    else:
        why = "an OVA has an OVF description, a box metadata.json, an image of Google's cloud disk.raw"
        raise SpecError(f"{path} is an archive without a machine", why=why, fix="unpack it")
    if "Vagrantfile" in texts:
        _vagrantfile(draft, texts["Vagrantfile"])
    for name in members.keys() - texts.keys() - {disk.file for disk in draft.disks}:
        draft.done(name, f"{members[name]} bytes", "it is in the archive, and nothing refers to it")
    return draft


def _machine(name: str, texts: dict[str, str]) -> Draft:
    """The machine of a description in the archive; one of Parallels names its disks from its own folder."""
    if name.endswith((".ovf", ".vmx")):
        return ovf.read(texts[name]) if name.endswith(".ovf") else vmx.read(texts[name])
    folder = name.rpartition("/")[0]
    draft = parallels.read(texts[name], lambda beside: texts.get(f"{folder}/{beside}", ""))
    for disk in draft.disks:
        disk.file = f"{folder}/{disk.file}"
    return draft


def _images(metadata: Node, members: dict[str, int]) -> list[str]:
    listed = [one.text_at("path") for one in metadata.at("disks").items()]
    return [name for name in listed if name] or [name for name in ("box.img", "disk.img") if name in members]


def _vagrantfile(draft: Draft, text: str) -> None:
    """CPUs and memory, where they are written out; every other line is shown."""
    rest = []
    for line in text.splitlines():
        if match := _SETTING.search(line):
            key, value = match[1] or match[3], match[2] or match[4]
            if key == "memory":
                draft.put("memory.size", str(size(value, unit="M") or "512M"))
            else:
                draft.put("cpu.count", whole(value) or 1)
            draft.done("Vagrantfile", line.strip(), "CPUs and memory")
        elif (match := _FORWARDED.fullmatch(line)) and (ends := dict(_OPTION.findall(match[1]))).keys() >= {"guest", "host"}:
            net = draft.nets[0] if draft.nets else draft.net()
            to = f"{ends.get('protocol', 'tcp')}:{ends.get('host_ip', '127.0.0.1')}:{ends['host']}-:{ends['guest']}"
            nets.forward(draft, net, "Vagrantfile", to)
            draft.done("Vagrantfile", line.strip(), "the port is forwarded")
        elif match := _SAID.fullmatch(line):
            field = "arch" if match[1] == "machine_arch" else "name"
            draft.put(field, match[2] if field == "arch" else machine_name(match[2]))
            draft.done("Vagrantfile", line.strip(), field)
        elif not _FRAME.fullmatch(line):
            rest.append(line.strip())
    if rest:
        reason = "the Vagrantfile is a program, and nothing is run here"
        draft.check("Vagrantfile", "; ".join(rest), reason, "set cpus, memory, forward, share as it does")


def unpack(path: Path, folder: Path, names: set[str]) -> dict[str, Path]:
    """Some files of an archive in a folder, by name, zeros as holes; with a vmdk, all others that may be its extents."""
    found: dict[str, Path] = {}
    with opened(path) as archive:
        for member, name in _files(archive):
            if name in names or (name.endswith(".vmdk") and any(one.endswith(".vmdk") for one in names)):
                source = archive.extractfile(member)
                target = folder / PurePosixPath(name).name
                if source is None or target.exists():
                    raise ImageError(f"{name} in {path} cannot be unpacked", fix="unpack the archive with tar")
                _copy(source, target, member.size)
                found[name] = target
    if missing := names - found.keys():
        raise ImageError(f"{path} is incomplete", why=f"{', '.join(sorted(missing))} is not in it", fix="fetch it again")
    return found


def _copy(source: IO[bytes], target: Path, amount: int) -> None:
    """A file with holes where there are zeros."""
    with target.open("xb") as file:
        file.truncate(amount)
        at = 0
        while piece := source.read(_PIECE):
            for start in range(0, len(piece), _BLOCK):
                block = piece[start : start + _BLOCK]
                if block.count(0) != len(block):
                    file.seek(at + start)
                    file.write(block)
            at += len(piece)
    if at != amount:
        raise ImageError(f"{target.name} is cut short", why=f"it has {at} of {amount} bytes", fix="fetch the archive again")


@contextmanager
def opened(path: Path) -> Iterator[tarfile.TarFile]:
    """Read once from beginning to end, as a stream."""
    with path.open("rb") as file:
        start = file.read(4)
        file.seek(0)
        stream: IO[bytes] = file
        if start.startswith(b"\x1f\x8b"):
            stream = gzip.GzipFile(fileobj=file)  # type: ignore[assignment]
        elif start == b"\x28\xb5\x2f\xfd":
            stream = Pieces(unpacked(file, "zstd"))  # type: ignore[assignment]
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            yield archive


def _files(archive: tarfile.TarFile) -> Iterator[tuple[tarfile.TarInfo, str]]:
    for count, member in enumerate(archive):
        if count > _MOST or member.size > _LARGEST_DISK:
            raise tarfile.ReadError(f"more than {_MOST} files are in it, or one of {member.size} bytes")
        if member.isreg():
            yield member, str(PurePosixPath(member.name))


def _text(archive: tarfile.TarFile, member: tarfile.TarInfo) -> str:
    source = archive.extractfile(member)
    if source is None or member.size > _LARGEST_TEXT:
        raise tarfile.ReadError(f"{member.name[:100]} is too large for a description")
    return source.read().decode("utf-8-sig", "replace")
