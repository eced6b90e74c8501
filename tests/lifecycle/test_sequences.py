"""Random sequences of all verbs on one real machine: after each, whoever knows of the machine says the same."""

from __future__ import annotations

import os

import pytest
from leftovers import Leftovers
from sequences import NAME, Model, agree, drive
from typed import tinamou

from tinamou.state.machines import find
from tinamou.state.record import change

pytestmark = pytest.mark.vm
SEQUENCES = int(os.environ.get("TINAMOU_SEQUENCES", "3"))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(SEQUENCES))
def test_everybody_agrees(seed: int, leftovers: Leftovers) -> None:
    assert len(drive(seed, 8)) == 8
    assert leftovers.found() == []


def test_a_disagreement_is_seen() -> None:
    """A record that says what is not so."""
    tinamou("run", "-d", "--name", NAME, "--disk", "size=8M", "--net", "user")
    model = Model(state="running")
    agree(model, "as it is")
    with pytest.raises(AssertionError, match="not paused"):
        agree(Model(state="paused"), "wrong")
    record = find(NAME)
    change(record, spec={**record.spec, "disk": []})
    with pytest.raises(AssertionError, match="one disk less"):
        agree(model, "one disk less")
    tinamou("rm", "-f", NAME)
