"""The doors a machine comes in by: each starts one of a description and holds it open while it is looked at."""

from __future__ import annotations

import contextlib
import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import tomlkit
from typed import TINAMOU, eventually

from tinamou.state import machines
from tinamou.state.record import Record

NAMED = {
    "name": "--name",
    "arch": "--arch",
    "accel": "--accel",
    "cpu.count": "--cpus",
    "cpu.pin": "--pin",
    "memory.size": "--memory",
    "memory.hugepages": "--hugepages",
    "boot.firmware": "--firmware",
    "boot.kernel": "--kernel",
    "boot.initrd": "--initrd",
    "boot.cmdline": "--cmdline",
    "display.type": "--display",
    "confidential.type": "--confidential",
}
"""Fields that have an option of their own; ``--set`` reaches all others."""
SWITCHES = {"tpm.enabled": "--tpm", "boot.secure": "--secure-boot"}
SECONDS = 200.0


@dataclass(frozen=True)
class Asked:
    """A machine to be started: its description, the script whose output is wanted of its guest, and where it starts.

    ``prefix`` is put before every command, ``place`` is a folder of the test's.
    """

    description: Mapping[str, Any]
    script: str
    place: Path
    prefix: tuple[str, ...] = ()
    waited: bool = True

    @property
    def name(self) -> str:
        return str(self.description["name"])

    def words(self, *words: str) -> list[str]:
        return [*self.prefix, *TINAMOU, *words]

    def call(self, *words: str, input: str = "", status: int = 0) -> str:
        done = subprocess.run(self.words(*words), input=input, capture_output=True, text=True, timeout=SECONDS, check=False)
        assert done.returncode == status, f"{words}: {done.returncode}\n{done.stdout}{done.stderr}"
        return done.stdout


@dataclass(frozen=True)
class Open:
    """A machine that runs: its record, what it should be called, and what the script says in its guest."""

    record: Record
    name: str
    said: Callable[[], str] = field(default=str)


Door = Callable[[Asked], contextlib.AbstractContextManager[Open]]


def options(description: Mapping[str, Any]) -> list[str]:
    """The description as options of ``tinamou run``."""
    words: list[str] = [str(description["image"])] if "image" in description else []
    for path, value in _flat(description, ""):
        if path in NAMED:
            words += [NAMED[path], str(value)]
        elif path in SWITCHES:
            words.append(SWITCHES[path])
        elif path in ("disk", "net", "pci"):
            words += [word for one in value for word in (f"--{path}", _table(one))]
            words += ["--net", "none"] if path == "net" and not value else []
        elif path == "share":
            words += [word for one in value for word in ("--share", _share(one))]
        elif path != "image":
            words += ["--set", f"{path}={json.dumps(value)}"]
    return words


def _flat(table: Mapping[str, Any], path: str) -> Iterator[tuple[str, Any]]:
    for key, value in table.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def _table(one: Mapping[str, Any]) -> str:
    each = ((key, item) for key, value in one.items() for item in (value if isinstance(value, list) and value else [value]))
    return ",".join(f"{key}={item if isinstance(item, str) else json.dumps(item)}" for key, item in each)


def _share(one: Mapping[str, Any]) -> str:
    return ":".join([one["path"], *([one["to"]] if "to" in one else []), *(["ro"] if one.get("readonly") else [])])


def _up(asked: Asked, name: str, process: subprocess.Popen[str]) -> Record:
    """The record of a machine whose process is there; what the command said where it has ended instead."""

    def there() -> Record | None:
        assert process.poll() is None, f"it ended with {process.returncode}:\n{process.communicate()}"
        return next((one for one in machines.machines() if one.name == name and one.running), None)

    eventually(there, f"machine {name}", SECONDS)
    return machines.find(name)


def _exec(asked: Asked, name: str) -> Callable[[], str]:
    return lambda: asked.call("exec", name, "--", "sh", "-c", asked.script) if asked.waited else ""


@contextlib.contextmanager
def _held(words: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A command that goes on until its input ends."""
    pipe = subprocess.PIPE
    with subprocess.Popen(words, stdin=pipe, stdout=pipe, stderr=pipe, text=True) as process:
        try:
            yield process
            if process.poll() is None:
                out, err = process.communicate(timeout=60)
                assert process.returncode in (0, None), f"{words}: {out}{err}"
        finally:
            process.kill()


def _run(asked: Asked, *more: str) -> Iterator[Open]:
    command = ["--", "sh", "-c", f"{asked.script}\nexit 7"] if asked.waited else []
    wait = [] if asked.waited else ["--no-wait"]
    with _held(asked.words("run", *options(asked.description), *more, *wait, *command)) as process:
        record = _up(asked, asked.name, process)

        def said() -> str:
            if not asked.waited:
                return ""
            out, err = process.communicate(timeout=SECONDS)
            assert process.returncode == 7, err
            process.returncode = 0
            return out

        yield Open(record, asked.name, said)


@contextlib.contextmanager
def run(asked: Asked) -> Iterator[Open]:
    """``tinamou run OPTIONS -- COMMAND``, which waits for the end of its input before it runs the command."""
    yield from _run(asked)


@contextlib.contextmanager
def warm(asked: Asked) -> Iterator[Open]:
    """``tinamou run --warm OPTIONS -- COMMAND``."""
    yield from _run(asked, "--warm")


def _staying(asked: Asked, *words: str) -> Iterator[Open]:
    try:
        assert asked.call(*words) == f"{asked.name}\n"
        yield Open(machines.find(asked.name), asked.name, _exec(asked, asked.name))
    finally:
        asked.call("rm", "-f", asked.name)


@contextlib.contextmanager
def detached(asked: Asked) -> Iterator[Open]:
    """``tinamou run -d OPTIONS``."""
    yield from _staying(asked, "run", *options(asked.description), "-d")


@contextlib.contextmanager
def started(asked: Asked) -> Iterator[Open]:
    """``tinamou start`` of one that was stopped; from another folder than the one it was made in."""
    with detached(asked):
        asked.call("stop" if asked.waited else "kill", asked.name)
        asked.call("start", asked.name)
        yield Open(machines.find(asked.name), asked.name, _exec(asked, asked.name))


@contextlib.contextmanager
def forked(asked: Asked) -> Iterator[Open]:
    """``tinamou fork`` of one that runs."""
    with detached(asked):
        name = asked.call("fork", asked.name).strip()
        try:
            yield Open(machines.find(name), name, _exec(asked, name))
        finally:
            asked.call("rm", "-f", name)


@contextlib.contextmanager
def from_file(asked: Asked) -> Iterator[Open]:
    """A machine file."""
    path = asked.place / "machine.toml"
    path.write_text(tomlkit.dumps(asked.description))
    yield from _staying(asked, "run", str(path), "-d")


PROGRAM = """
import json, sys
from tinamou import Machine
how = json.loads(sys.argv[1])
with Machine(**how["description"], **how["options"]) as vm:
    one = vm.fork() if how["fork"] else vm
    print(one.name, flush=True)
    sys.stdin.read()
"""


def _program(asked: Asked, *, fork: bool = False, **more: object) -> Iterator[Open]:
    how = {"description": asked.description, "fork": fork, "options": {"wait": asked.waited, **more}}
    with _held([*asked.prefix, sys.executable, "-c", PROGRAM, json.dumps(how)]) as process:
        assert process.stdout is not None and process.stderr is not None
        name = process.stdout.readline().strip()
        assert name, process.stderr.read()
        yield Open(machines.find(name), name if fork else asked.name, _exec(asked, name))


@contextlib.contextmanager
def python(asked: Asked) -> Iterator[Open]:
    """``with Machine(…)``."""
    yield from _program(asked)


@contextlib.contextmanager
def kept(asked: Asked) -> Iterator[Open]:
    """``with Machine(…, keep=True)``, which is stopped at the end, not gone."""
    try:
        yield from _program(asked, keep=True)
        assert not machines.find(asked.name).running
    finally:
        asked.call("rm", "-f", asked.name)


@contextlib.contextmanager
def python_warm(asked: Asked) -> Iterator[Open]:
    """``with Machine(…, warm=True)``."""
    yield from _program(asked, warm=True)


@contextlib.contextmanager
def python_fork(asked: Asked) -> Iterator[Open]:
    """``vm.fork()``."""
    yield from _program(asked, fork=True)


DOORS: dict[str, Door] = {
    "run": run,
    "run -d": detached,
    "machine file": from_file,
    "start": started,
    "Machine()": python,
    "Machine(keep=True)": kept,
    "run --warm": warm,
    "Machine(warm=True)": python_warm,
    "vm.fork()": python_fork,
    "tinamou fork": forked,
}
