"""Networks tinamou makes for its machines: who is a member, with which address; ``networks/NAME`` in the state directory.

``network.json`` is there while the network exists on the host. ``members/MACHINE.NUMBER.json`` holds an interface's address
as long as its machine exists, so that it keeps the address over restarts; ``up`` says that it is plugged in now.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tinamou import late
from tinamou.errors import StateError
from tinamou.late import dataclass
from tinamou.system.lock import SECONDS, exclusive
from tinamou.system.paths import state_dir
from tinamou.system.plain_file import folder_fault, read_own
from tinamou.system.replaced import replace_text

if TYPE_CHECKING:
    import ipaddress

__all__ = [
    "Member",
    "Network",
    "drop",
    "folder",
    "forget",
    "forget_machine",
    "lease",
    "locked",
    "members",
    "names",
    "odd",
    "put",
    "read",
    "rename_machine",
    "write",
]


_MOST = 1 << 20


@dataclass(frozen=True)
class Network:
    """One network while it exists on the host; ``prefix6`` is empty where it has no IPv6, which may lead beyond the host."""

    name: str
    bridge: str
    subnet: str
    prefix6: str = ""
    isolated: bool = False
    host: bool = False
    onward6: bool = False


@dataclass(frozen=True)
class Member:
    """One interface of one machine: its addresses, and the ports of the host that lead to it."""

    name: str
    address: str
    machine: str = ""
    mac: str = ""
    address6: str = ""
    up: bool = False
    forwards: tuple[tuple[str, str, int, int], ...] = ()


def folder(name: str) -> Path:
    """The network's folder."""
    return state_dir() / "networks" / name


def names() -> list[str]:
    """Every network anybody is or was on."""
    parent = state_dir() / "networks"
    return sorted(path.name for path in parent.iterdir() if not folder_fault(path)) if parent.is_dir() else []


@contextlib.contextmanager
def locked() -> Iterator[None]:
    """One change of networks and packet filter at a time."""
    path = state_dir()
    path.mkdir(parents=True, exist_ok=True)
    with exclusive(path / "networks.lock", seconds=SECONDS):
        yield


def read(name: str) -> Network | None:
    """The network as it is on the host, None when it is not."""
    try:
        return Network(**json.loads(read_own(folder(name) / "network.json", most=_MOST)))
    except (OSError, ValueError, TypeError, RecursionError):
        return None


def write(network: Network) -> None:
    """Write down that the network is (about to be) on the host."""
    _replace(folder(network.name) / "network.json", late.asdict(network))


def _replace(path: Path, data: object) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_text(path, json.dumps(data))


def odd() -> list[str]:
    """What lies beside the networks' folders and is not looked into, one sentence for each."""
    parent = state_dir() / "networks"
    faults = (folder_fault(path) for path in sorted(parent.iterdir())) if parent.is_dir() else ()
    return [f"{fault}: it is left alone" for fault in faults if fault]


def members(network: str) -> list[Member]:
    """Those whose machine exists; the others are forgotten on the way."""
    found = []
    for path in sorted((folder(network) / "members").glob("*.json")):
        if not (state_dir() / "machines" / path.stem.rpartition(".")[0]).is_dir():
            with contextlib.suppress(OSError):
                path.unlink()
            continue
        with contextlib.suppress(ValueError, TypeError, AttributeError, OSError, RecursionError):
            data = json.loads(read_own(path, most=_MOST))
            found.append(Member(**{**data, "forwards": tuple(tuple(one) for one in data.get("forwards", ()))}))
    return found


def put(network: str, member: Member) -> None:
    """Write one member."""
    _replace(folder(network) / "members" / f"{member.name}.json", late.asdict(member))


def drop(network: str, member: str) -> None:
    """Forget a member whose machine stays: its address is anyone's again."""
    (folder(network) / "members" / f"{member}.json").unlink(missing_ok=True)


def forget(network: str) -> None:
    """Remove what is only there while the network exists on the host."""
    for name in ("network.json", "dnsmasq.log", "leases", "hosts", "dhcp", "apparmor"):
        (folder(network) / name).unlink(missing_ok=True)
    if not members(network):
        import shutil

        shutil.rmtree(folder(network), ignore_errors=True)


def forget_machine(machine: str) -> None:
    """Nobody keeps the addresses of a machine that is gone; a network nobody was on but it is forgotten."""
    with locked():
        for name in names():
            for path in (folder(name) / "members").glob(f"{machine}.*.json"):
                path.unlink(missing_ok=True)
            if read(name) is None and not members(name):
                forget(name)


def rename_machine(old: str, new: str) -> None:
    """The addresses of a machine are its own under another name. Raises OSError."""
    with locked():
        for name in names():
            for path in (folder(name) / "members").glob(f"{old}.*.json"):
                number = path.stem.rpartition(".")[2]
                if path.stem != f"{old}.{number}":
                    continue
                with contextlib.suppress(ValueError, TypeError):
                    data = json.loads(read_own(path, most=_MOST))
                    _replace(path.with_name(f"{new}.{number}.json"), {**data, "name": f"{new}.{number}", "machine": new})
                path.unlink(missing_ok=True)


def lease(network: str, subnet: str, member: str, request: str = "") -> tuple[str, str]:
    """An address for a member, the same at every start; returns (subnet, address). Raises StateError when there is none.

    The member must be new or leased before; ``request`` is an address somebody insists on.
    """
    import ipaddress

    with locked():
        there = read(network)
        subnet = there.subnet if there else subnet
        known = {one.name: one for one in members(network)}
        addresses = ipaddress.IPv4Network(subnet)
        mine = known.get(member)
        if mine and ipaddress.IPv4Address(mine.address) in addresses and request in ("", mine.address):
            return subnet, mine.address
        if request and ipaddress.ip_address(request) not in addresses:
            fix = "choose an address of the network, or set net.subnet for a network that does not exist yet"
            raise StateError(f"{request} is no address of network {network}, which has {addresses}", fix=fix)
        taken = {one.address for name, one in known.items() if name != member}
        address = request or _free(addresses, taken, member)
        if address in taken:
            raise StateError(f"{address} on network {network} belongs to another machine", fix="choose another net.address")
        put(network, Member(member, address))
        return subnet, address


def _free(addresses: ipaddress.IPv4Network, taken: set[str], member: str) -> str:
    import hashlib

    room = addresses.num_addresses - 3
    start = int.from_bytes(hashlib.sha256(member.encode()).digest()[:4], "big")
    for step in range(max(room, 0)):
        address = str(addresses[2 + (start + step) % room])
        if address not in taken:
            return address
    raise StateError(f"network {addresses} is full", why=f"it has {max(room, 0)} addresses", fix="set a larger net.subnet")
