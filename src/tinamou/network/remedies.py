"""What can be done about a finding, as data: each kind is done in one place (`tinamou.network.attend.put_right`). Pure."""

from __future__ import annotations

from collections.abc import Mapping

from tinamou.late import dataclass
from tinamou.network.addresses import OF_CARD

__all__ = [
    "Describe",
    "HostUp",
    "InGuest",
    "PlugIn",
    "Remedy",
    "Serve",
    "Unshape",
    "fixed_mac",
    "leased_anew",
    "offloaded",
    "resized",
    "up",
]


@dataclass(frozen=True)
class Describe:
    """Describe the card anew with these ``fields``, from the next start on."""

    fields: Mapping[str, str | int]

    def words(self) -> str:
        """The fields as ``tinamou net set`` takes them."""
        return " ".join(f"{key}={value}" for key, value in self.fields.items())


@dataclass(frozen=True)
class InGuest:
    """Run a ``line`` in the guest's shell."""

    line: str


@dataclass(frozen=True)
class PlugIn:
    """Plug in the virtual cable of the ``card``, by its id in QEMU."""

    card: str


@dataclass(frozen=True)
class HostUp:
    """Bring an interface of the host up."""

    link: str


@dataclass(frozen=True)
class Unshape:
    """Take the queueing discipline away from an interface of the host."""

    link: str


@dataclass(frozen=True)
class Serve:
    """Start the DHCP and name server of the machine's networks again."""


Remedy = Describe | InGuest | PlugIn | HostUp | Unshape | Serve


def up(device: str) -> InGuest:
    """Bring the guest's interface up, and its addresses and routes with it."""
    return InGuest(f"ip link set {device} up; {_renewed(device)}")


def resized(device: str, mtu: int) -> InGuest:
    """Have the guest's interface send packets of at most so many bytes."""
    return InGuest(f"ip link set {device} mtu {mtu}")


def fixed_mac(device: str, mac: str) -> InGuest:
    """Give the guest's interface the address its card has."""
    return InGuest(f"ip link set {device} down; ip link set {device} address {mac}; {up(device).line}")


def leased_anew(device: str) -> InGuest:
    """Have the guest ask for an address again."""
    return InGuest(f"ip -4 addr flush dev {device}; {_renewed(device)}")


def offloaded(device: str) -> InGuest:
    """Switch the offloads of the guest's interface on."""
    return InGuest(f"ethtool -K {device} tx on tso on gro on")


def _unasked(device: str) -> str:
    """Shell that ends what asks for an address of the interface in the tiny guest."""
    return f"n={device}; for p in $(pidof udhcpc); do {OF_CARD} && kill $p; done"


def _renewed(device: str) -> str:
    """Shell that configures an interface as the guest does at its start: routes are gone once it was down."""
    return (
        f"if [ -x /lib/tinamou/network ]; then {_unasked(device)}; /lib/tinamou/network {device};"
        f" else networkctl reconfigure {device} || ifup --force {device} || dhclient -1 {device}; fi"
    )
