"""Whether a key of an elliptic curve signed some bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

__all__ = ["signed"]


def signed(key: EllipticCurvePublicKey, r: int, s: int, data: bytes, *, bits: int) -> bool:
    """Whether the signature of those two numbers is the key's, by ECDSA over the data's SHA-256 or SHA-384 (``bits``)."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature

    try:
        key.verify(encode_dss_signature(r, s), data, ECDSA({256: hashes.SHA256(), 384: hashes.SHA384()}[bits]))
    except (InvalidSignature, ValueError):
        return False
    return True
