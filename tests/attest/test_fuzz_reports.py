"""Whatever bytes come: one of our own errors or five answers, soon. TINAMOU_FUZZ says how many (2,000 without)."""

from __future__ import annotations

import base64
import gzip
import json
import os
import random
import time
from collections.abc import Callable

import pytest

pytest.importorskip("cryptography")

from attest.amd import NOW, Maker
from attest.sev_maker import Platform
from attest.test_expected import ID_KEY
from attest.test_rtmr import made_firmware
from attest.test_tpm_logs import ima_of, log_of, quoted, start
from attest.vectors import MISSING, VECTORS, vector
from cryptography.hazmat.primitives.asymmetric import ec

from tinamou.attest import (
    QUESTIONS,
    Known,
    MalformedError,
    broker,
    certificates,
    eventlog,
    idblock,
    linux_image,
    rtmr,
    sev,
    sev_chain,
    snp,
    tdvf,
    tdx,
    tpm,
    verify,
)
from tinamou.attest.certificates import load_lists
from tinamou.operations.fetching import certificates_of

MANY = int(os.environ.get("TINAMOU_FUZZ", "2000"))
SOON = 2.0
"""Seconds of processor time: a hundred times what the slowest takes, so that a busy host does not fail."""


def turned(data: bytes, chance: random.Random) -> bytes:
    """Bytes changed, cut off, put in, moved; numbers made extreme."""
    made = bytearray(data)
    for _ in range(chance.choice((1, 1, 2, 5, 40))):
        at, length = chance.randrange(len(made) + 1), chance.choice((1, 2, 4, 8, 100))
        kind = chance.randrange(5)
        if kind == 0 and at < len(made):
            made[at] = chance.randrange(256)
        elif kind == 1:
            made[at : at + length] = b""
        elif kind == 2:
            made[at:at] = chance.randbytes(length)
        elif kind == 3:
            made[at : at + length] = chance.choice((b"\0", b"\xff", b"\x7f")) * length
        else:
            other = chance.randrange(len(made) + 1)
            made[at : at + length] = made[other : other + length]
        if not made:
            break
    return bytes(made)


def seeds() -> list[bytes]:
    if not VECTORS.is_dir():
        pytest.skip(MISSING)
    return [(VECTORS / name).read_bytes() for name in ("attestation.bin", "tdx_quote", "quote_v5_sample.dat")]


def test_reports() -> None:
    chance = random.Random(20)
    kinds = seeds()
    known = Known(certificates=tuple((VECTORS / name).read_bytes() for name in ("vcek.testcer", "milan.testcer")))
    answered = 0
    for _ in range(MANY):
        data = turned(chance.choice(kinds), chance)
        began = time.process_time()
        try:
            verdict = verify(data, known)
        except MalformedError:
            pass
        else:
            answered += 1
            assert [one.question for one in verdict.answers] == list(QUESTIONS) and not verdict.proven
        assert time.process_time() - began < SOON
    assert answered > MANY / 100


def test_certificates() -> None:
    seeds()
    chance, report = random.Random(21), (VECTORS / "attestation.bin").read_bytes()
    kinds = [(VECTORS / name).read_bytes() for name in ("vcek.testcer", "milan.testcer")]
    for _ in range(MANY // 4):
        began = time.process_time()
        try:
            assert not verify(report, Known(certificates=tuple(turned(one, chance) for one in kinds))).proven
        except MalformedError:
            pass
        assert time.process_time() - began < SOON


def small_firmware() -> bytes:
    """An image of two pages with TDX metadata: one that is measured, one that is only there."""
    sections = b"".join(
        b"".join(value.to_bytes(size, "little") for value, size in zip(one, (4, 4, 8, 8, 4, 4), strict=True))
        for one in ((0, 4096, 0xFFFFF000, 4096, 0, 1), (0, 0, 0x800000, 4096, 3, 0))
    )
    metadata = b"TDVF" + (16 + len(sections)).to_bytes(4, "little") + b"\1\0\0\0\2\0\0\0" + sections
    entry = bytes.fromhex("35657ae44a989847865e4685a7bf8ec2")
    footer = bytes.fromhex("de82b596b21ff745baeaa366c55a082d")
    table = (len(metadata) + 22 + 18 + 32).to_bytes(4, "little") + (22).to_bytes(2, "little") + entry
    table += (40).to_bytes(2, "little") + footer
    return bytes(8192 - len(metadata) - len(table) - 32) + metadata + table + bytes(32)


def read_log(data: bytes) -> object:
    events = eventlog.parse(data)
    eventlog.replay(events, next(iter(events[-1].digests), "sha256"))
    return [one.text for one in events]


def read_ima(data: bytes) -> object:
    events = eventlog.parse_ima(data)
    eventlog.replay(events, "sha256")
    return [one.text for one in events]


def read_lists(data: bytes) -> object:
    issuer = MILAN.middle
    return [certificates._standing(issuer, MILAN.root, load_lists(data), NOW)]


def read_request(data: bytes) -> object:
    return broker._evidence(data, "snp", "x")


def request() -> bytes:
    """What a guest shows a broker, with a sound key."""
    key = {"kty": "EC", "alg": "ECDH-ES+A256KW", "crv": "P-256"}
    numbers = ec.derive_private_key(7, ec.SECP256R1()).public_key().public_numbers()
    for name, value in (("x", numbers.x), ("y", numbers.y)):
        key[name] = base64.urlsafe_b64encode(value.to_bytes(32, "big")).rstrip(b"=").decode()
    shown = {"runtime-data": {"nonce": "x", "tee-pubkey": key}, "tee-evidence": {"primary_evidence": {"report": "AAAA"}}}
    return json.dumps(shown).encode()


def read_table(data: bytes) -> object:
    return certificates_of(data)


def application() -> bytes:
    """A small EFI application: its heads, two sections, a signature behind them."""
    optional = bytearray(0xF0)
    optional[:2], optional[60:64], optional[144:152] = b"\x0b\x02", (0x200).to_bytes(4, "little"), b"\0\4\0\0\x40\0\0\0"
    coff = b"\x64\x86\2\0" + bytes(12) + b"\xf0\0" + bytes(2)
    sizes = [b"".join(one.to_bytes(4, "little") for one in (0x100, 0x1000, 0x100, at)) for at in (0x300, 0x200)]
    sections = b"".join(bytes(8) + one + bytes(16) for one in sizes)
    head = b"MZ" + bytes(0x3A) + (0x40).to_bytes(4, "little") + b"PE\0\0" + coff + optional + sections
    return head.ljust(0x200, b"\0") + b"a" * 0x100 + b"b" * 0x100 + b"signed".ljust(0x40, b"\0")


def read_events(data: bytes) -> object:
    return rtmr.of_firmware(data, 1 << 32)


MILAN = Maker()
PARSERS: dict[str, tuple[Callable[[bytes], object], Callable[[], bytes]]] = {
    "snp": (snp.parse, lambda: vector("attestation.bin")),
    "tdx 4": (tdx.parse, lambda: vector("tdx_quote")),
    "tdx 5": (tdx.parse, lambda: vector("quote_v5_sample.dat")),
    "sev": (sev.parse, lambda: sev.SevMeasurement((1, 2, 3), 7, bytes(32), bytes(16)).written()),
    "tpm": (tpm.parse, lambda: quoted(start(True), ima=[("boot_aggregate", True)]).written()),
    "list of revoked": (read_lists, lambda: MILAN.revoked(8, 9)),
    "request": (read_request, request),
    "log": (read_log, lambda: gzip.decompress(vector("ccel_data.dat.gz")).rstrip(b"\xff\0")),
    "small log": (read_log, lambda: log_of(start(True, (4, 0xD, b"linux x", b"grub_cmd: linux x")))),
    "ima": (read_ima, lambda: ima_of([("boot_aggregate", True), ("/var/log/x", False)])),
    "firmware": (tdvf.mrtd, small_firmware),
    "platform of SEV": (sev_chain.parse_platform, lambda: Platform().chain()),
    "kernel": (linux_image.authenticode, application),
    "events of TDX": (read_events, lambda: made_firmware()),
    "id block": (idblock.parse, lambda: idblock.make(bytes(48), ID_KEY).written()),
    "table of certificates": (read_table, lambda: UUID_OF_VCEK + (48).to_bytes(4, "little") + b"\4\0\0\0" + bytes(28)),
}
"""Each reader of bytes that come from a guest, a host or a file, and sound ones for it."""
UUID_OF_VCEK = bytes.fromhex("8d75da6364e66445adc5f4b93be8accd")


@pytest.mark.parametrize("name", PARSERS)
def test_each_parser(name: str, record_property: Callable[[str, object], None]) -> None:
    read, sound = PARSERS[name]
    data, chance, slowest, refused = sound(), random.Random(23), 0.0, 0
    read(data)
    many = MANY if MANY > 100_000 else MANY // 4
    for _ in range(many):
        one, began = turned(data, chance), time.process_time()
        try:
            read(one)
        except MalformedError:
            refused += 1
        slowest = max(slowest, time.process_time() - began)
    record_property("slowest", slowest)
    print(f"{name}: {many} inputs, {refused} refused, the slowest took {slowest * 1000:.1f} ms")
    assert refused and slowest < SOON
