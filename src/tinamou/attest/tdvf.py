"""MRTD of a TDX machine, computed from its firmware: which pages are added before it starts, and which of them measured.

The firmware says so itself, in metadata that QEMU follows. Source: Intel TDX Module Base Architecture Specification,
TDH.MEM.PAGE.ADD and TDH.MR.EXTEND (what goes into MRTD); Intel TDX Virtual Firmware Design Guide, chapter 11 (TDVF
descriptor); QEMU hw/i386/tdvf.c and target/i386/kvm/tdx.c (each page is added, then measured, section after section).
"""

from __future__ import annotations

import hashlib
import uuid

from tinamou.attest.binary import MalformedError, Reader, number
from tinamou.late import dataclass

__all__ = ["Section", "mrtd", "sections"]

_FOOTER = uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
_OFFSET = uuid.UUID("e47a6535-984a-4798-865e-4685a7bf8ec2").bytes_le
_PAGE, _CHUNK, _EXTEND, _AUGMENT = 4096, 256, 1, 2
_MOST_FIRMWARE, _MOST_MEMORY = 64 << 20, 256 << 20


@dataclass(frozen=True)
class Section:
    """Bytes of the image (``at``, ``length``) and the guest's memory they go to; ``type`` 0 code, 1 variables, 2 hand-off
    block, 3 temporary; ``measured``: what is in it, not only that it is there; ``added``: before the guest starts at all.
    """

    at: int
    length: int
    address: int
    size: int
    type: int
    measured: bool
    added: bool


def sections(firmware: bytes) -> list[Section]:
    """What the metadata of an image says. Raises MalformedError."""
    if len(firmware) > _MOST_FIRMWARE:
        raise MalformedError(f"firmware of {len(firmware)} bytes; {_MOST_FIRMWARE} are looked at")
    back = number(_entry(firmware))
    if not 16 <= back <= len(firmware):
        raise MalformedError("its table points outside of the image")
    reader = Reader(firmware[len(firmware) - back :], "the TDX metadata")
    if reader.take(4, "signature") != b"TDVF":
        raise MalformedError("there is no TDX metadata where its table points to")
    reader.take(4, "length")
    version, count = reader.number(4, "version"), reader.number(4, "number of sections")
    if version != 1 or not 1 <= count <= 64:
        raise MalformedError(f"TDX metadata of version {version} with {count} sections; version 1 with 64 is known here")
    found = [_section(reader, len(firmware)) for _ in range(count)]
    if sum(one.size for one in found) > _MOST_MEMORY:
        raise MalformedError("its sections are larger than any firmware's")
    return found


def _entry(firmware: bytes) -> bytes:
    """The last four bytes of the table's entry that says where the metadata begins, counted from the image's end."""
    end = len(firmware) - 32
    if end < 18 or firmware[end - 16 : end] != _FOOTER:
        raise MalformedError("the image does not end as OVMF's do, with a table of what is in it")
    whole = number(firmware[end - 18 : end - 16])
    if not 18 <= whole <= end:
        raise MalformedError("the table of the image is broken")
    table = firmware[end - whole : end - 18]
    while len(table) >= 18:
        length = number(table[-18:-16])
        if not 18 <= length <= len(table):
            raise MalformedError("the table of the image is broken")
        if table[-16:] == _OFFSET and length >= 22:
            return table[-22:-18]
        table = table[:-length]
    raise MalformedError("the image has no TDX metadata: it is not built for TDX")


def _section(reader: Reader, image: int) -> Section:
    at, length = reader.number(4, "offset"), reader.number(4, "length")
    address, size = reader.number(8, "address"), reader.number(8, "size")
    kind, attributes = reader.number(4, "type"), reader.number(4, "attributes")
    if address % _PAGE or size % _PAGE or length > size or at + length > image or size > _MOST_MEMORY:
        raise MalformedError(f"its section at {address:#x} is no whole pages, or not in the image")
    measured, added = bool(attributes & _EXTEND), not attributes & _AUGMENT
    if measured and (not added or length != size):
        raise MalformedError(f"its section at {address:#x} is measured, and not there as a whole")
    return Section(at, length, address, size, kind, measured, added)


def mrtd(firmware: bytes) -> bytes:
    """The 48 bytes of MRTD after QEMU loaded this image. Raises MalformedError."""
    digest = hashlib.sha384()
    for one in sections(firmware):
        if not one.added:
            continue
        for page in range(one.address, one.address + one.size, _PAGE):
            digest.update(_said(b"MEM.PAGE.ADD", page))
            if one.measured:
                for chunk in range(page, page + _PAGE, _CHUNK):
                    start = one.at + chunk - one.address
                    digest.update(_said(b"MR.EXTEND", chunk) + firmware[start : start + _CHUNK])
    return digest.digest()


def _said(what: bytes, address: int) -> bytes:
    return (what.ljust(16, b"\0") + address.to_bytes(8, "little")).ljust(128, b"\0")
