"""Measurements of SEV: known answers of AMD's format (virtee/sev), each question, no wrong yes; the packet of a secret."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from typed import call

from tinamou import late
from tinamou.attest import Known, MalformedError, Verdict, read_policy, sev, verify

DIGEST = hashlib.sha256(b"").digest()
TIK = bytes.fromhex("66320db73158a35a255d051758e95ed4")
MEASURE = bytes.fromhex("6faab2daae389bcd3405a05d6cafe33c0414f7bedd0bae19ba5f38b7fd1664ea")
NUMBER = bytes.fromhex("4fbe0bedbad6c86ae8f68971d103e554")
FOUND = sev.SevMeasurement((0, 0x12, 0x0F), 0, MEASURE, NUMBER)
"""A measurement of virtee/sev's tests (src/session/mod.rs): of nothing, under a policy that allows everything."""


def known(**changed: object) -> Known:
    told = {"nonce": NUMBER, "tik": TIK, "measured": {"measurement": DIGEST}, "policy": read_policy(b"floor = {build = 15}")}
    return Known(**{**told, **changed})  # type: ignore[arg-type]


def wrong(verdict: Verdict) -> dict[str, str]:
    return {one.question: one.answer for one in verdict.answers if one.answer != "yes"}


def signed(policy: int) -> sev.SevMeasurement:
    """One of our own, under another policy."""
    said = bytes([4, 0, 0x12, 0x0F]) + policy.to_bytes(4, "little") + DIGEST + NUMBER
    return late.replace(FOUND, policy=policy, measure=hmac.digest(TIK, said, "sha256"))


def test_the_known_answer() -> None:
    verdict = verify(FOUND.written(), known())
    assert wrong(verdict) == {"policy": "no"} and verdict.kind == "sev"  # it allows everything
    assert "debug" in verdict.of("policy").why and "share its key" in verdict.of("policy").why


def test_each_question_has_its_own_answer() -> None:
    good = signed(0b1111).written()
    assert verify(good, known()).proven and verify(good, known()).kind == "sev-es"
    neither = {"genuine": "no", "expected": "no"}
    assert wrong(verify(good, known(tik=bytes(16)))) == neither
    assert wrong(verify(good, known(measured={"measurement": bytes(32)}))) == neither
    assert wrong(verify(good, known(tik=b""))) == dict.fromkeys(neither, "not judged")
    assert wrong(verify(good, known(measured={}))) == dict.fromkeys(neither, "not judged")
    assert wrong(verify(good, known(nonce=bytes(16)))) == {"fresh": "no"}
    assert wrong(verify(good, known(nonce=b""))) == {"fresh": "not judged"}
    assert wrong(verify(good, known(policy=read_policy(b"")))) == {"tcb": "not judged"}
    assert wrong(verify(good, known(policy=read_policy(b"floor = {build = 16}")))) == {"tcb": "no"}
    assert wrong(verify(good, known(policy=read_policy(b"floor = {build = 1, snp = 1}")))) == {"tcb": "no"}
    assert wrong(verify(good, known(policy=read_policy(b"secure_boot = true\nfloor = {build = 1}")))) == {"policy": "no"}
    assert wrong(verify(good, known(key=bytes(34), collateral="{}"))) == {"genuine": "no", "tcb": "no"}
    for policy, word in ((0b1110, "debug"), (0b0111, "moved"), (0b1101, "share")):
        assert word in verify(signed(policy).written(), known()).of("policy").why


def test_no_field_can_change() -> None:
    good = signed(0b1111)
    changed = [late.replace(good, firmware=one) for one in ((1, 0x12, 15), (0, 0x13, 15), (0, 0x12, 16))]
    changed += [late.replace(good, policy=good.policy ^ 1 << bit) for bit in range(32)]
    for name in ("measure", "nonce"):
        value = getattr(good, name)
        for at in range(len(value)):
            turned = bytes([*value[:at], value[at] ^ 1 << at % 8, *value[at + 1 :]])
            changed.append(late.replace(good, **{name: turned}))
    for one in changed:
        assert verify(one.written(), known()).of("genuine").answer == "no", one


def test_what_is_no_measurement() -> None:
    good = FOUND.written()
    told = json.loads(good)
    broken = [good[:-9], good.replace(b"policy", b"police"), json.dumps({**told, "policy": 1 << 32}).encode()]
    broken += [json.dumps({**told, "api-major": True}).encode(), json.dumps({**told, "data": "AA=="}).encode()]
    broken += [json.dumps({**told, "data": 7}).encode(), good[:60] + b"[" * 9000]
    for one in broken:
        with pytest.raises(MalformedError):
            verify(one, Known())


def test_the_packet_of_a_secret() -> None:
    """As the secure processor opens it: the mac over all of it with the measurement, AES-128 in counter mode by TEK."""
    tek, secret, iv = bytes(range(16)), b"the key of the disk", bytes(range(50, 66))
    packet = sev.secret_packet(tek, TIK, MEASURE, secret, iv=iv)
    flags, drawn, mac = packet.header[:4], packet.header[4:20], packet.header[20:]
    length = len(packet.secret).to_bytes(4, "little")
    said = b"\x01" + flags + drawn + length + length + packet.secret + MEASURE
    assert len(packet.header) == 52 and drawn == iv and hmac.digest(TIK, said, "sha256") == mac
    decryptor = Cipher(algorithms.AES(tek), modes.CTR(iv)).decryptor()
    table = decryptor.update(packet.secret) + decryptor.finalize()
    assert len(table) % 16 == 0 and table[:16].hex() == "42f5741edd71664d963eef4287ff173b"
    assert table[16:20] == (40 + len(secret)).to_bytes(4, "little")
    assert table[20:36] == sev.DISK_KEY.bytes_le and table[36:40] == (20 + len(secret)).to_bytes(4, "little")
    assert table[40:].rstrip(b"\0") == secret
    other = sev.secret_packet(tek, TIK, bytes(32), secret, iv=iv)
    assert other.secret == packet.secret and other.header[20:] != mac  # of another guest: the processor refuses it
    assert sev.secret_packet(tek, TIK, MEASURE, secret).header != sev.secret_packet(tek, TIK, MEASURE, secret).header
    with pytest.raises(ValueError):
        sev.secret_packet(b"short", TIK, MEASURE, secret)


def test_by_the_command(tmp_path: Path) -> None:
    (tmp_path / "report").write_bytes(signed(0b1111).written())
    (tmp_path / "tik").write_bytes(TIK)
    (tmp_path / "policy").write_text("floor = {build = 15}")
    words = ("--tik", str(tmp_path / "tik"), "--policy", str(tmp_path / "policy"), "--nonce", NUMBER.hex())
    ran = call("attest", "verify", str(tmp_path / "report"), *words, "--expect", DIGEST.hex(), "--json")
    assert ran.returncode == 0 and json.loads(ran.stdout)["kind"] == "sev-es", ran.stderr
    assert call("attest", "verify", str(tmp_path / "report"), *words, "--expect", "00" * 32).returncode == 20
    (tmp_path / "tik").write_bytes(b"short")
    ran = call("attest", "verify", str(tmp_path / "report"), *words)
    assert ran.returncode == 110 and "16" in ran.stderr
