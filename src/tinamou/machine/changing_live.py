"""Changes of a machine's description that its QEMU takes while it runs: what each does, and what keeps it from it."""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

from tinamou import late
from tinamou.blueprint import Contribution, ReservePort, Why
from tinamou.blueprint.stored import plugged
from tinamou.control import Session, answers, connect_qmp, hotplug
from tinamou.errors import GuestError, StateError, TinamouError
from tinamou.late import dataclass
from tinamou.machine import cards, disk_changes
from tinamou.machine.connected import Connected
from tinamou.machine.description import describe
from tinamou.machine.starting import facts_again
from tinamou.monitor.guest_memory import set_balloon
from tinamou.parts.disk import numbered
from tinamou.parts.net import interfaces
from tinamou.parts.net.forwards import forwards_of
from tinamou.planner import plan_cpu
from tinamou.prepare.wires import reserve_port
from tinamou.spec import MachineSpec, dump_spec, load_spec
from tinamou.state.folder import image_of, plan_data, update_plan
from tinamou.state.record import Record, newest
from tinamou.units import Size

__all__ = ["DISK_SIZE", "NEW_DISK", "Live", "Wanted", "put_in_effect", "resize"]

NEW_DISK = re.compile(r"disk\[(\d+)\]")
DISK_SIZE = re.compile(r"disk\[(\d+)\]\.size")

BALLOON_SECONDS = 20.0
"""How long a guest may take to give memory back."""


@dataclass(frozen=True)
class Wanted:
    """A field that is to be changed, and the description that it is to be as in."""

    field: str
    spec: MachineSpec


@dataclass(frozen=True)
class Live:
    """A machine, and what is to be changed of it."""

    record: Record
    wanted: Wanted

    @property
    def spec(self) -> MachineSpec:
        """What the machine is now."""
        return load_spec(newest(self.record).spec)

    def disk(self, index: int) -> tuple[str, int] | None:
        """A disk of the wanted description: its name, and its place in what the machine is now.

        None for one that comes with the next start: only the number says which one it is, for others may have been plugged.
        """
        first = 1 if image_of(self.record).disk else 0
        number = [number for number, _ in numbered(self.wanted.spec.disk, first)][index]
        there = [number for number, _ in numbered(self.spec.disk, first)]
        return (f"disk{number}", there.index(number)) if number in there else None

    def has_card(self, index: int) -> bool:
        """Whether the machine has that card now; one that comes with the next start is changed for that."""
        return index in interfaces(self.spec.net)


async def put_in_effect(record: Record, wanted: Wanted) -> str | None:
    """Put a change in effect in a machine that runs: what is to be said of it; None where no QEMU takes it while it runs.

    Raises StateError, ControlError, GuestError, PlanError, PrepareError for one that this machine does not take now.
    """
    for pattern, way in _WAYS:
        if match := pattern.fullmatch(wanted.field):
            return await way(Live(record, wanted), match)
    return None


async def _cpus(live: Live, _: re.Match[str]) -> str:
    target, spec = live.wanted.spec.cpu.count, live.spec.cpu
    if target > spec.room:
        why = f"it was started with room for {spec.room}; cpu.max makes room at a start"
        raise StateError(f"{target} virtual CPUs do not fit into it while it runs", why=why)
    if target < spec.present:
        why = "QEMU 7.2 was seen to end, or to wait for ever, where a guest gives one back"
        raise StateError(f"it keeps its {spec.present} virtual CPUs while it runs", why=why)
    async with Connected.visiting(live.record) as machine:
        session = await machine.session()
        for one in range(spec.present, target):
            await _plug_cpu(live, session, one)
        return await _online(machine, target)


def _cpu(live: Live, one: int) -> tuple[MachineSpec, Contribution]:
    """The machine with so many CPUs that this is the last one, and what that adds."""
    now = live.spec
    spec = late.replace(now, cpu=late.replace(now.cpu, plugged=one + 1 - now.cpu.count))
    return spec, plan_cpu(spec, facts_again(live.record, spec), one)


async def _plug_cpu(live: Live, session: Session, one: int) -> None:
    spec, part = _cpu(live, one)
    await hotplug.plug(session, part, f"cpu{one}")
    update_plan(live.record, lambda data: plugged(data, part))
    describe(live.record, lambda now: late.replace(now, cpu=spec.cpu), later=False)


_ONLINE = """
tries=0
until [ "$(grep -c ^processor /proc/cpuinfo)" -ge "$1" ] || [ $tries -ge 50 ]; do
    for cpu in /sys/devices/system/cpu/cpu*/online; do
        [ "$(cat "$cpu")" = 1 ] || echo 1 >"$cpu" 2>/dev/null
    done
    tries=$((tries + 1)); sleep 0.2
done
grep -c ^processor /proc/cpuinfo
"""
"""Linux finds a new CPU by itself, and leaves it to others to switch it on (source: its cpu-hotplug documentation)."""


async def _online(machine: Connected, target: int) -> str:
    """Have the guest use what it was given; says where it does not."""
    if not machine.record.agent:
        return "its guest has to switch the new ones on: nothing in it can be asked to"
    try:
        done = await machine.run(["sh", "-c", _ONLINE, "sh", str(target)], timeout=60.0)
    except (TinamouError, TimeoutError) as error:
        return f"its guest has to switch the new ones on: {error}"
    return "" if done.text.strip() == str(target) else f"its guest uses {done.text.strip()} of them"


async def _memory(live: Live, _: re.Match[str]) -> str:
    target, now = live.wanted.spec.memory.size, live.spec.memory
    if target > now.size:
        why = f"it was started with {now.size}"
        raise StateError(f"{target} of memory do not fit into it while it runs", why=why)
    if now.floor is not None or live.wanted.spec.memory.floor is not None:
        raise StateError("its balloon is the watch's (memory.floor)")
    if not any(one["props"].get("id") == "balloon0" for one in plan_data(live.record)["elements"]):
        raise StateError("it was started without a balloon, through which memory is taken")
    async with _monitor(live.record) as session:
        await set_balloon(session, target)
        holds = await _follows(session, target)
    if holds > target:
        raise GuestError(
            f"its guest has given back no more than {Size(now.size - holds)}", why="it is asked on for the rest"
        )
    return "" if target == now.size else "by its balloon: it can have the rest again until its next start"


async def _follows(session: Session, target: Size) -> int:
    """What the guest holds once it holds what it should, or has had its time."""
    until = time.monotonic() + BALLOON_SECONDS
    while (holds := answers.number(answers.record(await session.execute("query-balloon")), "actual", least=0)) != target:
        if time.monotonic() > until:
            break
        await asyncio.sleep(0.1)
    return holds


async def _rate(live: Live, match: re.Match[str]) -> str | None:
    index, field = int(match[1]), match[2]
    if not live.has_card(index):
        return None
    await cards.set_rates(live.record.name, f"net{index}", {field: getattr(live.wanted.spec.net[index], field)})
    return ""


async def _forward(live: Live, match: re.Match[str]) -> str | None:
    """Ports of the host that lead in through QEMU's own TCP/IP."""
    index = int(match[1])
    if not live.has_card(index):
        return None
    before, after = live.spec.net[index].forward, live.wanted.spec.net[index].forward
    elements = plan_data(live.record)["elements"]
    kinds = {one["props"].get("id"): one["props"].get("type") for one in elements if one["kind"] == "netdev"}
    if (kind := kinds.get(f"net{index}")) != "user":
        raise StateError(f"only QEMU's own TCP/IP takes ports while it runs, and net{index} is {kind}")
    lists = [{port for one in forwards for port in forwards_of(one)} for forwards in (before, after)]
    gone, fresh = sorted(lists[0] - lists[1]), sorted(lists[1] - lists[0])
    for protocol, address, port, _ in fresh:
        reserve_port(ReservePort(protocol, address, port, Why("spec net.forward", "it is to lead into the guest")))
    async with _monitor(live.record) as session:
        for protocol, address, port, _ in gone:
            await _told(session, f"hostfwd_remove net{index} {protocol}:{address}:{port}")
        for protocol, address, port, inside in fresh:
            await _told(session, f"hostfwd_add net{index} {protocol}:{address}:{port}-:{inside}")
    update_plan(live.record, lambda data: _with_forwards(data, f"net{index}", gone, fresh))
    _describe_card(live, index, forward=after)
    return ""


async def _told(session: Session, line: str) -> None:
    """A line of QEMU's monitor for people, which says nothing when it is done, or ``removed``. Raises StateError."""
    said = str(await session.execute("human-monitor-command", command_line=line)).strip()
    if said and "removed" not in said:
        raise StateError(f"QEMU did not do it: {line}", why=said)


def _with_forwards(data: dict[str, Any], card: str, gone: list[Any], fresh: list[Any]) -> dict[str, Any]:
    """The plan as it would be with these ports."""

    def rule(one: Any) -> str:
        protocol, address, port, inside = one
        return f"{protocol}:{address}:{port}-:{inside}"

    def changed(element: dict[str, Any]) -> dict[str, Any]:
        if element["kind"] != "netdev" or element["props"].get("id") != card:
            return element
        kept = [one for one in element["props"].get("hostfwd", []) if one["str"] not in map(rule, gone)]
        return {**element, "props": {**element["props"], "hostfwd": [*kept, *({"str": rule(one)} for one in fresh)]}}

    return {**data, "elements": [changed(one) for one in data["elements"]]}


def _describe_card(live: Live, index: int, **values: Any) -> None:
    def changed(now: MachineSpec) -> MachineSpec:
        nets = list(now.net)
        nets[index] = late.replace(nets[index], **values)
        return late.replace(now, net=tuple(nets))

    describe(live.record, changed, later=False)


async def _card(live: Live, match: re.Match[str]) -> str:
    """A card that is added, or taken away."""
    index, wanted, there = int(match[1]), live.wanted.spec.net, load_spec(newest(live.record).next_spec).net
    if index >= len(wanted) or wanted[index].type == "none":
        await cards.remove(live.record.name, f"net{index}")
        return ""
    if index < len(there):
        raise StateError("it has the place of one that was taken away")
    _, notes = await cards.add(live.record.name, dump_spec(MachineSpec(net=(wanted[index],))).get("net", [{}])[0])
    return "; ".join(notes)


async def _limit(live: Live, match: re.Match[str]) -> str | None:
    one = live.wanted.spec.disk[int(match[1])]
    if (disk := live.disk(int(match[1]))) is None:
        return None
    await disk_changes.limit(live.record, disk[0], iops=one.iops or 0, bandwidth=int(one.bandwidth or 0))
    _describe_disk(live, disk[1], iops=one.iops, bandwidth=one.bandwidth)
    return ""


async def resize(live: Live, match: re.Match[str]) -> str | None:
    """A disk becomes larger, whether the machine runs or not."""
    size = live.wanted.spec.disk[int(match[1])].size
    if size is None or (disk := live.disk(int(match[1]))) is None:
        return None
    await disk_changes.resize(live.record, disk[0], size)
    _describe_disk(live, disk[1], size=size)
    return ""


async def _disc(live: Live, match: re.Match[str]) -> str | None:
    one = live.wanted.spec.disk[int(match[1])]
    if one.interface != "cdrom" or (disk := live.disk(int(match[1]))) is None:
        return None
    await disk_changes.change_disc(live.record, disk[0], Path(one.path))
    _describe_disk(live, disk[1], path=one.path)
    return ""


def _describe_disk(live: Live, index: int, **values: Any) -> None:
    def changed(now: MachineSpec) -> MachineSpec:
        disks = list(now.disk)
        disks[index] = late.replace(disks[index], **values)
        return late.replace(now, disk=tuple(disks))

    describe(live.record, changed, later=False)


@contextlib.asynccontextmanager
async def _monitor(record: Record) -> AsyncIterator[Session]:
    async with await connect_qmp(record.directory, alive=lambda: record.running) as session:
        yield session


Way = Callable[[Live, "re.Match[str]"], Awaitable["str | None"]]

_WAYS: tuple[tuple[re.Pattern[str], Way], ...] = (
    (re.compile(r"cpu\.count"), _cpus),
    (re.compile(r"memory\.size"), _memory),
    (re.compile(r"net\[(\d+)\]\.(rate_in|rate_out)"), _rate),
    (re.compile(r"net\[(\d+)\]\.forward"), _forward),
    (re.compile(r"net\[(\d+)\]"), _card),
    (re.compile(r"disk\[(\d+)\]\.(?:iops|bandwidth)"), _limit),
    (re.compile(r"disk\[(\d+)\]\.path"), _disc),
)
"""Field → how it is put in effect. What is not here waits for the next start."""
