"""A secret encrypted to a guest's key, as JSON Web Encryption: only who has the private part opens it.

Source: RFC 7516 (JWE, flattened JSON), RFC 7517 and 7518 (keys; RSA-OAEP-256, ECDH-ES+A256KW, A256GCM).
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tinamou.attest.binary import MalformedError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

__all__ = ["canonical", "from_pem", "key_of", "sealed", "spki"]

_CURVES = {"P-256": 32, "P-384": 48, "P-521": 66}
_RSA, _ECDH = "RSA-OAEP-256", "ECDH-ES+A256KW"


def canonical(value: object) -> bytes:
    """JSON with sorted names and without spaces, as both sides of the KBS protocol hash it. Raises MalformedError."""
    try:
        return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()
    except (ValueError, RecursionError) as error:  # half a surrogate, or nested without end
        raise MalformedError(f"it cannot be written as JSON: {error}") from None


def key_of(jwk: Mapping[str, object]) -> RSAPublicKey | EllipticCurvePublicKey:
    """The public key in a JSON Web Key. Raises MalformedError."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa

    kind, alg = jwk.get("kty"), jwk.get("alg")
    if (kind, alg) not in (("RSA", _RSA), ("EC", _ECDH)):
        raise MalformedError(f"a key {kind} for {alg}; RSA for {_RSA} and EC for {_ECDH} are known here")
    try:
        if kind == "RSA":
            modulus = _number(jwk, "n")
            if not 2048 <= modulus.bit_length() <= 8192:
                raise MalformedError(f"a key RSA of {modulus.bit_length()} bits; 2048 to 8192 are taken")
            return rsa.RSAPublicNumbers(_number(jwk, "e"), modulus).public_key()
        curve = jwk.get("crv")
        if not isinstance(curve, str) or curve not in _CURVES:
            raise MalformedError(f"a key on another curve than {', '.join(_CURVES)}")
        curves = {"P-256": ec.SECP256R1(), "P-384": ec.SECP384R1(), "P-521": ec.SECP521R1()}
        return ec.EllipticCurvePublicNumbers(_number(jwk, "x"), _number(jwk, "y"), curves[curve]).public_key()
    except ValueError as error:
        raise MalformedError(f"its key is none: {error}") from None


def from_pem(data: bytes) -> RSAPublicKey | EllipticCurvePublicKey:
    """The public key in PEM or DER. Raises MalformedError."""
    from cryptography.hazmat.primitives.asymmetric import ec, rsa
    from cryptography.hazmat.primitives.serialization import load_der_public_key, load_pem_public_key

    try:
        key = (load_pem_public_key if b"-----BEGIN" in data else load_der_public_key)(data)
    except Exception as error:  # its parser has errors of its own for every step
        raise MalformedError(f"no public key: {error}") from None
    if isinstance(key, rsa.RSAPublicKey) and 2048 <= key.key_size <= 8192:
        return key
    if isinstance(key, ec.EllipticCurvePublicKey) and _curve(key) in _CURVES:
        return key
    raise MalformedError(f"a key of another kind than RSA (2048 to 8192 bits) or EC ({', '.join(_CURVES)})")


def spki(key: RSAPublicKey | EllipticCurvePublicKey) -> bytes:
    """A public key in DER (SubjectPublicKeyInfo)."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def sealed(secret: bytes, key: RSAPublicKey | EllipticCurvePublicKey) -> dict[str, str]:
    """The secret, encrypted: protected, encrypted_key, iv, ciphertext, tag."""
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    content, iv = os.urandom(32), os.urandom(12)
    if isinstance(key, RSAPublicKey):
        head: dict[str, object] = {"alg": _RSA, "enc": "A256GCM"}
        wrapped = key.encrypt(content, padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None))
    else:
        head, wrapped = _agreed(content, key)
    protected = _text(canonical(head))
    hidden = AESGCM(content).encrypt(iv, secret, protected.encode())
    return {
        "protected": protected,
        "encrypted_key": _text(wrapped),
        "iv": _text(iv),
        "ciphertext": _text(hidden[:-16]),
        "tag": _text(hidden[-16:]),
    }


def _agreed(content: bytes, key: EllipticCurvePublicKey) -> tuple[dict[str, object], bytes]:
    """The head with a key of this one time, and the content's key wrapped by what both agree on."""
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.keywrap import aes_key_wrap

    mine = ec.generate_private_key(key.curve)
    numbers, size = mine.public_key().public_numbers(), _CURVES[_curve(key)]
    point = {name: _text(value.to_bytes(size, "big")) for name, value in (("x", numbers.x), ("y", numbers.y))}
    head: dict[str, object] = {"alg": _ECDH, "enc": "A256GCM", "epk": {"kty": "EC", "crv": _curve(key), **point}}
    said = len(_ECDH).to_bytes(4, "big") + _ECDH.encode() + bytes(8) + (256).to_bytes(4, "big")
    agreed = hashlib.sha256((1).to_bytes(4, "big") + mine.exchange(ec.ECDH(), key) + said).digest()
    return head, aes_key_wrap(agreed, content)


def _curve(key: EllipticCurvePublicKey) -> str:
    return {"secp256r1": "P-256", "secp384r1": "P-384", "secp521r1": "P-521"}.get(key.curve.name, "")


def _number(jwk: Mapping[str, object], name: str) -> int:
    value = jwk.get(name)
    if not isinstance(value, str) or not value.isascii() or len(value) > 2048:
        raise MalformedError(f"its key has no {name}")
    return int.from_bytes(base64.urlsafe_b64decode(value + "=" * (-len(value) % 4)), "big")


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()
