"""Random sequences of all verbs on one machine: after each, whoever knows of the machine says the same."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from leftovers import Leftovers
from sequences import NAME, Model, agree, drive, step
from typed import call, tinamou

from tinamou.state.machines import find
from tinamou.state.record import change

pytestmark = pytest.mark.vm
SEQUENCES = int(os.environ.get("TINAMOU_SEQUENCES", "3"))
FAKED = frozenset(
    {"run", "start", "start again", "stop", "kill", "pause", "resume", "reset", "rm", "rm -f", "net add", "net rm"}
)
"""What a QEMU that computes nothing can be asked to bear."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("seed", range(SEQUENCES))
def test_everybody_agrees(seed: int, leftovers: Leftovers) -> None:
    assert len(drive(seed, 8)) == 8
    assert leftovers.found() == []


class Faked(RuleBasedStateMachine):
    """A machine whose QEMU is a stand-in: many more sequences in the same time."""

    def __init__(self) -> None:
        super().__init__()
        self.model, self.done = Model(options=("--no-wait",)), list[str]()

    @rule(number=st.integers(0, 1 << 30))
    def any_verb(self, number: int) -> None:
        step(self.model, random.Random(number), self.done, FAKED)

    def teardown(self) -> None:
        call("rm", "-f", NAME)


@pytest.mark.timeout(600)
def test_everybody_agrees_about_a_fake(fake_qemu: Path, leftovers: Leftovers) -> None:
    examples = settings(
        max_examples=SEQUENCES,
        stateful_step_count=12,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Faked, settings=examples)  # type: ignore[no-untyped-call]
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
