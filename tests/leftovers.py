"""Finds what a machine left on the host: processes, sockets, claims, interfaces, shared memory, control groups."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from running import memory_kept_by

from tinamou.prepare.groups import group_name
from tinamou.system import cgroups

OURS = ("tinamou", "tm-")


def _read(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""


def _names(folder: str, prefixes: tuple[str, ...]) -> set[str]:
    try:
        return {str(path) for path in Path(folder).iterdir() if path.name.startswith(prefixes)}
    except OSError:
        return set()


def images_left(cache: Path) -> set[str]:
    """Images in a cache that were made or imported there: all that is none of the guests built or pulled once for all."""
    images = cache / "images"
    return {str(one.relative_to(images)) for kind in ("import", "layer") for one in images.glob(f"*/*/{kind}-*")}


class Leftovers:
    """What appeared since this was made and belongs to the machines whose state is in ``state``.

    Processes and sockets are known by that path (in their arguments, environment or working directory), interfaces by
    their alias, control groups by their mark, so that tests and machines beside this one do not count; memory this process
    keeps is known by its name.
    """

    def __init__(self, state: Path) -> None:
        self.state = state
        self._named = self._by_name()

    def _by_name(self) -> set[str]:
        return _names("/dev/hugepages", OURS) | self._groups() | self._links() | self._memory()

    def _groups(self) -> set[str]:
        """Control groups of these machines: a group's name ends with a mark of its machine's folder."""
        folders = [*Path("/sys/fs/cgroup").glob("tinamou/*-*"), *Path("/sys/fs/cgroup").glob("*/tinamou/*-*")]
        return {
            str(one) for one in folders if one.name == group_name(f"{self.state}/machines/{one.name[:-9]}", one.name[:-9])
        }

    def _links(self) -> set[str]:
        """Interfaces of these machines and networks: their alias says whose they are."""
        links = Path("/sys/class/net").iterdir()
        return {str(link) for link in links if str(self.state) in _read(link / "ifalias")}

    def _memory(self) -> set[str]:
        """The memory of checkpoints that this very process keeps; others that do are processes of these machines."""
        return {f"memory {inode}" for inode in memory_kept_by(os.getpid())}

    def claims(self) -> bool:
        """Whether the ledger of the host still names one of these machines."""
        folders = (os.environ.get("TINAMOU_RUN"), "/run/tinamou", f"{os.environ.get('XDG_RUNTIME_DIR')}/tinamou")
        return any(str(self.state) in _read(Path(folder) / "tinamou.json") for folder in folders if folder)

    def processes(self) -> dict[int, str]:
        """The living processes (not zombies) of these machines: pid and command line."""
        found = {}
        family = {os.getpid(), os.getppid()}
        for folder in Path("/proc").iterdir():
            if not folder.name.isdigit() or int(folder.name) in family:
                continue
            command = _read(folder / "cmdline").replace("\0", " ").strip()
            try:
                where = str((folder / "cwd").readlink())
            except OSError:
                where = ""
            if command and str(self.state) in command + _read(folder / "environ") + where:
                found[int(folder.name)] = command
        return found

    def sockets(self) -> set[str]:
        """Bound unix sockets below the state directory."""
        paths = (line.split()[-1] for line in _read(Path("/proc/net/unix")).splitlines())
        return {path for path in paths if path.startswith(str(self.state))}

    def remove_checkpoints(self) -> None:
        """Remove kept checkpoints as a user does: they are no leftovers, but a process keeps their memory."""
        names = sorted(path.name for path in self.state.glob("checkpoints/[!.]*"))
        if names:
            subprocess.run([sys.executable, "-m", "tinamou", "checkpoints", "rm", *names], check=False, capture_output=True)

    def found(self) -> list[str]:
        """One sentence for each thing left."""
        return [
            *(f"process {pid}: {command[:200]}" for pid, command in sorted(self.processes().items())),
            *(f"socket {path}" for path in sorted(self.sockets())),
            *(["a claim in the ledger of the host"] if self.claims() else []),
            *(f"new: {path}" for path in sorted(self._by_name() - self._named)),
        ]

    def settle(self, seconds: float = 60.0) -> list[str]:
        """What is left once processes on their way out had ``seconds`` to go."""
        end = time.monotonic() + seconds
        while (found := self.found()) and time.monotonic() < end:
            time.sleep(0.05)
        return found

    def clear(self) -> None:
        """End what was left, so that the next test does not meet it: processes, and the control groups they were in."""
        for pid in self.processes():
            try:
                os.kill(pid, signal.SIGKILL)
            except ProcessLookupError:
                continue
        cgroups.remove(sorted(self._groups()))
