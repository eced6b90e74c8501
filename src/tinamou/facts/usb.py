"""The host's USB devices: what can be handed to a guest, and what stands in the way."""

from __future__ import annotations

from collections.abc import Mapping

from tinamou.late import dataclass, field

__all__ = ["UsbDevice", "UsbFacts"]

_HUB = "09"


@dataclass(frozen=True)
class UsbDevice:
    """One device of the host (source: sysfs-bus-usb, Documentation/driver-api/usb).

    ``port`` is where it is plugged in (``1-2.3``: bus 1, port 3 of the hub in port 2); ``vendor``, ``product`` and ``code``
    (its class) are hexadecimal without a prefix; ``name`` is what it calls itself. ``node`` is the file by which programs
    speak to it, and ``opens`` whether this user may. ``uses`` says, in words, what this host uses it for right now.
    """

    port: str
    vendor: str
    product: str
    code: str = ""
    name: str = ""
    node: str = ""
    opens: bool = True
    uses: tuple[str, ...] = ()

    @property
    def ids(self) -> str:
        """``VENDOR:PRODUCT``, what all devices of one kind share."""
        return f"{self.vendor}:{self.product}"

    @property
    def is_hub(self) -> bool:
        """Whether others are plugged into it: it stays the host's."""
        return self.code == _HUB

    def __str__(self) -> str:
        return " ".join(filter(None, (self.port, self.ids, self.name)))


@dataclass(frozen=True)
class UsbFacts:
    """All devices in order of their ports; ``leased`` maps ports to the machine that has them, without this one's own."""

    devices: tuple[UsbDevice, ...] = ()
    leased: Mapping[str, str] = field(default_factory=dict)
