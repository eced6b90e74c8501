"""Launch measurements of AMD's SEV and SEV-ES, and secrets put into a guest that waits for them.

The guest's owner makes a session for one start: two keys (TEK encrypts, TIK signs), wrapped for one secure processor alone.
That measures firmware and, for SEV-ES, registers, and signs them with a number of its own by TIK. Source: AMD 55766 (SEV
API), sections LAUNCH_MEASURE and LAUNCH_SECRET, chapter 3 (GUEST_POLICY); QEMU qapi/misc-i386.json (query-sev,
query-sev-launch-measure, sev-inject-launch-secret); edk2 OvmfPkg/AmdSev/SecretDxe (the table of secrets).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
import uuid
from collections.abc import Callable, Mapping

from tinamou import late
from tinamou.attest.answers import Answer, Verdict, no, not_judged, yes
from tinamou.attest.binary import MalformedError
from tinamou.attest.policy import Policy
from tinamou.late import dataclass

__all__ = ["DISK_KEY", "Packet", "SevMeasurement", "is_one", "judge", "parse", "secret_packet"]

DISK_KEY: uuid.UUID = uuid.UUID("736870e5-84f0-4973-92ec-06879ce3da0b")
"""The name under which the boot loader of OVMF's AmdSev build looks for the key of its disk."""
_KIND = "tinamou-sev-measurement-1"
_NUMBERS = {"api-major": 1, "api-minor": 1, "build-id": 1, "policy": 4}
_TABLE = uuid.UUID("1e74f542-71dd-4d66-963e-ef4287ff173b")
_MOST = 1 << 14
_NODBG, _NOKS, _ES, _NOSEND = range(4)


@dataclass(frozen=True)
class SevMeasurement:
    """What a secure processor said of a start: ``firmware`` is its API's two numbers and its build, ``policy`` the guest's.

    ``measure`` is HMAC-SHA-256 by TIK over all of it with ``nonce``, 16 bytes the processor drew.
    """

    firmware: tuple[int, int, int]
    policy: int
    measure: bytes
    nonce: bytes

    def written(self) -> bytes:
        """The measurement as a file, which `parse` reads."""
        told: dict[str, object] = dict(zip(_NUMBERS, (*self.firmware, self.policy), strict=True))
        data = base64.b64encode(self.measure + self.nonce).decode()
        return json.dumps({"kind": _KIND, **told, "data": data}).encode() + b"\n"


def is_one(data: bytes) -> bool:
    """Whether these bytes have the form of a measurement that `SevMeasurement.written` wrote."""
    return data[:1] == b"{" and _KIND.encode() in data[:64]


def parse(data: bytes) -> SevMeasurement:
    """Raises MalformedError."""
    if len(data) > _MOST:
        raise MalformedError(f"a measurement of {len(data)} bytes; {_MOST} are looked at")
    try:
        told = json.loads(data)
        if not isinstance(told, dict) or set(told) != {*_NUMBERS, "kind", "data"} or told["kind"] != _KIND:
            raise MalformedError(f"a measurement of SEV has kind, data, {', '.join(_NUMBERS)}")
        numbers = [told[name] for name in _NUMBERS]
        fits = zip(numbers, _NUMBERS.values(), strict=True)
        if not all(type(one) is int and 0 <= one < 1 << 8 * size for one, size in fits):
            raise MalformedError("its numbers are no numbers of the firmware, or none it could have")
        if not isinstance(told["data"], str):
            raise MalformedError("its data is no text in base64")
        found = base64.b64decode(told["data"], validate=True)
    except (ValueError, RecursionError, binascii.Error) as error:
        raise MalformedError(f"the measurement cannot be read: {error}") from None
    if len(found) != 48:
        raise MalformedError(f"a measurement of SEV has 48 bytes, this has {len(found)}")
    major, minor, build, policy = numbers
    return SevMeasurement((major, minor, build), policy, found[:32], found[32:])


def judge(
    found: SevMeasurement, tik: bytes, policy: Policy, fresh: Callable[[bytes], Answer], measured: Mapping[str, bytes]
) -> Verdict:
    """The five answers; ``tik`` is the session's key that signs, 16 bytes, empty where it is not known."""
    major, minor, build = found.firmware
    says = {
        "firmware": f"API {major}.{minor}, build {build}",
        "guest policy": f"{found.policy:#x} ({', '.join(_words(found.policy)) or 'everything allowed'})",
        "measurement": found.measure.hex(),
        "number": found.nonce.hex(),
    }
    answers = (*_signed(found, tik, measured), _policy(found, policy), _tcb(build, policy))
    kind = "sev-es" if found.policy >> _ES & 1 else "sev"
    return Verdict(kind, says, (answers[0], fresh(found.nonce), *answers[1:]))


def _signed(found: SevMeasurement, tik: bytes, measured: Mapping[str, bytes]) -> tuple[Answer, Answer]:
    """Whether it is genuine, and what was expected: one signature covers both, so neither can be told without the other."""
    digest = measured.get("measurement", b"")
    if not tik:
        why, fix = "nobody said by which key the session signs", "give TIK, which was made with the session, by --tik"
        return not_judged("genuine", why, fix), not_judged("expected", why, fix)
    if not digest:
        why = "what was measured is not in it, only a signature over that: nothing was said to compare it with"
        fix = "give the launch digest by --machine or --expect (tinamou attest expect)"
        return not_judged("genuine", why, fix), not_judged("expected", why, fix)
    said = bytes([4, *found.firmware]) + found.policy.to_bytes(4, "little") + digest + found.nonce
    if not hmac.compare_digest(hmac.digest(tik, said, "sha256"), found.measure):
        why = f"no secure processor with this session's key measured {digest.hex()} under this policy"
        fix = "either the key is another session's, or another firmware, kernel or number of vCPUs was started"
        return no("genuine", why, fix), no("expected", why, fix)
    seen = [
        "the session's key signed it, which only its owner has and the secure processor it was wrapped for",
        "which processor that is said the certificate the session was made with",
    ]
    return yes("genuine", seen), yes("expected", [f"the launch digest is {digest.hex()}"])


def _words(policy: int) -> list[str]:
    names = {_NODBG: "no debugging", _NOKS: "a key of its own", _ES: "registers encrypted", _NOSEND: "not to be moved"}
    return [word for bit, word in names.items() if policy >> bit & 1]


def _policy(found: SevMeasurement, demanded: Policy) -> Answer:
    has = {bit: bool(found.policy >> bit & 1) for bit in range(4)}
    wrong = ["a measurement of SEV does not say whether Secure Boot was on"] if demanded.secure_boot else []
    if not has[_NODBG] and not demanded.debug:
        wrong.append("the host may debug the guest, and so read its memory")
    if not has[_NOSEND] and not demanded.migration_agent:
        wrong.append("it may be moved to another host")
    if not has[_NOKS]:
        wrong.append("other guests may share its key")
    if demanded.single_socket or not demanded.smt:
        wrong.append("a measurement of SEV speaks neither of sockets nor of threads")
    if wrong:
        return no("policy", "; ".join(wrong), "start the guest under another policy, or demand less of it")
    return yes("policy", _words(found.policy))


def _tcb(build: int, policy: Policy) -> Answer:
    floor = late.asdict(policy.floor)
    if absent := [part for part, least in floor.items() if least and part != "build"]:
        return no("tcb", f"{', '.join(absent)} was demanded, which SEV does not speak of", "demand a build alone")
    if not floor["build"]:
        fix = f"write floor = {{build = {build}}} or more into the file of --policy"
        return not_judged("tcb", "no least build of the secure processor's firmware was demanded", fix)
    if build < floor["build"]:
        return no("tcb", f"its build is {build}, at least {floor['build']} is demanded", "the host's owner updates it")
    return yes("tcb", [f"build {build}, at least {floor['build']}"])


@dataclass(frozen=True)
class Packet:
    """What QEMU hands on to the secure processor (sev-inject-launch-secret): ``header`` 52 bytes, ``secret`` encrypted."""

    header: bytes
    secret: bytes

    def plain(self) -> dict[str, str]:
        """The arguments of the QMP command."""
        return {
            "packet-header": base64.b64encode(self.header).decode(),
            "secret": base64.b64encode(self.secret).decode(),
        }


def secret_packet(
    tek: bytes, tik: bytes, measure: bytes, secret: bytes, name: uuid.UUID = DISK_KEY, iv: bytes = b""
) -> Packet:
    """A secret for the guest of which ``measure`` (32 bytes) was judged, and for no other: the processor compares it.

    The guest finds it under ``name`` in a table (Linux: /sys/kernel/security/secrets/coco). ``iv``: 16 bytes, drawn when
    left out, of which none may be used twice with one session. Raises ValueError for keys that are none.
    """
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes

    if len(tek) != 16 or len(tik) != 16 or len(measure) != 32:
        raise ValueError("TEK and TIK have 16 bytes each, a measurement 32")
    entry = name.bytes_le + (20 + len(secret)).to_bytes(4, "little") + secret
    table = _TABLE.bytes_le + (20 + len(entry)).to_bytes(4, "little") + entry
    table += bytes(-len(table) % 16)
    iv = iv or os.urandom(16)
    encryptor = Cipher(algorithms.AES(tek), modes.CTR(iv)).encryptor()
    hidden = encryptor.update(table) + encryptor.finalize()
    flags, length = bytes(4), len(table).to_bytes(4, "little")
    mac = hmac.digest(tik, b"\x01" + flags + iv + length + length + hidden + measure, hashlib.sha256)
    return Packet(flags + iv + mac, hidden)
