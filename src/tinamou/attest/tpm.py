"""Quotes of a TPM 2.0: a machine's measured boot, judged by the key that signs, the nonce, and the log of events.

A machine's TPM is emulated on its host: a quote proves what the guest was started from to whoever trusts the host, and
nothing to whoever does not. Source: TCG TPM 2.0 Library, parts 1 (credentials, 24) and 2 (TPMS_ATTEST, TPMT_PUBLIC); TCG
PC Client Platform Firmware Profile (what is measured into which register).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import json
import os
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from tinamou import late
from tinamou.attest import eventlog, signatures
from tinamou.attest.answers import Answer, Verdict, no, not_judged, yes
from tinamou.attest.binary import MalformedError, Reader
from tinamou.attest.policy import Policy
from tinamou.attest.signed import signed
from tinamou.attest.tpm_wire import EK_TEMPLATE, mask_of, sized, unsized
from tinamou.late import dataclass

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

__all__ = ["REGISTERS", "TpmQuote", "as_quoted", "credential", "is_one", "judge", "name_of", "parse", "rsa_key", "signed_by"]

REGISTERS = tuple(range(16))
"""What is quoted: all that firmware, boot loader and kernel measure."""
_MAGIC, _QUOTE = b"\xffTCG", 0x8018
_FIELDS = {"attest", "signature", "key", "endorsement", "certificate", "log", "ima", "kind"}
_IMA = 10
_MOST = 24 << 20
_VARIABLE = "EFI_VARIABLE_DRIVER_CONFIG"
_SECURE_BOOT = "SecureBoot of 8be4df61-93ca-11d2-aa0d-00e098032b8c"


@dataclass(frozen=True)
class TpmQuote:
    """What was signed and with what: ``attest`` is TPMS_ATTEST, ``key`` and ``endorsement`` are TPMT_PUBLIC.

    ``certificate``: of the endorsement key, in DER; ``log``: the guest's log of events, ``ima``: its
    kernel's, each empty where it has none.
    """

    attest: bytes
    signature: bytes
    key: bytes
    endorsement: bytes
    certificate: bytes
    log: bytes
    ima: bytes

    def written(self) -> bytes:
        """The quote as a file, which `parse` reads."""
        fields = {"attest": self.attest, "signature": self.signature, "key": self.key, "endorsement": self.endorsement}
        fields |= {"certificate": self.certificate, "log": self.log, "ima": self.ima}
        plain = {name: base64.b64encode(value).decode() for name, value in fields.items()}
        return json.dumps({"kind": "tinamou-tpm-quote-1", **plain}, indent=1).encode() + b"\n"

    def events(self) -> list[eventlog.Event]:
        """What its logs say, the firmware's and then the kernel's. Raises MalformedError."""
        return [*(eventlog.parse(self.log) if self.log else ()), *eventlog.parse_ima(self.ima)]


def is_one(data: bytes) -> bool:
    """Whether these bytes have the form of a quote that `TpmQuote.written` wrote."""
    return data[:1] == b"{" and b"tinamou-tpm-quote-1" in data[:64]


def parse(data: bytes) -> TpmQuote:
    """Raises MalformedError."""
    if len(data) > _MOST:
        raise MalformedError(f"a quote of {len(data)} bytes; {_MOST} are looked at")
    try:
        told = json.loads(data)
        if not isinstance(told, dict) or set(told) != _FIELDS or not all(isinstance(one, str) for one in told.values()):
            raise MalformedError(f"a quote has the fields {', '.join(sorted(_FIELDS))}")
        fields = {name: base64.b64decode(value, validate=True) for name, value in told.items() if name != "kind"}
    except (ValueError, RecursionError, binascii.Error) as error:
        raise MalformedError(f"the quote cannot be read: {error}") from None
    return TpmQuote(**fields)


def name_of(public: bytes) -> bytes:
    """The name of a key, by which TPMs tell it: a hash of its public part."""
    return b"\x00\x0b" + hashlib.sha256(public).digest()


def as_quoted(quote: TpmQuote) -> TpmQuote:
    """The quote with its kernel's log up to where the TPM signed: files that were measured before the log was read go.

    As it is, where no beginning of that log gives what was quoted. Raises MalformedError.
    """
    _, _, digest, _ = _attested(quote.attest)
    registers = eventlog.replay(eventlog.parse(quote.log) if quote.log else (), "sha256")
    for event, end in [(None, 0), *eventlog.ima_events(quote.ima)]:
        if event is not None:
            before = registers.get(event.register, bytes(32))
            registers[event.register] = hashlib.sha256(before + event.digests["sha256"]).digest()
        held = b"".join(registers.get(number, bytes(32)) for number in REGISTERS)
        if hmac.compare_digest(hashlib.sha256(held).digest(), digest):
            return late.replace(quote, ima=quote.ima[:end])
    return quote


def judge(
    quote: TpmQuote,
    key: bytes,
    policy: Policy,
    fresh: Callable[[bytes], Answer],
    reference: bytes,
) -> Verdict:
    """The five answers about a quote.

    ``key`` is the name of the key that must have signed, ``reference`` a quote or log of a start that is trusted.
    """
    says = {"key": name_of(quote.key).hex()}
    try:
        nonce, mask, digest, firmware = _attested(quote.attest)
        signed_by(quote)
        events = quote.events()
        registers = eventlog.replay(events, "sha256")
    except MalformedError as error:
        return Verdict(
            "tpm", says, tuple(no(question, str(error)) for question in ("genuine", "fresh", "expected", "policy", "tcb"))
        )
    says |= {f"register {number}": value.hex() for number, value in sorted(registers.items())}
    says |= {"registers": digest.hex(), "firmware": f"{firmware:#x}"} | _keys(events)
    logged = _log_answer(mask, digest, registers)
    answers = (
        _genuine(quote, key),
        fresh(nonce),
        _expected(events, registers, reference, logged),
        _policy(events, logged, policy),
        _tcb(policy),
    )
    return Verdict("tpm", says, answers)


def _keys(events: Sequence[eventlog.Event]) -> dict[str, str]:
    """What Secure Boot trusts and revokes, by variable: what firmware measured before its separator, and nobody after it."""
    found = dict[str, str]()
    for one in events:
        if one.register != 7 or one.name != _VARIABLE or not one.covered:
            if one.register == 7 and one.name == "SEPARATOR":
                break
            continue
        try:
            name, _, _, value = one.variable()
        except MalformedError:
            continue
        if name in signatures.NAMES:
            found.setdefault(name, signatures.listed(value) or "nothing")
    return found


def _tcb(policy: Policy) -> Answer:
    if policy.host_trusted:
        return yes("tcb", ["the policy trusts the host, whose program the TPM is"])
    fix = "host_trusted = true in the file of --policy, where you do"
    return not_judged("tcb", "the TPM is a program of the host: the quote proves nothing to who does not trust that", fix)


def _attested(attest: bytes) -> tuple[bytes, bytes, bytes, int]:
    """Of what a TPM signed: the nonce, which registers (three bytes), the digest over them, the TPM's firmware version."""
    reader = Reader(attest, "what the TPM signed")
    if reader.take(4, "magic") != _MAGIC or int.from_bytes(reader.take(2, "type"), "big") != _QUOTE:
        raise MalformedError("what was signed is no quote of a TPM")
    unsized(reader, "signer")
    nonce = unsized(reader, "nonce")
    reader.take(17, "clock")
    firmware = int.from_bytes(reader.take(8, "firmware"), "big")
    if reader.take(4, "selections") != b"\0\0\0\1" or reader.take(3, "hash function") != b"\0\x0b\x03":
        raise MalformedError("other registers than those by SHA-256 were quoted")
    mask, digest = reader.take(3, "registers"), unsized(reader, "digest")
    reader.ended()
    return nonce, mask, digest, firmware


def signed_by(quote: TpmQuote) -> None:
    """The key signed the quote, and can sign nothing but what a TPM says itself. Raises MalformedError."""
    reader = Reader(quote.signature, "the signature")
    if reader.take(4, "kind") != b"\0\x18\0\x0b":
        raise MalformedError("it is signed in another way than by ECDSA with SHA-256")
    r, s = (int.from_bytes(unsized(reader, "signature"), "big") for _ in range(2))
    reader.ended()
    if not signed(_elliptic(quote.key), r, s, quote.attest, bits=256):
        raise MalformedError("the quote was not signed by its key, or was changed since")


def _elliptic(public: bytes) -> EllipticCurvePublicKey:
    from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicNumbers

    reader = Reader(public, "the key")
    if reader.take(4, "kind") != b"\0\x23\0\x0b":
        raise MalformedError("the key is no elliptic one")
    attributes = int.from_bytes(reader.take(4, "attributes"), "big")
    if attributes & 0x00070072 != 0x00050072:  # restricted, signs, does not decrypt, made in the TPM and stays there
        raise MalformedError(f"the key may sign anything, or leave the TPM (attributes {attributes:#x})")
    unsized(reader, "policy")
    if reader.take(10, "scheme") != b"\0\x10\0\x18\0\x0b\0\x03\0\x10":
        raise MalformedError("the key is of another scheme than ECDSA P-256")
    x, y = (int.from_bytes(unsized(reader, "point"), "big") for _ in range(2))
    reader.ended()
    try:
        return EllipticCurvePublicNumbers(x, y, SECP256R1()).public_key()
    except ValueError as error:
        raise MalformedError("the key is no point of the curve P-256") from error


def _genuine(quote: TpmQuote, key: bytes) -> Answer:
    name = name_of(quote.key)
    if not key:
        fix = f"where you know the machine's TPM, keep the name of its key once and give it by --key: {name.hex()}"
        return not_judged("genuine", "nothing says whose TPM this key is in", fix, ["the key signed the quote"])
    if hmac.compare_digest(key, name):
        return yes("genuine", [f"the key {name.hex()} signed the quote, and signs nothing but what its TPM says"])
    return no(
        "genuine",
        f"it was signed by the key {name.hex()}, not by {key.hex()}",
        "it is another machine's quote, or its TPM is new",
    )


_NO_LOG = "boot so that Linux is started by its EFI stub: GRUB 2.06 does so with Secure Boot alone, and hands on no log else"


def _log_answer(mask: bytes, digest: bytes, registers: Mapping[int, bytes]) -> str:
    """Why the log is not that of the quote; empty where it is."""
    if mask != mask_of(REGISTERS):
        return "other registers were quoted than 0 to 15"
    held = b"".join(registers.get(number, bytes(32)) for number in REGISTERS)
    if not hmac.compare_digest(hashlib.sha256(held).digest(), digest):
        none = "" if any(number < 8 for number in registers) else "its log has no event of a firmware: "
        return f"{none}the events of its log give other registers than were quoted"
    return ""


def _expected(events: Sequence[eventlog.Event], registers: Mapping[int, bytes], reference: bytes, logged: str) -> Answer:
    if logged:
        firmwares = any(one.register < 8 for one in events)
        return no("expected", logged, "take log and quote from the guest at the same time" if firmwares else _NO_LOG)
    seen = [f"{len(events)} events of the log give exactly the registers that were quoted"]
    if not reference:
        fix = "keep the quote of a start you trust, and give it by --reference"
        return not_judged("expected", "nothing was said to compare it with", fix, seen)
    known = parse(reference).events() if is_one(reference) else eventlog.parse(reference)
    then, now = eventlog.replay(known, "sha256"), dict(registers)
    files = {one.digests["sha256"] for one in known if one.register == _IMA and not one.violated}
    unseen = sorted({one.text for one in events if one.violated})
    new = any(one.digests.get("sha256") not in files for one in events if one.register == _IMA and not one.violated)
    if not new and {**then, _IMA: b""} == {**now, _IMA: b""}:
        if unseen:
            why = f"the kernel could not measure files that were being written to: {', '.join(unseen[:8])}"
            return not_judged("expected", why, "see whether they matter; nothing covers their names either", seen)
        return yes(
            "expected", [*seen, "they are those of the start that is trusted, and the kernel saw no file it did not then"]
        )
    differs = "; ".join(_differences(known, events))
    return no("expected", differs, "something else was started than when it was trusted", seen)


def _differences(known: Sequence[eventlog.Event], events: Sequence[eventlog.Event]) -> list[str]:
    """What was measured now and not then, and then and not now, at most eight of each."""
    then = {(one.register, one.digests.get("sha256")) for one in known}
    now = {(one.register, one.digests.get("sha256")) for one in events}
    new = [one for one in events if (one.register, one.digests.get("sha256")) not in then]
    gone = [one for one in known if (one.register, one.digests.get("sha256")) not in now]
    said = [f"new in register {one.register}: {one.name} {one.text}".rstrip() for one in new[:8]]
    said += [f"no more in register {one.register}: {one.name} {one.text}".rstrip() for one in gone[:8]]
    return said or ["the same was measured, in another order or number"]


def _policy(events: Sequence[eventlog.Event], logged: str, policy: Policy) -> Answer:
    if logged:
        return no("policy", f"the log says whether Secure Boot was on, and {logged}")
    first = next((one for one in events if one.register == 7 and one.digests), None)
    told = first is not None and first.name == _VARIABLE and first.covered and first.text.startswith(_SECURE_BOOT)
    state = first if told else None  # firmware's first word there; what comes later anybody in the guest can have measured
    on = state is not None and state.data[-1:] == b"\x01"
    said = f"Secure Boot was {'on' if on else 'off' if state is not None else 'not known to the firmware'}"
    if policy.secure_boot and not on:
        return no("policy", f"{said}, as its firmware measured", "start the machine with boot.secure")
    return yes("policy", [said])


def rsa_key(public: bytes) -> int:
    """The modulus of an endorsement key made by the template. Raises MalformedError."""
    head = EK_TEMPLATE[: -256 - 2]
    if public[: len(head)] != head or len(public) != len(EK_TEMPLATE):
        raise MalformedError("the endorsement key was made by another template")
    return int.from_bytes(public[-256:], "big")


def credential(endorsement: bytes, name: bytes, secret: bytes) -> tuple[bytes, bytes]:
    """What only a TPM that holds both keys can turn back into ``secret`` (up to 32 bytes): the blob, and its key."""
    from cryptography.hazmat.decrepit.ciphers.modes import CFB
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import padding, rsa
    from cryptography.hazmat.primitives.ciphers import Cipher, algorithms

    key = rsa.RSAPublicNumbers(65537, rsa_key(endorsement)).public_key()
    seed = os.urandom(32)
    oaep = padding.OAEP(mgf=padding.MGF1(hashes.SHA256()), algorithm=hashes.SHA256(), label=b"IDENTITY\0")
    encryptor = Cipher(algorithms.AES(_derived(seed, b"STORAGE", name, 128)), CFB(bytes(16))).encryptor()
    hidden = encryptor.update(sized(secret)) + encryptor.finalize()
    proof = hmac.digest(_derived(seed, b"INTEGRITY", b"", 256), hidden + name, "sha256")
    return sized(proof) + hidden, key.encrypt(seed, oaep)


def _derived(seed: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """KDFa of the TPM (SP 800-108, counter mode)."""
    data = (1).to_bytes(4, "big") + label + b"\0" + context + bits.to_bytes(4, "big")
    return hmac.digest(seed, data, "sha256")[: bits // 8]
