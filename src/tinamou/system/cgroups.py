"""Control groups of machines, in version 1 or 2: made, limited, entered, removed (source: cgroup-v2.rst, cgroup-v1/).

A machine's group is ``tinamou/NAME`` below the root of each hierarchy that has a controller it needs.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import time
from collections.abc import Iterable, Mapping
from pathlib import Path

from tinamou.late import dataclass
from tinamou.system.rooted import Rooted

__all__ = ["PARENT", "Limits", "ended_for_memory", "enter", "folders", "make", "remove"]

PARENT = "tinamou"
_PERIOD = 100_000
_SETTLE_SECONDS = 2.0


@dataclass(frozen=True)
class Limits:
    """What a group may use: ``cpu`` in CPUs, ``memory`` in bytes, ``read`` and ``write`` in bytes a second on ``device``;
    ``pids`` processes and threads."""

    cpu: float | None = None
    memory: int | None = None
    read: int | None = None
    write: int | None = None
    device: str = ""
    pids: int | None = None

    def controllers(self) -> tuple[str, ...]:
        """The controllers these limits need, under their names in version 2."""
        wanted = {"cpu": self.cpu, "memory": self.memory, "io": self.read or self.write, "pids": self.pids}
        return tuple(name for name, value in wanted.items() if value)

    def values(self, controller: str, version: str) -> dict[str, str]:
        """File name → text to write, for one controller."""
        if controller == "cpu":
            quota = int((self.cpu or 0) * _PERIOD)
            return {"cpu.max": f"{quota} {_PERIOD}"} if version == "v2" else {"cpu.cfs_quota_us": str(quota)}
        if controller == "pids":
            return {"pids.max": str(self.pids)}
        if controller == "memory":
            return {"memory.max" if version == "v2" else "memory.limit_in_bytes": str(int(self.memory or 0))}
        rates = {way: int(rate) for way, rate in (("read", self.read), ("write", self.write)) if rate}
        if version == "v1":
            names = {"read": "blkio.throttle.read_bps_device", "write": "blkio.throttle.write_bps_device"}
            return {names[way]: f"{self.device} {rate}" for way, rate in rates.items()}
        shown = " ".join(f"{way[0]}bps={rate}" for way, rate in rates.items())
        return {"io.max": f"{self.device} {shown}"}


def mounts() -> dict[str, tuple[str, Path]]:
    """Controller → (version, where its hierarchy is mounted); blkio counts as io. Mounts that others hide do not count."""
    found: dict[str, tuple[str, Path]] = {}
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, options, *_ = line.split(" ")
        root = Path(place)
        if kind == "cgroup2" and (root / "cgroup.controllers").exists():
            names = (root / "cgroup.controllers").read_text().split()
            found = {**dict.fromkeys(names, ("v2", root)), **found}
        elif kind == "cgroup" and (root / "cgroup.procs").exists():
            found.update(dict.fromkeys(options.split(","), ("v1", root)))
    if "blkio" in found:
        found.setdefault("io", found["blkio"])
    return found


def folders(name: str, controllers: tuple[str, ...]) -> dict[str, tuple[str, Path]]:
    """Controller → (version, folder of the machine's group). Raises OSError naming a controller that is not mounted."""
    known = mounts()
    missing = [controller for controller in controllers if controller not in known]
    if missing:
        raise OSError(errno.ENOENT, f"no control group hierarchy has the controller {', '.join(missing)}")
    return {c: (known[c][0], known[c][1] / PARENT / name) for c in controllers}


def make(name: str, limits: Limits) -> list[Path]:
    """Makes the machine's groups with their limits and returns their folders. Raises OSError; nothing is left then."""
    wanted = folders(name, limits.controllers())
    try:
        for controller, (version, folder) in wanted.items():
            if version == "v2":
                _enable(folder.parent.parent, controller)
                _make_dir(folder)
                _enable(folder.parent, controller)
            _make_dir(folder)
            _set(folder, limits.values(controller, version))
    except OSError:
        remove([str(folder) for _, folder in wanted.values()])
        raise
    return list(dict.fromkeys(folder for _, folder in wanted.values()))


def _make_dir(folder: Path) -> None:
    """Makes the group below the common parent, which the end of another machine may remove at the same moment."""
    for _ in range(100):
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except FileNotFoundError:
            continue
        return


def _set(folder: Path, values: Mapping[str, str]) -> None:
    for file, text in values.items():
        try:
            (folder / file).write_text(text)
        except OSError as error:
            raise OSError(error.errno, f"{folder / file} does not take {text!r}: {error.strerror}") from error


def _enable(folder: Path, controller: str) -> None:
    control = folder / "cgroup.subtree_control"
    if controller not in control.read_text().split():
        control.write_text(f"+{controller}")


def enter(places: list[Path], pid: int) -> None:
    """Moves a process with all its threads into the groups."""
    for folder in places:
        (folder / "cgroup.procs").write_text(str(pid))


def remove(places: list[str]) -> None:
    """Removes groups that hold no process any more, and the parent when it is empty. Raises OSError when one is in use."""
    deadline = time.monotonic() + _SETTLE_SECONDS
    for folder in dict.fromkeys(places):
        while os.path.isdir(folder):  # noqa: PTH112
            try:
                os.rmdir(folder)  # noqa: PTH106
            except FileNotFoundError:
                break
            except OSError as error:
                if error.errno != errno.EBUSY or time.monotonic() > deadline:
                    raise
                time.sleep(0.01)
        _remove_parent(Path(folder).parent)


def _remove_parent(parent: Path) -> None:
    if parent.name == PARENT:
        with contextlib.suppress(OSError):
            parent.rmdir()


def ended_for_memory(files: Rooted, places: Iterable[str]) -> int:
    """How many processes of these groups the kernel has ended for lack of memory, whichever version's file counts them."""
    texts = (files.read(f"{place}/{name}") or "" for place in places for name in ("memory.events", "memory.oom_control"))
    return sum(int(count) for text in texts for count in re.findall(r"^oom_kill (\d+)", text, re.MULTILINE))
