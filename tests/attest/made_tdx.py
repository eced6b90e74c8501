"""A quote of TDX that nobody signed, and a log of events, as they lie in a guest: for what does not ask who signed them."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from tinamou.attest import eventlog

_AT = {"mrtd": 136, "rtmr0": 328, "rtmr1": 376, "rtmr2": 424, "rtmr3": 472}
LOG_HEAD = b"Spec ID Event03\0" + bytes(4) + b"\0\2\0\2" + b"\1\0\0\0" + b"\x0c\0" + b"\x30\0" + b"\0"


def quote(registers: Mapping[str, bytes]) -> bytes:
    """Of version 4, with these registers."""
    body = bytearray(584)
    for name, value in registers.items():
        body[_AT[name] : _AT[name] + 48] = value
    header = (
        b"\4\0\2\0" + (0x81).to_bytes(4, "little") + bytes(4) + bytes.fromhex("939a7233f79c4ca9940a0db3957f0607") + bytes(20)
    )
    inner = bytes(384 + 64 + 2) + b"\5\0" + (4).to_bytes(4, "little") + b"none"
    signature = bytes(128) + b"\6\0" + len(inner).to_bytes(4, "little") + inner
    return header + bytes(body) + len(signature).to_bytes(4, "little") + signature


def log(events: Iterable[tuple[int, int, bytes, bytes]]) -> bytes:
    """A log (CCEL) of these: the register (1 is RTMR0), the type, the digest, what it says."""
    found = (
        (1).to_bytes(4, "little") + (3).to_bytes(4, "little") + bytes(20) + len(LOG_HEAD).to_bytes(4, "little") + LOG_HEAD
    )
    for register, kind, digest, said in events:
        head = register.to_bytes(4, "little") + kind.to_bytes(4, "little") + (1).to_bytes(4, "little") + b"\x0c\0"
        found += head + digest + len(said).to_bytes(4, "little") + said
    return found


def registers_of(data: bytes) -> dict[str, bytes]:
    """What a quote has after these events."""
    return {f"rtmr{at - 1}": value for at, value in eventlog.replay(eventlog.parse(data), "sha384").items()}
