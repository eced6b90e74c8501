"""Decides which host CPU each vCPU, the emulator and the I/O threads run on, and which topology the guest is shown.

The rules, in order: only CPUs that are online, allowed, not isolated and not leased to another machine; fast cores before
slow ones; one memory node, one last-level cache, one cluster where they suffice; sibling threads together and shown as
siblings, or left idle when latency matters; the tightest place that fits, so that big ones stay whole.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import pairwise

from tinamou.blueprint import Note, Why
from tinamou.errors import PlanError
from tinamou.facts.host import HostFacts
from tinamou.late import dataclass
from tinamou.tuning.guest_topology import mirror
from tinamou.tuning.host_tree import Branch, Core, last_level_caches, performance_cpus, tree
from tinamou.tuning.placement import PinRequest, Placement
from tinamou.units import CpuSet

__all__ = ["pin"]


def pin(host: HostFacts, request: PinRequest) -> Placement:
    """The placement of one machine's threads. Raises PlanError, with the arithmetic, when the request cannot be met."""
    if request.cpus is not None:
        return _explicit(host, request, request.cpus)
    free = _free(host, request)
    seats = _choose(host, request, free)
    if seats is not None:
        return _place(host, request, free, seats, "host")
    if request.strict:
        raise PlanError(
            f"{request.count} vCPUs cannot each have a CPU of their own",
            why=_arithmetic(host, request, free),
            fix=f"ask for at most {len(free)} vCPUs, stop a machine that holds CPUs, or set cpu.strict = false",
        )
    arithmetic = _arithmetic(host, request, free)
    return Placement(notes=(Note("warning", f"not pinned: {arithmetic}", Why("host", arithmetic)),))


def _free(host: HostFacts, request: PinRequest) -> CpuSet:
    return CpuSet(host.usable_cpus - host.isolated_cpus - request.taken)


def _arithmetic(host: HostFacts, request: PinRequest, free: CpuSet) -> str:
    """``16 CPUs − 4 offline − 2 leased to build = 10 free, 12 wanted``."""
    present = CpuSet(cpu.number for cpu in host.cpus)
    left, terms = present, [f"{len(present)} CPUs"]
    steps = [
        ("offline", present - host.online_cpus),
        ("outside the cpuset or affinity of this process", present - host.allowed_cpus),
        ("isolated", host.isolated_cpus),
        *((f"leased to {name}", cpus) for name, cpus in sorted(request.leased.items())),
    ]
    for name, cpus in steps:
        gone = CpuSet(left & cpus)
        if gone:
            terms.append(f"{len(gone)} {name} ({gone})")
            left = CpuSet(left - gone)
    cores = len(dict.fromkeys(cpu.siblings for cpu in host.cpus if cpu.number in free))
    wanted = f"{request.count} wanted"
    if request.latency:
        wanted += f", each on a core of its own, and the free CPUs are {cores} cores"
    return f"{' − '.join(terms)} = {len(free)} free, {wanted}"


@dataclass(frozen=True)
class _Seats:
    """CPUs in vCPU order, ``threads`` of them per core (1 when cores are mixed), and what must be said about them."""

    cpus: tuple[int, ...]
    threads: int
    mixed: bool = False


def _choose(host: HostFacts, request: PinRequest, free: CpuSet) -> _Seats | None:
    """The best seats: all on the fast kind, in as few nodes, caches and clusters as possible; else fast ones first."""
    fast = CpuSet(free & performance_cpus(host))
    best = min(_offers(host, request, tree(host, fast)), key=lambda offer: offer[0], default=None)
    if best is not None or fast == free:
        return best[1] if best else None
    return _both_kinds(request, tree(host, fast), tree(host, CpuSet(free - fast)))


def _both_kinds(request: PinRequest, fast: tuple[Branch, ...], slow: tuple[Branch, ...]) -> _Seats | None:
    """Every fast core, then as many slow ones as are missing: one vCPU per core, or where that is too few, per thread."""
    for mixed in (False,) if request.latency else (False, True):
        kinds = [tuple(_singly(node) for node in kind) if mixed else kind for kind in (fast, slow)]
        first = min(sum(node.room(1) for node in kinds[0]), request.count)
        parts = [_take(kinds[0], first, 1), _take(kinds[1], request.count - first, 1)]
        if parts[0] is not None and parts[1] is not None:
            return _Seats(parts[0] + parts[1], 1, mixed)
    return None


def _offers(host: HostFacts, request: PinRequest, nodes: tuple[Branch, ...]) -> Iterator[tuple[tuple[int, ...], _Seats]]:
    caches, near = last_level_caches(host), request.near
    for rank, (threads, mixed) in enumerate(_shapes(request, nodes)):
        source = tuple(_singly(node) for node in nodes) if mixed else nodes
        for group in _node_groups(host, request, source, threads):
            cpus = _take(group, request.count, threads, len(group))
            if cpus is None:
                continue
            used = len({caches[cpu] for cpu in cpus})
            fits = _memory_fits(host, request, [node.number for node in group])
            away = 0 if near is None else sum(host.distance(near, node.number) for node in group) // len(group)
            spread = sum(host.distance(a.number, b.number) for a, b in pairwise(group))
            left = sum(node.room(1) for node in group) - request.count
            key = (not fits, len(group), away, used, rank, spread, left, 0 in cpus, cpus[0])
            yield key, _Seats(cpus, threads, mixed)


def _shapes(request: PinRequest, nodes: tuple[Branch, ...]) -> Iterator[tuple[int, bool]]:
    """(threads per core, mixed) to try, best first: whole sibling groups, one per core, then whatever is free."""
    widest = max((len(core.threads) for node in nodes for core in node.all_cores()), default=1)
    if not request.latency:
        yield from ((threads, False) for threads in (8, 4, 2) if threads <= widest and request.count % threads == 0)
    yield 1, False
    if not request.latency and widest > 1:
        yield 1, True


def _singly(branch: Branch) -> Branch:
    """The same branch with every hardware thread counted as a core of its own."""
    cores = tuple(Core((cpu,), core.whole) for core in branch.cores for cpu in core.threads)
    return Branch(branch.number, tuple(_singly(below) for below in branch.branches), cores)


def _memory_fits(host: HostFacts, request: PinRequest, nodes: Sequence[int]) -> bool:
    """Whether each of the nodes has room for its share of the guest's memory."""
    share = request.memory // max(len(nodes), 1)
    return all((node := host.node(number)) is not None and node.free >= share for number in nodes)


def _node_groups(
    host: HostFacts, request: PinRequest, nodes: tuple[Branch, ...], threads: int
) -> Iterator[tuple[Branch, ...]]:
    """Sets of memory nodes with room enough: each single one, else from each start its nearest neighbours."""
    for start in nodes:
        near = sorted(nodes, key=lambda node: (host.distance(start.number, node.number), node.number != start.number))
        for size in range(1, len(near) + 1):
            group = tuple(sorted(near[:size], key=lambda node: node.number))
            if sum(node.room(threads) for node in group) >= request.count:
                yield group
                if _memory_fits(host, request, [node.number for node in group]):
                    break


def _take(branches: Sequence[Branch], count: int, threads: int, least: int = 1) -> tuple[int, ...] | None:
    """``count`` CPUs from ``least`` branches, or from as few more as it needs; evenly where that works. None: too few."""
    rooms = [branch.room(threads) for branch in branches]
    if count == 0:
        return ()
    if sum(rooms) < count or least * threads > count:
        return None
    cpus: list[int] = []
    for branch, share in zip(branches, _shares(rooms, count, threads, least), strict=True):
        if share:
            cpus += _seat(branch, share, threads)
    return tuple(cpus)


def _seat(branch: Branch, count: int, threads: int) -> tuple[int, ...]:
    if branch.branches:
        return _take(branch.branches, count, threads) or ()
    chosen = [core for core in branch.cores if core.room(threads)][: count // threads]
    return tuple(cpu for core in chosen for cpu in core.threads[:threads])


def _shares(rooms: list[int], count: int, threads: int, least: int) -> list[int]:
    """How many vCPUs each branch gets: the tightest branches in equal parts, else the biggest in nearly equal ones."""
    for parts in range(least, len(rooms) + 1):
        share, rest = divmod(count, parts)
        fitting = sorted((room, index) for index, room in enumerate(rooms) if room >= share)
        if not rest and share % threads == 0 and len(fitting) >= parts:
            chosen = {index for _, index in fitting[:parts]}
            return [share if index in chosen else 0 for index in range(len(rooms))]
        biggest = sorted(range(len(rooms)), key=lambda index: (-rooms[index], index))[:parts]
        if sum(rooms[index] for index in biggest) >= count:
            return _deal(rooms, biggest, count, threads)
    return rooms


def _deal(rooms: list[int], chosen: list[int], count: int, threads: int) -> list[int]:
    """Deals out whole cores in turn, to whichever of the chosen branches has the least so far and still has room."""
    shares = [0] * len(rooms)
    for _ in range(count // threads):
        index = min((i for i in chosen if shares[i] + threads <= rooms[i]), key=lambda i: (shares[i], i))
        shares[index] += threads
    return shares


def _place(host: HostFacts, request: PinRequest, free: CpuSet, seats: _Seats, asked_by: str) -> Placement:
    used = CpuSet(seats.cpus)
    siblings = {cpu.number: cpu.siblings for cpu in host.cpus}
    beside = CpuSet(cpu for number in used for cpu in siblings[number] if cpu in free and cpu not in used)
    keep_idle = request.latency
    emulator, iothreads, notes = _helpers(host, request, used, CpuSet(free - used - (beside if keep_idle else set())))
    topology, nodes, said = mirror(host, seats.cpus, seats.threads)
    if seats.mixed:
        why = Why("host", f"{request.count} vCPUs do not fill whole cores of the CPUs that are free")
        notes += (Note("info", "some vCPUs share a core and the guest is not shown which", why),)
    idle = CpuSet(beside - emulator.union(*iothreads)) if keep_idle or seats.threads == 1 else CpuSet()
    return Placement(
        tuple(CpuSet({cpu}) for cpu in seats.cpus),
        idle=idle,
        emulator=emulator,
        iothreads=iothreads,
        topology=topology,
        nodes=nodes,
        whys=(*_whys(host, request, seats, asked_by), *said),
        notes=notes,
    )


def _helpers(
    host: HostFacts, request: PinRequest, used: CpuSet, left: CpuSet
) -> tuple[CpuSet, tuple[CpuSet, ...], tuple[Note, ...]]:
    """CPUs for the emulator and the I/O threads: beside the vCPUs, nearest first; shared when nothing is left."""
    place = {cpu.number: cpu for cpu in host.cpus}
    caches = last_level_caches(host)
    home = place[min(used)]
    nodes = {place[cpu].node for cpu in used}
    warm = frozenset().union(*(caches[cpu] for cpu in used))

    def distance(number: int) -> tuple[bool, bool, bool, int, int]:
        cpu = place[number]
        return (
            cpu.node not in nodes,
            number not in warm,
            not cpu.siblings & used,
            host.distance(home.node, cpu.node),
            number,
        )

    near = sorted(left, key=distance)
    wanted = 1 + request.iothreads
    if not near:
        why = Why("host", f"the vCPUs hold all {len(used)} free CPUs")
        note = Note("warning", "the emulator and I/O threads share the CPUs of the vCPUs", why)
        return used, (used,) * request.iothreads, (note,)
    seats = [CpuSet({near[index % min(wanted, len(near))]}) for index in range(wanted)]
    return seats[0], tuple(seats[1:]), ()


def _whys(host: HostFacts, request: PinRequest, seats: _Seats, asked_by: str) -> tuple[Why, ...]:
    place = {cpu.number: cpu for cpu in host.cpus}
    caches = last_level_caches(host)
    nodes = sorted({place[cpu].node for cpu in seats.cpus})
    count = len({caches[cpu] for cpu in seats.cpus})
    where = f"memory node {nodes[0]}" if len(nodes) == 1 else f"memory nodes {CpuSet(nodes)}"
    reasons = [f"CPUs {CpuSet(seats.cpus)}: {where}, {count} last-level cache{'s' if count > 1 else ''}"]
    if seats.threads > 1:
        reasons.append(f"{seats.threads} sibling threads of a core carry {seats.threads} sibling vCPUs")
    if request.latency:
        reasons.append("latency asked for: one vCPU per core, sibling threads left idle")
    fast = performance_cpus(host)
    if fast != host.online_cpus:
        slow = CpuSet(set(seats.cpus) - fast)
        reasons.append(f"efficiency cores {slow} were needed" if slow else "performance cores before efficiency cores")
    if host.isolated_cpus and not set(seats.cpus) & host.isolated_cpus:
        reasons.append(f"isolated CPUs {host.isolated_cpus} are left alone; name them in pin to use them")
    if request.near is not None:
        reasons.append(f"the passed-through device hangs on memory node {request.near}")
    return tuple(Why(asked_by, reason) for reason in reasons)


def _explicit(host: HostFacts, request: PinRequest, cpus: CpuSet) -> Placement:
    """The CPUs the user named, in sibling order; fewer CPUs than vCPUs float over the set, unless strict."""
    _check_explicit(host, request, cpus)
    if len(cpus) < request.count:
        if request.strict:
            raise PlanError(
                f"{request.count} vCPUs cannot each have a CPU of their own in pin = {str(cpus)!r}",
                why=f"{len(cpus)} CPUs named, {request.count} vCPUs wanted: {request.count - len(cpus)} more needed",
                fix="name more CPUs, ask for fewer vCPUs, or set cpu.strict = false",
            )
        why = Why("spec cpu.pin", f"{request.count} vCPUs share the {len(cpus)} CPUs {cpus}")
        note = Note("warning", f"vCPUs float over {cpus}: fewer CPUs than vCPUs", why)
        everyone = (cpus,) * request.count
        return Placement(everyone, emulator=cpus, iothreads=(cpus,) * request.iothreads, whys=(why,), notes=(note,))
    nodes = tree(host, cpus)
    best = min(_offers(host, request, nodes), key=lambda offer: offer[0], default=None)
    if best is None:
        raise PlanError(
            f"pin = {str(cpus)!r} has too few cores for {request.count} vCPUs that each want one of their own",
            why=_arithmetic(host, request, cpus),
            fix="name CPUs of more cores, or do not ask for low latency",
        )
    rest = CpuSet(cpus - set(best[1].cpus)) or _free(host, request)
    return _place(host, request, CpuSet(rest | set(best[1].cpus)), best[1], "spec cpu.pin")


def _check_explicit(host: HostFacts, request: PinRequest, cpus: CpuSet) -> None:
    present = CpuSet(cpu.number for cpu in host.cpus)
    reasons = [
        ("not on this host", CpuSet(cpus - present), f"this host has CPUs {present}"),
        ("offline", CpuSet((cpus & present) - host.online_cpus), f"online are {host.online_cpus}"),
        (
            "outside the cpuset or affinity of this process",
            CpuSet((cpus & host.online_cpus) - host.allowed_cpus),
            f"allowed are {host.allowed_cpus}",
        ),
        *(
            (f"leased to {name}", CpuSet(cpus & held), f"{name} holds {held}")
            for name, held in sorted(request.leased.items())
        ),
    ]
    bad = [(f"{what}: {gone}", known) for what, gone, known in reasons if gone]
    if not cpus:
        bad = [("no CPU is named", f"usable are {host.usable_cpus}")]
    if bad:
        usable = CpuSet(host.usable_cpus - request.taken)
        raise PlanError(
            f"pin = {str(cpus)!r} cannot be met: " + "; ".join(what for what, _ in bad),
            why="; ".join(known for _, known in bad),
            fix=f'choose among {usable}, or pin = "auto"',
        )
