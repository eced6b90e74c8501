"""One operation at a time changes a machine; the next waits, and is told who is at it."""

from __future__ import annotations

import asyncio
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tinamou.errors import StateError
from tinamou.facts import files
from tinamou.machine.turns import busy_with, turn, turn_blocking
from tinamou.state.moves import begin_leaving, leave
from tinamou.state.record import Record, change, create

HOLDER = """
import asyncio, sys
from pathlib import Path
from tinamou.machine.turns import turn
from tinamou.state.record import read

async def hold():
    async with turn(read(Path(sys.argv[1])), "backup"):
        print("held", flush=True)
        await asyncio.sleep(float(sys.argv[2]))

asyncio.run(hold())
"""


@pytest.fixture
def record(tmp_path: Path) -> Record:
    (tmp_path / "m").mkdir()
    return create(Record("m", str(tmp_path / "m"), {}, created=time.time()))


def holder(record: Record, seconds: float) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", HOLDER, record.directory, str(seconds)]
    process = subprocess.Popen(words, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    return process


async def taken(record: Record, wait: float) -> None:
    async with turn(record, "disk add", wait=wait) as newest:
        assert newest == record


def test_who_waits_too_long_is_told_who_is_at_it(record: Record) -> None:
    process = holder(record, 600)
    with pytest.raises(StateError, match="machine m is busy") as caught:
        asyncio.run(taken(record, 0.1))
    assert re.search(rf"backup \(process {process.pid}, for \d{{1,4}} s\)", caught.value.why)
    with pytest.raises(StateError, match="machine m is busy"), turn_blocking(record, "start", wait=0.1):
        pass
    process.kill()
    process.wait()
    assert busy_with(record) == ""
    asyncio.run(taken(record, 0.0))


def test_a_short_one_is_waited_for(record: Record) -> None:
    process = holder(record, 0.3)
    asyncio.run(taken(record, 120.0))
    assert process.wait() == 0


def test_operations_made_of_others_take_it_once(record: Record) -> None:
    async def nested() -> None:
        async with turn(record, "backup"):
            await taken(record, 0.0)
            await asyncio.gather(taken(record, 0.0), asyncio.to_thread(blocking))
        with pytest.raises(StateError):
            async with turn(Record("gone", f"{record.directory}x", {}), "backup"):
                pass

    def blocking() -> None:
        with turn_blocking(record, "snapshot", wait=0.0):
            pass

    asyncio.run(nested())


def test_two_flows_of_one_process_take_turns(record: Record) -> None:
    order = []

    async def one(name: str) -> None:
        async with turn(record, name):
            order.append(f"{name} begins")
            await asyncio.sleep(0.05)
            order.append(f"{name} ends")

    async def both() -> None:
        await asyncio.gather(one("a"), one("b"))

    asyncio.run(both())
    assert order in (["a begins", "a ends", "b begins", "b ends"], ["b begins", "b ends", "a begins", "a ends"])


def test_what_has_gone_to_another_host_is_not_changed_here_but_removed(record: Record) -> None:
    leave(begin_leaving(record, "there", "token"), "token")
    with pytest.raises(StateError, match="disk add"):
        asyncio.run(taken(record, 0.1))
    with pytest.raises(StateError, match="disk add"), turn_blocking(record, "disk add", wait=0.1):
        pass
    with turn_blocking(record, "rm", wait=0.1) as now:
        assert now.move["host"] == "there"


def test_a_template_is_not_changed_but_cloned(record: Record) -> None:
    changed = change(record, template=True)
    with pytest.raises(StateError, match="is a template: no disk add"), turn_blocking(changed, "disk add", wait=0.1):
        pass
    with turn_blocking(changed, "clone", wait=0.1) as now:
        assert now.template


def test_only_who_was_killed_left_something(record: Record) -> None:
    """A folder that an operation left unfinished goes with the next one, which knows the last one was killed."""
    lock, left = record.path / files.OPERATION, record.path / f"x{files.STAGING}"
    with turn_blocking(record, "backup"):
        assert json.loads(lock.read_bytes())["what"] == "backup"
    left.mkdir()
    with turn_blocking(record, "backup"):
        assert left.is_dir()
    assert lock.stat().st_size == 0 and lock.stat().st_mode & 0o777 == 0o600
    process = holder(record, 600)
    process.kill()
    process.wait()
    with turn_blocking(record, "backup"):
        assert not left.exists()
