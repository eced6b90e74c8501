"""Random sequences of all verbs on one machine: after each, whoever knows of the machine says the same."""

from __future__ import annotations

import contextlib
import io
import os
import random
import subprocess
from pathlib import Path

import pytest
import sequences
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule, run_state_machine_as_test
from leftovers import Leftovers
from sequences import NAME, Model, agree, drive, step
from typed import call, tinamou

from tinamou.cli.app import app
from tinamou.errors import TinamouError
from tinamou.state.machines import find
from tinamou.state.record import change

pytestmark = pytest.mark.vm
SEQUENCES = int(os.environ.get("TINAMOU_SEQUENCES", "3"))
SEED = os.environ.get("TINAMOU_SEED", "")
FAKED = frozenset(
    {"run", "start", "start again", "stop", "kill", "pause", "resume", "reset", "rm", "rm -f", "net add", "net rm"}
)
"""What a QEMU that computes nothing can be asked to bear."""
AT_REST = frozenset({"disk add", "disk rm", "snapshot create", "snapshot rm"})
"""What is done without QEMU where the machine is stopped."""


@pytest.mark.timeout(900)
@pytest.mark.parametrize("number", range(SEQUENCES))
def test_everybody_agrees(number: int, leftovers: Leftovers) -> None:
    assert len(drive(f"{SEED} {number}", 8)) == 8
    assert leftovers.found() == []


class Faked(RuleBasedStateMachine):
    """A machine whose QEMU is a stand-in: many more sequences in the same time."""

    def __init__(self) -> None:
        super().__init__()
        self.model, self.done = Model(options=("--no-wait",)), list[str]()

    @rule(number=st.integers(0, 1 << 30))
    def any_verb(self, number: int) -> None:
        step(
            self.model, random.Random(number), self.done, FAKED | (AT_REST if self.model.state == "stopped" else frozenset())
        )

    def teardown(self) -> None:
        call("rm", "-f", NAME)


@pytest.mark.timeout(600)
def test_everybody_agrees_about_a_fake(fake_qemu: Path, leftovers: Leftovers) -> None:
    drive_fakes(SEQUENCES, 12)
    assert leftovers.found() == []


@pytest.mark.timeout(600)
def test_everybody_agrees_in_one_process(fake_qemu: Path, monkeypatch: pytest.MonkeyPatch, leftovers: Leftovers) -> None:
    """Every verb as a function of this process: much faster, and what one leaves in its memory meets the next."""
    monkeypatch.setattr(sequences, "tinamou", within)
    monkeypatch.setattr(sequences, "call", lambda *words: subprocess.CompletedProcess(words, within_status(*words)))
    drive_fakes(2 * SEQUENCES, 15)
    assert leftovers.settle() == []


def within(*words: str) -> str:
    """What a command prints that is run by this very process."""
    with contextlib.redirect_stdout(io.StringIO()) as said:
        app(words, exit_on_error=False, print_error=False)
    return said.getvalue()


def within_status(*words: str) -> int:
    try:
        within(*words)
    except TinamouError as error:
        return error.code
    return 0


def drive_fakes(count: int, steps: int) -> None:
    examples = settings(
        max_examples=count,
        stateful_step_count=steps,
        deadline=None,
        derandomize=True,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    run_state_machine_as_test(Faked, settings=examples)  # type: ignore[no-untyped-call]


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
