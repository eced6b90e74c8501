"""Devices worth sitting beside (graphics, accelerators, network cards, fast disks), by the memory node they hang on."""

from __future__ import annotations

from tinamou.system.rooted import Rooted

__all__ = ["devices_by_node"]

_FOLDER = "/sys/bus/pci/devices"
_CLASSES = {
    "0x02": "network", "0x0108": "NVMe", "0x0104": "RAID", "0x0107": "SAS", "0x03": "graphics", "0x12": "accelerator",
    "0x0b40": "coprocessor",
}  # fmt: skip
"""PCI class prefixes and their names (source: pci.ids)."""


def devices_by_node(files: Rooted) -> dict[int, list[str]]:
    """Memory node → ``0000:65:00.0 graphics``; devices whose node the firmware does not tell are left out."""
    found: dict[int, list[str]] = {}
    for address in files.names(_FOLDER):
        node = files.integer(f"{_FOLDER}/{address}/numa_node")
        if node is not None and node >= 0 and (kind := _kind(files.read(f"{_FOLDER}/{address}/class") or "")):
            names = files.names(f"{_FOLDER}/{address}/net")
            found.setdefault(node, []).append(" ".join([address, kind, *names]))
    return found


def _kind(code: str) -> str:
    return next((name for prefix, name in _CLASSES.items() if code.startswith(prefix)), "")
