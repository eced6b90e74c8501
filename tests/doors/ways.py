"""The doors a machine comes in by: each starts one of a description and keeps it running while it is looked at."""

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
    "os": "--os",
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
    "boot.secure_keys": "--secure-boot-keys",
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
    """A machine that runs: the door it came in by, its record, what it should be called, what its guest answers."""

    door: str
    record: Record
    name: str
    said: Callable[[], str] = field(default=str)


Way = Callable[[Asked], Iterator[Open]]
"""Opens one machine after the other, each by another door where one leads to the next; closed, it leaves nothing."""


def options(description: Mapping[str, Any]) -> list[str]:
    """The description as options of ``tinamou run``."""
    words: list[str] = [str(description["image"])] if "image" in description else []
    for path, value in _flat(description, ""):
        if path in NAMED:
            words += [NAMED[path], str(value)]
        elif path in SWITCHES:
            words.append(SWITCHES[path])
        elif path in ("disk", "net", "pci", "usb", "pmem"):
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


def _up(name: str, process: subprocess.Popen[str]) -> Record:
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


def _run(asked: Asked, door: str, *more: str) -> Iterator[Open]:
    command = ["--", "sh", "-c", f"{asked.script}\nexit 7"] if asked.waited else []
    wait = [] if asked.waited else ["--no-wait"]
    with _held(asked.words("run", *options(asked.description), *more, *wait, *command)) as process:
        record = _up(asked.name, process)

        def said() -> str:
            if not asked.waited:
                return ""
            out, err = process.communicate(timeout=SECONDS)
            assert process.returncode == 7, err
            process.returncode = 0
            return out

        yield Open(door, record, asked.name, said)


def run(asked: Asked) -> Iterator[Open]:
    """``tinamou run OPTIONS -- COMMAND``, which waits for the end of its input before it runs the command."""
    yield from _run(asked, "run")


def warm(asked: Asked) -> Iterator[Open]:
    """``tinamou run --warm OPTIONS -- COMMAND``, for the first time and for the second; and the same from Python."""
    yield from _run(asked, "run --warm", "--warm")
    yield from _run(asked, "run --warm, again", "--warm")
    yield from _program(asked, "Machine(warm=True)", warm=True)


def _stays(asked: Asked, door: str, name: str = "") -> Open:
    name = name or asked.name
    return Open(door, machines.find(name), name, _exec(asked, name))


def detached(asked: Asked) -> Iterator[Open]:
    """``tinamou run -d OPTIONS``; then ``start`` of what was stopped."""
    try:
        assert asked.call("run", *options(asked.description), "-d") == f"{asked.name}\n"
        yield _stays(asked, "run -d")
        asked.call("stop" if asked.waited else "kill", asked.name)
        asked.call("start", asked.name)
        yield _stays(asked, "start")
    finally:
        asked.call("rm", "-f", asked.name)


def forked(asked: Asked) -> Iterator[Open]:
    """``tinamou run -d``, ``start``, and ``tinamou fork`` of what was started."""
    fork = ""
    with contextlib.closing(detached(asked)) as before:
        try:
            yield next(before)
            yield next(before)
            fork = asked.call("fork", asked.name).strip()
            yield _stays(asked, "tinamou fork", fork)
        finally:
            if fork:
                asked.call("rm", "-f", fork)


def from_file(asked: Asked) -> Iterator[Open]:
    """A machine file."""
    path = asked.place / "machine.toml"
    path.write_text(tomlkit.dumps(asked.description))
    try:
        assert asked.call("run", str(path), "-d") == f"{asked.name}\n"
        yield _stays(asked, "machine file")
    finally:
        asked.call("rm", "-f", asked.name)


PROGRAM = """
import json, sys
from tinamou import Machine
how = json.loads(sys.argv[1])
with Machine(**how["description"], **how["options"]) as vm:
    print(vm.name, flush=True)
    if sys.stdin.readline():
        with vm.fork() as fork:
            print(fork.name, flush=True)
            sys.stdin.readline()
"""


def _program(asked: Asked, door: str, *, fork: bool = False, **more: object) -> Iterator[Open]:
    how = {"description": asked.description, "options": {"wait": asked.waited, **more}}
    with _held([*asked.prefix, sys.executable, "-c", PROGRAM, json.dumps(how)]) as process:
        yield _stays(asked, door, _named(process))
        if fork:
            assert process.stdin is not None
            process.stdin.write("fork\n")
            process.stdin.flush()
            yield _stays(asked, "vm.fork()", _named(process))


def _named(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None and process.stderr is not None
    name = process.stdout.readline().strip()
    assert name, process.stderr.read()
    return name


def python(asked: Asked) -> Iterator[Open]:
    """``with Machine(…)``."""
    yield from _program(asked, "Machine()")


def python_fork(asked: Asked) -> Iterator[Open]:
    """``with Machine(…) as vm``, and ``vm.fork()``."""
    yield from _program(asked, "Machine()", fork=True)


def kept(asked: Asked) -> Iterator[Open]:
    """``with Machine(…, keep=True)``, which is stopped at the end, not gone."""
    try:
        yield from _program(asked, "Machine(keep=True)", keep=True)
        assert not machines.find(asked.name).running
    finally:
        asked.call("rm", "-f", asked.name)


ALONE: dict[str, Way] = {
    "run": run,
    "run -d, start": detached,
    "machine file": from_file,
    "Machine()": python,
    "Machine(keep=True)": kept,
}
"""Doors that lead to a machine of its own."""

COPIES: dict[str, Way] = {"run -d, start, fork": forked, "Machine(), vm.fork()": python_fork, "warm": warm}
"""Doors that lead to copies as well."""
