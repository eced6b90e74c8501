"""What an interrupted command must say, how it ends, and what it may leave."""

from __future__ import annotations

import json
import os
import re
import signal
from pathlib import Path

from typed import tinamou

SAID = {signal.SIGINT: "interrupted", signal.SIGTERM: "ended by SIGTERM"}
ODD = re.compile(r"Traceback|was never|was destroyed|Exception ignored|Error:")


def state_of(name: str) -> str:
    """What ``ls`` says of a machine; ``gone`` where it says nothing."""
    rows = {row["name"]: row["state"] for row in json.loads(tinamou("ls", "--json"))}
    return str(rows.get(name, "gone"))


def heeds(pid: int) -> bool:
    """Whether a command has come so far that it heeds requests to end; so does one that has ended."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except FileNotFoundError:
        return True
    masks = re.findall(r"^Sig(?:Cgt|Ign):\s*(\w+)", status, re.MULTILINE)
    return not masks or any(int(mask, 16) >> (signal.SIGTERM - 1) & 1 for mask in masks)


def judged(what: str, number: signal.Signals, status: int, said: str) -> str:
    """One round in a sentence. Fails where it ended otherwise, or said more or less than its line."""
    told = said.splitlines()
    where = f"{what} by {number.name}: {told} status {status}"
    assert not ODD.search(said), where
    assert status in (0, 128 + number), where
    if status:
        assert told.count(SAID[number]) == 1 and told[-1] == SAID[number], where
    return where


def unfinished(state: Path, *, done: bool) -> list[str]:
    """Files of what was begun and not done, and machines a command leaves that was not ``done``."""
    machines = [] if done else [path for path in state.glob("machines/*") if path.name not in ("m", "other")]
    return [str(path) for path in (*machines, *state.rglob("*.part"))]


def note(told: str) -> None:
    """One line more in the file TINAMOU_TALLY names, where it names one."""
    if "TINAMOU_TALLY" in os.environ:
        with Path(os.environ["TINAMOU_TALLY"]).open("a") as tally:
            tally.write(told + "\n")
