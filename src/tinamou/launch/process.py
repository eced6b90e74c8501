"""Start QEMU for a plan: confined, with open files handed over; say what happened when it dies at once."""

from __future__ import annotations

import os
import resource
from collections.abc import Mapping, Sequence
from pathlib import Path

from tinamou.blueprint import HandOver, Plan
from tinamou.errors import LaunchError
from tinamou.facts import files
from tinamou.facts.walls import letters
from tinamou.launch.argv import argv, shell_line
from tinamou.launch.handover import Handed, open_all, read_by_path, with_descriptors
from tinamou.prepare.groups import enter_groups
from tinamou.prepare.helper_processes import words_of_dead
from tinamou.prepare.journal import Journal
from tinamou.prepare.logs import pipes_into
from tinamou.state.allowed import apply
from tinamou.system import jail as jailed
from tinamou.system.closing import IfFailed
from tinamou.system.ended import status_of
from tinamou.system.jail import Jail
from tinamou.system.logs import complete, last_lines
from tinamou.system.spawn import Process, end
from tinamou.system.syscalls import keyed

__all__ = ["died", "jail_of", "start"]


def start(
    plan: Plan,
    directory: Path,
    *,
    dies_with_parent: bool,
    inherit: Sequence[int] = (),
    given: Mapping[str, int] | None = None,
    enters: bool = True,
) -> Process:
    """Start the plan's QEMU; its own words go to ``directory/qemu.log``. Raises LaunchError, PrepareError.

    ``inherit`` are descriptors it is given under their numbers, beside those the plan hands over. Of those, the ones in
    ``given`` are open already, by the plan's path; they are closed here. Without ``enters`` the caller moves it into its
    machine's control group, which takes the kernel some milliseconds.
    """
    logs = [step.path for step in plan.steps if isinstance(step, HandOver) and step.access == "append"]
    with (
        pipes_into(directory / files.QEMU_LOG, *map(Path, logs)) as (said, *ends),
        _opened(plan, {**(given or {}), **_copies(dict(zip(logs, ends, strict=True)))}) as handed,
    ):
        apply(directory)
        jail = jail_of(plan, handed.descriptors, dies_with_parent=dies_with_parent)
        words = argv(with_descriptors(plan, handed.descriptors))
        inherit = (*handed.descriptors.values(), *inherit)
        try:
            process = jailed.spawn(jail, words, log=said, inherit=inherit)
        except OSError as error:
            why = f"{error}; QEMU is never started with more rights than it needs, or fewer walls than were planned"
            raise LaunchError(
                f"{words[0]} cannot be started", why=why, fix="tinamou doctor tells what stands here"
            ) from error
    with IfFailed(end, process):
        if enters:
            enter_groups(Journal(directory), process.pid)
    return process


def jail_of(plan: Plan, handed: Mapping[str, int], *, dies_with_parent: bool) -> Jail:
    """The walls of the plan, as the launcher builds them."""
    around = plan.confinement
    limits = {resource.RLIMIT_MEMLOCK: around.locked, resource.RLIMIT_NOFILE: around.files}
    if "user" in around.namespaces:
        limits[resource.RLIMIT_NPROC] = around.tasks
    return Jail(
        around.uid,
        around.groups,
        letters(around.namespaces),
        reads=(*jailed.SYSTEM, *around.reads),
        writes=around.writes,
        devices=(*jailed.nodes(), *around.devices),
        reopens=tuple(handed.values()),
        landlock=around.landlock,
        longest=around.file_size,
        limits={what: most for what, most in limits.items() if most},
        dies_with_parent=dies_with_parent,
        profile=around.profile or "",
        label=around.label,
        own_cores=around.own_cores,
        call_filter=keyed(one.group for one in around.calls) if around.calls else b"",
    )


def _opened(plan: Plan, given: Mapping[str, int]) -> Handed:
    """What it hands over; copies of what QEMU could not open anew under its label, which has it open nothing of that."""
    return open_all(plan.steps, plan.elements, given, read_by_path(plan) if plan.confinement.label else ())


def _copies(ends: Mapping[str, int]) -> dict[str, int]:
    return {path: os.dup(end) for path, end in ends.items()}


def died(plan: Plan, directory: Path, pid: int) -> LaunchError:
    """The error for a QEMU that is gone: its exit status where it was ours, its last words, and its command line."""
    status = status_of(pid)
    complete(directory / files.QEMU_LOG)
    return LaunchError(
        f"QEMU for {plan.name} ended before the machine ran" + (f" ({status})" if status else ""),
        evidence={
            "qemu said": last_lines(directory / files.QEMU_LOG),
            "serial console": last_lines(directory / files.SERIAL_LOG),
            **words_of_dead(plan.steps),
            "command line": shell_line(argv(plan)),
        },
        fix="see what QEMU said above; tinamou plan --why explains every argument",
    )
