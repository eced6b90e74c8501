"""A secure processor of AMD's as its SEV API says, once more and by itself: no library, and nothing of tinamou.

It unwraps a session, measures, signs, and takes a secret, or refuses. Source: AMD 55766, LAUNCH_START, LAUNCH_MEASURE,
LAUNCH_SECRET; FIPS 197 (AES), SP 800-38A (counter mode), SEC 2 (P-384), SP 800-108.
"""

from __future__ import annotations

import hashlib
import hmac

P = 2**384 - 2**128 - 2**96 + 2**32 - 1
A = P - 3
BASE = (
    0xAA87CA22BE8B05378EB1C71EF320AD746E1D3B628BA79B9859F741E082542A385502F25DBF55296C3A545E3872760AB7,
    0x3617DE4A96262C6F5D9E98BF9292DC29F8F41DBD289A147CE9DA3113B5F0B8C00A60B1CE1D7E819D7A431D7C90EA0E5F,
)
API = (1, 55, 24)


def added(one, two):  # type: ignore[no-untyped-def]
    """The sum of two points of P-384."""
    if one is None or two is None:
        return one or two
    if one[0] == two[0]:
        if (one[1] + two[1]) % P == 0:
            return None
        slope = (3 * one[0] * one[0] + A) * pow(2 * one[1], -1, P) % P
    else:
        slope = (two[1] - one[1]) * pow(two[0] - one[0], -1, P) % P
    x = (slope * slope - one[0] - two[0]) % P
    return x, (slope * (one[0] - x) - one[1]) % P


def times(number, point):  # type: ignore[no-untyped-def]
    """A multiple of a point."""
    found = None
    while number:
        found = added(found, point) if number & 1 else found
        point, number = added(point, point), number >> 1
    return found


def _doubled(byte: int) -> int:
    return (byte << 1) ^ (0x11B if byte & 0x80 else 0)


def _product(one: int, two: int) -> int:
    found = 0
    while two:
        found ^= one if two & 1 else 0
        one, two = _doubled(one), two >> 1
    return found


def _substituted(byte: int) -> int:
    inverse = next((one for one in range(256) if _product(byte, one) == 1), 0)
    found = 0x63
    for turn in range(5):
        found ^= (inverse << turn | inverse >> (8 - turn)) & 0xFF
    return found


BOX = [_substituted(byte) for byte in range(256)]


def aes(key: bytes, block: bytes) -> bytes:
    """One block by AES-128."""
    words, constant = [list(key[at : at + 4]) for at in range(0, 16, 4)], 1
    for at in range(4, 44):
        word = list(words[-1])
        if at % 4 == 0:
            word = [BOX[one] for one in word[1:] + word[:1]]
            word[0] ^= constant
            constant = _doubled(constant)
        words.append([one ^ two for one, two in zip(word, words[at - 4], strict=True)])
    keys = [[one for word in words[at : at + 4] for one in word] for at in range(0, 44, 4)]
    state = [one ^ two for one, two in zip(block, keys[0], strict=True)]
    for turn in range(1, 11):
        state = [BOX[one] for one in state]
        state = [state[(at + 4 * (at % 4)) % 16] for at in range(16)]
        if turn < 10:
            mixed = list[int]()
            for at in range(0, 16, 4):
                a, b, c, d = state[at : at + 4]
                for w, x, y, z in ((a, b, c, d), (b, c, d, a), (c, d, a, b), (d, a, b, c)):
                    mixed.append(_doubled(w) ^ _doubled(x) ^ x ^ y ^ z)
            state = mixed
        state = [one ^ two for one, two in zip(state, keys[turn], strict=True)]
    return bytes(state)


def counted(key: bytes, iv: bytes, data: bytes) -> bytes:
    """AES-128 in counter mode."""
    start, found = int.from_bytes(iv, "big"), b""
    for at in range(0, len(data), 16):
        stream = aes(key, ((start + at // 16) % (1 << 128)).to_bytes(16, "big"))
        found += bytes(one ^ two for one, two in zip(data[at : at + 16], stream, strict=False))
    return found


def mac(key: bytes, data: bytes) -> bytes:
    return hmac.new(key, data, hashlib.sha256).digest()


def derived(key: bytes, label: bytes, context: bytes = b"") -> bytes:
    return mac(key, b"\x01\0\0\0" + label + b"\0" + context + b"\x80\0\0\0")[:16]


class Psp:
    """The processor: it has the private part of the platform's PDH. It raises ValueError where it refuses."""

    def __init__(self, private: int) -> None:
        self.private = private
        self.policy = 0
        self.tek = self.tik = self.measure = b""

    def launch_start(self, policy: int, dh_cert: bytes, session: bytes) -> None:
        if len(dh_cert) != 2084 or len(session) != 128 or dh_cert[8:12] != b"\x03\x10\0\0" or dh_cert[16:20] != b"\2\0\0\0":
            raise ValueError("no certificate of an owner's, or no session")
        point = tuple(int.from_bytes(dh_cert[at : at + 48], "little") for at in (20, 92))
        shared = times(self.private, point)[0].to_bytes(48, "big")
        nonce, keys, iv, wrap_mac, policy_mac = session[:16], session[16:48], session[48:64], session[64:96], session[96:]
        master = derived(shared, b"sev-master-secret", nonce)
        if mac(derived(master, b"sev-kik"), keys) != wrap_mac:
            raise ValueError("the session is for another processor")
        both = counted(derived(master, b"sev-kek"), iv, keys)
        self.tek, self.tik, self.policy = both[:16], both[16:], policy
        if mac(self.tik, policy.to_bytes(4, "little")) != policy_mac:
            raise ValueError("the session is for another policy")

    def launch_measure(self, digest: bytes, number: bytes) -> bytes:
        said = bytes([4, *API]) + self.policy.to_bytes(4, "little") + digest + number
        self.measure = mac(self.tik, said)
        return self.measure + number

    def launch_secret(self, header: bytes, secret: bytes) -> bytes:
        size = len(secret).to_bytes(4, "little")
        said = b"\1" + header[:20] + size * 2 + secret + self.measure
        if len(header) != 52 or len(secret) % 16 or mac(self.tik, said) != header[20:]:
            raise ValueError("the secret is for another start")
        return counted(self.tek, header[4:20], secret)
