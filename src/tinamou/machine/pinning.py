"""Puts every thread of a running QEMU on the CPUs the plan chose for it (source: QMP query-cpus-fast, query-iothreads)."""

from __future__ import annotations

from tinamou.blueprint import Pinning
from tinamou.control import commands, connect_qmp
from tinamou.errors import ControlError, LaunchError
from tinamou.state.record import Record
from tinamou.system import threads
from tinamou.units import CpuSet

__all__ = ["assign", "pin_threads", "refuse_strangers"]


async def pin_threads(record: Record, pinning: Pinning, *, patience: float) -> dict[int, CpuSet]:
    """Pins vCPU threads, I/O threads and all others; returns thread → CPUs. Raises LaunchError when the kernel refuses,
    ControlError for threads that are not QEMU's.

    ``patience`` is how many seconds QEMU may take to answer: it fills huge pages before.
    """
    async with await connect_qmp(record.directory, alive=lambda: record.running, timeout=patience) as session:
        vcpus = [vcpu.thread for vcpu in await commands.vcpus(session)]
        iothreads = {one.id: one.thread for one in await commands.iothreads(session)} if pinning.iothreads else {}
    here = threads.inside(record.pid)
    refuse_strangers(pinning, vcpus, iothreads, set(here))
    vcpus, iothreads = [here.get(one, 0) for one in vcpus], {name: here.get(one, 0) for name, one in iothreads.items()}
    every = set(here.values())
    wanted = assign(pinning, vcpus, iothreads, every)
    try:
        pinned = {thread: cpus for thread, cpus in wanted.items() if threads.pin(thread, cpus)}
        for thread in set(vcpus) - {0} if pinning.priority else ():
            threads.make_real_time(thread, pinning.priority)
        return pinned
    except OSError as error:
        raise LaunchError(
            f"the threads of {record.name} could not be pinned",
            why=f"{error}; wanted {', '.join(str(cpus) for cpus in pinning.vcpus)}"
            + (f" with real-time priority {pinning.priority}" if pinning.priority else ""),
            fix='the cpuset of this process may have changed; see tinamou host, or set pin = "off"',
        ) from error


def refuse_strangers(pinning: Pinning, vcpus: list[int], iothreads: dict[str, int], every: set[int]) -> None:
    """No thread but this QEMU's own is pinned, whatever it says. Raises ControlError."""
    if strangers := {*vcpus, *iothreads.values()} - every - {0}:
        raise ControlError("QEMU answered with threads that are not its own", why=f"{sorted(strangers)}")
    if len(vcpus) != len(pinning.vcpus):
        why = f"it has {len(vcpus)}, and {len(pinning.vcpus)} were planned"
        raise ControlError("QEMU answered with other virtual CPUs than it was started with", why=why)


def assign(pinning: Pinning, vcpus: list[int], iothreads: dict[str, int], every: set[int]) -> dict[int, CpuSet]:
    """Thread → CPUs. Emulation with one thread for all vCPUs gives that thread the CPUs of all of them."""
    wanted = dict.fromkeys(every, pinning.emulator)
    for name, cpus in pinning.iothreads.items():
        if name in iothreads:
            wanted[iothreads[name]] = cpus
    shared: dict[int, set[int]] = {}
    for thread, cpus in zip(vcpus, pinning.vcpus, strict=True):
        shared.setdefault(thread, set()).update(cpus)
    return wanted | {thread: CpuSet(cpus) for thread, cpus in shared.items() if thread}
