"""Makes what AMD and the owner of a platform make: certificates of SEV from a root of our own to the platform's PDH."""

from __future__ import annotations

import hashlib

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

_OWN = {"pdh": 0x1003, "pek": 0x1002, "oca": 0x1001, "cek": 0x1004}


def _le(value: int, size: int = 4) -> bytes:
    return value.to_bytes(size, "little")


class Platform:
    """Keys of all on the way; ``private`` is that of PDH, ``pin`` the hash of the root's key."""

    def __init__(self) -> None:
        self.ark, self.ask = (rsa.generate_private_key(65537, 2048) for _ in range(2))
        self.keys = {name: ec.generate_private_key(ec.SECP384R1()) for name in _OWN}
        self.private = self.keys["pdh"].private_numbers().private_value
        spki = self.ark.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.pin = hashlib.sha256(spki).hexdigest()

    def chain(self, *, cek_signed: bool = True) -> bytes:
        """As sevctl exports it: PDH, PEK, OCA, CEK, ASK, ARK."""
        signers = {"pdh": ["pek"], "pek": ["oca", "cek"], "oca": ["oca"], "cek": ["ask"] if cek_signed else []}
        own = b"".join(self._own(name, by) for name, by in signers.items())
        return own + self._amds(self.ask, 0x13) + self._amds(self.ark, 0)

    def unsigned(self) -> set[int]:
        """Places in the chain whose bytes say nothing: second signatures that are not there, what is behind short ones."""
        free = set[int]()
        for at, (name, size) in enumerate((("pdh", 144), ("pek", 144), ("oca", 144), ("cek", 256))):
            start = at * 2084 + 0x414
            free |= set(range(start + 8 + size, start + 520))
            second = start + 520
            free |= set(range(second + 8 + 144, second + 520)) if name == "pek" else set(range(second, second + 520))
        whole = len(self.chain())
        free |= set(range(whole - 256, whole))  # a root counts by its key, whatever it says of itself
        for start in (4 * 2084, 4 * 2084 + 832):  # the names of keys, which nobody follows: the key itself is asked
            free |= set(range(start + 4, start + 36)) if start > 4 * 2084 else set()
        ark = 4 * 2084 + 832
        return free | set(range(ark + 40, ark + 56))

    def _own(self, name: str, signers: list[str]) -> bytes:
        numbers = self.keys[name].public_key().public_numbers()
        head = _le(1) + bytes([1, 55, 0, 0]) + _le(_OWN[name]) + _le(3 if name == "pdh" else 2) + _le(2)
        body = (head + _le(numbers.x, 72) + _le(numbers.y, 72)).ljust(0x414, b"\0")
        found = [self._signed(body, one) for one in signers]
        empty = (_le(0x1000) + _le(0)).ljust(520, b"\0")
        return body + b"".join([*found, empty, empty][:2])

    def _signed(self, body: bytes, by: str) -> bytes:
        if by == "ask":
            pss = padding.PSS(padding.MGF1(hashes.SHA256()), 32)
            signature = self.ask.sign(body, pss, hashes.SHA256())[::-1]
            return (_le(0x13) + _le(1) + signature).ljust(520, b"\0")
        pair = decode_dss_signature(self.keys[by].sign(body, ec.ECDSA(hashes.SHA256())))
        return (_le(_OWN[by]) + _le(2) + b"".join(_le(one, 72) for one in pair)).ljust(520, b"\0")

    def _amds(self, key: rsa.RSAPrivateKey, usage: int) -> bytes:
        head = _le(1) + bytes(32) + _le(usage) + bytes(16) + _le(2048) * 2
        numbers = key.public_key().public_numbers()
        body = head + _le(numbers.e, 256) + _le(numbers.n, 256)
        return body + self.ark.sign(body, padding.PSS(padding.MGF1(hashes.SHA256()), 32), hashes.SHA256())[::-1]
