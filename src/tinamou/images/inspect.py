"""What a local image is: format, size, how it boots, for which architecture; or why it cannot be trusted."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path

from tinamou.digest import sha256
from tinamou.errors import ImageError
from tinamou.facts.image import ImageFacts
from tinamou.images.blocks import Blocks, ForeignBlocks, Qcow2Blocks, RawBlocks, Unreadable
from tinamou.images.bootable import Boot, examine_disc, examine_disk, volumes
from tinamou.images.chain import Layer, read_chain, verify_tables
from tinamou.images.foreign import measure_foreign
from tinamou.late import asdict, dataclass
from tinamou.system.paths import cache_dir
from tinamou.system.replaced import replace_text
from tinamou.units import Size

__all__ = ["disk_of", "image_files", "inspect_image"]

_CACHE_VERSION = 4


@dataclass(frozen=True)
class _Finding:
    """What is remembered of an image between two starts."""

    format: str
    size: int
    ways: tuple[str, ...]
    arches: tuple[str, ...]
    windows: str = ""
    drivers: tuple[str, ...] = ()


def inspect_image(path: str | Path, *, arch: str = "", trusted: Sequence[Path] = ()) -> ImageFacts:
    """The facts of a local qcow2, raw, vmdk, vhdx, vdi, vpc, parallels or iso file, remembered until its files change.

    ``arch``, when given, must be one the image can run on; ``ImageFacts.arch`` is empty when the image does not tell.
    ``trusted`` names further folders in which backing files may lie. Raises ImageError for an image that is missing, empty,
    truncated, damaged, no disk at all, of another architecture, or that would make QEMU open files outside its own folder.
    """
    finding, files = _found(path, trusted)
    if arch and finding.arches and arch not in finding.arches:
        has = " and ".join(finding.arches)
        raise ImageError(
            f"{path} is an image for {has}, not for {arch}", fix=f"--arch {finding.arches[0]}, or another image"
        )
    return ImageFacts(
        name=Path(path).name,
        arch=arch or (finding.arches[0] if finding.arches else ""),
        disk=files[0],
        format=finding.format,
        size=Size(finding.size),
        boots=finding.ways,
        windows=finding.windows,
        drivers=finding.drivers,
    )


def image_files(path: str | Path, *, trusted: Sequence[Path] = ()) -> tuple[str, ...]:
    """Every file that a local image reads through, itself first; as `inspect_image`, which has looked at each of them."""
    return _found(path, trusted)[1]


def _found(path: str | Path, trusted: Sequence[Path]) -> tuple[_Finding, tuple[str, ...]]:
    resolved = os.path.realpath(path)
    key = "\0".join([resolved, *map(str, trusted)])
    record = cache_dir() / "inspected" / f"{sha256(os.fsencode(key)).hexdigest()[:32]}.json"
    known = _recall(record, resolved)
    if known is not None:
        return known
    layers = read_chain(path, trusted=trusted)
    finding, others = _examine(layers)
    files = {layer.path: list(layer.identity) for layer in layers} | {other: _identity(other) for other in others}
    _remember(record, files, finding)
    return finding, tuple(files)


def _examine(layers: tuple[Layer, ...]) -> tuple[_Finding, list[str]]:
    """The finding, and files besides the layers it rests on."""
    top = layers[0]
    for layer in layers:
        verify_tables(layer)
    measured = {layer.path: _measure(layer) for layer in layers}
    boot, inside = Boot(), ("", tuple[str, ...]())
    with contextlib.suppress(Unreadable):
        blocks = _open(layers, measured)
        boot = examine_disc(blocks) if top.format == "iso" else examine_disk(blocks)
        inside = _windows(blocks) if top.format != "iso" and not boot.missing else inside
    if boot.missing:
        raise ImageError(
            f"{top.path} is truncated",
            why=f"what is written in it reaches {boot.missing} bytes beyond its end",
            fix="fetch the image again, or give it its full size: tinamou image resize",
        )
    others = [other for _, files in measured.values() for other in files]
    return _Finding(top.format, measured[top.path][0], boot.ways, boot.arches, *inside), others


def _windows(blocks: Blocks) -> tuple[str, tuple[str, ...]]:
    """The name of the Windows on a disk, and which of virtio's drivers it can use; nothing for another system."""
    if not any(blocks.read(start + 3, 8) == b"NTFS    " for start in volumes(blocks)):
        return "", ()
    from tinamou.images.windows_inside import look, usable

    found = look(blocks)
    return (f"{found.name or 'Windows'} (build {found.build})", usable(found)) if found else ("", ())


def disk_of(path: str | Path, *, trusted: Sequence[Path] = ()) -> Blocks:
    """What a guest would read of a local image. Raises ImageError; Unreadable where no reader here knows it."""
    layers = read_chain(path, trusted=trusted)
    return _open(layers, {layer.path: _measure(layer) for layer in layers})


def _measure(layer: Layer) -> tuple[int, list[str]]:
    """The virtual size, and the other files a foreign format keeps data in."""
    if layer.header is not None:
        return int(layer.header.size), []
    if layer.format in ("raw", "iso"):
        return layer.length, []
    return measure_foreign(layer)


def _open(layers: tuple[Layer, ...], measured: dict[str, tuple[int, list[str]]]) -> Blocks:
    """The guest's view of the whole chain."""
    blocks: Blocks | None = None
    for layer in reversed(layers):
        if layer.header is not None:
            blocks = Qcow2Blocks(layer.path, layer.header, blocks)
        elif layer.format in ("raw", "iso"):
            blocks = RawBlocks(layer.path)
        else:
            blocks = ForeignBlocks(layer.path, layer.format, *measured[layer.path])
    assert blocks is not None
    return blocks


def _identity(path: str) -> list[int]:
    status = Path(path).stat()
    return [status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns]


def _recall(record: Path, resolved: str) -> tuple[_Finding, tuple[str, ...]] | None:
    """The remembered finding and the files it rests on, if every one is still the same file, unchanged."""
    try:
        known = json.loads(record.read_bytes())
        files: dict[str, list[int]] = known["files"]
        fresh = known["version"] == _CACHE_VERSION and next(iter(files), "") == resolved
        if not fresh or any(_identity(path) != identity for path, identity in files.items()):
            return None
        found = known["finding"]
        lists = (tuple(found["ways"]), tuple(found["arches"]), str(found["windows"]), tuple(found["drivers"]))
        return _Finding(found["format"], found["size"], *lists), tuple(files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return None


def _remember(record: Path, files: dict[str, list[int]], finding: _Finding) -> None:
    """Written whole or not at all; a cache that cannot be written only costs time."""
    content = {"version": _CACHE_VERSION, "files": files, "finding": asdict(finding)}
    with contextlib.suppress(OSError):
        record.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        replace_text(record, json.dumps(content))
