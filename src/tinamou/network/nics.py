"""What is seen of a machine's interfaces: in QEMU, in the guest, on the host; only looking, nothing is judged here."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING, Any

from tinamou.errors import GuestError, TinamouError
from tinamou.late import dataclass, field, replace
from tinamou.system import iproute
from tinamou.system.exec import CommandError, find_tool, run

if TYPE_CHECKING:
    from tinamou.guest.agent import Agent

__all__ = ["GuestSide", "HostSide", "NicView", "look", "nics"]

_LINE = re.compile(r"(?P<name>[\w.#-]+): index=(?P<index>\d+),type=(?P<type>[\w-]+),?(?P<rest>.*)")


@dataclass(frozen=True)
class GuestSide:
    """An interface as the guest has it; ``features`` are offloads by name, empty where the guest cannot tell."""

    name: str
    driver: str
    mac: str
    mtu: int
    up: bool
    queues: int
    addresses: tuple[str, ...] = ()
    counters: Mapping[str, int] = field(default_factory=dict)
    features: Mapping[str, bool] = field(default_factory=dict)
    cpus: int = 1
    carrier: bool = True


@dataclass(frozen=True)
class HostSide:
    """The interface on the host: what it is a port of, whether it is up, what it dropped, what shapes its traffic."""

    name: str
    up: bool
    mtu: int
    master: str = ""
    master_mtu: int = 0
    shaping: str = ""
    counters: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class NicView:
    """One interface of a machine: the card's model, the backend's type, and both sides where they can be seen.

    ``vhost``: the host's kernel moves its packets, which QEMU does not tell. ``unseen``: the guest answers, and has no
    interface for the card.
    """

    id: str
    model: str
    mac: str
    backend: str
    detail: str = ""
    link: str = ""
    queues: int = 1
    vhost: bool = False
    guest: GuestSide | None = None
    host: HostSide | None = None
    unseen: bool = False


def nics(text: str) -> list[NicView]:
    """The cards with their backends out of QEMU's ``info network``: pure."""
    found: list[dict[str, Any]] = []
    for line in text.splitlines():
        match = _LINE.search(line)
        if not match:
            continue
        rest = match["rest"]
        if match["type"] == "nic":
            values = dict(pair.partition("=")[::2] for pair in rest.split(","))
            if match["index"] == "0" or not found or found[-1]["id"] != match["name"]:
                entry = {"id": match["name"], "model": values.get("model", ""), "mac": values.get("macaddr", "")}
                found.append({**entry, "backend": "none", "detail": "", "queues": 0})
        elif line.startswith((" ", "\\")) and found:
            entry = found[-1]
            entry["queues"] += 1
            if entry["queues"] == 1:
                entry |= {"backend": match["type"], "detail": rest, "link": _named(rest)}
    return [NicView(**{**entry, "queues": max(entry["queues"], 1)}) for entry in found]


def _named(detail: str) -> str:
    match = re.search(r"ifname=([^,]+)", detail)
    return match[1] if match else ""


async def look(cards: str, agent: Agent, expected: Mapping[str, str], vhost: Collection[str] = ()) -> list[NicView]:
    """Every interface of a machine, whose QEMU says ``cards`` to ``info network``.

    ``expected`` are the names of its interfaces on the host by card, ``vhost`` the cards whose packets the host's kernel
    moves.
    """
    guests = await _guest_sides(agent)
    found: list[NicView] = []
    for nic in nics(cards):
        name = nic.link or (expected.get(nic.id, "") if nic.backend == "tap" else "")
        side = next((one for one in guests or () if one.mac == nic.mac), None) or _by_place(guests or [], len(found))
        found.append(
            replace(
                nic,
                guest=side,
                host=host_side(name) if name else None,
                link=name,
                vhost=nic.id in vhost,
                unseen=guests is not None and side is None,
            )
        )
    return found


def _by_place(guests: list[GuestSide], number: int) -> GuestSide | None:
    return guests[number] if number < len(guests) else None


def host_side(name: str) -> HostSide | None:
    """The interface of that name in this network namespace."""
    try:
        entry = iproute.links("dev", name)[0]
    except (CommandError, IndexError):
        return None
    master = str(entry.get("master", ""))
    above = iproute.links("dev", master)[0] if master else {}
    stats = entry.get("stats64", {})
    counters = {f"{way}_{key}": int(stats.get(way, {}).get(key, 0)) for way in ("rx", "tx") for key in ("dropped", "errors")}
    return HostSide(
        name, "UP" in entry["flags"], int(entry["mtu"]), master, int(above.get("mtu", 0)), shaping(name), counters
    )


def shaping(name: str) -> str:
    """A queueing discipline that slows the interface down, as tc(8) shows it; empty for the kernel's plain ones."""
    try:
        lines = run([find_tool("tc") or "tc", "qdisc", "show", "dev", name, "root"], timeout=10).splitlines()
    except (CommandError, OSError):
        return ""
    slow = [line.strip() for line in lines if line.split()[1] in ("tbf", "netem", "htb", "hfsc", "cake")]
    return slow[0] if slow else ""


_LOOK = r"""
cpus=$(nproc 2>/dev/null || echo 1)
for p in /sys/class/net/*; do
  n=${p##*/}; [ -e "$p/device" ] || continue
  d=$(readlink -f "$p/device/driver"); echo "= $n ${d##*/} $(cat $p/address) $(cat $p/mtu) $(cat $p/flags) $cpus \
$(ls -d $p/queues/rx-* | wc -l) $(cat $p/carrier 2>/dev/null || echo 1)"
  ip -o addr show "$n" | sed -n 's/.*inet6\{0,1\} \([^ ]*\) .*/a \1/p'
  for c in dropped errors packets bytes; do
    echo "c rx_$c $(cat $p/statistics/rx_$c)"; echo "c tx_$c $(cat $p/statistics/tx_$c)"
  done
  ethtool -k "$n" 2>/dev/null | sed -n 's/^\([a-z-]*\): \(o[nf]*\).*/f \1 \2/p'
done
"""


async def _guest_sides(agent: Agent) -> list[GuestSide] | None:
    try:
        done = await agent.run(["sh", "-c", _LOOK], timeout=20, bare=True)
        return guest_sides(done.stdout.decode(errors="replace"))
    except (TinamouError, TimeoutError):
        return None


_CARD = re.compile(r"= (\S{1,64}) (\S{0,64}) (\S{1,64}) (\d{1,9}) 0x([0-9a-f]{1,8}) (\d{1,9}) (\d{1,9}) (\d?)")
_PART = re.compile(
    r"a (?P<address>\S{1,64})|c (?P<counter>[rt]x_[a-z]+) (?P<count>\d{1,19})|f (?P<feature>[a-z-]+) (?P<is>\w+)"
)
_MOST_CARDS = 1024


def guest_sides(text: str) -> list[GuestSide]:
    """What the guest's own script printed: pure. Raises GuestError for what that script cannot have printed."""
    found: list[dict[str, Any]] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        if (card := _CARD.fullmatch(line)) and len(found) < _MOST_CARDS:
            name, driver, mac, mtu, flags, cpus, queues, carrier = card.groups()
            entry = {"name": name, "driver": driver, "mac": mac, "mtu": int(mtu), "up": bool(int(flags, 16) & 1)}
            entry |= {"carrier": carrier == "1", "cpus": int(cpus), "queues": int(queues)}
            found.append({**entry, "addresses": [], "counters": {}, "features": {}})
        elif (part := _PART.fullmatch(line)) and found:
            if part["address"]:
                found[-1]["addresses"].append(part["address"])
            elif part["counter"]:
                found[-1]["counters"][part["counter"]] = int(part["count"])
            else:
                found[-1]["features"][part["feature"]] = part["is"] == "on"
        else:
            raise GuestError("The guest answered what is no list of its interfaces", why=repr(line[:80]))
    return [GuestSide(**{**entry, "addresses": tuple(entry["addresses"])}) for entry in found]
