"""A session of SEV, made by a guest's owner for one start on one platform: keys that only its secure processor can unwrap.

Owner and processor agree on a secret (ECDH of a key made for this and the platform's PDH); from it follow keys that wrap TEK
and TIK. TIK signs what was measured, and the policy, so that the host can start the guest under no other. Source: AMD 55766
(SEV API), section 2.2.2 (key derivation) and LAUNCH_START (the session's layout).
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import os

from tinamou.attest import sev_chain
from tinamou.late import dataclass

__all__ = ["Session", "make_session", "wrapped"]


@dataclass(frozen=True)
class Session:
    """What QEMU hands to the processor (``dh_cert`` 2084 bytes, ``blob`` 128), and the owner's keys, 16 bytes each."""

    dh_cert: bytes
    blob: bytes
    tek: bytes
    tik: bytes

    def plain(self) -> dict[str, str]:
        """The fields of a machine's [confidential]: base64, as QEMU's own files have it."""
        found = {"dh_cert": self.dh_cert, "session": self.blob}
        return {name: base64.b64encode(one).decode() for name, one in found.items()}


def make_session(platform: sev_chain.Platform, policy: int) -> Session:
    """A new session for a start under this policy; the platform's chain must have been checked (`check_platform`)."""
    from cryptography.hazmat.primitives.asymmetric import ec

    theirs = platform.pdh
    mine, tek, tik = ec.generate_private_key(theirs.curve), os.urandom(16), os.urandom(16)
    shared = mine.exchange(ec.ECDH(), theirs)
    blob = wrapped(shared, tek, tik, policy, os.urandom(16), os.urandom(16))
    return Session(sev_chain.written(mine.public_key()), blob, tek, tik)


def wrapped(shared: bytes, tek: bytes, tik: bytes, policy: int, nonce: bytes, iv: bytes) -> bytes:
    """The session: nonce, wrapped keys, IV, MACs of both and of the policy. ``shared`` is the secret agreed on."""
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    master = _derived(shared, "sev-master-secret", nonce)
    encryptor = Cipher(algorithms.AES(_derived(master, "sev-kek")), modes.CTR(iv)).encryptor()
    keys = encryptor.update(tek + tik) + encryptor.finalize()
    wrap_mac = hmac.digest(_derived(master, "sev-kik"), keys, hashlib.sha256)
    return nonce + keys + iv + wrap_mac + hmac.digest(tik, policy.to_bytes(4, "little"), hashlib.sha256)


def _derived(key: bytes, label: str, context: bytes = b"") -> bytes:
    """Of 16 bytes: SP 800-108 in counter mode with HMAC-SHA-256, counter and length with their lowest byte first."""
    said = (1).to_bytes(4, "little") + label.encode() + b"\0" + context + (128).to_bytes(4, "little")
    return hmac.digest(key, said, hashlib.sha256)[:16]
