"""A minute of fuzzing over every reader, the same inputs each time; and bad readers, which must be caught.

Longer: ``TINAMOU_FUZZ_SECONDS=3600``; with other inputs: ``TINAMOU_FUZZ_SEED=2``; one reader: tests/fuzz/fuzzing.py.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import fuzz_targets  # noqa: F401
import fuzzing
import planted
import pytest

SECONDS = float(os.environ.get("TINAMOU_FUZZ_SECONDS", "60"))
SEED = int(os.environ.get("TINAMOU_FUZZ_SEED", "1"))
NAMES = sorted(name for name, one in fuzzing.TARGETS.items() if one.read.__module__ != planted.__name__)
REFUSED = {
    **{"answer of qemu-img": 1, "pulled image": 2, "plan": 3, "qemu script": 1, "options": 1, "reply of a server": 4},
    "offer of a machine": 2,  # the other host's own error, before and after it has said what files there are
}
"""How many sound files are refused, as they should be."""
PLANTED = sorted(name for name, one in fuzzing.TARGETS.items() if one.read.__module__ == planted.__name__)


@pytest.mark.timeout(SECONDS + 240)
@pytest.mark.parametrize("name", NAMES)
def test_a_reader_ends_soon_and_with_its_own_errors(name: str, record_property: Callable[[str, object], None]) -> None:
    result = fuzzing.run(name, seconds=SECONDS / len(NAMES), seed=SEED)
    record_property("fuzzed", str(result))
    assert result.inputs > 100
    assert not result.faults, "\n".join(result.faults)
    assert len(result.refused) == REFUSED.get(name, 0), result.refused


@pytest.mark.parametrize(
    ("name", "fault"),
    [
        ("sound", ""),
        ("own error", ""),
        ("another error", "ValueError at planted.py"),
        ("slow", "s of computing"),
        ("without end", "one call does not end"),
        ("large", "MemoryError"),
        ("dies", "the process ended with status -6"),
        ("words", "AssertionError at planted.py"),
    ],
)
def test_a_bad_reader_is_caught(name: str, fault: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert name in PLANTED
    monkeypatch.setattr(fuzzing, "_SILENCE", 5.0 if name == "without end" else 60.0)
    result = fuzzing.run(name, seconds=3.0, module="planted")
    assert bool(result.faults) == bool(fault), result.faults
    assert len(result.faults) < 3
    for one in result.faults:
        assert fault in one
        kept = Path(one.partition("input: ")[2].strip())
        data = kept.read_bytes()
        kept.unlink()
        assert data
        if name == "another error":
            with pytest.raises(ValueError):
                planted.another(data)


def test_the_same_seed_gives_the_same_inputs() -> None:
    def first(seed: int) -> list[bytes]:
        inputs = fuzzing.inputs(fuzzing.TARGETS["qcow2 header"], seed, [])
        return [next(inputs) for _ in range(200)]

    assert first(1) == first(1) != first(2)
    assert len(set(first(1))) > 150
