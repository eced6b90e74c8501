"""What forks cannot have twice of this host and its networks; and their guests' addresses where other machines are too."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tinamou.blueprint import Plan, ReservePort, Why
from tinamou.errors import PrepareError, Problem, SpecError, StateError
from tinamou.guest.resident import Line
from tinamou.parts.net.forwards import forwards_of
from tinamou.parts.net.network import name_of
from tinamou.parts.net.shared import shared
from tinamou.parts.net.spec import NetSpec, interfaces
from tinamou.spec import load_spec
from tinamou.state import machines, networks
from tinamou.state.record import Record

if TYPE_CHECKING:
    from tinamou.network.anew import Found

__all__ = ["ask_anew", "claimed", "refuse_twice"]


@contextlib.contextmanager
def claimed(name: str, spec: Mapping[str, Any], count: int, *, same: bool = False) -> Iterator[None]:
    """As `refuse_twice`, for a block that writes the records of the forks: they have their fixed addresses from then on.

    Nobody else looks or claims meanwhile, under the lock that addresses on networks of tinamou's are leased under.
    """
    alone = networks.locked() if _fixed(spec) and not same else contextlib.nullcontext()
    with alone:
        refuse_twice(name, spec, count, same=same)
        yield


def _fixed(spec: Mapping[str, Any]) -> bool:
    said = spec.get("net", ())
    return not isinstance(said, list | tuple) or any(not isinstance(one, Mapping) or one.get("address") for one in said)


def refuse_twice(name: str, spec: Mapping[str, Any], count: int, *, same: bool = False) -> None:
    """Refuse forks of a machine of that description which would have what another one has, or each other.

    A port of this host leads into one machine. A fixed address is one machine's on a network that it shares, but of one
    that takes its own place (``same``). A machine that is being started has its addresses already. Raises StateError naming
    all of them.
    """
    said = spec.get("net", ())
    if isinstance(said, list | tuple) and not any(map(_may_be_one_only, said)):
        return
    nets = load_spec(spec).net
    problems = [*_taken_ports(nets, count), *(() if same else _taken_addresses(nets, count))]
    if problems:
        raise StateError(f"no fork of {name} can be started", problems=problems)


def _may_be_one_only(said: object) -> bool:
    return not isinstance(said, Mapping) or bool(said.get("forward") or said.get("address"))


def _taken_ports(nets: Sequence[NetSpec], count: int) -> Iterator[Problem]:
    from tinamou.prepare.wires import reserve_port

    for number, net in enumerate(nets):
        for text in net.forward:
            reason = f"{count} machines cannot have the same port" if count > 1 else ""
            try:
                for protocol, address, port, _ in forwards_of(text):
                    reserve_port(ReservePort(protocol, address, port, Why("spec net.forward", "the saved machine had it")))
            except PrepareError as error:
                reason = f"{error.what}: {error.why}"
            if reason:
                yield Problem(f"net[{number}].forward", text, reason, "end what has it, or leave the forward out")


def _taken_addresses(nets: Sequence[NetSpec], count: int) -> Iterator[Problem]:
    fixed = {number: one for number, one in enumerate(nets) if one.address and shared(one)}
    holders = dict(_fixed_addresses()) if fixed else {}
    for number, one in fixed.items():
        (holder, runs), where = holders.get(_held(one), ("", False)), shared(one)
        fix = "leave it out, so that each machine asks for its own by DHCP; or "
        if holder:
            kept = one.type == "bridge" and not one.bridge  # tinamou's own network keeps it until the machine is removed
            fix += f"fork a checkpoint, once {holder} is {'removed' if kept else 'off'}"
            does = "runs" if runs else "is being started"
            yield Problem(f"net[{number}].address", one.address, f"{holder} {does} with it on {where}", fix)
        elif count > 1:
            reason = f"{count} machines on {where} cannot have the same address"
            yield Problem(f"net[{number}].address", one.address, reason, f"{fix}start one fork")


def _held(spec: NetSpec) -> tuple[str, str]:
    import ipaddress

    return shared(spec), str(ipaddress.ip_interface(spec.address).ip)


def _fixed_addresses() -> Iterator[tuple[tuple[str, str], tuple[str, bool]]]:
    """Those on shared networks, and the machine that has each: one that runs, or that a process is starting."""
    for record in machines.awake():
        if (runs := record.running) or record.owned:
            with contextlib.suppress(SpecError):  # a description nobody can read keeps no other machine from being forked
                for spec in load_spec(record.spec).net:
                    if spec.address and shared(spec):
                        yield _held(spec), (record.name, runs)


async def ask_anew(record: Record, before: Plan, plan: Plan, line: Line | None) -> tuple[str, ...]:
    """Have the guest of a fork ask for addresses on the networks it shares; what must be said of those it did not get.

    ``before`` is the plan of the saved machine, ``plan`` the fork's. Nothing is asked of any other fork.
    """
    nets = {number: one for number, one in interfaces(load_spec(record.spec).net).items() if shared(one)}
    if not nets:
        return ()
    if line is None:
        where = ", ".join(dict.fromkeys(map(shared, nets.values())))
        why = f"nothing is known of an agent in {record.image or 'its image'}"
        return (
            f"the guest of {record.name} keeps the addresses of {before.name} on {where}: {why}; set others in the guest",
        )
    from tinamou.network import anew

    was, now = _macs(before), _macs(plan)
    cards = [anew.Card(now[number], was[number], _how(one)) for number, one in nets.items()]
    found, why = await anew.ask_anew(line, cards)
    notes = (_note(record, before.name, number, nets[number], found.get(now[number]), why) for number in nets)
    return tuple(filter(None, notes))


def _macs(plan: Plan) -> dict[int, str]:
    devices = {element.id: str(element.props["mac"]).lower() for element in plan.elements if "mac" in element.props}
    return {int(id.removeprefix("net").removesuffix("-dev")): mac for id, mac in devices.items() if id.startswith("net")}


def _how(spec: NetSpec) -> str:
    if not spec.address:
        return "dhcp"
    return "fixed6" if ":" in spec.address else "fixed"


def _note(record: Record, source: str, number: int, spec: NetSpec, found: Found | None, why: str) -> str:
    """What must be said of one interface; empty where its address is the fork's own."""
    own, where = _given(record, number, spec), f"net{number} on {shared(spec)}"
    guest, fix = f"the guest of {record.name}", "have it ask by DHCP, or set another in the guest"
    if spec.address:
        return ""
    if why:
        return f"{guest} may still have the address of {source} for {where}: {why}; {fix}"
    if found is None or (found.now == own if own else not found.before or found.now not in ("", found.before)):
        return ""
    if not found.now:
        return f"{guest} has no address for {where}: no DHCP server answered; have it ask again, or set one in the guest"
    whose = f" of {source}" if found.now == found.before else ""
    fix = f"have it ask by DHCP, or set {own} in the guest" if own else fix
    return f"{guest} has the address {found.now}{whose} for {where}, and asks for no other; {fix}"


def _given(record: Record, number: int, spec: NetSpec) -> str:
    """The address that a network of tinamou's gives this interface; empty on any other."""
    if spec.type != "bridge" or spec.bridge:
        return ""
    mine = (one for one in networks.members(name_of(spec)) if one.name == f"{record.name}.{number}")
    return next((one.address for one in mine), "")
