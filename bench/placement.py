"""Ten thousand machines on five hundred hosts: how long choosing takes, which rules are broken, and what is left in pieces.

usage: python -m bench.placement FOLDER [--machines N] [--hosts N] [--seed N]

FOLDER has recorded /proc and /sys of real hosts (``NAME.tar.bz2``). They are repeated to as many as are asked for; a third
have half of their memory reserved as huge pages, a fifth graphics cards, which the recordings lack. The same machines, of
which one in six ends on the way, are placed by `tinamou.fleet.placement`, first fit, and the score of Nomad's bin packing
(``ScoreFitBinPack``, nomad/structs/funcs.go), each over all hosts and with the same rules.
"""

from __future__ import annotations

import argparse
import random
import statistics
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tinamou import late
from tinamou.arch import ARCHES
from tinamou.fleet import room
from tinamou.fleet.placement import Fit, Need, Node, Room, best, fit, take

__all__ = ["STRATEGIES", "Placed", "fragmentation", "furnished", "machines", "run", "violations"]

GIB = 1 << 30
CARD = "10de:2330"
PAGES = (2 << 20, 1 << 30)
Strategy = Callable[[Need, Sequence[Room]], tuple[Room, Fit] | None]


def _homes(need: Need, rooms: Iterable[Room]) -> frozenset[str]:
    return frozenset(one.name for one in rooms if need.together in one.together) if need.together else frozenset()


def first_fit(need: Need, rooms: Sequence[Room]) -> tuple[Room, Fit] | None:
    """The first host with room."""
    homes = _homes(need, rooms)
    fits = ((one, fit(need, one, homes)) for one in rooms)
    return next(((one, where) for one, where in fits if isinstance(where, Fit)), None)


def nomad(need: Need, rooms: Sequence[Room]) -> tuple[Room, Fit] | None:
    """The host with the highest score of Nomad's bin packing: 20 - 10^free CPU - 10^free memory, shares of 1."""
    homes = _homes(need, rooms)
    fits = [(one, where) for one in rooms if isinstance(where := fit(need, one, homes), Fit)]

    def score(pair: tuple[Room, Fit]) -> float:
        one = pair[0]
        free_cpu, free_memory = (one.cpus - need.cpus) / one.all_cpus, (one.memory - need.memory) / one.all_memory
        return min(max(20 - 10**free_cpu - 10**free_memory, 0), 18)

    return max(fits, key=score, default=None)


STRATEGIES: dict[str, Strategy] = {"tinamou": best, "first fit": first_fit, "Nomad's score": nomad}


def furnished(rooms: Sequence[Room], count: int, chance: random.Random) -> list[Room]:
    """So many hosts like these, in an order of their own, some with huge pages and cards."""
    made = []
    for number in range(count):
        one = late.replace(rooms[number % len(rooms)], name=f"h{number}")
        if chance.random() < 1 / 3:
            one = _with_pages(one, chance.choice(PAGES))
        if chance.random() < 1 / 5:
            nodes = [late.replace(node, devices={CARD: 2}, beside=frozenset({CARD})) for node in one.nodes[:2]]
            one = late.replace(one, nodes=(*nodes, *one.nodes[2:]))
        made.append(one)
    chance.shuffle(made)
    return made


def _with_pages(one: Room, page: int) -> Room:
    def halved(node: Node) -> Node:
        pages = node.memory // 2 // page
        return late.replace(node, pages={page: pages}, memory=node.memory - pages * page)

    nodes = tuple(map(halved, one.nodes))
    reserved = sum(page * node.pages[page] for node in nodes)
    return late.replace(one, nodes=nodes, memory=max(one.memory - reserved, 0), all_memory=one.all_memory - reserved)


def machines(count: int, chance: random.Random) -> list[Need]:
    """So many needs: sizes as clouds sell them, some on huge pages, some with a card, some in groups of two to five."""
    made: list[Need] = []
    while len(made) < count:
        size, kind = chance.choice((1, 1, 2, 3, 5)), chance.choice(("spread", "together", "", "", ""))
        group = f"{kind}-{len(made)}" if kind and size > 1 else ""
        cpus, per_cpu = chance.choice((1, 1, 1, 2, 2, 2, 4, 4, 8)), chance.choice((1, 2, 2, 4))
        for _ in range(min(size, count - len(made))):
            need = Need(f"m{len(made)}", cpus, cpus * per_cpu * GIB + (96 << 20))
            if chance.random() < 0.06:
                page = chance.choice(PAGES)
                need = late.replace(need, memory=(96 + 4 * cpus) << 20, page=page, pages=cpus * per_cpu * GIB // page)
            if not group and (lot := chance.random()) < 0.04:
                need = late.replace(need, devices={CARD: 1}) if lot < 0.02 else late.replace(need, near=CARD)
            apart = group if kind == "spread" else ""
            made.append(late.replace(need, spread=apart, together="" if apart else group))
    return made


@dataclass(frozen=True)
class Placed:
    """What became of it: the hosts at the end, who is where, who found no room, and the CPU seconds of each choice."""

    rooms: list[Room]
    on: dict[str, list[tuple[Need, Fit]]]
    left_out: list[Need]
    seconds: list[float] = field(default_factory=list)


def run(rooms: Sequence[Room], needs: Sequence[Need], strategy: Strategy, chance: random.Random) -> Placed:
    """Place one after the other; one in six ends before the next one comes."""
    empty, now = {one.name: one for one in rooms}, {one.name: one for one in rooms}
    placed = Placed([], {one.name: [] for one in rooms}, [])
    for need in needs:
        began = time.process_time()
        chosen = strategy(need, list(now.values()))
        placed.seconds.append(time.process_time() - began)
        if chosen is None:
            placed.left_out.append(need)
        else:
            name = chosen[0].name
            placed.on[name].append((need, chosen[1]))
            now[name] = take(need, *chosen)
        if chance.random() < 1 / 6 and (busy := [name for name, held in placed.on.items() if held]):
            name = chance.choice(busy)
            placed.on[name].pop(chance.randrange(len(placed.on[name])))
            now[name] = empty[name]
            for held, where in placed.on[name]:
                now[name] = take(held, now[name], where)
    placed.rooms.extend(now.values())
    return placed


def violations(rooms: Sequence[Room], placed: Placed) -> list[str]:
    """What is wrong with an outcome, found without the code that made it: a sum over each host, a look at each group."""
    found = []
    homes: dict[str, set[str]] = {}
    for one in rooms:
        held = [need for need, _ in placed.on[one.name]]
        for what, used, there in (
            ("CPUs", sum(need.cpus for need in held), one.cpus),
            ("memory", sum(need.memory for need in held), one.memory),
            *(
                ("huge pages", sum(need.pages for need in held if need.page == page), _sum(n.pages for n in one.nodes)[page])
                for page in PAGES
            ),
            ("cards", sum(need.devices.get(CARD, 0) for need in held), _sum(n.devices for n in one.nodes)[CARD]),
        ):
            if used > there:
                found.append(f"{one.name}: {used} of {there} {what}")
        twice = [group for group, count in Counter(need.spread for need in held if need.spread).items() if count > 1]
        found += [f"{one.name}: {group} is not spread" for group in twice]
        beside = {node.number for node in one.nodes if CARD in node.beside}
        found += [
            f"{need.name} is not near" for need, where in placed.on[one.name] if need.near and not {*where.nodes} <= beside
        ]
        for need in held:
            homes.setdefault(need.together, set()).add(one.name)
    return found + [f"{group} is on {len(names)} hosts" for group, names in homes.items() if group and len(names) > 1]


def _sum(parts: Iterable[object]) -> Counter[object]:
    total: Counter[object] = Counter()
    for one in parts:
        total.update(one)  # type: ignore[call-overload]
    return total


def fragmentation(rooms: Sequence[Room], needs: Sequence[Need]) -> tuple[float, float]:
    """The shares of the free CPUs and of the free memory that lie where a machine like these has no room, on average.

    Source of the measure: Weng and others, Beware of Fragmentation (USENIX ATC 2023), for machines without groups.
    """
    cpus, memory = sum(one.cpus for one in rooms) or 1, sum(one.memory for one in rooms) or 1
    lost_cpus = lost_memory = 0.0
    for need in (late.replace(one, spread="", together="") for one in needs):
        lost = [one for one in rooms if isinstance(fit(need, one), str)]
        lost_cpus += sum(one.cpus for one in lost) / cpus
        lost_memory += sum(one.memory for one in lost) / memory
    return lost_cpus / len(needs), lost_memory / len(needs)


def recorded(folder: Path) -> list[Room]:
    """The hosts whose recordings are in a folder, those that machines could run on."""
    found = []
    with tempfile.TemporaryDirectory() as scratch:
        for packed in sorted(folder.glob("*.tar.bz2")):
            subprocess.run(["tar", "-xf", packed, "-C", scratch], check=True)
            found.append(room.recorded(Path(scratch) / packed.name.removesuffix(".tar.bz2")))
    return [one for one in found if one.cpus >= 8 and one.arch in ARCHES]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.placement", description="Where machines are placed.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--machines", type=int, default=10_000)
    parser.add_argument("--hosts", type=int, default=500)
    parser.add_argument("--seed", type=int, default=1)
    given = parser.parse_args()
    rooms = furnished(recorded(given.folder), given.hosts, random.Random(given.seed))
    needs = machines(given.machines, random.Random(given.seed))
    cpus, memory = sum(one.cpus for one in rooms), sum(one.memory for one in rooms)
    asked = sum(one.cpus for one in needs) / cpus, sum(one.memory for one in needs) / memory
    print(f"{len(needs)} machines on {len(rooms)} hosts, asking in all for {asked[0]:.0%} of CPUs, {asked[1]:.0%} of memory")
    print("                 median ms  p99 ms  broken rules  left out  of these CPUs  CPUs lost  memory lost  empty hosts")
    for name, strategy in STRATEGIES.items():
        done = run(rooms, needs, strategy, random.Random(given.seed))
        times = sorted(done.seconds)
        lost = fragmentation(done.rooms, needs[:: max(len(needs) // 200, 1)])
        idle = sum(not held for held in done.on.values())
        print(
            f"{name:16} {statistics.median(times) * 1e3:10.2f}{times[len(times) * 99 // 100] * 1e3:8.2f}"
            f"{len(violations(rooms, done)):14}{len(done.left_out):10}{sum(one.cpus for one in done.left_out):15}"
            f"{lost[0]:11.1%}{lost[1]:13.1%}{idle:13}"
        )


if __name__ == "__main__":
    main()
