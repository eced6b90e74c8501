"""A quarter of a minute of fuzzing over what a guest sends when files are copied from it; longer as `test_fuzz` says."""

from __future__ import annotations

import fuzz_copies
import fuzzing
import pytest
from test_fuzz import SECONDS, SEED

NAMES = sorted(name for name, one in fuzzing.TARGETS.items() if one.read.__module__ == fuzz_copies.__name__)


@pytest.mark.timeout(SECONDS + 240)
@pytest.mark.parametrize("name", NAMES)
def test_a_copy_ends_soon_and_touches_nothing_else(name: str) -> None:
    result = fuzzing.run(name, seconds=SECONDS / 12, seed=SEED, module="fuzz_copies")
    assert result.inputs > 100
    assert not result.faults, "\n".join(result.faults)
    assert not result.refused, result.refused
