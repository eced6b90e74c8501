"""The disks of a libvirt domain.

Source: libvirt's documentation, *Domain XML format*, *Hard drives, floppy disks, CDROMs*.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from tinamou.convert import foreign
from tinamou.convert.result import Disk, Draft
from tinamou.convert.values import size, whole
from tinamou.convert.xml import Element, attribute, shown_of, text_of

__all__ = ["disks"]

_CACHES = ("writethrough", "none", "directsync", "unsafe")
_SOURCES = {"file": "file", "block": "dev"}
_FORMATS = ("qcow2", "raw", "vmdk", "vhdx", "vdi", "vpc")


def disks(draft: Draft, nodes: list[Element], *, windows: bool) -> None:
    """All disks, in the order libvirt gives them: by bus, and on a bus by their names."""
    buses = list(dict.fromkeys(_bus(one) for one in nodes))
    for node in sorted(nodes, key=lambda one: (buses.index(_bus(one)), *_place(one))):
        _disk(draft, node, windows=windows)


def _bus(node: Element) -> str:
    return attribute(node, "target", "bus") or attribute(node, "target", "dev")[:2]


def _place(node: Element) -> tuple[int, str]:
    """Where libvirt sorts it in: by the letters behind sd, hd, vd, whichever of these it is (``virDiskNameToIndex``)."""
    name = attribute(node, "target", "dev").rstrip("0123456789")
    letters = next((name.removeprefix(one) for one in ("ubd", "fd", "hd", "sd", "vd", "xvd") if name.startswith(one)), name)
    return len(letters), letters


def _disk(draft: Draft, node: Element, *, windows: bool) -> None:
    target, source = node.find("target"), node.find("source")
    where = f"disk {target.get('dev')}" if target is not None else "disk"
    kind, device = node.get("type") or "file", node.get("device") or "disk"
    key = _SOURCES.get(kind, "")
    named = source.get(key) if source is not None and key else ""
    if device == "floppy":
        draft.lost(where, node.shown(), "there is no floppy drive", "make it a disc or a disk")
    elif device == "lun":
        draft.lost(where, node.shown(), "a disk's SCSI commands are not passed on", "make it a disk: device='disk'")
    elif device == "cdrom" and (source is None or (key and not named)):
        foreign.empty_drive(draft, where, node.shown())
    elif not named:
        fix = "virsh vol-path names its file" if kind == "volume" else "copy it: qemu-img convert SOURCE disk.qcow2"
        draft.lost(where, f"{kind} {node.shown()}", f"a disk of type {kind} is not one tinamou reads", fix)
    elif source is not None and source.find("slices") is not None:
        fix = "copy it: qemu-img convert with offset and size in its --image-opts"
        draft.lost(where, node.shown(), "it is a slice of a file, and the guest would get all of it", fix)
    else:
        _file(draft, node, where, named, cdrom=device == "cdrom", windows=windows)


def _file(draft: Draft, node: Element, where: str, named: str, *, cdrom: bool, windows: bool) -> None:
    driver, bus = node.find("driver"), _bus(node)
    disk = Disk(where, named, cdrom=cdrom, format=_format(driver), order=whole(attribute(node, "boot", "order")))
    if driver is not None and driver.get("type") not in (*_FORMATS, ""):
        draft.check(where, f"type={driver.get('type')}", "what is in it is told by its content", "see whether it starts")
    disk.options = {} if cdrom else _options(draft, where, node, driver)
    if node.find("transient") is not None:
        disk.discards = "transient"
    if bus == "scsi" and not cdrom:
        disk.options["interface"] = "scsi"
        bus = "virtio"
    foreign.attach(draft, disk, bus, windows=windows)
    known = ("driver", "source", "target", "boot", "readonly", "transient", "iotune", "encryption", "backingStore", "mirror")
    for one in node:
        if one.tag not in (*known, "shareable", "address", "alias"):
            draft.lost(
                where, f"{one.tag} {one.shown()}".strip(), "it has no such setting here", "see docs/reference/spec.md"
            )
    said = {"type": node.get("type"), "device": node.get("device"), "bus": bus, "format": disk.format, "order": disk.order}
    if target := shown_of(node.find("target")):
        said["target"] = target
    shown = " ".join(f"{key}={value}" for key, value in said.items() if value)
    draft.done(where, shown, "where a disk sits is tinamou's to choose, and what is in it is told by its content")
    for below in node.findall("backingStore"):
        reason = "which files a disk rests on is read from the disk itself, and each is checked"
        draft.done(where, f"backingStore {below.shown()}".strip(), reason)


def _format(driver: Element | None) -> str:
    kind = attribute(driver, "", "type")
    return kind if kind in _FORMATS else ""


def _options(draft: Draft, where: str, node: Element, driver: Element | None) -> dict[str, Any]:
    given = partial(attribute, driver, "")
    options: dict[str, Any] = {}
    if (cache := given("cache")) in _CACHES:
        options["cache"] = cache
    if (discard := given("discard")) == "ignore":
        options["discard"] = False
    for key, value in (("io", given("io")), ("cache", cache), ("discard", discard)):
        if value and options.get(key) is None:
            draft.done(where, f"{key}={value}", "the fastest way that this host permits is tried and taken")
    if (zeroes := given("detect_zeroes")) in ("on", "unmap"):
        options["detect_zeroes"] = zeroes
    if thread := given("iothread"):
        options["iothread"] = True
        draft.done(where, f"iothread={thread}", "the disk has a thread of its own")
    if queues := whole(given("queues")):
        options["queues"] = queues
    _full(draft, where, options, given("error_policy"), given("rerror_policy"))
    if node.find("readonly") is not None:
        options["readonly"] = True
    if node.find("shareable") is not None:
        draft.lost(where, "shareable", "a disk that two machines write to is refused", "readonly = true is shared")
    if iops := whole(text_of(node, "iotune/total_iops_sec")):
        options["iops"] = iops
    if bandwidth := size(text_of(node, "iotune/total_bytes_sec"), unit="B"):
        options["bandwidth"] = str(bandwidth)
    if (lock := node.find("encryption")) is not None:
        fix = "write it to a file, and name that: key = …"
        draft.check(where, f"encryption {lock.shown()}", "the passphrase is in libvirt's secrets", fix)
    return options


def _full(draft: Draft, where: str, options: dict[str, Any], policy: str, reading: str) -> None:
    """What an error of the disk does to the guest: libvirt's default is QEMU's, which stops at a full one alone."""
    if policy == "report":
        options["on_full"] = "error"
    elif policy == "ignore":
        draft.lost(where, "error_policy=ignore", "errors of a disk are never hidden", 'on_full = "error" tells the guest')
    elif policy:
        draft.done(where, f"error_policy={policy}", "the guest stands still at a full disk until it is resumed")
    if reading:
        draft.changed(where, f"rerror_policy={reading}", "an error of reading is told to the guest")
