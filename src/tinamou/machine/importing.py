"""A whole machine from one file that anybody may have made: bounded, checked, and kept from reaching into this host."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO

from tinamou import fields, late
from tinamou.errors import ImageError, PrepareError, SpecError, StateError
from tinamou.facts import ImageFacts, files
from tinamou.images.chain import read_layer, verify_tables
from tinamou.images.offline import read_through
from tinamou.images.progress import Progress, silent
from tinamou.late import dataclass
from tinamou.machine.cloning import own_card
from tinamou.machine.exporting import BOOTS, FORMAT, MANIFEST
from tinamou.parts.disk import DiskSpec
from tinamou.parts.net import NetSpec
from tinamou.snapshots.packed import Piece, Reader
from tinamou.spec import MachineSpec, dump_spec, load_spec
from tinamou.state import machines
from tinamou.state.folder import write_image
from tinamou.state.record import Record
from tinamou.system.closing import Closing
from tinamou.system.exec import find_tool
from tinamou.system.loop_thread import in_thread
from tinamou.system.zstd import decompressing
from tinamou.units import Size

__all__ = ["Imported", "described", "entered", "extracted", "manifest_of", "take_in"]

_LONGEST_MANIFEST = 8 << 20
_RESERVE = 256 << 20
"""Bytes of the file system that are left to others."""
_LARGEST_DISK = 64 << 40
_SMALL = {
    **dict.fromkeys(BOOTS, 1 << 30),
    **{"id_ed25519": 1 << 16, "id_ed25519.pub": 1 << 16, files.UEFI_VARS: 64 << 20},
}
_DISK = re.compile(r"(disk\d{1,3})\.qcow2")
_TPM = re.compile(r"tpm2-00\.[a-z]{1,20}")
_TPM_SIZE = 4 << 20

_KEPT = frozenset(
    {
        *("name", "image", "os", "arch", "accel", "cpu", "memory", "boot", "disk", "net", "display", "tpm", "devices"),
        *("seed", "clock", "smbios", "windows"),
    }
)
_TABLES: Mapping[str, frozenset[str]] = {
    "cpu": frozenset({"count", "max", "sockets", "cores", "threads", "nodes", "model"}),
    "memory": frozenset({"size", "forkable", "floor"}),
    "boot": frozenset({"firmware", "cmdline", "secure", "menu", "order", "tries"}),
    "display": frozenset({"type"}),
    "tpm": frozenset({"enabled"}),
    "windows": frozenset({"virtio"}),
}
"""What of a description is about the guest alone; all else reaches into the host, is about it, or lowers what stands around
QEMU."""
_OF_A_CARD = (
    *("model", "mac", "ipv6", "isolated", "queues", "queue_size", "mtu", "offload", "packed", "rss"),
    *("address", "gateway", "dns"),
)
_OF_A_DISK = (
    "interface",
    "block_size",
    "cache",
    "discard",
    "detect_zeroes",
    "iothread",
    "queues",
    "iops",
    "bandwidth",
    "on_full",
    "number",
)
_OF_ITS_FILE = ("path", "size", "format", "key")
"""What is said of a disk's file: the archive holds another one, of the same content."""


@dataclass(frozen=True)
class Imported:
    """A machine that came from a file, and is off; what is to be said of it."""

    record: Record
    notes: tuple[str, ...] = ()


async def take_in(source: Path | None, name: str = "", *, trust: bool = False, progress: Progress = silent) -> Imported:
    """A machine, off, from a file that `tinamou.machine.exporting` wrote, or from stdin where there is none.

    What its description says of the host it was on is left out, and told, unless the file is trusted (``trust``). Raises
    StateError, ImageError, SpecError, PrepareError, OSError; there is no machine then.
    """
    with _unpacked(source) as stream:
        pieces = Reader(stream, str(source) if source else "what came on stdin").pieces()
        manifest = await in_thread(manifest_of, pieces)
        spec, notes = described(manifest, name, trust=trust)
        with machines.making(spec.name) as directory:
            found = await in_thread(extracted, pieces, directory, manifest, progress)
            for disk in found:
                await _sound(directory / f"{disk}.qcow2", int(manifest["disks"][disk]), progress)
            record, more = await in_thread(entered, manifest, spec, directory)
            (record,) = machines.entered(record)
    return Imported(record, (*notes, *more))


def manifest_of(pieces: Iterator[Piece]) -> dict[str, Any]:
    """What the first piece says. Raises StateError for what no export has said."""
    first = next(pieces)
    fix = "tinamou export NAME FILE makes one"
    if first.name != MANIFEST or first.size > _LONGEST_MANIFEST:
        raise StateError("this is no exported machine", why=f"it does not begin with a small {MANIFEST}", fix=fix)
    try:
        data: dict[str, Any] = json.loads(first.whole())
        kinds = {"name": str, "former": list, "spec": dict, "image": dict, "boots": list, "disks": dict, "record": dict}
        odd = [key for key, kind in kinds.items() if not isinstance(data.get(key), kind)]
        sizes = [type(size) is int and 0 < size <= _LARGEST_DISK for size in data["disks"].values()] if not odd else []
        names = all(isinstance(one, str) for one in (*data["former"], *data["boots"])) if not odd else False
        if odd or data.get("format") != FORMAT or not all(sizes) or not names:
            raise ValueError(f"format {data.get('format')!r:.40}, {', '.join(odd) or 'with odd values'}")
    except (ValueError, TypeError, AttributeError, KeyError, RecursionError) as error:
        raise StateError("the description of an exported machine is damaged", why=str(error)[:200], fix=fix) from error
    return data


def described(
    manifest: Mapping[str, Any], name: str, *, trust: bool, here: Collection[str] = ()
) -> tuple[MachineSpec, list[str]]:
    """The machine as it can be here, and what was left out; the files of the disks ``here`` are seen from here."""
    said = {**manifest["spec"], "name": name or manifest["name"]}
    if trust:
        spec = load_spec(said, source="the exported machine")
        read = tuple(one for one in spec.disk if one.readonly or one.interface == "cdrom")
        whole = tuple(one.name for one in late.fields(DiskSpec) if one.name not in (*_OF_ITS_FILE, "readonly"))
        return late.replace(spec, disk=(*_disks(spec, manifest, [], whole, here), *read)), []
    notes = [f"{key} was left out" for key in sorted(said.keys() - _KEPT)]
    kept = {key: value for key, value in said.items() if key in _KEPT}
    for table, known in _TABLES.items():
        if isinstance(inside := kept.get(table), dict):
            notes += [f"{table}.{key} was left out" for key in sorted(inside.keys() - known)]
            kept[table] = {key: value for key, value in inside.items() if key in known}
    if (setup := said.get("windows")) and isinstance(setup, dict) and setup.get("drivers") and setup.get("user"):
        kept["windows"] = {"virtio": True}  # its setup gave it the drivers from the disc that is left out
    spec = load_spec(kept, source="the exported machine")
    spec = late.replace(spec, disk=_disks(spec, manifest, notes, _OF_A_DISK), net=_nets(spec, notes))
    why = "it reaches into the host it was written for, or is about that one: --trust takes all as it was"
    return load_spec(dump_spec(spec)), [f"{note}: {why}" for note in notes]


def _disks(
    spec: MachineSpec, manifest: Mapping[str, Any], notes: list[str], names: Sequence[str], here: Collection[str] = ()
) -> tuple[DiskSpec, ...]:
    """Those whose file is in the archive, each of the size it has there, with the fields ``names`` as they were.

    Those that are ``here`` stay as they are.
    """
    found = []
    for one in spec.disk:
        size = manifest["disks"].get(f"disk{one.number}")
        if size is None or one.number is None:
            notes.append(f"disk {one.path or one.size} was left out, as the file does not hold it")
            continue
        if f"disk{one.number}" in here:
            found.append(one)
            continue
        own = DiskSpec(**{name: getattr(one, name) for name in names}, size=Size(size))
        notes += [
            f"disk{one.number}.{field.name} was left out"
            for field in late.fields(one)
            if field.name not in _OF_ITS_FILE and getattr(one, field.name) != getattr(own, field.name)
        ]
        found.append(own)
    return tuple(found)


def _nets(spec: MachineSpec, notes: list[str]) -> tuple[NetSpec, ...]:
    """Cards on networks that reach no file, interface or port of this host."""
    found = []
    for number, card in enumerate(spec.net):
        kind = card.type if card.type in ("auto", "user", "passt", "none") else "auto"
        own = NetSpec(type=kind, **({name: getattr(card, name) for name in _OF_A_CARD} if kind != "none" else {}))
        notes += [
            f"net[{number}].{one.name} was left out"
            for one in late.fields(card)
            if getattr(card, one.name) not in (getattr(own, one.name), one.default) and one.name != "port"
        ]
        found.append(own)
    return tuple(found)


def extracted(pieces: Iterator[Piece], directory: Path, manifest: Mapping[str, Any], progress: Progress) -> list[str]:
    """Write the pieces to the machine's folder; the disks among them. Raises StateError, OSError."""
    expected = {f"{disk}.qcow2" for disk in manifest["disks"]} | (set(manifest["boots"]) & set(BOOTS))
    found = []
    for piece in pieces:
        target = directory / piece.name
        if _TPM.fullmatch(piece.name):
            (directory / "tpm").mkdir(mode=0o700, exist_ok=True)
            target, most = directory / "tpm" / piece.name, _TPM_SIZE
        elif _DISK.fullmatch(piece.name) and piece.name in expected:
            most = int(manifest["disks"][piece.name.removesuffix(".qcow2")]) * 2 + (64 << 20)
            found.append(piece.name.removesuffix(".qcow2"))
        elif piece.name in _SMALL:
            most = _SMALL[piece.name]
        else:
            raise StateError("this is no exported machine", why=f"{piece.name} is no file of one")
        _write(piece, target, most, progress)
        expected.discard(piece.name)
    if expected:
        raise StateError("this is no whole machine", why=f"it lacks {', '.join(sorted(expected))}")
    return found


def _write(piece: Piece, target: Path, most: int, progress: Progress) -> None:
    room = os.statvfs(target.parent)
    free = room.f_bavail * room.f_frsize - _RESERVE
    if piece.size > most:
        raise StateError("this is no exported machine", why=f"{piece.name} is {Size(piece.size)}: at most {Size(most)} fit")
    if piece.size > free:
        what = f"there is no room for {piece.name}"
        raise StateError(what, why=f"it is {Size(piece.size).mib} MiB, {max(free, 0) >> 20} are free", fix="free some space")
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    if piece.name in BOOTS:  # QEMU opens what it was handed once more, by its name in /dev/fd
        os.fchmod(descriptor, 0o644)
    with os.fdopen(descriptor, "wb") as out:
        while data := piece.read():
            out.write(data)
            progress(f"unpacking {piece.name}", 1 - piece.left / piece.size)
        out.flush()
        os.fsync(out.fileno())


async def _sound(path: Path, size: int, progress: Progress) -> None:
    """A disk that rests on nothing, names no other file, and is what its header says. Raises ImageError."""
    layer = read_layer(path, "qcow2")
    header = layer.header
    if header is None or header.backing_file or header.encryption or int(header.size) != size:
        why = "it names a file behind it, is encrypted, or has another size than the description says"
        raise ImageError(f"{path.name} of the exported machine is not taken", why=why, fix="export it again")
    verify_tables(layer)
    argv = ["qemu-img", "check", "-q", "-f", "qcow2", str(path)]
    await read_through(argv, f"checking {path.name}", [str(path)], progress=progress)


def entered(manifest: Mapping[str, Any], spec: MachineSpec, directory: Path) -> tuple[Record, list[str]]:
    """The machine's record, which is not written yet, its image, and what is to be said of its identity."""
    image = _image(manifest, directory)
    write_image(Record(name=directory.name, directory=str(directory), spec={}), image)
    former = [one for one in (*manifest["former"], manifest["name"]) if one != spec.name]
    first = former[0] if former else spec.name
    load_spec({"name": first.partition("~")[0]})
    twin = next((one.name for one in machines.machines() if first in (one.identity, one.name)), "")
    if twin:
        spec = late.replace(spec, net=tuple(own_card(card, "", "", "")[0] for card in spec.net))
    uid = machines.lease_uid(directory)
    for path in directory.iterdir() if uid is not None else ():
        if path.suffix in (".qcow2", ".fd"):
            os.chown(path, uid or 0, uid or 0)
    said = {key: value for key, value in manifest["record"].items() if isinstance(value, str | bool)}
    record = Record(
        name=spec.name,
        directory=str(directory),
        spec=dump_spec(spec),
        uid=uid,
        created=time.time(),
        arch=image.arch,
        image=str(said.get("image", "")),
        ssh_port=machines.free_port() if image.may_have_sshd else None,
        ssh_user=str(said.get("ssh_user", "")),
        agent=bool(said.get("agent", True)),
        resident=bool(said.get("resident", False)),
        former=[] if twin else former,
        base=twin,
    )
    notes = [f"{twin} is the same machine: {spec.name} has addresses and an identity of its own"] if twin else []
    return record, notes


def _image(manifest: Mapping[str, Any], directory: Path) -> ImageFacts:
    """What it boots from: files in its own folder, whatever the description calls them. Raises StateError."""
    data = {key: value for key, value in manifest["image"].items() if key not in ("disk", "built", *BOOTS)}
    data |= {"boots": tuple(data.get("boots", ())), "size": int(data.get("size") or 0)}
    found, problems = fields.load(ImageFacts, data)
    if problems or found is None:
        raise SpecError("the image of the exported machine is damaged", problems=problems)
    kept: dict[str, Any] = {name: str(directory / name) for name in BOOTS if (directory / name).exists()}
    disk = str(directory / "disk0.qcow2") if manifest["image"].get("disk") and "disk0" in manifest["disks"] else ""
    return late.replace(found, **kept, disk=disk, format="qcow2" if disk else "", size=Size(found.size))


@contextmanager
def _unpacked(source: Path | None) -> Iterator[BinaryIO]:
    """The decompressed stream of a file, or of stdin. Raises StateError for what is not compressed so."""
    if find_tool("zstd") is None:
        raise PrepareError("an exported machine cannot be unpacked", why="zstd is not installed", fix="apt-get install zstd")
    packed = os.open(source, os.O_RDONLY | os.O_CLOEXEC) if source else os.dup(sys.stdin.fileno())
    with Closing(packed), decompressing(packed, None) as piped, os.fdopen(os.dup(piped.end), "rb") as stream:
        piped.let_go()
        yield stream
