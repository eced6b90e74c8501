"""Control groups made by the systemd of an ordinary user: scopes, asked for by busctl (source: org.freedesktop.systemd1(5)).

A scope is there as long as a process is in it, and limits it from the moment systemd has moved the process.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from tinamou.system.cgroups import Limits
from tinamou.system.exec import CommandError, run

__all__ = ["bus_of", "enter"]

_MANAGER = ("org.freedesktop.systemd1", "/org/freedesktop/systemd1", "org.freedesktop.systemd1.Manager")
_SECONDS = 10.0


def bus_of(uid: int) -> str:
    """Where a user's systemd listens."""
    return f"/run/user/{uid}/bus"


def enter(name: str, limits: Limits, pid: int) -> Path:
    """Moves a process into the scope of that name, which is made for the first one; the folder of its group.

    Raises OSError with what systemd says.
    """
    unit = f"tinamou-{name}.scope"
    try:
        _ask("StartTransientUnit", "ssa(sv)a(sa(sv))", unit, "fail", *_properties(limits, pid), "0")
    except CommandError as error:
        if "already" not in error.stderr:
            raise OSError(f"systemd makes no scope {unit}: {error.stderr.strip()}") from error
        try:
            _ask("AttachProcessesToUnit", "ssau", unit, "", "1", str(pid))
        except CommandError as later:
            raise OSError(f"systemd moves process {pid} not into {unit}: {later.stderr.strip()}") from later
    return _moved(unit, pid)


def _properties(limits: Limits, pid: int) -> list[str]:
    asked = [("PIDs", "au", "1", str(pid)), ("CollectMode", "s", "inactive-or-failed")]
    asked.append(("Delegate", "b", "true"))  # without it no process can be moved in later
    numbers = {
        "MemoryMax": limits.memory,
        "TasksMax": limits.pids,
        "CPUQuotaPerSecUSec": round(limits.cpu * 1_000_000) if limits.cpu else None,
    }
    asked += [(name, "t", str(int(value))) for name, value in numbers.items() if value]
    rates = {"IOReadBandwidthMax": limits.read, "IOWriteBandwidthMax": limits.write}
    asked += [(name, "a(st)", "1", f"/dev/block/{limits.device}", str(int(rate))) for name, rate in rates.items() if rate]
    return [str(len(asked)), *(word for words in asked for word in words)]


def _ask(method: str, signature: str, *words: str) -> None:
    runtime = {"XDG_RUNTIME_DIR": str(Path(bus_of(os.getuid())).parent)}
    run(["busctl", "--user", "--timeout=10", "call", *_MANAGER, method, signature, *words], environment=runtime, timeout=20)


def _moved(unit: str, pid: int) -> Path:
    """The group systemd has moved it to, which it does after it has answered. Raises OSError."""
    deadline = time.monotonic() + _SECONDS
    while time.monotonic() < deadline:
        place = next(line[3:] for line in Path(f"/proc/{pid}/cgroup").read_text().splitlines() if line.startswith("0::"))
        if place.endswith(f"/{unit}"):
            return Path(f"/sys/fs/cgroup{place}")
        time.sleep(0.002)
    raise OSError(f"systemd has not moved process {pid} into {unit} within {_SECONDS:g} s")
