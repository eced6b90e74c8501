"""Start QEMU for a plan: confined, with open files handed over; say what happened when it dies at once."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from tinamou.blueprint import HandOver, Plan
from tinamou.errors import LaunchError
from tinamou.launch.argv import argv, shell_line
from tinamou.launch.filtered import filtered
from tinamou.launch.handover import open_all, with_descriptors
from tinamou.launch.refused import IN_VAIN, LEFT_OUT, refused_call
from tinamou.prepare.logs import pipes_into
from tinamou.system import confine
from tinamou.system.logs import complete, last_lines
from tinamou.system.spawn import Process, exit_code, spawn

__all__ = ["died", "start"]

_SIGSYS = 31
_SIGNALS = {9: ": it was killed, by hand or for lack of memory"}


def start(
    plan: Plan,
    directory: Path,
    *,
    dies_with_parent: bool,
    inherit: Sequence[int] = (),
    given: Mapping[str, int] | None = None,
) -> Process:
    """Start the plan's QEMU; its own words go to ``directory/qemu.log``. Raises LaunchError, PrepareError.

    ``inherit`` are descriptors it is given under their numbers, beside those the plan hands over. Of those, the ones in
    ``given`` are open already, by the plan's path; they are closed here.
    """
    logs = [step.path for step in plan.steps if isinstance(step, HandOver) and step.access == "append"]
    with (
        pipes_into(directory / "qemu.log", *map(Path, logs)) as (said, *ends),
        open_all(plan.steps, {**(given or {}), **_copies(dict(zip(logs, ends, strict=True)))}) as handed,
        filtered(plan.confinement) as (loads, held),
    ):
        identity = plan.confinement
        words = confine.prefix(identity.uid, identity.groups, dies_with_parent=dies_with_parent, locked=identity.locked)
        words += [*loads, *argv(with_descriptors(plan, handed.descriptors))]
        inherit = (*handed.descriptors.values(), *held, *inherit)
        try:
            return spawn(words, log=said, inherit=inherit, environment=confine.ENVIRONMENT)
        except OSError as error:
            why = f"{error}; QEMU is never started with more rights than it needs, and setpriv takes them away"
            raise LaunchError(f"{words[0]} cannot be started", why=why, fix="install util-linux") from error


def _copies(ends: Mapping[str, int]) -> dict[str, int]:
    return {path: os.dup(end) for path, end in ends.items()}


def died(plan: Plan, directory: Path, pid: int) -> LaunchError:
    """The error for a QEMU that is gone: its exit status where it was ours, its last words, and its command line."""
    status = _status(pid)
    complete(directory / "qemu.log")
    return LaunchError(
        f"QEMU for {plan.name} ended before the machine ran" + (f" ({status})" if status else ""),
        evidence={
            "qemu said": last_lines(directory / "qemu.log"),
            "serial console": last_lines(directory / "serial.log"),
            "command line": shell_line(argv(plan)),
        },
        fix="see what QEMU said above; tinamou plan --why explains every argument",
    )


def _status(pid: int) -> str:
    from tinamou.system.kernel_log import lately_audited

    code = exit_code(pid)
    if code in (None, -_SIGSYS) and (call := next(filter(None, (refused_call(line, pid) for line in lately_audited())), "")):
        return f"signal {_SIGSYS}: its filter refused a system call: {call}; {LEFT_OUT}"
    if code is None:
        return ""
    if code == -_SIGSYS:
        return f"signal {_SIGSYS}: its filter refused a system call; {IN_VAIN}; {LEFT_OUT}"
    if code < 0:
        return f"signal {-code}" + _SIGNALS.get(-code, "")
    return f"exit status {code}"
