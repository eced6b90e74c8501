"""Commands to a TPM 2.0 and its answers, as bytes: the few by which a key of its own quotes its registers.

Source: TCG TPM 2.0 Library, part 2 (structures) and part 3 (commands); TCG EK Credential Profile 2.5 (template L-1).
Numbers have their highest byte first.
"""

from __future__ import annotations

from collections.abc import Iterable

from tinamou.attest.binary import MalformedError, Reader
from tinamou.late import dataclass

__all__ = [
    "EK_TEMPLATE", "KEY_TEMPLATE", "LOCKED_OUT", "Made", "RefusedError",
    "activate_credential", "answered", "create_primary", "endorsement_policy",
    "flush", "lock_reset", "made", "mask_of", "nv_read", "nv_size", "policy_session", "quote", "sized", "unsized",
]  # fmt: skip

ENDORSEMENT = 0x4000000B
_PASSWORD = 0x40000009
_NULL = 0x40000007
_SHA256, _AES, _CFB, _NONE, _RSA, _ECC, _ECDSA, _P256 = 0x0B, 0x06, 0x43, 0x10, 0x01, 0x23, 0x18, 0x03
_ENDORSEMENT_POLICY = bytes.fromhex("837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa")
_LOCKOUT = 0x4000000A
LOCKED_OUT = 0x921
"""The TPM lets nobody use a key for which guesses are counted: it counts each start after no orderly end as one, too."""
_FAILURES = {
    LOCKED_OUT: "too many guesses were counted, or starts after no orderly end; it forgets one in a while",
    0x101: "the TPM failed",
    0x922: "the TPM is busy",
    0x100: "the TPM was not started",
    0x18B: "no such handle",
}


def _short(*values: int) -> bytes:
    return b"".join(value.to_bytes(2, "big") for value in values)


def _long(*values: int) -> bytes:
    return b"".join(value.to_bytes(4, "big") for value in values)


def sized(data: bytes) -> bytes:
    """A TPM2B: bytes behind their number."""
    return _short(len(data)) + data


EK_TEMPLATE = b"".join((
    _short(_RSA, _SHA256), _long(0x000300B2), sized(_ENDORSEMENT_POLICY), _short(_AES, 128, _CFB, _NONE, 2048), _long(0),
    sized(bytes(256)),
))  # fmt: skip
"""The endorsement key every maker's TPM has by this template: RSA, for decrypting alone."""
KEY_TEMPLATE = b"".join((
    _short(_ECC, _SHA256), _long(0x00050072), sized(b""), _short(_NONE, _ECDSA, _SHA256, _P256, _NONE), sized(b"") * 2,
))  # fmt: skip
"""A key that signs what the TPM itself says, and nothing else: ECDSA P-256, the same one each time it is made."""


def _command(code: int, handles: bytes, parameters: bytes, sessions: Iterable[int] = ()) -> bytes:
    authorised = b"".join(_long(one) + sized(b"") + b"\x00" + sized(b"") for one in sessions)
    body = handles + (_long(len(authorised)) + authorised if authorised else b"") + parameters
    return _short(0x8002 if authorised else 0x8001) + _long(10 + len(body), code) + body


def create_primary(template: bytes) -> bytes:
    """Make the key of a template in the endorsement hierarchy."""
    sensitive = sized(sized(b"") + sized(b""))
    return _command(0x131, _long(ENDORSEMENT), sensitive + sized(template) + sized(b"") + _long(0), [_PASSWORD])


def quote(key: int, nonce: bytes, registers: Iterable[int]) -> bytes:
    """Have a key sign what the SHA-256 registers hold, with the nonce."""
    selected = _long(1) + _short(_SHA256) + b"\x03" + mask_of(registers)
    return _command(0x158, _long(key), sized(nonce) + _short(_NONE) + selected, [_PASSWORD])


def mask_of(registers: Iterable[int]) -> bytes:
    """The three bytes that select registers."""
    return sum(1 << one for one in set(registers)).to_bytes(3, "little")


def nv_size(index: int) -> bytes:
    """How much an index of the TPM's storage has: NV_ReadPublic."""
    return _command(0x169, _long(index), b"")


def nv_read(index: int, length: int, offset: int) -> bytes:
    """Read of an index that anybody may read."""
    return _command(0x14E, _long(index, index), _short(length, offset), [_PASSWORD])


def policy_session(nonce: bytes) -> bytes:
    """Begin a session in which a policy is fulfilled."""
    return _command(0x176, _long(_NULL, _NULL), sized(nonce) + sized(b"") + b"\x01" + _short(_NONE, _SHA256))


def endorsement_policy(session: int) -> bytes:
    """Fulfil the policy of the endorsement key: whoever may use its hierarchy may use it."""
    nothing = sized(b"") * 3
    return _command(0x151, _long(ENDORSEMENT, session), nothing + _long(0), [_PASSWORD])


def activate_credential(key: int, endorsement: int, session: int, blob: bytes, secret: bytes) -> bytes:
    """Have the TPM decrypt what only one with both keys can."""
    return _command(0x147, _long(key, endorsement), sized(blob) + sized(secret), [_PASSWORD, session])


def flush(handle: int) -> bytes:
    """Forget a key or a session."""
    return _command(0x165, b"", _long(handle))


def lock_reset() -> bytes:
    """Forget the guesses that were counted; whoever set no password for that lets anybody."""
    return _command(0x139, _long(_LOCKOUT), b"", [_PASSWORD])


class RefusedError(MalformedError):
    """The TPM refused a command; ``code`` says why (part 2, TPM_RC)."""

    def __init__(self, why: str, code: int) -> None:
        super().__init__(why)
        self.code: int = code


@dataclass(frozen=True)
class Made:
    """A key that was made: its handle, its public part as it is, and its name, which is the hash of that."""

    handle: int
    public: bytes


def answered(answer: bytes, command: bytes) -> Reader:
    """What a TPM said to a command, behind its head. Raises MalformedError where it refused."""
    reader = Reader(answer, "the TPM's answer")
    reader.take(2, "tag")
    length = int.from_bytes(reader.take(4, "length"), "big")
    code = int.from_bytes(reader.take(4, "code"), "big")
    if length != len(answer):
        raise MalformedError(f"the TPM's answer has {len(answer)} bytes and says it has {length}")
    if code:
        what = _FAILURES.get(code, f"code {code:#x}")
        raise RefusedError(f"the TPM refused command {int.from_bytes(command[6:10], 'big'):#x}: {what}", code)
    return reader


def made(answer: bytes, command: bytes) -> Made:
    """The key of `create_primary`."""
    reader = answered(answer, command)
    handle = int.from_bytes(reader.take(4, "handle"), "big")
    reader.take(4, "length")
    return Made(handle, unsized(reader, "public part"))


def unsized(reader: Reader, field: str) -> bytes:
    """The bytes of a TPM2B."""
    return reader.take(int.from_bytes(reader.take(2, f"length of {field}"), "big"), field)
