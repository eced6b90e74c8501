"""Machines that run on another QEMU than the one that is installed: which they are, and putting that under them."""

from __future__ import annotations

from pathlib import Path

from tinamou.facts.qemu import numbered
from tinamou.images.progress import Progress, silent
from tinamou.late import dataclass
from tinamou.machine import life, upgrading
from tinamou.machine.connected import Connected
from tinamou.machine.upgrading import Upgraded
from tinamou.operations.changelog import CVE, security_fixes
from tinamou.probe.qemu import choosing, find_binary, probe_qemu
from tinamou.state import machines
from tinamou.state.record import Record

__all__ = ["COLUMNS", "Outdated", "outdated", "upgrade"]

COLUMNS = ("name", "runs", "installed", "why", "fixed since")


@dataclass(frozen=True)
class Outdated:
    """A machine, the QEMU it runs on, the one a start of today would take, and how that is known.

    ``security`` are the lines of the package's changelog in between that name a CVE; None where none knows both versions.
    """

    name: str
    runs: str
    installed: str
    why: str
    security: tuple[str, ...] | None = None

    @property
    def cves(self) -> list[str]:
        """The numbers in those lines."""
        return list(dict.fromkeys(number for line in self.security or () for number in CVE.findall(line)))


async def upgrade(name: str, binary: str = "", *, progress: Progress = silent) -> Upgraded:
    """Put another QEMU under a running machine; see `tinamou.machine.upgrading.upgrade`."""
    record = life.running(name)
    async with Connected(record, owner=not record.owned) as machine:
        return await upgrading.upgrade(machine, binary, progress=progress)


def outdated(binary: str = "") -> list[Outdated]:
    """The running machines whose QEMU is another than ``binary``, or than the one that is found; throw-away ones first.

    Raises ProbeError where there is none.
    """
    running = [record for record in machines.machines() if record.running]
    with choosing(binary):
        return [one for record in sorted(running, key=lambda one: not one.ephemeral) if (one := _outdated(record))]


def _outdated(record: Record) -> Outdated | None:
    now = probe_qemu(find_binary(record.arch))
    here = numbered(now.version, now.package)
    runs = record.package or record.binary
    try:
        program = str(Path(f"/proc/{record.pid}/exe").readlink())
    except OSError:
        return None  # it ended just now
    if program.endswith(" (deleted)"):
        why = "the file it was started from has been replaced"
    elif record.package != now.package:
        why = "it is of another package"
    else:
        return None
    return Outdated(record.name, runs, here, why, security_fixes(record.package, now.package))
