"""Whether a guest has its devices of the host as it should: asked of the guest's own sysfs, compared with the host's."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence

from tinamou.control.answers import member, number, record, records, text
from tinamou.errors import GuestError, StateError
from tinamou.facts.pci import VFIO
from tinamou.late import dataclass, field
from tinamou.machine import transfers
from tinamou.machine.connected import Connected
from tinamou.system.rooted import Rooted
from tinamou.units import PciAddress, Size

__all__ = ["Said", "Seen", "check", "compared", "judged", "look", "read"]

_SECONDS = 60.0
_SCRIPT = """
cd /sys/bus/pci/devices || exit 1
for d in *; do
    echo "@ $d"
    for f in numa_node current_link_speed current_link_width; do [ -r $d/$f ] && echo "$f $(cat $d/$f 2>/dev/null)"; done
    [ -L $d/driver ] && echo "driver $(readlink $d/driver)"
    n=0; while [ $n -lt 6 ] && read -r line; do echo "region $n $line"; n=$((n + 1)); done <$d/resource
    for i in $d/msi_irqs/*; do [ -r "$i" ] && echo "vector $(cat $i)"; done
done
exit 0
"""
"""A few words a line for each device: as its guest's kernel shows it (source: Documentation/ABI/testing/sysfs-bus-pci)."""

_MEMORY = 0x200


@dataclass(frozen=True)
class Seen:
    """One device as a kernel shows it: its driver, link (``16.0 GT/s PCIe x16``), memory regions by number, memory node, and
    the kind (``msix``, ``msi``) and number of its interrupts."""

    address: str
    driver: str = ""
    link: str = ""
    bars: Mapping[int, Size] = field(default_factory=dict)
    node: int = -1
    interrupts: str = ""
    vectors: int = 0


@dataclass(frozen=True)
class Said:
    """One thing about one device: what was looked at, whether it is as it should be, and what was seen."""

    device: str
    about: str
    good: bool
    text: str


async def check(machine: Connected, *, transfer: bool = False) -> list[Said]:
    """Every device of the host that the machine has, and with ``transfer`` how fast its disks are read.

    Raises StateError where it has none, GuestError, ControlError.
    """
    assigned = {
        str(one.props["id"]): str(one.props["host"]) for one in machine.plan.elements if one.props.get("driver") == VFIO
    }
    if not assigned:
        raise StateError(f"{machine.name} has no device of the host", fix="give it one: tinamou run --pci …")
    seen, nodes = (
        await look(machine, assigned),
        [one for one in machine.plan.elements if one.props.get("driver") == "pxb-pcie"],
    )
    expected = {str(one.props["id"]): int(str(one.props["numa_node"])) for one in nodes}
    ports = {one.id: str(one.props.get("bus", "")) for one in machine.plan.elements if one.kind == "device"}
    found: list[Said] = []
    for element in machine.plan.elements:
        if (host := assigned.get(element.id)) is not None:
            node = expected.get(ports.get(str(element.props.get("bus")), ""))
            found += judged(host, _here(host), seen.get(element.id), node)
            if transfer and (there := seen.get(element.id)):
                found += compared(host, transfers.known(host), await transfers.in_the_guest(machine, there.address))
    return found


async def look(machine: Connected, ids: Collection[str]) -> dict[str, Seen]:
    """The devices of these ids as the guest sees them; without those it does not have. Raises GuestError, ControlError."""
    session = await machine.session()
    places = dict(_places(records(await session.execute("query-pci"))))
    done = await machine.run(["sh", "-c", _SCRIPT], timeout=_SECONDS, check=False)
    if done.status:
        why = done.stderr.decode(errors="replace").strip()[:500]
        raise GuestError(f"the guest of {machine.name} does not tell what devices it has", why=why)
    shown = {one.address: one for one in read(done.stdout.decode(errors="replace"))}
    return {name: shown[places[name]] for name in ids if places.get(name) in shown}


def _places(buses: Iterable[Mapping[str, object]]) -> Iterator[tuple[str, str]]:
    """Each device's id and its address in the guest, those behind bridges too, as QEMU tells them."""
    for bus in buses:
        for one in records(member(bus, "devices")):
            if name := text(one, "qdev_id", ""):
                yield name, f"0000:{number(one, 'bus'):02x}:{number(one, 'slot'):02x}.{number(one, 'function')}"
            if "pci_bridge" in one and "devices" in (below := record(one["pci_bridge"])):
                yield from _places([below])


def read(said: str) -> Iterator[Seen]:
    """What the script said. A guest chose the words: what is no answer is left out."""
    for part in said.split("@ ")[1:]:
        address, _, rest = part.partition("\n")
        words = [line.split() for line in rest.splitlines()]
        plain = {row[0]: row[1] for row in words if len(row) > 1}
        kinds = [row[1] for row in words if row[:1] == ["vector"] and len(row) > 1]
        speed = next((" ".join(row[1:]) for row in words if row[:1] == ["current_link_speed"]), "")
        width = plain.get("current_link_width", "")
        yield Seen(
            address.strip()[:32],
            plain.get("driver", "").rpartition("/")[2][:64],
            f"{speed[:32]} x{width[:4]}" if speed and width else "",
            dict(_regions(words)),
            int(plain["numa_node"]) if re.fullmatch(r"-?\d{1,4}", plain.get("numa_node", "")) else -1,
            kinds[0][:8] if kinds else "",
            len(kinds),
        )


def _regions(rows: list[list[str]]) -> Iterator[tuple[int, Size]]:
    for row in rows:
        if re.fullmatch(r"region [0-5]( 0x[0-9a-f]{1,16}){3}", " ".join(row)):
            start, end, flags = (int(one, 16) for one in row[2:])
            if end > start and flags & _MEMORY:
                yield int(row[1]), Size(end - start + 1)


def _here(address: str) -> Seen:
    """The device as the host's kernel shows it."""
    from tinamou.probe.pci import probe_pci

    files = Rooted()
    place = f"/sys/bus/pci/devices/{address}"
    one = probe_pci(files, {}).at(PciAddress.parse(address))
    speed, width = files.read(f"{place}/current_link_speed"), files.read(f"{place}/current_link_width")
    if one is None:
        return Seen(address)
    return Seen(address, one.driver, f"{speed} x{width}" if speed and width else "", one.bars, one.node)


def judged(device: str, host: Seen, guest: Seen | None, node: int | None = None) -> Iterator[Said]:
    """What there is to say of one device; ``node`` is the guest's memory node it should be beside, where it is shown one."""
    held = host.driver == VFIO
    yield Said(device, "host", held, f"{host.driver or 'no driver'} has it" + ("" if held else f", not {VFIO}"))
    if guest is None:
        yield Said(device, "guest", False, "the guest does not see it: echo 1 > /sys/bus/pci/rescan, or its kernel's log")
        return
    yield Said(device, "guest", True, f"it is {guest.address} there")
    named = guest.driver or "no driver has it: install the maker's, see the guest's kernel log"
    yield Said(device, "driver", bool(guest.driver), named)
    yield _regions_said(device, host, guest)
    if guest.driver:
        words = f"{guest.vectors} of {guest.interrupts}" if guest.vectors else "none is a message: shared lines are slow"
        yield Said(device, "interrupts", bool(guest.vectors), words)
    if host.link and guest.link:
        yield Said(
            device, "link", host.link == guest.link, guest.link + ("" if host.link == guest.link else f", {host.link} here")
        )
    if node is not None:
        right = guest.node == node
        yield Said(device, "memory node", right, f"node {guest.node}" + ("" if right else f", and it is beside node {node}"))


def compared(device: str, here: Sequence[int], there: Sequence[int]) -> Iterator[Said]:
    """Bytes a second of each of its disks in the guest, beside what the host measured of them."""
    if not there:
        yield Said(device, "transfer", not here, "the guest has no disk of it: nothing else is measured")
    elif not here:
        yield Said(device, "transfer", False, f"not measured here: tinamou pci measure {device}, while no machine has it")
    for mine, own in zip(there, here, strict=False):
        ratio = mine / own
        words = f"{mine >> 20} MiB a second, {own >> 20} by the host itself: {ratio:.3f} of it"
        yield Said(device, "transfer", ratio >= transfers.ENOUGH, words)


def _regions_said(device: str, host: Seen, guest: Seen) -> Said:
    wrong = [
        f"region {which} has {guest.bars.get(which, Size(0))}, {size} here"
        for which, size in host.bars.items()
        if guest.bars.get(which) != size
    ]
    shown = ", ".join(str(size) for size in guest.bars.values()) or "none"
    return Said(device, "regions", not wrong, "; ".join(wrong) or shown)
