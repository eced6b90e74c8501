"""A secret sealed by a guest's TPM, by bytes that the guest's own shell passes on.

Source: TCG TPM 2.0 Library, part 3: TPM2_CreatePrimary, Create, Load, Unseal; numbers have their highest byte first.
"""

from __future__ import annotations

from collections.abc import Callable

Ask = Callable[[bytes], bytes]
"""Gives the TPM a command and returns what it says."""

ASK = "exec 3<>/dev/tpm0; dd bs=4096 count=1 iflag=fullblock 2>/dev/null >&3; dd bs=4096 count=1 <&3 2>/dev/null"
_OWNER, _PASSWORD = 0x40000001, bytes.fromhex("400000090000010000")
_STORAGE = bytes.fromhex("0023000b00030072000000060080004300100003001000000000")
_SEALED = bytes.fromhex("0008000b00000452000000100000")
_CREATE_PRIMARY, _CREATE, _LOAD, _UNSEAL = 0x131, 0x153, 0x157, 0x15E


def _sized(data: bytes) -> bytes:
    return len(data).to_bytes(2, "big") + data


def _asked(ask: Ask, code: int, handle: int, rest: bytes = b"") -> bytes:
    """What a command on that handle, authorised by an empty password, answers after its header."""
    auth = len(_PASSWORD).to_bytes(4, "big") + _PASSWORD
    body = code.to_bytes(4, "big") + handle.to_bytes(4, "big") + auth + rest
    said = ask(b"\x80\x02" + (len(body) + 6).to_bytes(4, "big") + body)
    assert said[6:10] == bytes(4), f"{code:#x}: {said[6:10].hex()}"
    return said[10:]


def _split(data: bytes) -> tuple[bytes, bytes]:
    length = int.from_bytes(data[:2], "big") + 2
    return data[:length], data[length:]


def primary(ask: Ask) -> int:
    """The handle of the storage key that this TPM makes of its seed."""
    made = _asked(ask, _CREATE_PRIMARY, _OWNER, _sized(bytes(4)) + _sized(_STORAGE) + bytes(2) + bytes(4))
    return int.from_bytes(made[:4], "big")


def sealed(ask: Ask, key: int, secret: bytes) -> bytes:
    """The secret as this TPM's key has it."""
    rest = _sized(bytes(2) + _sized(secret)) + _sized(_SEALED) + bytes(2) + bytes(4)
    private, more = _split(_asked(ask, _CREATE, key, rest)[4:])
    return private + _split(more)[0]


def unsealed(ask: Ask, key: int, blob: bytes) -> bytes:
    """The secret again."""
    loaded = int.from_bytes(_asked(ask, _LOAD, key, blob)[:4], "big")
    return _split(_asked(ask, _UNSEAL, loaded)[4:])[0][2:]
