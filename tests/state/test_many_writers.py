"""Many processes change one machine's record and journal at once, some are killed in the middle: nothing is lost or torn."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from tinamou.errors import StateError
from tinamou.prepare.journal import Journal
from tinamou.state.record import Record, change, create, forget, read, update

WRITER = """
import dataclasses, sys
from pathlib import Path
from tinamou.prepare.journal import Journal
from tinamou.state.record import update

folder, me, rounds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
for number in range(1, rounds + 1):
    update(folder, lambda newest: dataclasses.replace(newest, spec={**newest.spec, me: newest.spec.get(me, 0) + 1}))
    taken = Journal(folder).take("thing", by=me, number=number)
    print(number, taken, flush=True)
"""


def made(folder: Path) -> Record:
    folder.mkdir()
    return create(Record(folder.name, str(folder), {}, created=time.time()))


def writer(folder: Path, name: str, rounds: int) -> subprocess.Popen[str]:
    words = [sys.executable, "-c", WRITER, str(folder), name, str(rounds)]
    return subprocess.Popen(words, stdout=subprocess.PIPE, text=True)


def told(process: subprocess.Popen[str]) -> tuple[int, set[int]]:
    """How many rounds a writer has told of, and the journal's numbers it was given; a last line cut off is none."""
    assert process.stdout is not None
    lines = [line.split() for line in process.stdout.read().split("\n")[:-1]]
    return len(lines), {int(taken) for _, taken in lines}


def watched(folder: Path, over: threading.Event) -> list[str]:
    """Reads again and again until it is over; what was not a whole record."""
    odd = []
    while not over.is_set():
        try:
            if read(folder) is None:
                odd.append("missing")
        except StateError as error:
            odd.append(str(error))
    return odd


@pytest.mark.parametrize(("writers", "rounds"), [(2, 200), (10, 60), (10, 1000)], ids=["two", "ten", "many"])
def test_nothing_is_lost(tmp_path: Path, writers: int, rounds: int) -> None:
    folder = tmp_path / "m"
    made(folder)
    dice, over, odd = random.Random(writers), threading.Event(), list[str]()
    reader = threading.Thread(target=lambda: odd.extend(watched(folder, over)))
    reader.start()
    names = [f"w{number}" for number in range(writers)]
    processes = {name: writer(folder, name, rounds) for name in names}
    victims = dice.sample(names, writers // 3)
    for name in victims:
        while name not in (now.spec if (now := read(folder)) else {}):
            time.sleep(0.01)
        time.sleep(dice.uniform(0.0, 0.02))
        os.kill(processes[name].pid, signal.SIGKILL)
    ends = {name: (told(process), process.wait()) for name, process in processes.items()}
    over.set()
    reader.join()
    assert odd == []
    record, entries = read(folder), Journal(folder).open_entries()
    assert record is not None
    numbers = [number for (_, taken), _ in ends.values() for number in taken]
    assert len(numbers) == len(set(numbers)) and set(numbers) <= set(entries)
    for name, ((count, _), status) in ends.items():
        assert status == 0 or name in victims, name
        assert record.spec[name] - count in ((0, 1) if name in victims else (0,)), name
        assert count == rounds or name in victims
    assert len(entries) == len({entry["took"] for entry in entries.values()})


def test_the_check_sees_a_lost_update(tmp_path: Path) -> None:
    """What the test above must catch: a writer that does not read under the lock."""
    folder = tmp_path / "m"
    stale = made(folder)
    change(stale, ssh_port=22)
    update(folder, lambda _: stale)
    record = read(folder)
    assert record is not None and record.ssh_port is None


def test_two_fields_of_two_commands(tmp_path: Path) -> None:
    record = made(tmp_path / "m")
    change(record, pid=7)
    change(record, ssh_port=22)
    newest = read(record.path)
    assert newest is not None and (newest.pid, newest.ssh_port) == (7, 22)


def test_a_machine_that_is_gone_is_not_written_again(tmp_path: Path) -> None:
    record = made(tmp_path / "m")
    forget(record.path)
    with pytest.raises(StateError, match="machine m is gone"):
        change(record, pid=7)
    assert read(record.path) is None
    (tmp_path / "m" / "machine.lock").unlink()
    record.path.rmdir()
    with pytest.raises(StateError, match="machine m is gone"):
        change(record, pid=7)


def test_a_record_is_where_it_was_read(tmp_path: Path) -> None:
    """A folder that says it is elsewhere is not believed."""
    record = made(tmp_path / "m")
    data = json.loads((record.path / "machine.json").read_text())
    assert "directory" not in data
    (record.path / "machine.json").write_text(json.dumps({**data, "directory": "/etc"}))
    found = read(record.path)
    assert found is not None and found.path == record.path


def test_who_may_read_it(tmp_path: Path) -> None:
    record = made(tmp_path / "m")
    Journal(record.path).take("thing")
    change(record, pid=7)
    modes = {path.name: path.stat().st_mode & 0o777 for path in record.path.iterdir()}
    assert modes == {"machine.json": 0o600, "machine.lock": 0o600, "journal.jsonl": 0o600}
