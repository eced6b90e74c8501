"""Certificates of a platform with SEV, in AMD's own form: from its key for key agreement (PDH) up to AMD's root.

PDH was signed by PEK, that by its owner (OCA) and by the processor (CEK), that by AMD's ASK, that by ARK, which counts by
the hash of its key. Source: AMD 55766 (SEV API), appendix C: SEV certificates have 2084 bytes, those of AMD's authorities a
head of 64 and numbers as long as their keys; all numbers have their lowest byte first. `sevctl export --full` writes one.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

from tinamou.attest.binary import MalformedError, Reader, number
from tinamou.attest.certificates import ROOTS, UntrustedError
from tinamou.attest.signed import signed
from tinamou.late import dataclass

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.hashes import HashAlgorithm

__all__ = ["PDH", "SIZE", "Platform", "check_platform", "parse_platform", "written"]

SIZE: int = 2084
"""Bytes of a certificate of the platform's own."""
OCA: int = 0x1001
PEK: int = 0x1002
PDH: int = 0x1003
CEK: int = 0x1004
_NONE = 0x1000
_ARK, _ASK = 0x00, 0x13
_NAMES = {OCA: "OCA", PEK: "PEK", PDH: "PDH", CEK: "CEK", _ARK: "ARK", _ASK: "ASK"}
_SIGNED, _SIGNATURE, _FIELD = 0x414, 520, 72
_RSA256, _ECDSA256, _ECDH256, _RSA384, _ECDSA384, _ECDH384 = 1, 2, 3, 0x101, 0x102, 0x103
_SHA384 = 0x100
_ECDSA, _ECDH, _RSA = {_ECDSA256, _ECDSA384}, {_ECDH256, _ECDH384}, {_RSA256, _RSA384}
_MOST = 1 << 15


@dataclass(frozen=True)
class _Own:
    """A certificate of the platform's: its key, and the signatures below what is signed, by the usage of who made them."""

    usage: int
    algorithm: int
    key: EllipticCurvePublicKey
    signed: bytes
    signatures: dict[int, tuple[int, bytes]]


@dataclass(frozen=True)
class _Amds:
    """A certificate of AMD's authorities; ``signature`` is empty where there is none, as in AMD's file of the first ARK."""

    key: RSAPublicKey
    signed: bytes
    signature: bytes


@dataclass(frozen=True)
class Platform:
    """The certificates of a platform, by what they are for."""

    own: dict[int, _Own]
    ask: _Amds
    ark: _Amds

    @property
    def pdh(self) -> EllipticCurvePublicKey:
        """The key by which a secret is agreed on with the secure processor."""
        return self.own[PDH].key


def parse_platform(data: bytes) -> Platform:
    """The chain in these bytes, in any order but that ARK comes last. Raises MalformedError."""
    if len(data) > _MOST:
        raise MalformedError(f"a chain of {len(data)} bytes; {_MOST} are looked at")
    reader, own, amds = Reader(data, "the platform's chain"), dict[int, _Own](), dict[int, _Amds]()
    while reader.left:
        usage, found = _next(reader)
        if usage in own or usage in amds:
            raise MalformedError(f"the platform's chain has {_NAMES[usage]} twice")
        if isinstance(found, _Own):
            own[usage] = found
        else:
            amds[usage] = found
    if missing := [_NAMES[one] for one in (PDH, PEK, OCA, CEK, _ASK, _ARK) if one not in own and one not in amds]:
        raise MalformedError(f"the platform's chain has no {', '.join(missing)} (sevctl export --full writes them all)")
    return Platform(own, amds[_ASK], amds[_ARK])


def _next(reader: Reader) -> tuple[int, _Own | _Amds]:
    head = reader.take(12, "certificate")
    if number(head[:4]) != 1:
        raise MalformedError(f"a certificate of version {number(head[:4])}; version 1 is known here")
    usage = number(head[8:12])
    if usage in (OCA, PEK, PDH, CEK):
        return usage, _own(head + reader.take(SIZE - 12, "certificate"), usage)
    head += reader.take(52, "certificate")
    usage, size = number(head[36:40]), number(head[60:64])
    if usage not in (_ARK, _ASK) or size not in (2048, 4096) or number(head[56:60]) != size:
        raise MalformedError(f"a certificate for use {usage:#x} with a key of {size} bits is not known here")
    exponent, modulus = (reader.take(size // 8, "key") for _ in range(2))
    whole = usage != _ARK or reader.left
    signature = reader.take(size // 8, "signature") if whole else b""
    return usage, _Amds(_rsa(number(exponent), number(modulus)), head + exponent + modulus, signature)


def _rsa(exponent: int, modulus: int) -> RSAPublicKey:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers

    try:
        return RSAPublicNumbers(exponent, modulus).public_key()
    except ValueError as error:
        raise MalformedError(f"a key of AMD's authorities is none: {error}") from None


def _own(data: bytes, usage: int) -> _Own:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, SECP384R1, EllipticCurvePublicNumbers

    algorithm, curve = number(data[12:16]), number(data[16:20])
    if algorithm not in (_ECDH if usage == PDH else _ECDSA) or curve not in (1, 2):
        raise MalformedError(f"{_NAMES[usage]} has a key for {algorithm:#x} on curve {curve}, which is not known here")
    size = 48 if curve == 2 else 32
    x, y, behind = data[20 : 20 + _FIELD], data[20 + _FIELD : 20 + 2 * _FIELD], data[20 + 2 * _FIELD : _SIGNED]
    if any(x[size:] + y[size:] + behind):
        raise MalformedError(f"{_NAMES[usage]} has more than a point in its key")
    try:
        key = EllipticCurvePublicNumbers(number(x), number(y), SECP384R1() if curve == 2 else SECP256R1()).public_key()
    except ValueError:
        raise MalformedError(f"the key of {_NAMES[usage]} is no point of its curve") from None
    places = (data[_SIGNED : _SIGNED + _SIGNATURE], data[_SIGNED + _SIGNATURE :])
    signatures = {number(one[:4]): (number(one[4:8]), one[8:]) for one in places}
    return _Own(usage, algorithm, key, data[:_SIGNED], signatures)


def check_platform(platform: Platform) -> list[str]:
    """What was seen on the way from AMD's root to the platform's key. Raises UntrustedError saying where it breaks."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    spki = platform.ark.key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    root = ROOTS.get(hashlib.sha256(spki).hexdigest(), "")
    if not root:
        raise UntrustedError(f"ARK (SHA-256 of its key {hashlib.sha256(spki).hexdigest()}) is no root known here")
    size = platform.ark.key.key_size
    _by_rsa(platform.ark.key, platform.ask.signature, platform.ask.signed, size > 2048, "ASK was not signed by ARK")
    cek, own = platform.own[CEK], platform.own
    algorithm, signature = cek.signatures.get(_ASK, (0, b""))
    if algorithm not in _RSA:
        raise UntrustedError("CEK was not signed by ASK: AMD gives out a signed one for each processor")
    asked = signature[: platform.ask.key.key_size // 8]
    _by_rsa(platform.ask.key, asked, cek.signed, bool(algorithm & _SHA384), "CEK was not signed by ASK")
    for issuer, holder in ((CEK, PEK), (OCA, OCA), (OCA, PEK), (PEK, PDH)):
        _by_ecdsa(own[issuer], own[holder])
    return [f"ARK is {root}", "ARK signed ASK, that CEK, that PEK, that PDH", "its owner's OCA signed PEK too"]


def _hash(long: bool) -> HashAlgorithm:
    from cryptography.hazmat.primitives.hashes import SHA256, SHA384

    return SHA384() if long else SHA256()


def _by_rsa(key: RSAPublicKey, signature: bytes, signed: bytes, long: bool, otherwise: str) -> None:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric import padding

    used = _hash(long)
    pss = padding.PSS(padding.MGF1(used), used.digest_size)
    try:
        key.verify(signature[::-1], signed, pss, used)
    except InvalidSignature:
        raise UntrustedError(otherwise) from None


def _by_ecdsa(issuer: _Own, holder: _Own) -> None:
    algorithm, signature = holder.signatures.get(issuer.usage, (0, b""))
    r, s = number(signature[:_FIELD]), number(signature[_FIELD : 2 * _FIELD])
    bits = 384 if algorithm & _SHA384 else 256
    if algorithm not in _ECDSA or not signed(issuer.key, r, s, holder.signed, bits=bits):
        raise UntrustedError(f"{_NAMES[holder.usage]} was not signed by {_NAMES[issuer.usage]}")


def written(key: EllipticCurvePublicKey) -> bytes:
    """The certificate of an owner's own key for key agreement: nobody signs it, as the processor asks nobody."""
    numbers, curve = key.public_numbers(), 2 if key.key_size == 384 else 1
    head = b"".join(one.to_bytes(4, "little") for one in (1, 0, PDH, _ECDH256, curve))
    point = b"".join(one.to_bytes(_FIELD, "little") for one in (numbers.x, numbers.y))
    unsigned = _NONE.to_bytes(4, "little").ljust(_SIGNATURE, b"\0")
    return (head + point).ljust(_SIGNED, b"\0") + unsigned * 2
