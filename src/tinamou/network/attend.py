"""A running machine's network attended to: examined, measured, put right, captured, plugged and unplugged."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
import os
import socket
import struct
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from tinamou import late
from tinamou.control.commands import monitor, reopenable
from tinamou.control.hotplug import quietly
from tinamou.errors import ControlError, StateError
from tinamou.facts import files
from tinamou.late import dataclass
from tinamou.network import diagnose as judge
from tinamou.network.diagnose import NicFinding, Surroundings
from tinamou.network.nics import NicView, look
from tinamou.network.remedies import Describe, HostUp, InGuest, PlugIn, Serve, Unshape
from tinamou.network.speed import Speed, measure
from tinamou.parts.net import NetSpec, interfaces, mac_of, ssh_card
from tinamou.parts.net.network import name_of
from tinamou.parts.net.spec import FILTERED
from tinamou.parts.net.wiring import host_link
from tinamou.prepare.networks import serve_again, server
from tinamou.spec import load_spec
from tinamou.state import networks
from tinamou.state.record import Record
from tinamou.system import nft, threads
from tinamou.system.closing import Closing
from tinamou.system.exec import CommandError, find_tool, run
from tinamou.system.loop_thread import in_thread

if TYPE_CHECKING:
    from tinamou.control import Session
    from tinamou.guest.agent import Agent

__all__ = ["Report", "capture", "examine", "plug", "put_right", "specs_of", "speed_of"]


_MOST_CAPTURED, _PIECE = 1 << 30, 1 << 20


@dataclass(frozen=True)
class Report:
    """What was seen of every interface, and what is wrong, worst first."""

    nics: tuple[NicView, ...]
    findings: tuple[NicFinding, ...]


def specs_of(record: Record) -> dict[int, NetSpec]:
    """The interfaces a machine was asked to have, by number."""
    return interfaces(load_spec(record.spec).net)


async def examine(record: Record, session: Session, agent: Agent) -> Report:
    """Look at every interface from all sides and judge. Raises ControlError."""
    specs = specs_of(record)
    expected = {f"net{n}-dev": host_link(spec, record.directory, n) for n, spec in specs.items()}
    cards = await monitor(session, "info network")
    seen = [nic for nic in await look(cards, agent, expected, _on_vhost(record)) if nic.id != ssh_card.DEVICE]
    pairs = [(nic, _surroundings(record, specs, nic)) for nic in seen]
    return Report(tuple(seen), tuple(judge.diagnose(pairs)))


def _on_vhost(record: Record) -> set[str]:
    """The cards that were started, or plugged in, with vhost: QEMU ends, or refuses the card, where that cannot be."""
    elements = json.loads(record.file(files.PLAN).read_text())["elements"]
    return {f"{one['props']['id']}-dev" for one in elements if one["kind"] == "netdev" and one["props"].get("vhost")}


def _surroundings(record: Record, specs: Mapping[int, NetSpec], nic: NicView) -> Surroundings:
    around = Surroundings(
        passt=find_tool("passt") is not None,
        root=os.geteuid() == 0,
        vhost=Path("/dev/vhost-net").exists(),
        machine=record.name,
        forwards=bool(record.ssh_port),
    )
    number = _number(nic)
    if number not in specs:
        return around
    spec = specs[number]
    around = late.replace(
        around, rate_in=spec.rate_in, rate_out=spec.rate_out, forwards=around.forwards or bool(spec.forward)
    )
    if spec.type in FILTERED:
        around = late.replace(
            around, forged=nft.dropped(host_link(spec, record.directory, number)).get("forged", 0) if around.root else 0
        )
    if spec.type != "bridge":
        return around
    mac = mac_of(spec, record.identity, number) if spec.anti_spoof else ""
    if spec.bridge:
        return late.replace(around, mac=mac)
    network = networks.read(name_of(spec))
    member = next((one for one in networks.members(name_of(spec)) if one.name == f"{record.name}.{number}"), None)
    served = network is not None and server(network) is not None
    address = member.address if member and spec.anti_spoof else ""
    return late.replace(around, mac=mac, server=served, address=address)


def _number(nic: NicView) -> int:
    """The card's number, -1 for one that is not tinamou's."""
    digits = nic.id.removeprefix("net").removesuffix("-dev")
    return int(digits) if digits.isdecimal() else -1


async def speed_of(nic: NicView, agent: Agent, *, pid: int | None = None) -> Speed | None:
    """Latency and throughput between this host and the guest of process ``pid``; None where nothing leads to it."""

    async def start(line: str) -> object:
        return await agent.run(["sh", "-c", line], timeout=20, bare=True)

    def computed() -> float:
        return threads.computed(pid, "CPU ", "ALL CPUs") if pid else 0.0

    probe = functools.partial(measure, start, computed=computed)
    if nic.backend == "user":
        return await probe(f"10.0.{2 + _number(nic) % 250}.2", listen="127.0.0.1")
    if nic.backend in ("stream", "socket") and "passt" in _peers(nic):
        here = _own_address()
        return await probe(here, listen=here) if here else None
    if nic.guest and nic.backend == "tap":
        for address in nic.guest.addresses:
            plain = address.partition("/")[0]
            if "." in plain and _routed(plain):
                return await probe(plain)
    return None


def _peers(nic: NicView) -> str:
    """What is at the other end of a stream: tinamou's cables between machines have addresses other than passt's."""
    addresses = nic.guest.addresses if nic.guest else ()
    return "passt" if any(one.startswith("10.0.") and one.endswith(".15/24") for one in addresses) else ""


def _own_address() -> str:
    """The address from which this host reaches others, empty without a default route."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.254", 9))
        except OSError:
            return ""
        return str(probe.getsockname()[0])


def _routed(address: str) -> bool:
    """Whether this host has an interface on the address's network."""
    try:
        return "via" not in run([find_tool("ip") or "ip", "route", "get", address], timeout=10)
    except (CommandError, OSError):
        return False


async def put_right(record: Record, session: Session, agent: Agent, finding: NicFinding) -> bool:
    """Do what a finding's remedy says, where it has one; whether something was done. Raises what that raises."""
    match finding.remedy:
        case None | Describe():
            return False
        case InGuest(line=line):
            await agent.run(["sh", "-c", line], timeout=20, bare=True)
        case PlugIn(card=card):
            await plug(session, card, up=True)
        case HostUp(link=link):
            run([find_tool("ip") or "ip", "link", "set", link, "up"], timeout=10)
        case Unshape(link=link):
            run([find_tool("tc") or "tc", "qdisc", "delete", "dev", link, "root"], timeout=10)
        case Serve():
            for spec in specs_of(record).values():
                if spec.type == "bridge" and not spec.bridge:
                    serve_again(name_of(spec))
    return True


async def plug(session: Session, card: str, *, up: bool) -> None:
    """Plug a card's virtual cable in or out. Raises ControlError."""
    await session.execute("set_link", name=card, up=up)


async def capture(
    record: Record, session: Session, number: int, target: Path, stopped: asyncio.Event, seconds: float
) -> int:
    """Write an interface's packets to ``target`` as pcap for some seconds or until ``stopped``; returns the bytes written.

    What comes after the first GiB is left out.
    QEMU writes them itself where it can (one queue, no vhost), else they are read from the interface on the host.
    Raises ControlError, StateError.
    """
    specs = specs_of(record)
    if number not in specs:
        known = ", ".join(str(one) for one in specs) or "none"
        raise StateError(f"{record.name} has no interface {number}", why=f"it has {known}", fix="tinamou net ls")
    part = record.file(f"net{number}.pcap")
    part.unlink(missing_ok=True)
    name = f"capture{number}"
    with Closing(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)) as file:
        if record.uid is not None:
            os.fchown(file, record.uid, record.uid)
        fdset, path = await reopenable(session, file)
    try:
        await session.execute("object-add", {"qom-type": "filter-dump", "id": name, "netdev": f"net{number}", "file": path})
    except ControlError as error:
        part.unlink()
        await quietly(session, "remove-fd", {"fdset-id": fdset})
        return await _from_link(host_link(specs[number], record.directory, number), target, stopped, seconds, error)
    try:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(stopped.wait(), seconds)
    finally:
        await session.execute("object-del", id=name)
        await quietly(session, "remove-fd", {"fdset-id": fdset})
    try:
        return await in_thread(_copied, part, target)
    finally:
        part.unlink()


def _copied(part: Path, target: Path) -> int:
    """Copy what QEMU wrote, which it may have made as long as it likes."""
    with part.open("rb") as source, target.open("wb") as file:
        while piece := source.read(min(_PIECE, _MOST_CAPTURED - file.tell())):
            file.write(piece)
        return file.tell()


async def _from_link(link: str, target: Path, stopped: asyncio.Event, seconds: float, error: ControlError) -> int:
    """Packets of a host interface by a packet socket (source: packet(7); the file format is pcap-savefile(5))."""
    try:
        reader = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(3))
        reader.bind((link, 0))
    except OSError as reason:
        why = f"{error.why}; and {link} on the host cannot be read: {reason.strerror}"
        raise ControlError("this interface's packets cannot be captured", why=why, fix="run as root") from error
    reader.settimeout(0.1)
    end = time.monotonic() + seconds
    with reader, target.open("wb") as file:
        file.write(struct.pack("<IHHiIII", 0xA1B2C3D4, 2, 4, 0, 0, 65535, 1))
        while time.monotonic() < end and not stopped.is_set() and file.tell() < _MOST_CAPTURED:
            with contextlib.suppress(TimeoutError):
                packet = await asyncio.to_thread(reader.recv, 65535)
                now = time.time_ns() // 1000
                file.write(struct.pack("<IIII", now // 1_000_000, now % 1_000_000, len(packet), len(packet)) + packet)
        return file.tell()
