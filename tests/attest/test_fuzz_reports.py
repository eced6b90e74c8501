"""Whatever bytes come: one of our own errors or five answers, soon. TINAMOU_FUZZ says how many (2,000 without)."""

from __future__ import annotations

import gzip
import os
import random
import time
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from tinamou.attest import QUESTIONS, Known, MalformedError, eventlog, verify

VECTORS = Path(__file__).parents[3] / "shared/vectors/attestation"
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
        pytest.skip("the public vectors are not here (shared/vectors)")
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


def test_logs() -> None:
    seeds()
    chance, log = random.Random(22), gzip.decompress((VECTORS / "ccel_data.dat.gz").read_bytes()).rstrip(b"\xff\0")
    for _ in range(MANY // 4):
        data, began = turned(log, chance), time.process_time()
        try:
            events = eventlog.parse(data)
            eventlog.replay(events, "sha384")
            assert all(isinstance(one.text, str) for one in events)
        except MalformedError:
            pass
        assert time.process_time() - began < SOON
