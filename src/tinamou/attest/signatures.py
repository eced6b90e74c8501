"""What a variable of Secure Boot trusts or revokes: certificates by their names, images by their number.

Source: UEFI 2.10, section 32.4.1 (EFI_SIGNATURE_LIST, EFI_SIGNATURE_DATA).
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator

from tinamou.attest.binary import MalformedError, Reader
from tinamou.attest.certificates import load, named

__all__ = ["NAMES", "entry", "listed"]

NAMES: tuple[str, ...] = ("PK", "KEK", "db", "dbx")
"""The variables that are made of such lists."""
_OWNER, _MOST = 16, 256
_X509 = uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072").bytes_le
_SHA256 = uuid.UUID("c1c41626-504c-4092-aca9-41f936934328").bytes_le


def listed(value: bytes) -> str:
    """What is in a variable, in words; empty for one that has nothing, or is made of something else."""
    try:
        found = list(_entries(value))
    except MalformedError:
        return ""
    names = [entry(data) for kind, data in found if kind == _X509]
    hashes = sum(kind == _SHA256 for kind, _ in found)
    others = len(found) - len(names) - hashes
    counted = ((hashes, "images by SHA-256"), (others, "of other kinds"))
    return ", ".join([*names, *(f"{count} {what}" for count, what in counted if count)])


def _entries(value: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Kind and data of each entry. Raises MalformedError."""
    reader = Reader(value, "the variable")
    while reader.left:
        kind = reader.take(16, "kind")
        whole, header, each = (reader.number(4, "length") for _ in range(3))
        if whole < 28 + header or each <= _OWNER:
            raise MalformedError("its lists have lengths that cannot be")
        inner = Reader(reader.take(whole - 28, "list"), "the list")
        inner.take(header, "head")
        while inner.left:
            yield kind, inner.take(each, "entry")


def entry(data: bytes) -> str:
    """The name of the certificate in an entry, which stands behind its owner."""
    try:
        (found,) = load(data[_OWNER:])
        return "".join(one if one.isprintable() else "�" for one in named(found))[:_MOST]
    except (MalformedError, ImportError, ValueError):
        return "a certificate"
