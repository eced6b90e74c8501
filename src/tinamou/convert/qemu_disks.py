"""The options of a QEMU command line about disks and discs: every spelling ends in one list.

Source: QEMU docs/system/invocation, section *Block device options*; docs/system/device-emulation.
"""

from __future__ import annotations

from typing import Any

from tinamou.convert import foreign
from tinamou.convert.qemu_cpu import Handler
from tinamou.convert.qemu_line import Definition, Line, keys
from tinamou.convert.result import Disk
from tinamou.convert.values import size, switch, whole

__all__ = ["HANDLERS", "device", "gather"]

_INTERFACES = {"virtio": "virtio", "scsi": "scsi", "nvme": "nvme"}
_DEVICES = {
    "virtio-blk-pci": "virtio",
    "virtio-blk": "virtio",
    "virtio-blk-device": "virtio",
    "virtio-blk-ccw": "virtio",
    "scsi-hd": "scsi",
    "scsi-block": "scsi",
    "scsi-disk": "scsi",
    "nvme": "nvme",
    "nvme-ns": "nvme",
    "ide-hd": "ide",
    "ide-drive": "ide",
    "usb-storage": "usb",
    "sd-card": "sd",
    "ide-cd": "cdrom",
    "scsi-cd": "cdrom",
    "floppy": "floppy",
}
_CACHES = ("writeback", "none", "writethrough", "directsync", "unsafe")
_REMOTE = ("nbd", "http", "https", "ftp", "ftps", "ssh", "iscsi", "rbd", "gluster", "nfs", "fat", "vvfat", "sheepdog")
_FILTERS = ("copy-on-read", "throttle", "blkdebug", "preallocate", "compress", "blklogwrites", "")
_DEEPEST = 16
"""Nodes of one disk on each other."""
_KNOWN = frozenset(
    [
        "id",
        "if",
        "file",
        "format",
        "media",
        "index",
        "bus",
        "unit",
        "cache",
        "aio",
        "discard",
        "detect-zeroes",
        "readonly",
        "read-only",
        "werror",
        "rerror",
        "iops",
        "bps",
        "throttling.iops-total",
        "throttling.bps-total",
        "snapshot",
        "file.filename",
        "file.driver",
        "filename",
        "cache.direct",
        "throttle-group",
        "driver",
        "node-name",
        "file.aio",
        "cache.direct",
        "cache.no-flush",
        "file.cache.direct",
        "auto-read-only",
        "file.locking",
        "locking",
        "file.node-name",
        "cyls",
        "heads",
        "secs",
        "trans",
        "file.auto-read-only",
        "file.discard",
        "backing",
        "backing-fmt",
        "cache.writeback",
        "addr",
        "boot",
    ]
)


def _drive(line: Line, option: str, text: str) -> None:
    found = keys(text)
    if found.get("if") == "pflash":
        line.hubs.append(("pflash", text, found))
    elif found.get("if") in ("floppy", "mtd", "sd"):
        line.draft.lost("-drive", text, f"a {found['if']} drive is not one tinamou gives a machine", "make it a disk")
    elif found.get("if") == "none":
        line.define("drive", option, text, found)
    else:
        line.define("drive", option, text, found)
        name = found.get("id") or next(reversed(line.defined))[1]
        line.hubs.append(("drive", text, {"drive": name}))


def _legacy(line: Line, option: str, text: str) -> None:
    """-hda disk.img, -cdrom disc.iso."""
    found = {"file": text, "if": "ide"} | ({"media": "cdrom"} if option == "cdrom" else {})
    line.define("drive", option, text, found)
    line.hubs.append(("drive", text, {"drive": next(reversed(line.defined))[1]}))


def _blockdev(line: Line, option: str, text: str) -> None:
    line.define("drive", option, text, keys(text, "driver"), name="node-name")


def _no_drive(line: Line, option: str, text: str) -> None:
    line.draft.lost(f"-{option}", text, "floppies, flash and memory cards are not drives tinamou gives a machine")


def _snapshot(line: Line, option: str, text: str) -> None:
    reason = "an image is never written: what the guest writes goes with the machine, at once if it is a throw-away one"
    line.draft.changed("-snapshot", "", reason, "start it with tinamou run, without --detach; disks of [[disk]] are written")


def device(line: Line, driver: str, found: dict[str, str]) -> bool:
    """A device with a drive behind it; False for any other."""
    if driver not in _DEVICES or "drive" not in found:
        return False
    text = ",".join([driver, *(f"{key}={value}" for key, value in found.items())])
    line.hubs.append(("drive", text, {**found, "driver": driver}))
    return True


def gather(line: Line) -> None:
    """All that is attached, in order, once every definition is known."""
    for kind, text, found in line.hubs:
        if kind != "drive":
            continue
        definition = line.take("drive", found["drive"])
        if definition is None:
            line.draft.lost("-device", text, f"no -drive or -blockdev has the id {found['drive']}", "QEMU refuses this line")
            continue
        chain = _chain(line, definition)
        texts = [one.text for one in chain] + ([text] if text != definition.text else [])
        _one(line, f"-{definition.option}", " ".join(texts), _merged(chain), found)


def _chain(line: Line, top: Definition) -> list[Definition]:
    """A node and those below it, to the file: format, filters (copy-on-read, throttle), protocol."""
    chain = [top]
    while "driver" in chain[-1].keys and len(chain) < _DEEPEST:
        below = line.take("drive", chain[-1].keys.get("file", ""))
        if below is None or below in chain:
            break
        chain.append(below)
    return chain


def _merged(chain: list[Definition]) -> dict[str, str]:
    """What all nodes say of one disk: its file from the lowest, its format from the first that is no filter."""
    found = {key: value for one in reversed(chain) for key, value in one.keys.items()}
    lowest = chain[-1].keys
    file = lowest.get("file") or lowest.get("file.filename") or lowest.get("filename", "")
    drivers = [driver for one in chain if (driver := one.keys.get("driver", "")) not in _FILTERS]
    if len(chain) > 1:
        found["file.driver"] = lowest.get("driver", "")
    return {**found, "file": file, **({"driver": drivers[0]} if drivers and drivers[0] else {})}


def _one(line: Line, where: str, text: str, found: dict[str, str], device: dict[str, str]) -> None:
    interface = _DEVICES.get(device.get("driver", ""), found.get("if", "virtio" if "driver" in found else "ide"))
    cdrom = found.get("media") == "cdrom" or interface == "cdrom"
    name = found["file"].removeprefix("file:")
    if not name:
        foreign.empty_drive(line.draft, where, text)
        return
    if name.split(":", 1)[0] in _REMOTE or found.get("file.driver", "file") in _REMOTE:
        reason = "a disk on the network or made of a folder is not one tinamou reads"
        line.draft.lost(where, text, reason, f"copy it: qemu-img convert {name} disk.qcow2; a folder: [[share]]")
        return
    if {"offset", "size"} & found.keys() or found.get("driver") == "luks":
        reason = "it is a slice of a file" if found.get("driver") != "luks" else "it is encrypted by LUKS outside of qcow2"
        line.draft.lost(
            where, text, f"{reason}, and the guest would get the file as it lies there", "copy it: qemu-img convert"
        )
        return
    disk = Disk(where, name, format=_format(found), cdrom=cdrom, order=whole(device.get("bootindex", "")))
    disk.options = _options(line, where, found, device, cdrom=cdrom)
    if not cdrom:
        _attach(line, disk, where, text, interface)
    if found.get("snapshot") == "on":
        disk.discards = "-snapshot: snapshot=on"
    line.draft.done(where, text, "where on which bus a disk sits, and how its file is opened, is tinamou's to choose")
    for key in sorted((found.keys() - _KNOWN) | (device.keys() & {"serial", "wwn", "logical_block_size"})):
        line.draft.lost(where, f"{key}={device.get(key, found.get(key))}", "a disk has no such setting here")
    line.draft.disks.append(disk)


def _format(found: dict[str, str]) -> str:
    kind = found.get("format") or found.get("driver", "")
    return kind if kind in ("qcow2", "raw", "vmdk", "vhdx", "vdi", "vpc") else ""


def _attach(line: Line, disk: Disk, where: str, text: str, interface: str) -> None:
    if interface in _INTERFACES:
        disk.options |= {"interface": interface} if interface != "virtio" else {}
        return
    reason = f"virtio instead of {interface}: many times faster, and every Linux and BSD of today has the driver"
    fix = "in Windows, install the virtio drivers before the disk is moved; a Linux is mended by --import, if it has to be"
    disk.moved = interface
    line.draft.changed(where, text, reason, fix)


def _options(line: Line, where: str, found: dict[str, str], device: dict[str, str], *, cdrom: bool) -> dict[str, Any]:
    options: dict[str, Any] = {}
    direct = switch(found.get("cache.direct", found.get("file.cache.direct", "")))
    cache = found.get("cache") or ("none" if direct else "")
    if cache in _CACHES and cache != "writeback" and not cdrom:
        options["cache"] = cache
    aio = found.get("aio") or found.get("file.aio", "")
    if aio:
        line.draft.done(where, f"aio={aio}", "the fastest way of reading that this host permits is tried and taken")
    if found.get("discard") in ("off", "ignore"):
        options["discard"] = False
    if (zeroes := found.get("detect-zeroes", "off")) in ("on", "unmap"):
        options["detect_zeroes"] = zeroes
    if switch(found.get("readonly", found.get("read-only", ""))) and not cdrom:
        options["readonly"] = True
    if "report" in (found.get("werror"), device.get("werror")):
        options["on_full"] = "error"
    if device.get("iothread"):
        line.take("object", device["iothread"])
        options["iothread"] = True
    return options | _numbers(found, device)


def _numbers(found: dict[str, str], device: dict[str, str]) -> dict[str, Any]:
    numbers: dict[str, Any] = {}
    if queues := whole(device.get("num-queues", "")):
        numbers["queues"] = queues
    if iops := whole(found.get("iops", found.get("throttling.iops-total", ""))):
        numbers["iops"] = iops
    if bandwidth := size(found.get("bps", found.get("throttling.bps-total", "")), unit="B"):
        numbers["bandwidth"] = str(bandwidth)
    return numbers


HANDLERS: dict[str, Handler] = {
    "drive": _drive,
    "blockdev": _blockdev,
    "snapshot": _snapshot,
    **dict.fromkeys(("hda", "hdb", "hdc", "hdd", "cdrom"), _legacy),
    **dict.fromkeys(("fda", "fdb", "mtdblock", "sd", "pflash-"), _no_drive),
}
"""Option → what it does to the draft."""
