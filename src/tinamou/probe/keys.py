"""Reads the certificates of Secure Boot, from variable stores and from folders of certificate files.

Source: edk2 MdeModulePkg/Include/Guid/VariableFormat.h, UEFI specification 2.10, section 32.4.1 (EFI_SIGNATURE_LIST).
"""

from __future__ import annotations

import datetime
import itertools
import re
import struct
import uuid
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path

from tinamou.digest import sha256
from tinamou.errors import ProbeError
from tinamou.facts.firmware import Firmware
from tinamou.facts.keys import MICROSOFT, Certificate, KeyFacts
from tinamou.system.exec import CommandError, find_tool, run
from tinamou.system.plain_file import read_plain

__all__ = ["of_store", "probe_keys"]

VARIABLES = ("PK", "KEK", "db")
_STORE = uuid.UUID("aaf32c78-947b-439a-a180-2e144ec37792").bytes_le
"""An authenticated variable store (gEfiAuthenticatedVariableGuid)."""
_X509 = uuid.UUID("a5c059a1-94e4-4aa7-87b5-ab155c2bf072").bytes_le
_VARIABLE = struct.Struct("<HBBIQ16sIII16s")
"""StartId, State, Reserved, Attributes, MonotonicCount, TimeStamp, PubKeyIndex, NameSize, DataSize, VendorGuid."""
_START, _ADDED, _HEADER = 0x55AA, 0x3F, 28
_MOST, _MOST_OF_FILE, _CERTIFICATES = 64 << 20, 1 << 20, 64
_SUFFIXES = frozenset({".pem", ".crt", ".cer", ".der"})


def probe_keys(folder: str, firmware: Iterable[Firmware]) -> KeyFacts:
    """What the stores of this firmware have enrolled, and what is in the folder (empty: none). Never fails."""
    templates: dict[str, tuple[Certificate, ...]] = {}
    for one in firmware:
        if "enrolled-keys" in one.features and one.template:
            try:
                templates[one.template] = of_store(Path(one.template), None)
            except ProbeError:
                templates[one.template] = ()
    if not folder:
        return KeyFacts(templates)
    try:
        return KeyFacts(templates, tuple(_of_folder(Path(folder))))
    except (OSError, ValueError) as error:
        return KeyFacts(templates, (), str(error))


def _of_folder(folder: Path) -> Iterator[Certificate]:
    """``PK.pem``, ``KEK*.pem``, ``db*.pem``, or .crt, .cer, .der. Raises ValueError, OSError for what is missing or odd."""
    found = {path: match[1] for path in sorted(folder.iterdir()) if (match := _named(path))}
    if "dbx" in found.values():
        raise ValueError("it has a dbx, and what is revoked there would not be")
    for variable in VARIABLES:
        count = sum(one == variable for one in found.values())
        if not count or (variable == "PK" and count > 1):
            there = "one is needed" if variable == "PK" else "at least one is needed"
            raise ValueError(f"{folder} has {count} certificates named {variable}, and {there}")
    for path, variable in found.items():
        yield _certificate(variable, _der(path), str(path))


def _named(path: Path) -> re.Match[str] | None:
    return re.fullmatch(r"(PK|KEK|dbx|db)(?:[-_.].*)?", path.stem) if path.suffix in _SUFFIXES else None


def _der(path: Path) -> bytes:
    data = read_plain(path, owners=None, most=_MOST_OF_FILE)
    if b"-----BEGIN CERTIFICATE-----" in data:
        from ssl import PEM_cert_to_DER_cert

        data = PEM_cert_to_DER_cert(data[data.index(b"-----BEGIN") :].decode("ascii").strip())
    if not data.startswith(b"\x30"):
        raise ValueError(f"{path} is no certificate")
    return data


def of_store(path: Path, owners: Collection[int] | None) -> tuple[Certificate, ...]:
    """The certificates that a variable store has enrolled; the file belongs to one of ``owners`` (None: anybody).

    A guest may have written it: it is believed nothing, and read within bounds. Raises ProbeError.
    """
    try:
        data = read_plain(path, owners=owners, most=_MOST)
        begin = data.index(_STORE) + _HEADER
        every = ((name, der) for name, value in _values(data, begin) if name in VARIABLES for der in _certificates(value))
        found = list(itertools.islice(every, _CERTIFICATES))
    except (OSError, ValueError, struct.error) as error:
        why = str(error) if isinstance(error, OSError) else "it is no variable store of edk2 in raw form"
        raise ProbeError(f"the keys in {path} cannot be read", why=why) from error
    ordered = sorted(dict.fromkeys(found), key=lambda one: VARIABLES.index(one[0]))
    return tuple(_certificate(name, der) for name, der in ordered)


def _values(data: bytes, at: int) -> Iterator[tuple[str, bytes]]:
    """The name and value of each variable that is there; deleted ones are left out."""
    while at + _VARIABLE.size <= len(data):
        start, state, *_, name_size, size, _ = _VARIABLE.unpack_from(data, at)
        if start != _START:
            return
        name_at = at + _VARIABLE.size
        value_at = name_at + name_size
        if state == _ADDED and name_size <= 64:
            name = data[name_at:value_at].decode("utf-16-le", errors="replace").rstrip("\0")
            yield name, data[value_at : value_at + size]
        at = (value_at + size + 3) & ~3


def _certificates(value: bytes) -> Iterator[bytes]:
    """The X.509 certificates in a variable that is a row of signature lists."""
    at = 0
    while at + 28 <= len(value):
        kind = value[at : at + 16]
        whole, header, each = struct.unpack_from("<III", value, at + 16)
        if whole < 28 or each < 17:
            return
        if kind == _X509:
            first = at + 28 + header
            yield from (value[one + 16 : one + each] for one in range(first, min(at + whole, len(value)) - each + 1, each))
        at += whole


def _certificate(variable: str, der: bytes, file: str = "") -> Certificate:
    fingerprint = sha256(der).hexdigest()
    name, ends = MICROSOFT.get(fingerprint) or _read(der)
    return Certificate(variable, name, ends, fingerprint, file)


def _read(der: bytes) -> tuple[str, str]:
    """Name and last day of a certificate, as openssl reads them."""
    if find_tool("openssl") is None:
        return "a certificate", ""
    words = ["openssl", "x509", "-inform", "DER", "-noout", "-subject", "-nameopt", "RFC2253", "-enddate"]
    try:
        said = run(words, input=der, timeout=10)
    except (CommandError, OSError, UnicodeDecodeError):
        return "something that is no certificate", ""
    name = re.search(r"^subject=.*?\bCN=((?:\\.|[^,+\n])*)", said, re.MULTILINE)
    end = re.search(r"^notAfter=(\w+ +\d+) [\d:]+ (\d+) GMT", said, re.MULTILINE)
    day = datetime.datetime.strptime(f"{end[1]} {end[2]}", "%b %d %Y").date().isoformat() if end else ""
    return name[1] if name else "a certificate without a name", day
