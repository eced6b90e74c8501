"""PCI functions and their drivers: take one from its driver for another, and give it back (source: sysfs-bus-pci)."""

from __future__ import annotations

import contextlib
import os

from tinamou.system.exec import run
from tinamou.system.rooted import Rooted

__all__ = [
    "bind",
    "driver",
    "group",
    "let_open",
    "owner",
    "provide_vfio",
    "region_size",
    "reset_by",
    "resets",
    "resize",
    "unbind",
]

_BUS = "/sys/bus/pci"
_KERNEL = Rooted()


def driver(address: str) -> str:
    """The driver that has the function, empty for none."""
    return _KERNEL.target(f"{_BUS}/devices/{address}/driver")


def group(address: str) -> int | None:
    """The IOMMU group of the function, None without an IOMMU."""
    name = _KERNEL.target(f"{_BUS}/devices/{address}/iommu_group")
    return int(name) if name.isdecimal() else None


def provide_vfio() -> None:
    """Load what is missing of VFIO: its driver for PCI, and the half that programs the IOMMU, which the kernel asks for only
    where a modprobe of the host's own root answers. Raises CommandError; modules stay loaded."""
    parts = {"vfio-pci": f"{_BUS}/drivers/vfio-pci", "vfio_iommu_type1": "/sys/module/vfio_iommu_type1"}
    if missing := [module for module, sign in parts.items() if not _KERNEL.exists(sign)]:
        run(["modprobe", "-a", *missing])


def bind(address: str, name: str) -> None:
    """Give the function to the driver of that name and to no other. Raises OSError, the function's driver as it was.

    ``driver_override`` instead of ``new_id``: no other device of the same kind is taken along.
    """
    before = driver(address)
    if before == name:
        return
    _write(f"{_BUS}/devices/{address}/driver_override", name)
    _leave(address, before)
    _write(f"{_BUS}/drivers_probe", address)
    if (now := driver(address)) != name:
        unbind(address, before)
        raise OSError(f"{name} does not take {address}: its driver is {now or 'none'}; see the kernel's log")


def unbind(address: str, before: str) -> None:
    """Let the function go, to the driver it had ``before`` (empty: to none). Raises OSError when that does not take it."""
    _write(f"{_BUS}/devices/{address}/driver_override", "\n")
    _leave(address, driver(address))
    if not before:
        return
    _write(f"{_BUS}/drivers_probe", address)
    if (now := driver(address)) != before:
        raise OSError(f"{before} does not take {address} back: its driver is {now or 'none'}; see the kernel's log")


def region_size(address: str, region: int) -> int:
    """How many bytes a memory region has now. Raises OSError where the kernel shows none."""
    lines = (_KERNEL.read(f"{_BUS}/devices/{address}/resource") or "").splitlines()
    words = lines[region].split() if region < len(lines) else []
    if len(words) != 3:
        raise OSError(f"{address} has no region {region}")
    return int(words[1], 16) - int(words[0], 16) + 1


def resize(address: str, region: int, size: int) -> None:
    """Give a memory region another size (resizable BAR), with no driver on the function meanwhile. Raises OSError.

    The kernel wants n for 2^n MiB, and keeps the size over a reset (source: sysfs-bus-pci, resourceN_resize).
    """
    before = driver(address)
    _leave(address, before)
    try:
        _write(f"{_BUS}/devices/{address}/resource{region}_resize", str((size >> 20).bit_length() - 1))
    finally:
        if before:
            _write(f"{_BUS}/drivers_probe", address)


def resets(address: str) -> str:
    """The ways the kernel would reset the function, in that order, empty for none (source: sysfs-bus-pci, reset_method)."""
    return _KERNEL.read(f"{_BUS}/devices/{address}/reset_method") or ""


def reset_by(address: str, ways: str) -> None:
    """From now on the kernel tries these alone. Raises OSError."""
    _write(f"{_BUS}/devices/{address}/reset_method", ways)


def _leave(address: str, name: str) -> None:
    if name:
        _write(f"{_BUS}/devices/{address}/driver/unbind", address)


def _write(path: str, text: str) -> None:
    try:
        _KERNEL.write(path, text)
    except OSError as error:
        raise OSError(error.errno, f"{path} does not take {text.strip()!r}: {error.strerror}") from error


def owner(group: int | None) -> int:
    """The user who may open the group beside root; root itself where there is nothing to open yet."""
    try:
        return os.stat(f"/dev/vfio/{group}").st_uid  # noqa: PTH116
    except FileNotFoundError:
        return 0


def let_open(group: int | None, user: int) -> None:
    """Let that user, and root, open the group: QEMU has its devices then. It is there while one of them is on vfio-pci."""
    with contextlib.suppress(FileNotFoundError):
        os.chown(f"/dev/vfio/{group}", user, -1)
