"""A machine's network cards changed by name: added, taken away, slowed down; in its description, and in it while it runs."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping

from tinamou import late
from tinamou.blueprint import Contribution, JoinOvs, SetRules
from tinamou.blueprint.stored import plugged, unplugged
from tinamou.control import Session, connect_qmp, hotplug
from tinamou.errors import ControlError, StateError
from tinamou.facts import files
from tinamou.machine.calls import refuse_calls, walled
from tinamou.machine.description import describe, describe_later
from tinamou.machine.slots import free_for
from tinamou.machine.starting import facts_again
from tinamou.machine.turns import turn
from tinamou.parts.net import NetSpec, interfaces, mac_of
from tinamou.parts.net.network import name_of
from tinamou.parts.net.spec import FILTERED
from tinamou.parts.net.wiring import host_link, link_name
from tinamou.planner import plan_card
from tinamou.prepare.apply import apply, undo
from tinamou.prepare.journal import Entry, Journal
from tinamou.spec import MachineSpec, dump_spec, load_spec
from tinamou.state import machines, networks
from tinamou.state.folder import plan_data, plan_of, update_plan
from tinamou.state.record import Record
from tinamou.system.closing import IfFailed

__all__ = ["add", "card_of", "change", "number_of", "remove", "set_rates"]


def number_of(record: Record, text: str) -> int:
    """``net1``, ``net1-dev`` or ``1`` → 1. Raises StateError where the machine has no such card."""
    known = interfaces(load_spec(record.spec).net)
    digits = text.removeprefix("net").removesuffix("-dev")
    if digits.isdecimal() and int(digits) in known:
        return int(digits)
    shown = ", ".join(f"net{number}" for number in known) or "none"
    raise StateError(f"{record.name} has no card {text}", why=f"it has {shown}", fix=f"tinamou net ls {record.name}")


def card_of(record: Record, text: str) -> NetSpec:
    """The card as the machine's description has it. Raises StateError."""
    return load_spec(record.spec).net[number_of(record, text)]


@contextlib.asynccontextmanager
async def _changing(name: str, what: str) -> AsyncIterator[Record]:
    """One change of a machine at a time, on its newest record."""
    async with turn(machines.find(name), what) as record:
        yield record


@contextlib.asynccontextmanager
async def _monitor(record: Record) -> AsyncIterator[Session]:
    async with await connect_qmp(record.directory, alive=lambda: record.running) as session:
        yield session


async def add(name: str, request: object) -> tuple[int, list[str]]:
    """Give the machine one more card, now where it runs, and at every start from then on.

    Returns its number, and what must be said about it. ``request`` is a network as in a machine file. Raises SpecError,
    PlanError, PrepareError, ControlError; nothing has changed then.
    """
    async with _changing(name, "net add") as record:
        spec = load_spec(record.spec)
        number = max(len(spec.net), len(load_spec(record.next_spec).net))
        new = load_spec({"net": [request]}).net[0]
        with IfFailed(_forget_address, record, new, number):
            wanted, said = await _added(record, spec, new, number)
        describe(record, lambda now: _with(now, number, wanted.net[number]))
        if new.address and record.running and (why := await _told(record, new, number)):
            said.append(f"the guest was not told its address {new.address}: {why}")
        return number, said


async def _told(record: Record, card: NetSpec, number: int) -> str:
    from tinamou.guest.agent import Agent
    from tinamou.network.addresses import tell_address

    if not record.agent:
        return "it has no agent"
    return await tell_address(Agent(str(record.file(files.AGENT))), card, mac_of(card, record.identity, number))


async def _added(record: Record, spec: MachineSpec, new: NetSpec, number: int) -> tuple[MachineSpec, list[str]]:
    """The machine with the new card, which is plugged in where it runs."""
    if not record.running:
        wanted = _with(spec, number, new)
        return wanted, [note.text for note in _check(record, wanted, number).notes]
    async with _monitor(record) as session:
        slot = new.port or await free_for(record, session)
        wanted = _with(spec, number, late.replace(new, port=slot))
        part = _check(record, wanted, number)
        await _plug(record, session, part, number)
    update_plan(record, lambda data: plugged(data, part))
    return wanted, [note.text for note in part.notes]


def _forget_address(record: Record, card: NetSpec, number: int) -> None:
    if card.type == "bridge" and not card.bridge:
        networks.drop(name_of(card), f"{record.name}.{number}")


def _with(spec: MachineSpec, number: int, card: NetSpec) -> MachineSpec:
    """The machine with this card in place of the one of that number; what is empty at the end is left out."""
    below = [*spec.net[:number], *[NetSpec(type="none")] * (number - len(spec.net))]
    cards = [*below, card, *spec.net[number + 1 :]]
    while cards and cards[-1].type == "none":
        cards.pop()
    return late.replace(spec, net=tuple(cards))


def _check(record: Record, spec: MachineSpec, number: int) -> Contribution:
    """The card's part of the machine's plan. Raises PlanError where it cannot be."""
    facts = facts_again(record, spec)
    if record.running:
        around = plan_of(record).confinement
        apart = "net" in around.namespaces or bool(around.landlock[1])
        facts = late.replace(facts, net=late.replace(facts.net, apart=apart))
    return plan_card(spec, facts, number)


async def _plug(record: Record, session: Session, part: Contribution, number: int) -> None:
    """Make the host ready and plug it in; all undone when one of it fails."""
    _refuse_private(record, part)
    _refuse_walled_in(record, part)
    refuse_calls(record, part)
    apply(walled(record, part).steps, record.path)
    with IfFailed(_give_back, record, number):
        await hotplug.plug(session, part, f"net{number}")


def _refuse_private(record: Record, part: Contribution) -> None:
    if not any(element.kind == "chardev" for element in part.elements):
        return
    backends = [
        one["props"] for one in plan_data(record)["elements"] if str(one["props"].get("qom-type", "")).startswith("memory-")
    ]
    if not all(props.get("share") for props in backends):
        why = "the memory of a machine that was started without vhost-user is private to its QEMU"
        fix = f"tinamou stop {record.name}, add it, and start again"
        raise ControlError("a vhost-user card cannot be plugged into this machine while it runs", why=why, fix=fix)


def _refuse_walled_in(record: Record, part: Contribution) -> None:
    around = plan_of(record).confinement
    connects = any(one.kind == "chardev" and "server" not in one.props for one in part.elements)
    if ("mount" in around.namespaces or around.landlock[0]) and connects:
        why = "QEMU opens the socket of a vhost-user program by its path, and this one sees no file of this host"
        fix = f"tinamou stop {record.name}, add it, and start again"
        raise ControlError("a vhost-user card cannot be plugged into this machine while it runs", why=why, fix=fix)


def _give_back(record: Record, number: int) -> None:
    """Undo what the host was made ready with for one card. Raises StateError for what could not be undone."""
    link, member, folder = link_name(record.directory, number), f"{record.name}.{number}", str(record.file(f"net{number}"))

    def its(entry: Entry) -> bool:
        words = entry.get("argv")
        named = isinstance(words, list) and any(str(word).startswith(f"{folder}/") for word in words)
        return named or link in (entry.get("name"),) or member == entry.get("member") or _is_socket(entry)

    def _is_socket(entry: Entry) -> bool:
        spec = interfaces(load_spec(record.spec).net).get(number)
        return entry["kind"] == "socket" and spec is not None and entry["path"] == spec.socket

    record.file(f"run/net{number}.sock").unlink(missing_ok=True)
    failed = Journal(record.path).give_back(undo, its)
    if failed:
        raise StateError("not everything could be given back", why="; ".join(f"{e['kind']}: {error}" for e, error in failed))


async def remove(name: str, text: str) -> None:
    """Take a card away, out of a running machine as well where it sits in a hot-plug slot; others keep their numbers.

    Raises StateError, ControlError; ControlError as well when the guest does not let go of it.
    """
    async with _changing(name, "net rm") as record:
        number = number_of(record, text)
        spec = load_spec(record.spec)
        card = spec.net[number]
        if record.running:
            if not card.port:
                why = "it sits on the root bus, which lets nothing go while the machine runs"
                fix = f"tinamou stop {name} first; or only pull its cable: tinamou net link {name} down --nic net{number}"
                raise StateError(f"net{number} cannot be taken out of {name} now", why=why, fix=fix)
            part = _check(record, spec, number)
            async with _monitor(record) as session:
                await hotplug.unplug(session, part.elements)
            _give_back(record, number)
            update_plan(record, lambda data: unplugged(data, part))
        _forget_address(record, card, number)
        describe(record, lambda now: _with(now, number, NetSpec(type="none")))


async def set_rates(name: str, text: str, rates: Mapping[str, str]) -> NetSpec:
    """Change what a card may receive (``rate_in``) and send (``rate_out``), at once where the machine runs.

    Returns the card as it is now. Raises SpecError, StateError, PrepareError.
    """
    async with _changing(name, "net rate") as record:
        number = number_of(record, text)
        spec = load_spec(record.spec)
        card = _changed(spec.net[number], rates)
        wanted = _with(spec, number, card)
        part = _check(record, wanted, number)
        if record.running:
            _limit(record, part, card, number)
        describe(record, lambda now: _with(now, number, _changed(now.net[number], rates)))
        return card


async def change(name: str, text: str, fields: Mapping[str, object]) -> None:
    """Describe a card anew, from the next start on: ``{"model": "virtio"}``. Raises SpecError, PlanError, StateError."""
    async with _changing(name, "net set") as record:
        number = number_of(record, text)
        spec = load_spec(record.next_spec)
        wanted = _with(spec, number, _changed(spec.net[number], fields))
        _check(record, wanted, number)
        describe_later(record, lambda now: _with(now, number, _changed(now.net[number], fields)))


def _changed(card: NetSpec, fields: Mapping[str, object]) -> NetSpec:
    """The card with other fields; checked as if it had been written so. Raises SpecError."""
    data = dump_spec(MachineSpec(net=(card,)))["net"][0] if card != NetSpec() else {}
    table = data if isinstance(data, dict) else {"type": data}
    return load_spec({"net": [{**table, **fields}]}).net[0]


def _limit(record: Record, part: Contribution, card: NetSpec, number: int) -> None:
    from tinamou.prepare import wires

    journal = Journal(record.path)
    if card.type in FILTERED:
        link = host_link(card, record.directory, number)
        rules = [step for step in part.steps if isinstance(step, SetRules)]
        for rule in rules:
            wires.set_rules(rule, journal)
        if not rules:
            journal.give_back(undo, lambda entry: entry["kind"] == "rules" and entry["name"] == link)
    for step in part.steps:
        if isinstance(step, JoinOvs):
            wires.limit_ovs(step)
