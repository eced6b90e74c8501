"""What is to be seen of a machine that runs: in its guest, in its QEMU's answers, on the host."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Mapping
from functools import cached_property
from pathlib import Path
from typing import Any

from tinamou.machine.connected import Connected
from tinamou.prepare.groups import group_places
from tinamou.prepare.journal import Journal
from tinamou.state.record import Record
from tinamou.system.loop_thread import wait_for


class Seen:
    """One running machine. ``name`` is what it should be called, ``place`` the folder its description names things of."""

    def __init__(self, record: Record, name: str, place: Path, prefix: tuple[str, ...] = ()) -> None:
        self.record, self.name, self.place, self.prefix = record, name, place, prefix

    def run(self, *argv: str) -> str:
        """What a command of the host prints, run where the machine was started."""
        done = subprocess.run([*self.prefix, *argv], capture_output=True, text=True, check=False, timeout=60)
        assert done.returncode == 0, f"{argv}: {done.stderr}"
        return done.stdout

    @cached_property
    def argv(self) -> list[str]:
        """QEMU's command line, as the host shows it."""
        return Path(f"/proc/{self.record.pid}/cmdline").read_text().split("\0")[:-1]

    def after(self, flag: str) -> list[str]:
        """What stands behind each ``-flag``."""
        return [self.argv[at + 1] for at, word in enumerate(self.argv[:-1]) if word == f"-{flag}"]

    def tables(self, flag: str) -> list[dict[str, Any]]:
        """The same where it is JSON."""
        return [json.loads(text) for text in self.after(flag) if text.startswith("{")]

    def node(self, name: str) -> dict[str, Any]:
        """A block node as QEMU was told of it."""
        return next(one for one in self.tables("blockdev") if one["node-name"] == name)

    def netdev(self, name: str) -> dict[str, Any]:
        """A network backend as QEMU was told of it."""
        return next(one for one in self.tables("netdev") if one["id"] == name)

    def ask(self, command: str, **arguments: object) -> Any:
        """QEMU's answer."""

        async def asked() -> object:
            async with Connected.visiting(self.record) as machine:
                return await (await machine.session()).execute(command, arguments)

        return wait_for(asked())

    def prop(self, path: str, name: str) -> Any:
        """A property of one of QEMU's objects or devices."""
        whole = f"/objects/{path}" if path in self.objects else f"/machine/peripheral/{path}"
        return self.ask("qom-get", path=whole, property=name)

    @cached_property
    def objects(self) -> set[str]:
        """The ids of QEMU's objects."""
        return {one["name"] for one in self.ask("qom-list", path="/objects")}

    @cached_property
    def devices(self) -> set[str]:
        """The ids of its devices."""
        return {one["name"] for one in self.ask("qom-list", path="/machine/peripheral")}

    @cached_property
    def nodes(self) -> Mapping[str, Any]:
        """Its block nodes by name."""
        return {one["node-name"]: one for one in self.ask("query-named-block-nodes")}

    @cached_property
    def filters(self) -> int:
        """How many filters of system calls QEMU has."""
        lines = Path(f"/proc/{self.record.pid}/status").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Seccomp_filters:")).split()[1])

    def limit(self, *files: str) -> str:
        """What the machine's control groups say in the first of these files, and that its QEMU is in there."""
        for place in map(Path, group_places(Journal(self.record.path))):
            for file in files:
                if (place / file).exists():
                    assert str(self.record.pid) in (place / "cgroup.procs").read_text().split()
                    return (place / file).read_text().strip()
        raise AssertionError(f"no control group of {self.record.name} has {files}")

    def helper(self, word: str) -> list[str]:
        """The command lines of living processes that name this machine's folder and have this word, but for log writers."""
        found = []
        for entry in Path("/proc").iterdir():
            if entry.name.isdecimal():
                try:
                    line = (entry / "cmdline").read_text().replace("\0", " ")
                except OSError:
                    continue
                if word in line and str(self.record.directory) in line and "/logwriter." not in line:
                    found.append(line)
        return found
