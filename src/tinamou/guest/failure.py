"""The error of a guest that does not answer: the stage it reached, what stopped it, and the logs that show it."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Mapping
from pathlib import Path

from tinamou.errors import GuestError
from tinamou.facts import files
from tinamou.guest.diagnose import BootFinding, Stage, cause_of, clean, diagnose
from tinamou.system import logs

__all__ = ["PANIC", "NotReadyError", "not_ready", "tail"]

PANIC = "Kernel panic - not syncing"
"""How a guest's kernel says on its console that it gave up."""
_SERIAL_LINES, _QEMU_LINES, _PANIC_LINES = 25, 15, 14

_NAMES = {
    Stage.QEMU: "QEMU runs, its firmware printed nothing",
    Stage.FIRMWARE: "firmware",
    Stage.KERNEL: "kernel",
    Stage.USERSPACE: "userspace",
    Stage.AGENT: "the agent's port was opened",
    Stage.READY: "ready",
}


class NotReadyError(GuestError):
    """The guest did not get to the point where it answers.

    ``reached`` is the last stage seen, ``findings`` what was recognised in its log, ``exit_status`` QEMU's, where it
    ended and the status is known (-N: ended by signal N). ``late`` says that it runs and may answer yet.
    """

    def __init__(
        self,
        what: str,
        *,
        reached: Stage,
        findings: tuple[BootFinding, ...],
        exit_status: int | None,
        why: str,
        fix: str,
        evidence: dict[str, str],
        late: bool = False,
    ) -> None:
        super().__init__(what, why=why, fix=fix, evidence=evidence)
        self.reached = reached
        self.findings = findings
        self.exit_status = exit_status
        self.late = late


def not_ready(
    directory: str,
    stage: Stage,
    *,
    reason: str,
    at: Mapping[Stage, float],
    exit_status: int | None,
    ended: bool,
    late: bool = False,
    firmware: bytes = b"",
) -> NotReadyError:
    """Build the error from what the machine's directory holds.

    ``reason`` says what ended the waiting, empty when it was something in the log; ``at`` are the seconds at which stages
    were seen; ``late`` that only the time was up; ``firmware`` is what that wrote down itself, where it does.
    """
    if ended:
        logs.complete(Path(directory, files.SERIAL_LOG))
    serial = tail(f"{directory}/{files.SERIAL_LOG}")
    findings = diagnose(serial, stage)
    cause = cause_of(findings)
    if not reason:
        reason = cause.meaning if cause else "it came to a halt"
    if ended:
        told = cause.meaning if cause else reason
        reason = f"QEMU ended{_status(exit_status)}" + (f": {told}" if told != "QEMU ended" else "")
    seen = ", ".join(f"{s.name.lower()} {seconds:.1f} s" for s, seconds in sorted(at.items()))
    lines = serial.splitlines()
    panic = next((number for number, line in enumerate(lines) if PANIC in line), len(lines))
    evidence = {
        "recognised": "\n".join(f"{f.line}: {f.meaning}" if f.line else f.meaning for f in findings),
        "the guest printed last": next((line.strip() for line in reversed(lines) if line.strip()), ""),
        "serial log": "\n".join(lines[:panic][-_SERIAL_LINES:]),
        "kernel panic": "\n".join(lines[panic : panic + _PANIC_LINES]),
        "firmware log": "\n".join(clean(firmware).splitlines()[-_SERIAL_LINES:]),
        "QEMU said": "\n".join(tail(f"{directory}/{files.QEMU_LOG}").splitlines()[-_QEMU_LINES:]),
    }
    return NotReadyError(
        f"The guest does not answer: {reason}",
        reached=stage,
        findings=findings,
        exit_status=exit_status,
        why=f"it got as far as: {_NAMES[stage]} ({seen})" + (f"; {cause.meaning}" if cause and not ended else ""),
        fix=(cause.fix if cause else "")
        or "start it with -d, so that it stays, and look at it: tinamou logs NAME, tinamou console NAME",
        evidence={name: text for name, text in evidence.items() if text},
        late=late,
    )


def tail(path: str) -> str:
    """The readable end of a log; empty when there is none."""
    return clean(logs.tail(Path(path))).strip("\n")


def _status(exit_status: int | None) -> str:
    if exit_status is None:
        return ""
    if exit_status < 0:
        with contextlib.suppress(ValueError):
            return f" by signal {signal.Signals(-exit_status).name}"
        return f" by signal {-exit_status}"
    return f" with status {exit_status}"
