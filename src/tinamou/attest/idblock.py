"""Identity of a SEV-SNP guest: a block that says what must be measured, signed by its owner's keys, made and checked.

The secure processor starts no guest that measures anything else than its block says, and writes into each report whose key
signed the block. Source: AMD 56860 (SEV-SNP firmware ABI), tables of ID_BLOCK and ID_AUTH_INFO, SNP_LAUNCH_FINISH, and
appendix D (keys and signatures, numbers lowest byte first).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
from typing import TYPE_CHECKING

from tinamou.attest.binary import MalformedError, Reader, number
from tinamou.attest.signed import signed
from tinamou.late import dataclass

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey, EllipticCurvePublicKey

__all__ = ["IdBlock", "check", "differs", "load_key", "make", "parse", "public_part"]

_BLOCK, _AUTH, _POINT, _KEY, _SIGNATURE = 96, 4096, 72, 0x404, 512
_P384 = 2
_KIND = "tinamou-id-block-1"
_MOST = 1 << 14


@dataclass(frozen=True)
class IdBlock:
    """``block`` and ``auth`` as QEMU takes them (in base64: id-block, id-auth); the digests a report has of both keys."""

    block: bytes
    auth: bytes
    id_key: bytes
    author_key: bytes

    @property
    def svn(self) -> int:
        """The version of the guest, its owner's."""
        return number(self.block[84:88])

    @property
    def policy(self) -> int:
        """The policy it must be started under."""
        return number(self.block[88:96])

    def written(self) -> bytes:
        """Both as a file, which `parse` reads; by QEMU's names, so that they can be handed on to it."""
        told = {"id-block": base64.b64encode(self.block).decode(), "id-auth": base64.b64encode(self.auth).decode()}
        return json.dumps({"kind": _KIND, **told}, indent=1).encode() + b"\n"


def parse(data: bytes) -> IdBlock:
    """The blocks in a file that `IdBlock.written` wrote, where their signatures hold. Raises MalformedError."""
    try:
        told = json.loads(data[:_MOST])
        if not isinstance(told, dict) or set(told) != {"kind", "id-block", "id-auth"} or told["kind"] != _KIND:
            raise MalformedError("an id block has the fields kind, id-block, id-auth")
        block, auth = (base64.b64decode(told[name], validate=True) for name in ("id-block", "id-auth"))
    except (ValueError, TypeError, RecursionError, binascii.Error) as error:
        raise MalformedError(f"the id block cannot be read: {error}") from None
    return check(block, auth)


def load_key(pem: bytes) -> EllipticCurvePrivateKey:
    """A private key on P-384, in PEM or DER, unencrypted. Raises MalformedError."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePrivateKey

    load = serialization.load_pem_private_key if b"-----BEGIN" in pem else serialization.load_der_private_key
    try:
        key = load(pem, None)
    except Exception as error:  # its parser has errors of its own for every step
        raise MalformedError(f"no private key: {error}") from None
    if not isinstance(key, EllipticCurvePrivateKey) or not isinstance(key.curve, SECP384R1):
        raise MalformedError("the key is on another curve than P-384")
    return key


def public_part(key: EllipticCurvePublicKey) -> bytes:
    """The public part of a key as AMD writes it: its curve, and its point."""
    numbers = key.public_numbers()
    point = b"".join(one.to_bytes(_POINT, "little") for one in (numbers.x, numbers.y))
    return _P384.to_bytes(4, "little") + point.ljust(_KEY - 4, b"\0")


def make(
    measurement: bytes,
    id_key: EllipticCurvePrivateKey,
    author: EllipticCurvePrivateKey | None = None,
    *,
    family: bytes = b"",
    image: bytes = b"",
    svn: int = 0,
    policy: int = 0x30000,
) -> IdBlock:
    """The blocks of a guest that must measure these 48 bytes. Family and image are its owner's, up to 16 bytes each."""
    if len(measurement) != 48 or max(len(family), len(image)) > 16:
        raise MalformedError("a measurement has 48 bytes, a family and an image up to 16")
    block = measurement + family.ljust(16, b"\0") + image.ljust(16, b"\0")
    block += (1).to_bytes(4, "little") + svn.to_bytes(4, "little") + policy.to_bytes(8, "little")
    mine = public_part(id_key.public_key())
    auth = (1).to_bytes(4, "little") * 2
    auth = auth.ljust(64, b"\0") + _signed(id_key, block) + mine
    theirs = b""
    if author is not None:
        theirs = public_part(author.public_key())
        auth = auth.ljust(0x680, b"\0") + _signed(author, mine) + theirs
    author_digest = hashlib.sha384(theirs).digest() if theirs else bytes(48)
    return IdBlock(block, auth.ljust(_AUTH, b"\0"), hashlib.sha384(mine).digest(), author_digest)


def check(block: bytes, auth: bytes) -> IdBlock:
    """The blocks, where their signatures hold. Raises MalformedError saying what does not."""
    if len(block) != _BLOCK or len(auth) != _AUTH:
        raise MalformedError(f"the block has {_BLOCK} bytes and its signatures {_AUTH}, not {len(block)} and {len(auth)}")
    if number(block[80:84]) != 1:
        raise MalformedError(f"a block of version {number(block[80:84])}; version 1 is known here")
    reader = Reader(auth, "the signatures")
    algorithms = reader.number(4, "algorithm of the block's key"), reader.number(4, "algorithm of its author's key")
    gap = reader.take(56, "what is reserved")
    signature, mine = reader.take(_SIGNATURE, "signature"), reader.take(_KEY, "key")
    behind = reader.take(0x680 - 64 - _SIGNATURE - _KEY, "what is reserved")
    author_signature, theirs = reader.take(_SIGNATURE, "author's signature"), reader.take(_KEY, "author's key")
    if algorithms[0] != 1 or any(gap + behind + reader.rest()):
        raise MalformedError("its form is not that of a block signed by ECDSA P-384 with SHA-384")
    _verify(mine, signature, block, "the block was not signed by its key, or was changed since")
    if not any(theirs + author_signature):
        return IdBlock(block, auth, hashlib.sha384(mine).digest(), bytes(48))
    if algorithms[1] != 1:
        raise MalformedError("its author signs in another way than by ECDSA P-384 with SHA-384")
    _verify(theirs, author_signature, mine, "the block's key was not signed by its author's, or was changed since")
    return IdBlock(block, auth, hashlib.sha384(mine).digest(), hashlib.sha384(theirs).digest())


def differs(found: IdBlock, measurement: bytes, id_key: bytes, author_key: bytes) -> str:
    """Why a report is not one of a guest with these blocks; empty where it is."""
    for name, wanted, has in (
        ("measurement", found.block[:48], measurement),
        ("key", found.id_key, id_key),
        ("author's key", found.author_key, author_key),
    ):
        if not hmac.compare_digest(wanted, has):
            return f"its {name} is {has.hex()}, the block's is {wanted.hex()}"
    return ""


def _signed(key: EllipticCurvePrivateKey, data: bytes) -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature

    pair = decode_dss_signature(key.sign(data, ECDSA(hashes.SHA384())))
    return b"".join(one.to_bytes(_POINT, "little") for one in pair).ljust(_SIGNATURE, b"\0")


def _verify(public: bytes, signature: bytes, data: bytes, otherwise: str) -> None:
    """Raises MalformedError."""
    from cryptography.hazmat.primitives.asymmetric.ec import SECP384R1, EllipticCurvePublicNumbers

    point = public[4:]
    pieces = (signature[:_POINT], signature[_POINT : 2 * _POINT], point[:_POINT], point[_POINT : 2 * _POINT])
    r, s, x, y = (number(one) for one in pieces)
    if number(public[:4]) != _P384 or any(signature[144:] + public[4 + 2 * _POINT :]) or max(r, s) >> 384:
        raise MalformedError("a key of it is on another curve than P-384, or has more than a point")
    try:
        key = EllipticCurvePublicNumbers(x, y, SECP384R1()).public_key()
    except ValueError as error:
        raise MalformedError(otherwise) from error
    if not signed(key, r, s, data, bits=384):
        raise MalformedError(otherwise)
