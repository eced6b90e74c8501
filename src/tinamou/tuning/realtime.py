"""Whether virtual CPUs get real-time priority: only where it can neither starve QEMU itself nor the host."""

from __future__ import annotations

from tinamou.blueprint import Note, Why
from tinamou.errors import PlanError, Problem
from tinamou.facts import Facts
from tinamou.parts.cpu import CpuSpec
from tinamou.parts.limits import LimitsSpec
from tinamou.tuning.placement import Placement
from tinamou.units import CpuSet

__all__ = ["real_time"]


def real_time(cpu: CpuSpec, limits: LimitsSpec, facts: Facts, placement: Placement) -> tuple[Note, ...]:
    """What the user must hear about it. Raises PlanError with every reason why it cannot be had."""
    if not cpu.realtime:
        return ()
    reasons = [*_of_placement(cpu, facts, placement), *_of_kernel(limits, facts)]
    if reasons:
        problems = [Problem("cpu.realtime", cpu.realtime, reason, fix) for reason, fix in reasons]
        raise PlanError("the virtual CPUs cannot have real-time priority", problems=problems)
    text = f"virtual CPUs run before everything else on CPUs {CpuSet(placement.leased - placement.idle)}"
    reason = "the kernel keeps a twentieth of each second for others unless kernel.sched_rt_runtime_us is -1"
    return (Note("info", text, Why("spec cpu.realtime", reason)),)


def _of_placement(cpu: CpuSpec, facts: Facts, placement: Placement) -> list[tuple[str, str]]:
    own = [cpus for cpus in placement.vcpus if len(cpus) == 1]
    if len(own) < cpu.count:
        free = CpuSet(facts.host.usable_cpus - facts.host.isolated_cpus)
        why = f"each needs a CPU of its own: {len(own)} of {cpu.count} have one (usable here: {free})"
        return [(why, "ask for fewer virtual CPUs, or name more CPUs in pin")]
    shared = CpuSet(placement.leased & placement.emulator.union(*placement.iothreads))
    if shared:
        why = f"they hold all CPUs QEMU may use ({shared}): its own threads would never run, nor would the host"
        return [(why, "leave a CPU free: ask for fewer virtual CPUs, or name one more in pin")]
    return []


def _of_kernel(limits: LimitsSpec, facts: Facts) -> list[tuple[str, str]]:
    permits = facts.permits
    if permits.real_time:
        return [(permits.real_time, "run as root, or raise rtprio in /etc/security/limits.d and log in again")]
    if limits.any and permits.real_time_in_groups:
        return [(permits.real_time_in_groups, "leave out limits, or real-time priority")]
    return []
