"""Logs that a guest has written itself, beside quotes a key of our own signs: none makes Secure Boot, or a start, better."""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Sequence

import pytest

pytest.importorskip("cryptography")

from attest.amd import Maker
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.serialization import Encoding

from tinamou import late
from tinamou.attest import Known, MalformedError, Policy, Verdict, eventlog, signatures, tpm, tpm_wire, verify

NONCE = b"asked today"
KEY = ec.generate_private_key(ec.SECP256R1())
VARIABLE, SEPARATOR, NO_ACTION = 0x80000001, 4, 3
Said = tuple[int, int, bytes, bytes]
"""Register, type, what is measured, what the log says."""


def public() -> bytes:
    numbers = KEY.public_key().public_numbers()
    points = (tpm_wire.sized(one.to_bytes(32, "big")) for one in (numbers.x, numbers.y))
    return tpm_wire.KEY_TEMPLATE[:-4] + b"".join(points)


def little(*values: tuple[int, int]) -> bytes:
    return b"".join(value.to_bytes(length, "little") for value, length in values)


def variable(on: bool) -> bytes:
    vendor = bytes.fromhex("61dfe48bca93d211aa0d00e098032b8c")
    return vendor + little((10, 8), (1, 8)) + "SecureBoot".encode("utf-16-le") + bytes([on])


def log_of(events: Sequence[Said]) -> bytes:
    head = b"Spec ID Event03\0" + bytes(8) + little((1, 4), (0x0B, 2), (32, 2)) + b"\0"
    said = [little((0, 4), (NO_ACTION, 4)) + bytes(20) + little((len(head), 4)) + head]
    for register, kind, measured, data in events:
        digest = bytes(32) if kind == NO_ACTION else hashlib.sha256(measured).digest()
        said.append(little((register, 4), (kind, 4), (1, 4), (0x0B, 2)) + digest + little((len(data), 4)) + data)
    return b"".join(said)


def ima_of(files: Sequence[tuple[str, bool]]) -> bytes:
    """Files the kernel measured; with a second word false those it could not."""
    found = b""
    for name, good in files:
        data = little((4, 4)) + b"hash" + little((len(name) + 1, 4)) + name.encode() + b"\0"
        digest = hashlib.sha1(data).digest() if good else bytes(20)
        found += little((10, 4)) + digest + little((6, 4)) + b"ima-ng" + little((len(data), 4)) + data
    return found


def quoted(
    measured: Sequence[Said], log: Sequence[Said] | None = None, ima: Sequence[tuple[str, bool]] = ()
) -> tpm.TpmQuote:
    """A quote after these measurements, with another log where one is given."""
    true = [*eventlog.parse(log_of(measured)), *eventlog.parse_ima(ima_of(ima))]
    registers = eventlog.replay(true, "sha256")
    digest = hashlib.sha256(b"".join(registers.get(one, bytes(32)) for one in tpm.REGISTERS)).digest()
    attest = b"\xffTCG\x80\x18" + tpm_wire.sized(b"") + tpm_wire.sized(NONCE) + bytes(25)
    attest += b"\0\0\0\1\0\x0b\x03" + tpm_wire.mask_of(tpm.REGISTERS) + tpm_wire.sized(digest)
    r, s = decode_dss_signature(KEY.sign(attest, ec.ECDSA(hashes.SHA256())))
    signature = b"\0\x18\0\x0b" + b"".join(tpm_wire.sized(one.to_bytes(32, "big")) for one in (r, s))
    return tpm.TpmQuote(attest, signature, public(), b"", b"", log_of(measured if log is None else log), ima_of(ima))


def start(on: bool, *more: Said) -> list[Said]:
    return [(7, VARIABLE, variable(on), variable(on)), (7, SEPARATOR, bytes(4), bytes(4)), *more]


def known(reference: tpm.TpmQuote) -> Known:
    policy = Policy(host_trusted=True, secure_boot=True)
    return Known(nonce=NONCE, key=tpm.name_of(public()), reference=reference.written(), policy=policy)


def wrong(verdict: Verdict) -> dict[str, str]:
    return {one.question: one.answer for one in verdict.answers if one.answer != "yes"}


def test_a_good_start() -> None:
    good = quoted(start(True), ima=[("boot_aggregate", True)])
    assert wrong(verify(good.written(), known(good))) == {}
    off = quoted(start(False))
    assert wrong(verify(off.written(), known(off))) == {"policy": "no"}
    assert wrong(verify(off.written(), known(good))) == {"policy": "no", "expected": "no"}


def test_what_a_guest_measured_itself_is_not_secure_boot() -> None:
    lie: Said = (7, VARIABLE, variable(True), variable(True))
    begun: Said = (7, NO_ACTION, b"", b"StartupLocality\0\0")
    anew = quoted(start(False), log=[lie, begun, *start(False)])
    assert verify(anew.written(), known(anew)).of("policy").answer == "no"
    later = quoted(start(False, lie))
    assert wrong(verify(later.written(), known(later))) == {"policy": "no"}
    spoilt: Said = (7, VARIABLE, variable(False), variable(False) + b"x")
    covered = quoted([spoilt, lie])
    assert wrong(verify(covered.written(), known(covered))) == {"policy": "no"}
    alone = quoted([(0, SEPARATOR, bytes(4), bytes(4)), (7, 0x80000002, variable(True), variable(True))])
    assert wrong(verify(alone.written(), known(alone))) == {"policy": "no"}


def keys(name: str, value: bytes) -> bytes:
    """A variable of Secure Boot, as firmware measures it."""
    vendor = bytes.fromhex("cbb219d73a3d9645a3bcdad00e67656f")
    return vendor + little((len(name), 8), (len(value), 8)) + name.encode("utf-16-le") + value


def signed_by(*entries: bytes, kind: str = "a5c059a1-94e4-4aa7-87b5-ab155c2bf072") -> bytes:
    """A list of entries of one length (EFI_SIGNATURE_LIST)."""
    whole = b"".join(bytes(16) + one for one in entries)
    return uuid.UUID(kind).bytes_le + little((28 + len(whole), 4), (0, 4), (16 + len(entries[0]), 4)) + whole


def test_what_secure_boot_trusts_is_read_from_the_log() -> None:
    der = Maker().root.public_bytes(Encoding.DER)
    hashed = signed_by(bytes(32), bytes(32), kind="c1c41626-504c-4092-aca9-41f936934328")
    trusted, revoked = keys("db", signed_by(der) + hashed), keys("dbx", hashed)
    first = [(7, VARIABLE, variable(True), variable(True)), (7, VARIABLE, trusted, trusted), (7, VARIABLE, revoked, revoked)]
    mine: Said = (7, VARIABLE, keys("KEK", signed_by(der)), keys("KEK", signed_by(der)))  # measured by whoever runs there
    told: Said = (7, VARIABLE, keys("PK", b""), keys("PK", signed_by(der)))  # the log says more than was measured
    good = quoted([*first, told, (7, SEPARATOR, bytes(4), bytes(4)), mine])
    verdict = verify(good.written(), known(good))
    assert wrong(verdict) == {} and verdict.says["db"] == "root, 2 images by SHA-256"
    assert verdict.says["dbx"] == "2 images by SHA-256" and not {"KEK", "PK"} & set(verdict.says)
    texts = [one.text for one in good.events()]
    assert any(text.startswith("db of ") and text.endswith(": root, 2 images by SHA-256") for text in texts)
    for broken in (b"", b"x" * 40, signed_by(der)[:-1], signed_by(der)[:24] + bytes(4), signed_by(b"no certificate")):
        assert signatures.listed(broken) in ("", "a certificate")


def test_files_the_kernel_could_not_measure_are_named() -> None:
    good = quoted(start(True), ima=[("boot_aggregate", True), ("/var/log/x", False)])
    again = quoted(start(True), ima=[("boot_aggregate", True), ("/usr/bin/evil", False)])
    verdict = verify(again.written(), known(good))
    assert wrong(verdict) == {"expected": "not judged"} and "/usr/bin/evil" in verdict.of("expected").why
    new = quoted(start(True), ima=[("boot_aggregate", True), ("/usr/bin/new", True)])
    assert wrong(verify(new.written(), known(good))) == {"expected": "no"}


def test_a_key_that_signs_anything_is_refused() -> None:
    good = quoted(start(True))
    free = bytearray(good.key)
    free[5] &= ~0x01  # not restricted to what the TPM says
    told = late.replace(known(good), key=tpm.name_of(bytes(free)))
    assert verify(late.replace(good, key=bytes(free)).written(), told).of("genuine").answer == "no"


def test_what_a_quote_of_a_tpm_does_not_speak_of_is_no() -> None:
    good = quoted(start(True))
    told = late.replace(known(good), measured={"mrtd": bytes(48)}, collateral="{}")
    assert wrong(verify(good.written(), told)) == {"expected": "no", "tcb": "no"}
    with pytest.raises(MalformedError):
        eventlog.replay(eventlog.parse(log_of([*start(True), (0, NO_ACTION, b"", b"StartupLocality\0\3")] * 2)), "sha256")


def test_files_measured_after_the_quote_are_left_out() -> None:
    """The kernel's log is read after the TPM signed, while a guest goes on."""
    files = [("boot_aggregate", True), ("/bin/a", True)]
    early = quoted(start(True), ima=files)
    read_later = late.replace(early, ima=ima_of([*files, ("/bin/b", True), ("/bin/c", True)]))
    assert wrong(verify(read_later.written(), known(early)))["expected"] == "no"
    assert tpm.as_quoted(read_later) == tpm.as_quoted(early) == early
    assert tpm.as_quoted(late.replace(early, ima=ima_of(files) + early.ima)) == early
    strange = late.replace(early, ima=ima_of([("/bin/b", True)]))
    assert tpm.as_quoted(strange) == strange  # none of its beginnings was quoted
    assert wrong(verify(tpm.as_quoted(read_later).written(), known(early))) == {}


def test_registers_of_an_unknown_hash_are_none() -> None:
    with pytest.raises(MalformedError, match="by 0x0, which is not known here"):
        eventlog.replay(eventlog.parse(log_of(start(True))), "0x0")
