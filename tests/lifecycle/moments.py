"""Commands interrupted at a line of the program or after a time, and what is so around a machine before and after."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from interrupting import heeds
from leftovers import Leftovers

from tinamou.prepare.journal import Journal
from tinamou.snapshots.history import load as history_of
from tinamou.state.record import read

AT_LINE = Path(__file__).with_name("at_line.py")
NEW = "--disk size=8M --net user --no-wait --set memory.size=192M"
LONG = 60.0
"""Seconds after which a line that ends by itself is late, whatever is done here."""
EARLY = "before it heeds requests"
"""Where a command is whose modules are still being loaded: Python itself ends it then."""
QUIET = (
    ".lock",
    ".lock.wait",
    "index.json",
    "uids.json",
    "snapshots.json",
    "journal.jsonl",
    "resident-shared.sock",
    "asked-to-end",
)
OTHER = re.compile(r"/(told|inspected|facts)/|/disk\d+-\d+\.qcow2$")
"""Ends of names of files that say nothing of a machine, and folders of such; what is still to be merged of a disk's files
goes on with the next change of its disks (docs/decisions/0040)."""


@dataclass(frozen=True)
class Ended:
    """A command that has ended: its status, what it said on stderr, on stdout, its lines of the package, how long it took,
    and at which line of which file it was interrupted."""

    status: int
    said: str
    told: str
    lines: int
    seconds: float
    where: str


class Commands:
    """A process that has loaded the package and does one command after another, each in a fork of its own."""

    def __init__(self, folder: Path, environment: Mapping[str, str]) -> None:
        self.folder = folder
        self.environment = {**os.environ, **environment}
        self.process = subprocess.Popen(
            [sys.executable, str(AT_LINE)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            env=self.environment,
        )

    def done(
        self, words: str, at: int = 0, number: signal.Signals = signal.SIGINT, after: float = LONG, **asked: object
    ) -> Ended:
        """Do a line; it is sent the signal at that line, or after so many seconds. Fails where it goes on long after."""
        out, err = self.folder / "out", self.folder / "err"
        request = {"words": words.split(), "at": at, "signal": number.name, "after": after, "out": str(out), "err": str(err)}
        assert self.process.stdin is not None and self.process.stdout is not None
        self.process.stdin.write(json.dumps({**request, **asked}) + "\n")
        answer = json.loads(self.process.stdout.readline())
        said = err.read_text()
        late = f"{words} goes on after {number.name} at {answer['where']}: {said} {out.read_text()}"
        assert not answer["late"], f"{late} {self.beside()}"
        return Ended(answer["status"], said, out.read_text(), answer["lines"], answer["seconds"], answer["where"])

    def well(self, words: str, **asked: object) -> str:
        """What a line prints, that must do what it is for."""
        ended = self.done(words, **asked)  # type: ignore[arg-type]
        assert ended.status == 0, f"{words}: {ended.said}"
        return ended.told

    def fresh(self, words: str, number: signal.Signals, after: float, env: Mapping[str, str]) -> Ended:
        """Do a line in an interpreter of its own, which is sent the signal so many seconds after it was begun, by pipes.

        ``where`` is empty where it heeds requests to end by then. Fails where it goes on long after.
        """
        line = [sys.executable, "-X", "faulthandler", "-m", "tinamou", *words.split()]
        begun, pipe = time.monotonic(), subprocess.PIPE
        process = subprocess.Popen(
            line,
            stdin=subprocess.DEVNULL,
            stdout=pipe,
            stderr=pipe,
            text=True,
            start_new_session=True,
            env={**self.environment, **env},
        )
        where = ""
        try:
            told, said = process.communicate(timeout=after)
        except subprocess.TimeoutExpired:
            where = "" if heeds(process.pid) else EARLY
            process.send_signal(number)
            try:
                told, said = process.communicate(timeout=LONG)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGABRT)
                pytest.fail(f"{words} goes on after {number.name}, begun anew: {process.communicate()} {self.beside()}")
        return Ended(process.returncode, said, told, 0, time.monotonic() - begun, where)

    def beside(self) -> str:
        """The processes of this state directory, for who asks why something goes on."""
        state = self.environment["TINAMOU_STATE"]
        found = subprocess.run(["ps", "-eo", "pid,ppid,stat,wchan:20,etimes,args"], capture_output=True, text=True).stdout
        return "\n".join(row[:200] for row in found.splitlines() if state in row)

    def close(self) -> None:
        """End the process."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait(60)


class Stage:
    """A state directory with the machine ``m`` or without, a folder for files, and processes that do commands there."""

    def __init__(self, root: Path, qemu: Path) -> None:
        self.state, self.work, self.copies = root / "state", root / "work", root / "copies"
        for folder in (self.state, self.work, self.copies):
            folder.mkdir(mode=0o755)
        environment = {"TINAMOU_STATE": str(self.state), "TINAMOU_RUN": str(self.state), "TINAMOU_QEMU": str(qemu)}
        self.cold, self.warm = Commands(root, environment), Commands(root, environment)
        self.left = Leftovers(self.state)
        self.ours = {self.cold.process.pid, self.warm.process.pid}

    def keep(self, name: str) -> None:
        """Keep the folders as they are under a name."""
        for folder in (self.state, self.work):
            copy = self.copies / name / folder.name
            copy.mkdir(parents=True)
            subprocess.run(["cp", "-a", "--sparse=always", f"{folder}/.", copy], check=True)

    def again(self, name: str) -> None:
        """The folders as they were kept under that name; nothing of the machine may run."""
        for folder in (self.state, self.work):
            for one in folder.iterdir():
                shutil.rmtree(one) if one.is_dir() and not one.is_symlink() else one.unlink()
        kept = [self.copies / name / folder.name for folder in (self.state, self.work)]
        subprocess.run(["cp", "-a", "--sparse=always", *kept, self.state.parent], check=True)

    def state_of(self, name: str) -> str:
        """What ``ls`` says of a machine; ``none`` where it says nothing."""
        rows = {row["name"]: row["state"] for row in json.loads(self.warm.well("ls --json"))}
        return str(rows.get(name, "none"))

    def ended(self) -> None:
        """Nothing runs any more; what does not, is not asked."""
        if (record := read(self.state / "machines/m")) is not None and (record.running or record.owned):
            self.warm.well("ls")  # what a command has left is found by the next one
            if self.state_of("m") in ("running", "paused"):
                self.warm.well("kill m")
        if (self.state / "machines/other").exists():
            self.warm.done("rm -f other")
        if list(self.state.glob("pools/*")):
            self.warm.done("pool rm web")

    def brought(self, wanted: str, *, anew: bool) -> None:
        """The machine ``m`` in the state a verb needs, whatever the round before made of it; ``anew`` with nothing added."""
        if anew or wanted in ("none", "stopped"):
            self.ended()
            self.again("none" if wanted == "none" else "stopped")
        if wanted in ("none", "stopped"):
            return
        while (now := self.state_of("m")) != wanted:
            if now == "none":
                self.again("stopped")
            self.warm.well({"paused": "resume m", "running": "pause m"}.get(now, "start --no-wait m"))

    def left_running(self) -> bool:
        """Whether the machine runs and is in nobody's hands."""
        record = read(self.state / "machines/m")
        return record is not None and record.running and not record.owner_pid

    def files(self) -> set[str]:
        """The files in both folders that say something: not what only locks or what was told to people."""
        found = {str(path) for folder in (self.state, self.work) for path in folder.rglob("*") if not path.is_dir()}
        return {path for path in found if not path.endswith(QUIET) and not OTHER.search(path)}

    def unsound(self, *, alive: bool) -> list[str]:
        """What a command left half done: journals, histories, sockets, files; where none is ``alive``, processes."""
        wrong = [f"unfinished: {path}" for path in self.state.rglob("*.part")]
        for folder in sorted(self.state.glob("machines/[!.]*")):
            record = read(folder)
            if record is None:
                wrong.append(f"no machine: {folder}: {[path.name for path in folder.iterdir()]}")
                continue
            if (intent := history_of(folder).intent) is not None and intent.kind != "commit":  # that one goes on later
                wrong.append(f"an unfinished operation on the disks of {folder.name}")
            if not record.running and Journal(folder).open_entries():
                wrong.append(f"{folder.name} is off and has {Journal(folder).open_entries()}")
            if not record.running and list(folder.glob("*.sock")):
                wrong.append(f"{folder.name} is off and has sockets")
        if not alive:
            wrong += [f"process {pid}: {words}" for pid, words in self.left.processes().items() if pid not in self.ours]
        return wrong


@contextmanager
def stage(qemu: Path, material: Callable[[Path], object]) -> Iterator[Stage]:
    """Two states to begin with: ``none``, with the files alone, and ``stopped``. Nothing may be left when the block ends."""
    with tempfile.TemporaryDirectory(prefix="tm-", dir="/tmp") as name:
        Path(name).chmod(0o755)
        here = Stage(Path(name), qemu)
        try:
            material(here.work)
            here.keep("none")
            here.warm.well(f"run -d --name m {NEW}")
            here.warm.well("kill m")
            here.keep("stopped")
            yield here
        finally:
            here.ended()
            here.cold.close()
            here.warm.close()
            found = here.left.settle()
            here.left.clear()
        assert found == []
