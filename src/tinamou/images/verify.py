"""Whether a file is what it claims: its checksum against the vendor's, its first bytes against its format; unpacking."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import BinaryIO

from tinamou.errors import ImageError
from tinamou.system.codecs import CodecError, unpacked
from tinamou.system.qcow2 import Qcow2Error, read_header
from tinamou.units import Size

__all__ = ["check_format", "expected_digest", "refuse_page", "refuse_wrong_magic", "unpack"]

_MAGIC = {
    "qcow2": b"QFI\xfb",
    "xz": b"\xfd7zXZ\x00",
    "zst": b"\x28\xb5\x2f\xfd",
}
_BOOT_SIGNATURE = b"\x55\xaa"
_ISO_AT, _ISO = 0x8001, b"CD001"
_KINDS = {"xz": "xz", "zst": "zstd"}
_LARGEST = 1 << 40
"""Bytes: no vendor's image is so large unpacked."""
_SUMS = re.compile(r"\\?([0-9A-Fa-f]{32,128})(?: [ *]|\s+)(\S.*)")
_BSD = re.compile(r"(SHA256|SHA512) ?\((.+)\) ?= ?([0-9A-Fa-f]+)")


def expected_digest(text: str, style: str, algorithm: str, file: str) -> str:
    """The digest (lower-case hexadecimal) a vendor's checksum file gives for ``file``.

    ``style`` is ``sums`` (sha256sum(1)), ``bsd`` (``SHA256 (file) = …``) or ``beside`` (the file speaks of one image only,
    by whatever name). Raises ImageError when the file is not in it, or is in it twice with different digests.
    """
    length = {"sha256": 64, "sha512": 128}[algorithm]
    found = _listed(text, style, algorithm)
    wanted = {digest for name, digest in found if style == "beside" or name.rpartition("/")[2] == file}
    right = {digest for digest in wanted if len(digest) == length}
    if len(right) == 1:
        return right.pop()
    names = sorted({name for name, _ in found if name})
    if right:
        raise ImageError(f"the checksum file has {len(right)} different {algorithm} digests for {file}")
    raise ImageError(
        f"the vendor's checksum file says nothing about {file}",
        why=f"it lists {', '.join(names[:5])}{' …' if len(names) > 5 else ''}" if names else "there is no digest in it",
        fix="the release may have been replaced: choose another, or correct the catalogue",
    )


def _listed(text: str, style: str, algorithm: str) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for line in text.splitlines():
        line = line.strip()
        if style != "sums" and (match := _BSD.fullmatch(line)):
            if match[1].lower() == algorithm:
                found.append((match[2], match[3].lower()))
        elif style != "bsd" and (match := _SUMS.fullmatch(line)):
            found.append((match[2].strip(), match[1].lower()))
        elif style == "beside" and re.fullmatch(r"[0-9A-Fa-f]{64}|[0-9A-Fa-f]{128}", line):
            found.append(("", line.lower()))
    return found


def refuse_page(head: bytes, content_type: str, url: str) -> None:
    """Raise ImageError when the first bytes or the media type are those of a web page."""
    kind = content_type.partition(";")[0].strip().lower()
    start = head[:256].lstrip(b"\xef\xbb\xbf \t\r\n").lower()
    page = start.startswith((b"<!doctype", b"<html", b"<head", b"<?xml", b"<!--", b'{"'))
    if page or kind in ("text/html", "application/xhtml+xml"):
        raise ImageError(
            f"{url} is a web page, not an image",
            why=f"the server sent {kind or 'no media type'} with status 200: a login page, a block page or a moved file",
            fix="open the URL in a browser; behind a captive portal log in first, else correct the catalogue",
            evidence={"it begins": head[:200].decode(errors="replace")},
        )


def refuse_wrong_magic(head: bytes, format: str, url: str) -> None:
    """Raise ImageError when a file's first bytes cannot be those of ``format``; formats without a mark there pass."""
    outer = format.rpartition(".")[2]
    magic = _MAGIC.get(outer)
    if magic and not head.startswith(magic):
        raise ImageError(
            f"{url} is not {outer}",
            why=f"it begins with {head[:8].hex(' ')}" if head else "it is empty",
            fix="the vendor may have changed the format: correct the catalogue",
        )


def check_format(path: Path, format: str) -> Size:
    """Check that an unpacked image is whole enough to be one, and stands alone. Returns its virtual size.

    A qcow2 file that names a backing file or an external data file is refused: QEMU would open files of this host that the
    image chose. Raises ImageError.
    """
    if format == "qcow2":
        return _check_qcow2(path)
    with path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        head = file.read(_ISO_AT + len(_ISO))
    iso, disk = head[_ISO_AT:] == _ISO, head[510:512] == _BOOT_SIGNATURE or head[512:520] == b"EFI PART"
    if not (iso if format == "iso" else disk):
        what = "has no ISO 9660 volume descriptor" if format == "iso" else "has neither a boot record nor a partition table"
        raise ImageError(f"{path.name} is not an image of format {format}", why=f"it {what}")
    return Size(size)


def _check_qcow2(path: Path) -> Size:
    try:
        header = read_header(path)
    except Qcow2Error as error:
        raise ImageError(f"{path.name} is not a qcow2 image", why=str(error)) from error
    if header.backing_file or header.data_file is not None:
        raise ImageError(
            f"{path.name} is not a whole image",
            why=f"it rests on another file, {header.backing_file or header.data_file!r}, which it has no business to name",
            fix="do not use it",
        )
    if header.corrupt:
        raise ImageError(f"{path.name} is damaged", why="it is marked as corrupt inside")
    return header.size


def unpack(packed: Path, format: str, target: Path) -> str:
    """Decompress ``packed`` into ``target`` with holes for zeroes; returns the format inside. Raises ImageError.

    ``format`` is for example ``raw.xz``. The stream is read to its end and its own check is honoured; a disk that fills up
    ends it. Nothing is left of ``target`` after an error.
    """
    inner, _, outer = format.rpartition(".")
    try:
        with packed.open("rb") as source, target.open("wb") as out:
            for chunk in unpacked(source, _KINDS[outer]):
                _write_sparse(out, chunk)
                if out.tell() > _LARGEST:
                    raise CodecError(f"it unpacks to more than {_LARGEST >> 40} TiB")
            out.truncate()
    except BaseException as error:
        target.unlink(missing_ok=True)
        if isinstance(error, CodecError):
            raise ImageError(f"{packed.name} cannot be unpacked", why=str(error), fix="download it again") from error
        if isinstance(error, OSError):
            free = shutil.disk_usage(target.parent).free >> 20
            raise ImageError(
                f"{packed.name} cannot be unpacked in {target.parent}",
                why=f"{error.strerror}; {free} MiB are free",
                fix="free some space, or set TINAMOU_CACHE to a larger disk",
            ) from error
        raise
    return inner


def _write_sparse(out: BinaryIO, chunk: bytes) -> None:
    if chunk.count(0) == len(chunk):
        out.seek(len(chunk), os.SEEK_CUR)
    else:
        out.write(chunk)
