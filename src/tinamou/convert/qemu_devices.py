"""What ``-device`` stands for: a disk, a card, a share, something that is there anyway, or something that is no device."""

from __future__ import annotations

from tinamou.convert import foreign, qemu_cpu, qemu_disks, qemu_extra, qemu_nets, qemu_rest
from tinamou.convert.qemu_line import Line, keys
from tinamou.convert.values import whole

__all__ = ["device", "joined"]

_THERE = {
    "virtio-rng": "random numbers of the host are there",
    "virtio-balloon": "the balloon is there",
    "pvpanic": "a panic of the guest's kernel is told",
    "vmgenid": "the generation id is there",
    "vmcoreinfo": "not needed: a panicked guest stops where it is",
    "virtio-serial": "the channel to the guest's agent is there",
    "virtserialport": "the channel to the guest's agent is there",
    "virtconsole": "the serial port is the console",
    "isa-serial": "the serial port is the console",
    "virtio-keyboard": "keyboard and pointer are those of the board, or what usb names",
    "virtio-mouse": "keyboard and pointer are those of the board, or what usb names",
    "virtio-tablet": "keyboard and pointer are those of the board, or what usb names",
    "usb-ehci": "a controller is there where usb names a device",
    "qemu-xhci": "a controller is there where usb names a device",
    "nec-usb-xhci": "a controller is there where usb names a device",
    "piix3-usb": "a controller is there where usb names a device",
    "ich9-usb": "a controller is there where usb names a device",
    "virtio-scsi": "a controller is there for disks with interface = scsi",
    "lsi": "a controller is there for disks with interface = scsi",
    "megasas": "a controller is there for disks with interface = scsi",
    "mptsas": "a controller is there for disks with interface = scsi",
    "pvscsi": "a controller is there for disks with interface = scsi",
    "ahci": "optical discs have their controller",
    "ich9-ahci": "optical discs have their controller",
    "piix": "optical discs have their controller",
    "nvme-subsys": "disks with interface = nvme have their controller",
    "pcie-root-port": "slots for hot plugging are there: devices.hotplug",
    "ioh3420": "slots for hot plugging are there: devices.hotplug",
    "pci-bridge": "slots are dealt out by tinamou",
    "pcie-pci-bridge": "slots are dealt out by tinamou",
    "pcie-expander-bus": "slots are dealt out by tinamou",
    "pxb": "slots are dealt out by tinamou",
    "dmi-to-pci-bridge": "slots are dealt out by tinamou",
    "i82801b11-bridge": "slots are dealt out by tinamou",
}
_SCREENS = (
    "VGA",
    "virtio-vga",
    "virtio-gpu",
    "qxl",
    "cirrus-vga",
    "vmware-svga",
    "bochs-display",
    "ramfb",
    "ati-vga",
    "secondary-vga",
)
_PASSED = frozenset(["driver", "host", "id", "bus", "addr", "multifunction", "rombar", "bootindex", "iommufd"])
_MODELS = (
    "qemu64",
    "qemu32",
    "kvm64",
    "kvm32",
    "host",
    "max",
    "athlon",
    "core2duo",
    "Haswell",
    "Skylake",
    "EPYC",
    "cortex-",
)


def device(line: Line, option: str, text: str) -> None:
    """One -device; those that refer to others wait until all are known."""
    found = keys(text, "driver")
    driver = found.pop("driver", "")
    if qemu_disks.device(line, driver, found) or qemu_nets.device(line, driver, found):
        return
    if qemu_extra.device(line, driver, found, text):
        return
    if driver.startswith(_MODELS):
        reason = f"{driver} is a model of CPU, not a device: QEMU refuses it here; -cpu was meant"
        line.draft.changed("-device", text, reason, "write -cpu")
        qemu_cpu.model(line, "-cpu", text)
    elif driver.startswith(_SCREENS):
        line.draft.put("display.type", line.draft.get("display.type") or "vnc")
        line.seen.add("screen")
        if "-gl" in driver:
            foreign.undrawn(line.draft, "-device", text)
        line.draft.done("-device", text, "the display has the card every guest can drive (virtio-vga)")
    elif reason := _there(driver):
        line.take("object", found.get("rng", ""))
        line.take("chardev", found.get("chardev", ""))
        line.draft.done("-device", text, reason)
    else:
        line.devices.append((text, {**found, "driver": driver}))


def _there(driver: str) -> str:
    fits = [known for known in _THERE if driver.startswith(known)]
    return _THERE[max(fits, key=len)] if fits else ""


def joined(line: Line) -> None:
    """The devices that refer to others, once all definitions are known."""
    for text, found in line.devices:
        driver = found["driver"]
        if driver.startswith("vfio-"):
            _passed_through(line, text, found)
        elif driver.startswith("usb-host"):
            foreign.usb_device(line.draft, "-device", text, _usb_device(found))
        elif driver == "virtio-pmem-pci":
            qemu_extra.persistent(line, text, found.get("memdev", ""))
        elif driver.startswith("tpm-"):
            line.draft.done("-device", text, "the TPM's device is the one its board has")
        elif driver.startswith("virtio-9p"):
            _folder(line, text, found)
        elif driver.startswith("vhost-user-fs"):
            _virtiofs(line, text, found)
        elif driver:
            line.pass_on("device", text)
        else:
            line.draft.lost("-device", text, "it names no device: QEMU refuses this line", "")


def _usb_device(found: dict[str, str]) -> str:
    """By its kind, or its port; empty for what names neither."""
    if "vendorid" in found and "productid" in found:
        kind = [whole(found[key]) for key in ("vendorid", "productid")]
        return ":".join(f"{one:04x}" for one in kind if one is not None)
    return f"{found['hostbus']}-{found['hostport']}" if "hostbus" in found and "hostport" in found else ""


def _passed_through(line: Line, text: str, found: dict[str, str]) -> None:
    if "host" in found:
        silent = found.get("rombar") in ("0", "off")
        foreign.passed_through(line.draft, "-device", text, found["host"], rom=not silent)
        for key in sorted(found.keys() - _PASSED):
            reason = "a device that is passed on has no such setting here"
            line.draft.lost("-device", f"{key}={found[key]}", reason, "see pci in docs/reference/spec.md")
    else:
        reason = f"a part of a device ({found.get('sysfsdev', '')}) is not given to a machine"
        line.draft.lost("-device", text, reason, "a virtual function of a card (SR-IOV) can be: tinamou pci ls")


def _folder(line: Line, text: str, found: dict[str, str]) -> None:
    definition = line.take("fsdev", found.get("fsdev", ""))
    tag = found.get("mount_tag", "")
    qemu_rest.share(line, "-device", text, definition.keys if definition else {}, tag)


def _virtiofs(line: Line, text: str, found: dict[str, str]) -> None:
    line.take("chardev", found.get("chardev", ""))
    reason = (
        f"which folder {found.get('tag', '')!r} is, only the command line of its virtiofsd says; tinamou starts one itself"
    )
    line.draft.lost("-device", text, reason, "add [[share]] with that folder as path")
