"""Reader of VirtualBox machines (.vbox).

Source: VirtualBox-settings.xsd of the VirtualBox sources.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from tinamou.convert import foreign, nets
from tinamou.convert.account import Rules, report
from tinamou.convert.result import Disk, Draft
from tinamou.convert.values import colons, size, switch, whole
from tinamou.convert.xml import Element, attribute, children, parse, shown_of
from tinamou.errors import SpecError

__all__ = ["read"]

_CARDS = {
    "82540EM": "e1000",
    "82543GC": "e1000",
    "82545EM": "e1000",
    "virtio": "virtio",
    "Am79C970A": "pcnet",
    "Am79C973": "pcnet",
}
_ORDER = {"HardDisk": False, "DVD": True}
_WRITTEN = ("Normal", "")
_OWN = "how VirtualBox runs the machine, not what it is"
_RULES: Rules = (
    (r"Hardware/(LPT)(/.*)?", "lost", "there is no parallel port", ""),
    (r"Hardware/(GuestProperties|Guest|HID|Clipboard|DragAndDrop)(/.*)?", "done", "there are no guest additions", ""),
    (r"Hardware/RemoteDisplay(/.*)?", "changed", "the screen is on a Unix socket of the machine", 'set display = "vnc"'),
    (r"Hardware/(USB|IOCache|BIOS|Chipset|HPET)(/.*)?", "done", "the board has what the machine needs", ""),
    (r"Hardware/CPU/(CpuIdTree|CpuId|CpuProfile).*", "lost", "the guest sees the CPU's own identity", "set cpu.model"),
    (r"Hardware/(CPU|Memory|Paravirt|@).*", "done", "QEMU and KVM have their own way of running a guest", ""),
    (r"Hardware/VideoCapture(/.*)? Hardware/AudioAdapter(/.*)?", "done", "there is neither sound card nor recording", ""),
    (r"Hardware/UART(/.*)?", "done", "the serial port is the guest's console", ""),
    (r"Hardware/Network/.*", "done", "how packets are moved is tinamou's to choose", ""),
    (r"(Hardware/)?StorageControllers/.*", "done", "controllers are there where devices need them", ""),
    (r"Hardware/SharedFolders/.*", "done", "a share is named by its folder", ""),
    (r"MediaRegistry/.*", "done", "what is in a disk is told by its content", ""),
    (r"Description", "done", "a machine file has comments", ""),
    (r"ExtraData(/.*)? @.* Hardware", "done", _OWN, ""),
)


def read(text: str) -> Draft:
    """The machine. Raises SpecError for one without a description in it, and for an encrypted one."""
    root = parse(text, "the VirtualBox machine")
    if root.find("MachineEncrypted") is not None:
        raise SpecError(
            "the VirtualBox machine is encrypted", fix="remove the encryption there: VBoxManage encryptvm … removeencryption"
        )
    machine = root.find("Machine")
    if machine is None:
        raise SpecError("the file has no VirtualBox machine in it", fix="name the machine's own .vbox file")
    draft = Draft("a VirtualBox machine", confined=True)
    guest = machine.get("OSType")
    windows = foreign.system(draft, "OSType", guest)
    draft.done("OSType", guest, "it decides about drivers alone")
    foreign.named(draft, "Machine", machine.get("name"))
    hardware = machine.find("Hardware")
    _arch(draft, machine, guest)
    _size(draft, hardware)
    _firmware(draft, hardware)
    # Up to VirtualBox 6 they stood beside the hardware, since then in it.
    for controllers in (machine.find("StorageControllers"), _inside(hardware, "StorageControllers")):
        _storage(draft, machine, controllers, windows=windows)
    _unattached(draft, machine)
    _boot(draft, hardware)
    draft.nets = []
    for adapter in children(hardware, "Network/Adapter"):
        if switch(adapter.get("enabled")):
            _adapter(draft, adapter, windows=windows)
    _rest(draft, machine, hardware)
    root_attributes = " ".join(f"{key}={value}" for key, value in root.attrib.items())
    draft.done("VirtualBox", root_attributes, "the version that wrote it")
    report(draft, machine.unread(), _RULES)
    return draft


def _unattached(draft: Draft, machine: Element) -> None:
    """Media that VirtualBox knows of beside those in the machine's drives, and the disks under its snapshots."""
    drives = {one.get("uuid") for device in machine.iter("AttachedDevice") for one in children(device, "Image")}
    media = machine.find("MediaRegistry")
    for one in (*media.iter("HardDisk"), *media.iter("Image")) if media is not None else ():
        if one.get("uuid") not in drives:
            draft.done("MediaRegistry", f"{one.get('uuid')} {one.get('location')}", "no drive of the machine has it")


def _inside(node: Element | None, path: str) -> Element | None:
    return node.find(path) if node is not None else None


def _arch(draft: Draft, machine: Element, guest: str) -> None:
    """ARM machines, which VirtualBox has since 7.1."""
    found = [one.get("architecture") for one in machine.iter("Platform")]
    if "ARM" in found or guest.endswith("_arm64"):
        draft.put("arch", "aarch64")
    for one in machine.iter("Platform"):
        draft.done("Platform", one.shown(), "the board has what the machine needs")


def _size(draft: Draft, hardware: Element | None) -> None:
    amount = size(attribute(hardware, "Memory", "RAMSize", "128"), unit="M")
    draft.put("memory.size", str(amount) if amount else "512M")
    foreign.topology(draft, "CPU", whole(attribute(hardware, "CPU", "count")) or 1, 1)
    if (cap := attribute(hardware, "CPU", "executionCap", "100")) != "100":
        share = whole(cap) or 0
        if 0 < share < 100:
            draft.put("limits.cpu", round(min(draft.get("cpu.count"), 4096) * share / 100, 2))
        else:
            draft.lost("CPU", f"executionCap={cap}", "not a share of a CPU in percent", "set limits.cpu")


def _firmware(draft: Draft, hardware: Element | None) -> None:
    firmware, tpm = _inside(hardware, "Firmware"), _inside(hardware, "TrustedPlatformModule")
    kind = firmware.get("type", "BIOS") if firmware is not None else "BIOS"
    if kind.upper().startswith("EFI"):
        secure = any(switch(attribute(hardware, f"{place}/SecureBoot", "enabled")) for place in ("BIOS", "BIOS/NVRAM"))
        foreign.uefi(draft, "Firmware", secure=secure, files=kind)
    elif firmware is not None:
        draft.done("Firmware", kind, "SeaBIOS is there without being asked for")
    if tpm is not None and tpm.get("type", "None") != "None":
        foreign.tpm(draft, "TrustedPlatformModule", tpm.shown())
    elif tpm is not None:
        draft.done("TrustedPlatformModule", tpm.shown(), "there is no TPM unless one is asked for")


def _media(node: Element | None, layer: bool = False) -> Iterator[tuple[str, Element, bool]]:
    """Each medium: its id, itself, and whether it is a layer on another."""
    for one in children(node, "HardDisk"):
        yield one.get("uuid"), one, layer
        yield from _media(one, layer=True)


def _storage(draft: Draft, machine: Element, controllers: Element | None, *, windows: bool) -> None:
    places = {uuid: (node, layer) for uuid, node, layer in _media(machine.find("MediaRegistry/HardDisks"))}
    places |= {one.get("uuid"): (one, False) for one in children(machine, "MediaRegistry/DVDImages/Image")}
    for controller in children(controllers, "StorageController"):
        for device in children(controller, "AttachedDevice"):
            _attached(draft, device, controller, places, windows=windows)


def _attached(
    draft: Draft, device: Element, controller: Element, places: dict[str, tuple[Element, bool]], *, windows: bool
) -> None:
    kind, where = device.get("type"), f"{controller.get('name')} {device.get('port')}:{device.get('device')}"
    image = device.find("Image")
    if image is None:
        foreign.empty_drive(draft, where, device.shown())
        return
    uuid = image.get("uuid")
    node, layer = places.get(uuid, (None, False))
    file = attribute(node, "", "location")
    if kind == "Floppy":
        draft.lost(where, file or uuid, "there is no floppy drive", "make it a disc or a disk")
    elif kind == "DVD" and (not file or foreign.tools_disc(file)):
        foreign.empty_drive(draft, where, file or uuid)
    elif kind not in _ORDER or not file or node is None:
        reason = "the machine's list of media does not say where it lies"
        draft.lost(where, f"{kind} {uuid}", reason, "add [[disk]]")
    elif layer:
        reason = "it is a layer on other disks, made by a snapshot, and QEMU does not read those of VirtualBox"
        draft.lost(where, file, reason, f"VBoxManage clonemedium {uuid} whole.vdi, then name that")
    else:
        disk = Disk(where, file, cdrom=_ORDER[kind])
        if (mode := node.get("type")) not in _WRITTEN and not disk.cdrom:
            _mode(draft, disk, mode)
        draft.done(where, f"{kind} {uuid}", "what is in a disk is told by its content")
        foreign.attach(draft, disk, controller.get("type"), windows=windows)


def _mode(draft: Draft, disk: Disk, mode: str) -> None:
    """What became of what the guest wrote. Source: VirtualBox manual, *Special Image Write Modes*."""
    if mode == "Readonly":
        disk.options["readonly"] = True
    elif mode in ("Immutable", "MultiAttach"):
        disk.discards = f"type={mode}"
    elif mode == "Shareable":
        draft.lost(disk.where, f"type={mode}", "a disk that two machines write to is refused", "readonly = true is shared")
    else:
        draft.changed(disk.where, f"type={mode}", "a snapshot here holds every disk that is written", "tinamou snapshot")


def _boot(draft: Draft, hardware: Element | None) -> None:
    order = sorted(children(hardware, "Boot/Order"), key=lambda one: whole(one.get("position") or "9") or 9)
    names = [one.get("device") for one in order]
    first = next((one for one in names if one in _ORDER), "HardDisk")
    for disk in draft.disks:
        if disk.cdrom and _ORDER[first]:
            disk.order = 0
    if "Network" in names:
        draft.lost("Boot", "Network", "network cards carry no boot programs", "boot from a disc or a disk")
    if names:
        shown = ", ".join(f"{one.get('position')}:{one.get('device')}" for one in order)
        draft.done("Boot", shown, "the machine's image is what is started from", "set boot.order")


def _adapter(draft: Draft, adapter: Element, *, windows: bool) -> None:
    modes = {
        "NAT": "nat",
        "NATNetwork": "nat",
        "BridgedInterface": "bridged",
        "InternalNetwork": "internal",
        "HostOnlyInterface": "internal",
        "HostOnlyNetwork": "internal",
    }
    where = f"Adapter {adapter.get('slot')}"
    mode = next((one for one in adapter if one.tag in modes), None)
    if mode is None or adapter.get("cable") == "false":
        foreign.uncabled(draft, where, adapter.shown())
        return
    mode.seen = True
    name, mac = mode.get("name"), adapter.get("MACAddress")
    mac = colons(mac)
    model = adapter.get("type")
    net = foreign.connect(draft, where, modes[mode.tag], name, _CARDS.get(model, model), mac, windows=windows)
    draft.done(where, f"{mode.tag} {name} {model}".strip(), "the network it was on, and the card's kind")
    if mode.get("network"):
        reason = "the user network's addresses are QEMU's own: 10.0.2.0/24"
        draft.lost(where, f"network={mode.get('network')}", reason, "set address = … in the guest")
    for one in children(mode, "Forwarding"):
        protocol = "udp" if one.get("proto") in ("0", "UDP") else "tcp"
        text = f"{protocol}:{one.get('hostip')}:{one.get('hostport')}-{one.get('guestip')}:{one.get('guestport')}"
        nets.forward(draft, net, where, text)
        draft.done(where, f"Forwarding {one.get('name')} {one.get('proto')}", "a forwarded port has no name")


def _seen_and_heard(draft: Draft, hardware: Element | None) -> None:
    """Screen, sound and serial ports."""
    display = _inside(hardware, "Display")
    if display is not None and switch(display.get("accelerate3D")):
        foreign.undrawn(draft, "Display", "accelerate3D")
    foreign.screen(draft, "Display", shown_of(display))
    audio = _inside(hardware, "AudioAdapter")
    if audio is not None and switch(audio.get("enabled")):
        draft.put("devices.sound", "hda")
        rank = "done" if audio.get("controller") == "HDA" else "changed"
        reason = "the sound card is Intel's (hda); it is heard through the screen's server"
        draft.note(rank, "AudioAdapter", audio.shown(), reason, "")  # type: ignore[arg-type]
    ports = [one for one in children(hardware, "UART/Port") if switch(one.get("enabled"))]
    for number, one in enumerate(ports):
        led = "" if one.get("hostMode") in ("", "Disconnected") else one.get("hostMode")
        if number:
            foreign.serial(draft, "UART", one.shown(), led)
        elif led:
            draft.lost("UART", one.shown(), "it led there; here it is the console", "tinamou console, tinamou logs")


def _rest(draft: Draft, machine: Element, hardware: Element | None) -> None:
    for one in children(hardware, "SharedFolders/SharedFolder"):
        foreign.folder(draft, "SharedFolder", one.get("hostPath"))
    _seen_and_heard(draft, hardware)
    for clock in children(hardware, "RTC"):
        if clock.get("localOrUTC") == "local":
            draft.put("clock.base", "localtime")
            draft.done("RTC", clock.shown(), "the clock is the host's local time")
        else:
            if draft.get("os"):
                draft.put("clock.base", "utc")
            draft.done("RTC", clock.shown(), "the clock is in UTC")
    for one in children(hardware, "USB/DeviceFilters/DeviceFilter"):
        numbers = [one.get(key).removeprefix("0x").lower() for key in ("vendorId", "productId")]
        if switch(one.get("active")) and all(re.fullmatch(r"[0-9a-f]{4}", number) for number in numbers):
            foreign.usb_device(draft, "USB", one.shown(), ":".join(numbers))
        else:
            draft.lost("USB", one.shown(), "which device of the host it stands for is not told", "set usb = …")
    for snapshot in machine.iter("Snapshot"):
        draft.lost("Snapshot", snapshot.shown(), "snapshots of VirtualBox stay there", "convert the state you go on from")
