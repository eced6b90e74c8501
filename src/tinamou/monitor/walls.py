"""Which walls stand around a running process, looked at from outside (source: proc_pid_status(5), namespaces(7))."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Mapping
from pathlib import Path

from tinamou.blueprint.plan import Confinement
from tinamou.late import dataclass

__all__ = ["WallView", "look"]

_NAMESPACES = {
    "files": "mnt", "processes": "pid", "ipc": "ipc", "hostname": "uts", "cgroups": "cgroup", "network": "net",
}  # fmt: skip
_TELLING = ("home", "root", "var", "run", "boot", "sys", "etc/passwd", "proc/1")
"""What is found at the root of a host, of which QEMU has nothing at its own."""
_CAPABILITIES = ("CapInh", "CapPrm", "CapEff", "CapAmb")


@dataclass(frozen=True)
class WallView:
    """One wall around a process: whether it ``stands``, as ``found``; what was ``planned``, and whether it was to stand."""

    name: str
    stands: bool
    found: str
    planned: str = ""
    wanted: bool = False

    @property
    def missing(self) -> bool:
        """Whether it was to stand and does not."""
        return self.wanted and not self.stands


def look(pid: int, planned: Confinement) -> list[WallView]:
    """Every wall around the process of that number. Raises OSError when it has ended, or may not be looked at."""
    status = dict(re.findall(r"^(\w+):[ \t]*(.*)$", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE))
    seen = {
        "identity": _identity(status),
        "rights": _rights(pid, status),
        "system calls": (status.get("Seccomp") == "2", f"{status.get('Seccomp_filters', '0')} filters"),
        **{name: _apart(pid, kind) for name, kind in _NAMESPACES.items()},
        "label": _label(pid),
    }
    seen["files"] = _root(pid, *seen["files"], planned)
    seen["network"] = _network(pid, *seen["network"], planned)
    said = {wall.name: wall for wall in planned.walls}
    return [
        WallView(name, *found, said[name].why if name in said else "", name in said and said[name].stands)
        for name, found in seen.items()
    ]


def _identity(status: Mapping[str, str]) -> tuple[bool, str]:
    users, mine = set(map(int, status["Uid"].split())), os.geteuid()
    named, groups = ", ".join(map(str, sorted(users))), status["Groups"].strip() or "none"
    return users.isdisjoint({0, mine}), f"user {named}, groups {groups}"


def _rights(pid: int, status: Mapping[str, str]) -> tuple[bool, str]:
    held = sorted({int(status[name], 16) for name in _CAPABILITIES} - {0})
    core = re.search(r"^Max core file size\s+(\w+)", Path(f"/proc/{pid}/limits").read_text(), re.MULTILINE)
    no_new = status.get("NoNewPrivs") == "1"
    shown = ", ".join(f"{one:#x}" for one in held) or "none"
    stands = not held and no_new and core is not None and core[1] == "0"
    return (
        stands,
        f"capabilities {shown}, new privileges {'refused' if no_new else 'possible'}, core {core[1] if core else '?'}",
    )


def _apart(pid: int, kind: str) -> tuple[bool, str]:
    theirs, mine = (str(Path(f"/proc/{one}/ns/{kind}").readlink()) for one in (pid, "self"))
    return theirs != mine, theirs if theirs != mine else f"{theirs}, as this host"


def _root(pid: int, apart: bool, found: str, planned: Confinement) -> tuple[bool, str]:
    """What its root holds: a namespace of its own may still have all of the host."""
    root = f"/proc/{pid}/root"
    telling = [name for name in _TELLING if os.path.lexists(f"{root}/{name}") and not _let_in(root, name, planned)]
    if apart and not telling:
        return True, f"{found}, its root holds {' '.join(sorted(os.listdir(root)))}"  # noqa: PTH208
    held = bool(planned.landlock[0])
    by = "; held by Landlock, which is not seen from outside" if held else ""
    return held, f"{found}, sees {', '.join(telling)}{by}"


def _let_in(root: str, name: str, planned: Confinement) -> bool:
    """Whether that folder holds nothing but the way to what was let in: a QEMU below /var, for example."""
    ways = {path.split("/")[2] for path in (*planned.reads, *planned.writes) if path.startswith(f"/{name}/")}
    return bool(ways) and ways.issuperset(os.listdir(f"{root}/{name}"))  # noqa: PTH208


def _network(pid: int, apart: bool, found: str, planned: Confinement) -> tuple[bool, str]:
    with contextlib.suppress(OSError):
        rows = Path(f"/proc/{pid}/net/dev").read_text().splitlines()[2:]
        cards = " ".join(row.partition(":")[0].strip() for row in rows)
        found = f"{found} with {cards}" if apart else found
    held = not apart and bool(planned.landlock[1])
    return apart or held, found + ("; held by Landlock, which is not seen from outside" if held else "")


def _label(pid: int) -> tuple[bool, str]:
    """What AppArmor or SELinux say of it, where the host has one of them."""
    label = ""
    with contextlib.suppress(OSError):
        label = Path(f"/proc/{pid}/attr/current").read_text().strip("\0\n ")
    kind = label.split(":")[2] if label.count(":") > 2 else label
    return bool(label) and not kind.startswith(("unconfined", "kernel", "init")), label or "no AppArmor or SELinux here"
