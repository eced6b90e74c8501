"""Examines the host's USB devices, and what the host uses them for."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping

from tinamou.facts.usb import UsbDevice, UsbFacts
from tinamou.probe.pci import uses_below, uses_of
from tinamou.system.rooted import Rooted

__all__ = ["probe_usb"]

_FOLDER = "/sys/bus/usb/devices"
_DEVICE = re.compile(r"\d+-\d+(?:\.\d+)*")
"""Names of devices; root hubs are ``usbN``, the functions of a device have a colon."""


def probe_usb(files: Rooted, leased: Mapping[str, str]) -> UsbFacts:
    """Every device of the host whose /sys lies below the root; ``leased`` maps a port to the machine that has it."""
    names = sorted((name for name in files.names(_FOLDER) if _DEVICE.fullmatch(name)), key=_order)
    uses = tuple(uses_of(files)) if names else ()
    return UsbFacts(tuple(_device(files, name, uses) for name in names), leased)


def _order(name: str) -> tuple[int, ...]:
    return tuple(map(int, re.findall(r"\d+", name)))


def _device(files: Rooted, name: str, uses: tuple[tuple[str, str], ...]) -> UsbDevice:
    place = f"{_FOLDER}/{name}"
    bus, number = (files.integer(f"{place}/{one}") or 0 for one in ("busnum", "devnum"))
    node = f"/dev/bus/usb/{bus:03}/{number:03}"
    called = (files.read(f"{place}/{one}") or "" for one in ("manufacturer", "product"))
    return UsbDevice(
        port=name,
        vendor=files.read(f"{place}/idVendor") or "",
        product=files.read(f"{place}/idProduct") or "",
        code=files.read(f"{place}/bDeviceClass") or "",
        name="".join(letter for letter in " ".join(filter(None, called)) if letter.isprintable())[:60],
        node=node,
        opens=not files.real or os.access(node, os.R_OK | os.W_OK),
        uses=tuple(uses_below(files, place, uses)),
    )
