"""Takes from the host what is not a file (CPUs, huge pages, kernel values) and gives it back as it was.

Each is written down twice before it is taken: in the machine's journal, and in the ledger all machines share. What someone
else changed meanwhile is left alone and reported.
"""

from __future__ import annotations

from pathlib import Path

from tinamou.blueprint import LeaseCpus, ReserveHugepages, SetKernelValue
from tinamou.errors import PrepareError
from tinamou.prepare.journal import Entry, Journal
from tinamou.prepare.passthrough import give_devices
from tinamou.prepare.shortage import CpusTakenError, PagesShortError
from tinamou.state import ledger
from tinamou.state.ledger import Claim, Ledger, Value
from tinamou.system.hugetlb import Pool
from tinamou.system.rooted import Rooted
from tinamou.units import CpuSet, Size

__all__ = [
    "give_all",
    "give_cpus",
    "give_pages",
    "give_value",
    "lease_cpus",
    "reserve_pages",
    "set_value",
]


def _machine(journal: Journal) -> str:
    return str(journal.path.parent)


def lease_cpus(step: LeaseCpus, journal: Journal) -> None:
    """Writes down that this machine holds the CPUs. Raises CpusTakenError when another one has them by now."""
    machine = _machine(journal)
    journal.take("cpus", cpus=str(step.cpus), machine=machine)
    with ledger.edit() as held:
        for other, cpus in held.leased(exclude=machine).items():
            if cpus & step.cpus:
                raise CpusTakenError(
                    f"CPUs {CpuSet(cpus & step.cpus)} were leased to {Path(other).name} a moment ago",
                    fix="start it again: the plan will name other CPUs",
                )
        held.cpus[machine] = str(step.cpus)


def give_cpus(entry: Entry) -> None:
    """The CPUs are anyone's again."""
    with ledger.edit() as held:
        held.cpus.pop(str(entry["machine"]), None)


def reserve_pages(step: ReserveHugepages, journal: Journal) -> None:
    """Grows the pool by what it lacks. Raises PagesShortError with the arithmetic, the pool as it was."""
    machine, pool = _machine(journal), Pool(step.page, step.node)
    journal.take("hugepages", page=int(step.page), node=step.node, count=step.count, machine=machine)
    with ledger.edit() as held:
        value = _known(held, pool)
        total, promised = pool.total, sum(claim.count for claim in value.claims.values())
        used = max(pool.used, promised)
        ready = max(total - used, 0)
        grow = max(step.count - ready, 0)
        claim = value.claims[machine] = Claim(step.count, grow)
        _move(held, pool, value, total + grow, machine)
        if claim.grown < grow:
            reached = claim.grown
            _release(held, pool, value, machine)
            raise PagesShortError(
                f"{step.count} huge pages of {step.page} could not be had",
                why=f"{total} in the pool − {used} used or promised = {ready}; {grow} more were asked of the kernel, "
                f"which found memory in one piece for {reached}, after compacting it",
                fix='free memory, ask for less, reserve the pages at boot, or set hugepages = "auto"',
            )


def _known(held: Ledger, pool: Pool) -> Value:
    """The ledger's entry of a pool, made true: a move that a crash cut short is finished, a change by others noted."""
    value = held.pools.setdefault(pool.path, Value(str(pool.total), str(pool.total)))
    if value.moving and min(value.moving) <= pool.total <= max(value.moving):
        _move(held, pool, value, value.moving[1], value.mover)
    elif value.left != str(pool.total):
        held.reports.append(
            f"{pool.path} is {pool.total}, tinamou had left {value.left}: someone else changed it, it stays so"
        )
        value.left, value.moving = str(pool.total), []
        for claim in value.claims.values():
            claim.grown = 0
    return value


def _move(held: Ledger, pool: Pool, value: Value, target: int, machine: str) -> None:
    """Resizes the pool, written down before; what the kernel did not give is taken off the machine's claim."""
    if not value.moving:
        value.moving, value.mover = [pool.total, target], machine
        ledger.save(held)
    reached = pool.resize(target) if pool.total != target else target
    if reached < target and machine in value.claims:
        value.claims[machine].grown = max(value.claims[machine].grown - (target - reached), 0)
    value.left, value.moving, value.mover = str(reached), [], ""


def _release(held: Ledger, pool: Pool, value: Value, machine: str) -> None:
    """Drops a claim and shrinks the pool by what it grew for it."""
    grown = value.claims.pop(machine).grown
    _move(held, pool, value, max(pool.total - grown, 0), machine)
    if not value.claims:
        del held.pools[pool.path]


def give_pages(entry: Entry) -> None:
    """Shrinks the pool by what it grew for this machine; reports instead when someone else changed it meanwhile."""
    node = entry["node"]
    pool, machine = Pool(Size(int(str(entry["page"]))), node if isinstance(node, int) else None), str(entry["machine"])
    with ledger.edit() as held:
        if pool.path in held.pools:
            value = _known(held, pool)
            if machine in value.claims:
                _release(held, pool, value, machine)
            elif not value.claims:
                del held.pools[pool.path]


def give_all(machine: str) -> None:
    """Gives back everything the ledger knows of a machine whose folder, and journal with it, is gone."""
    held = ledger.look()
    for path, value in held.pools.items():
        if machine in value.claims:
            _give_pool(path, machine)
    for path, value in held.values.items():
        if machine in value.claims:
            give_value({"path": path, "machine": machine})
    give_devices(machine)
    give_cpus({"machine": machine})


def _give_pool(path: str, machine: str) -> None:
    folder = Path(path).parent
    node = next((int(part[4:]) for part in folder.parts if part[:4] == "node" and part[4:].isdecimal()), None)
    kib = int(folder.name.removeprefix("hugepages-").removesuffix("kB"))
    give_pages({"page": kib << 10, "node": node, "machine": machine})


def set_value(step: SetKernelValue, journal: Journal) -> None:
    """Writes the value, unless it is there already; the former one is kept for the last machine that wants it so."""
    machine, files = _machine(journal), Rooted()
    journal.take("value", path=step.path, machine=machine)
    with ledger.edit() as held:
        before = _chosen(files.read(step.path))
        value = held.values.setdefault(step.path, Value(before, step.value))
        if value.left != step.value:
            raise PrepareError(
                f"{step.path} cannot be {step.value!r}",
                why=f"{', '.join(Path(other).name for other in value.claims)} needs it to be {value.left!r}",
                fix="stop that machine first",
            )
        value.claims[machine] = Claim(1)
        ledger.save(held)
        if before != step.value:
            files.write(step.path, step.value)


def give_value(entry: Entry) -> None:
    """Writes the former value back when the last machine that wanted it ends, unless someone else changed it."""
    path, machine, files = str(entry["path"]), str(entry["machine"]), Rooted()
    with ledger.edit() as held:
        value = held.values.get(path)
        if value is None or machine not in value.claims:
            return
        del value.claims[machine]
        if value.claims:
            return
        del held.values[path]
        now = _chosen(files.read(path))
        if now not in (value.left, value.before):
            held.reports.append(f"{path} is {now!r}, tinamou had left {value.left!r}: someone else changed it, it stays so")
        elif now != value.before:
            files.write(path, value.before)


def _chosen(text: str | None) -> str:
    """The value of a kernel file; of ``always [madvise] never`` the one in brackets."""
    words = (text or "").split()
    return next((word.strip("[]") for word in words if word.startswith("[")), text or "")
