"""What forks cannot have twice, and what is said of addresses their guests did not get; without a guest."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest

from tinamou import late
from tinamou.blueprint import Element, Plan, Why
from tinamou.blueprint.stored import plain
from tinamou.errors import GuestError, StateError, TimeLimitError
from tinamou.guest.command import Completed
from tinamou.guest.resident import Line
from tinamou.machine import forking
from tinamou.machine.fork_nets import ask_anew, refuse_twice
from tinamou.network.anew import Found, found
from tinamou.parts.net.shared import shared
from tinamou.parts.net.spec import NetSpec
from tinamou.snapshots.checkpoint import Checkpoint, File
from tinamou.snapshots.fork import Restored
from tinamou.state import machines, networks
from tinamou.state.record import Record, create
from tinamou.system.lock import locked
from tinamou.system.spawn import process_of

WAS, OWN = "52:54:00:00:00:01", "52:54:00:00:00:02"
FIXED = {"type": "bridge", "bridge": "br0", "address": "10.9.0.1/24"}


def machine(state: Path, name: str, *nets: dict[str, Any], running: bool = True) -> Record:
    """A machine of which this process is the QEMU, where it runs."""
    folder = state / "machines" / name
    folder.mkdir(parents=True)
    pid = os.getpid() if running else 0
    started = process_of(pid).started if running else 0
    return create(Record(name, str(folder), {"name": name, "net": list(nets)}, image="tiny", pid=pid, started=started))


def test_networks_of_ones_own_and_shared_ones() -> None:
    own = (NetSpec(), NetSpec("user"), NetSpec("passt"), NetSpec("none"))
    assert [shared(one) for one in own] == [""] * 4
    assert shared(NetSpec("bridge")) == "network default"
    assert shared(NetSpec("bridge", network="lab")) == "network lab"
    assert shared(NetSpec("bridge", bridge="br0")) == "bridge br0"
    assert shared(NetSpec("ovs", bridge="sw0", vlan=5)) == "bridge sw0, VLAN 5"
    assert shared(NetSpec("vhost-user", bridge="sw0")) == "bridge sw0"
    assert shared(NetSpec("vhost-user", socket="/run/x")) == shared(NetSpec("stream", socket="/run/x")) == "socket /run/x"
    assert shared(NetSpec("tap")) == "the host's taps"
    assert shared(NetSpec("tap", interface="t0")) == shared(NetSpec("macvtap", interface="t0")) == "interface t0"


def refused(spec: dict[str, Any], count: int = 1) -> dict[str, str]:
    """The reasons by field, all of one error."""
    with pytest.raises(StateError, match="no fork of web can be started") as error:
        refuse_twice("web", spec, count)
    assert all(problem.value and "leave" in problem.fix for problem in error.value.problems)
    return {problem.path: problem.reason for problem in error.value.problems}


def test_an_address_that_a_running_machine_has_is_refused_with_all_others(state: Path) -> None:
    lab = {"type": "bridge", "network": "lab", "address": "10.8.0.5/24"}
    web = machine(state, "web", {"type": "user"}, FIXED)
    machine(state, "other", {**lab, "address": "10.8.0.5/16"})
    spec = {**web.spec, "net": [*web.spec["net"], lab]}
    assert refused(spec) == {
        "net[1].address": "web runs with it on bridge br0",
        "net[2].address": "other runs with it on network lab",
    }
    assert refused(spec, 2) == refused(spec)
    with pytest.raises(StateError) as error:
        refuse_twice("web", spec, 1)
    fixes = [problem.fix.rpartition("once ")[2] for problem in error.value.problems]
    assert fixes == ["web is off", "other is removed"], "a network of tinamou's keeps the address for who has it"
    refuse_twice("web", spec, 1, same=True)


def test_an_address_that_nobody_has_is_refused_to_two(state: Path) -> None:
    web = machine(state, "web", FIXED, running=False)
    machine(
        state,
        "near",
        {**FIXED, "address": "10.9.0.11/24"},
        {**FIXED, "bridge": "br1"},
        {"type": "user", **{"address": FIXED["address"]}},
    )
    machine(state, "vlan", {"type": "ovs", "bridge": "br0", "vlan": 7, "address": FIXED["address"]})
    refuse_twice("web", web.spec, 1)
    assert refused(web.spec, 2) == {"net[0].address": "2 machines on bridge br0 cannot have the same address"}
    refuse_twice("web", {"net": [{"type": "user", "address": "10.0.2.77/24"}, {"type": "bridge", "bridge": "br0"}]}, 9)


def test_a_port_that_is_taken_is_told_beside_an_address(state: Path) -> None:
    web = machine(state, "web", FIXED)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        text = f"tcp:127.0.0.1:{listener.getsockname()[1]}:80"
        spec = {"net": [*web.spec["net"], {"type": "user", "forward": [text]}]}
        told = refused(spec)
    assert list(told) == ["net[1].forward", "net[0].address"]
    assert text.split(":")[2] in told["net[1].forward"] and "is not free" in told["net[1].forward"]
    assert list(refused(spec)) == ["net[0].address"]
    assert refused(spec, 2)["net[1].forward"] == "2 machines cannot have the same port"


def checkpoint_of(state: Path, record: Record) -> Checkpoint:
    """An instant checkpoint of a machine on disk, as far as entries of its forks are made of it."""
    there = File("", 0, 0, 0)
    saved = plain(plan(record.name, WAS))
    return Checkpoint(
        "moment",
        str(state / "checkpoints/moment"),
        "instant",
        record.name,
        1.0,
        saved,
        late.asdict(record),
        "",
        there,
        "",
        there,
        "",
    )


def test_two_forks_at_once_cannot_have_one_address(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second comes while the first is entered and its QEMU has not been started yet."""
    monkeypatch.setattr(forking, "check", lambda _: None)
    source = checkpoint_of(state, machine(state, "web", FIXED, running=False))
    lock, under_it = state / "networks.lock", list[bool]()

    def heard(work: Callable[..., Any]) -> Callable[..., Any]:
        def call(*words: Any) -> Any:
            under_it.append(lock.exists() and locked(lock))
            return work(*words)

        return call

    monkeypatch.setattr(machines, "awake", heard(machines.awake))
    monkeypatch.setattr(machines, "entered", heard(machines.entered))

    async def both() -> None:
        begun, goes_on = asyncio.Event(), asyncio.Event()

        async def starting(_: Checkpoint, record: Record, **__: Any) -> Restored:
            begun.set()
            if record.name == "first":
                await goes_on.wait()
            return Restored(record, plan(record.name, OWN), None)

        monkeypatch.setattr(forking, "_one", starting)
        first = asyncio.ensure_future(forking.fork_many(source, 1, names=["first"]))
        await begun.wait()
        with pytest.raises(StateError, match="no fork of web can be started") as error:
            await forking.fork_many(source, 1, names=["second"])
        assert [one.reason for one in error.value.problems] == ["first is being started with it on bridge br0"]
        assert not (state / "machines/second").exists() and not locked(lock)
        goes_on.set()
        assert [one.record.name for one in await first] == ["first"]

    asyncio.run(both())
    assert under_it == [True, True, True]  # the first was looked for and entered, the second looked for


def plan(name: str, mac: str) -> Plan:
    """A plan with one card on the first network, and that of ssh."""
    cards = (("net0-dev", mac), ("ssh-dev", "52:54:00:00:00:99"))
    elements = tuple(
        Element("device", {"driver": "virtio-net-pci", "id": id, "mac": one}, Why("x", "x")) for id, one in cards
    )
    return Plan(name, "x86_64", "qemu", "tcg", "q35", elements, (), ())


class Said:
    """The line to a guest that says this to all it is asked, or fails so."""

    def __init__(self, answer: str | Exception) -> None:
        self.answer, self.asked = answer, list[list[str]]()

    async def run(self, argv: list[str], timeout: float) -> Completed:
        assert timeout <= 60
        self.asked.append(argv[4:])
        if isinstance(self.answer, Exception):
            raise self.answer
        return Completed(0, self.answer.encode())


def told(record: Record, line: Said | None) -> tuple[str, ...]:
    return asyncio.run(ask_anew(record, plan("web", WAS), plan(record.name, OWN), cast("Line | None", line)))


def test_nothing_is_asked_where_each_guest_has_its_own_network(state: Path) -> None:
    line = Said("")
    assert told(machine(state, "fork", {"type": "user"}, {"type": "passt"}), line) == ()
    assert told(machine(state, "alone"), None) == ()
    assert line.asked == []


def test_what_is_said_on_a_network_of_tinamous(state: Path) -> None:
    fork = machine(state, "fork", {"type": "bridge", "network": "lab"})
    networks.put("lab", networks.Member("fork.0", "10.8.0.9", "fork", OWN))
    line = Said(f"= {OWN} 10.8.0.5 10.8.0.9\n")
    assert told(fork, line) == ()
    assert line.asked == [[f"{OWN}/{WAS}/dhcp"]]
    [kept] = told(fork, Said(f"= {OWN} 10.8.0.5 10.8.0.5\n"))
    assert kept.startswith(
        "the guest of fork has the address 10.8.0.5 of web for net0 on network lab, and asks for no other"
    )
    assert "set 10.8.0.9 in the guest" in kept
    assert "has the address 10.8.0.7 for net0" in told(fork, Said(f"= {OWN} 10.8.0.5 10.8.0.7\n"))[0]
    assert "has no address for net0 on network lab" in told(fork, Said(f"= {OWN} none \n"))[0]
    failed = told(fork, Said(GuestError("the resident is gone")))
    assert "may still have the address of web for net0 on network lab: the resident is gone; " in failed[0]
    assert ": it did not end asking within 60 s; " in told(fork, Said(TimeLimitError("too long")))[0]
    assert told(fork, Said("")) == ()


def test_what_is_said_on_a_network_of_the_hosts(state: Path) -> None:
    fork = machine(state, "fork", {"type": "bridge", "bridge": "br0"})
    assert told(fork, Said(f"= {OWN} 10.9.0.5 10.9.0.6\n")) == told(fork, Said(f"= {OWN} none \n")) == ()
    assert "has the address 10.9.0.5 of web" in told(fork, Said(f"= {OWN} 10.9.0.5 10.9.0.5\n"))[0]
    assert "no DHCP server answered" in told(fork, Said(f"= {OWN} 10.9.0.5 \n"))[0]
    [nobody] = told(fork, None)
    assert nobody == (
        "the guest of fork keeps the addresses of web on bridge br0: nothing is known of an agent in tiny; "
        "set others in the guest"
    )


def test_a_fixed_address_is_left_alone(state: Path) -> None:
    line = Said("")
    assert told(machine(state, "fork", FIXED), line) == ()
    assert told(machine(state, "six", {**FIXED, "address": "fd00::5/64"}), line) == ()
    assert line.asked == [[f"{OWN}/{WAS}/fixed"], [f"{OWN}/{WAS}/fixed6"]]


def test_a_guest_that_says_something_else_says_nothing() -> None:
    sound = f"= {OWN} none 10.9.0.6\n"
    assert found(sound) == {OWN: Found("", "10.9.0.6")}
    for text in (
        f"= {OWN} \x1b[2J 10.9.0.6\n",
        f"= {OWN} none 10.9.0.6 more\n",
        f"={OWN}\n",
        "= x none 1.1.1.1\n",
        "\0" * 99,
    ):
        assert found(text) == {}
    assert found("noise\n" + sound + f"= {WAS} 10.9.0.1 {'1' * 99}\n") == found(sound)
