"""Reader of VirtualBox machines (.vbox).

Source: VirtualBox-settings.xsd of the VirtualBox sources.
"""

from __future__ import annotations

from collections.abc import Iterator

from tinamou.convert import foreign, nets
from tinamou.convert.result import Disk, Draft
from tinamou.convert.values import size, switch, whole
from tinamou.convert.xml import Element, children, parse, text_of
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
_READ = frozenset(
    [
        "CPU",
        "Memory",
        "Firmware",
        "Boot",
        "Network",
        "StorageControllers",
        "SharedFolders",
        "TrustedPlatformModule",
        "AudioAdapter",
        "UART",
        "LPT",
        "USB",
    ]
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
    windows = foreign.system(draft, "OSType", machine.get("OSType", ""))
    foreign.named(draft, "Machine", machine.get("name", ""))
    hardware = machine.find("Hardware")
    _size(draft, hardware)
    _firmware(draft, hardware)
    # Up to VirtualBox 6 they stood beside the hardware, since then in it.
    for controllers in (machine.find("StorageControllers"), _inside(hardware, "StorageControllers")):
        _storage(draft, machine, controllers, windows=windows)
    _boot(draft, hardware)
    draft.nets = []
    for adapter in children(hardware, "Network/Adapter"):
        if switch(adapter.get("enabled", "")):
            _adapter(draft, adapter, windows=windows)
    _rest(draft, machine, hardware)
    return draft


def _inside(node: Element | None, path: str) -> Element | None:
    return node.find(path) if node is not None else None


def _size(draft: Draft, hardware: Element | None) -> None:
    memory, cpu = _inside(hardware, "Memory"), _inside(hardware, "CPU")
    amount = size(memory.get("RAMSize", "128") if memory is not None else "128", unit="M")
    draft.put("memory.size", str(amount) if amount else "512M")
    foreign.topology(draft, "CPU", whole(cpu.get("count", "1")) or 1 if cpu is not None else 1, 1)
    if cpu is not None and (cap := cpu.get("executionCap", "100")) != "100":
        share = whole(cap) or 0
        if 0 < share < 100:
            draft.put("limits.cpu", round(min(draft.get("cpu.count"), 4096) * share / 100, 2))
        else:
            draft.lost("CPU", f"executionCap={cap}", "not a share of a CPU in percent", "set limits.cpu")


def _firmware(draft: Draft, hardware: Element | None) -> None:
    firmware, tpm = _inside(hardware, "Firmware"), _inside(hardware, "TrustedPlatformModule")
    if firmware is not None and firmware.get("type", "BIOS").upper().startswith("EFI"):
        secure = _inside(hardware, "BIOS/SecureBoot")
        foreign.uefi(draft, "Firmware", secure=secure is not None and switch(secure.get("enabled", "")))
    if tpm is not None and tpm.get("type", "None") != "None":
        foreign.tpm(draft, "TrustedPlatformModule", tpm.get("type", ""))


def _media(node: Element | None, layer: bool = False) -> Iterator[tuple[str, str, bool]]:
    """Each medium: its id, where it lies, and whether it is a layer on another."""
    for one in children(node, "HardDisk"):
        yield one.get("uuid", ""), one.get("location", ""), layer
        yield from _media(one, layer=True)


def _storage(draft: Draft, machine: Element, controllers: Element | None, *, windows: bool) -> None:
    places = {uuid: (file, layer) for uuid, file, layer in _media(machine.find("MediaRegistry/HardDisks"))}
    places |= {
        one.get("uuid", ""): (one.get("location", ""), False) for one in children(machine, "MediaRegistry/DVDImages/Image")
    }
    for controller in children(controllers, "StorageController"):
        for device in children(controller, "AttachedDevice"):
            kind, where = device.get("type", ""), f"{controller.get('name')} {device.get('port')}:{device.get('device')}"
            image = device.find("Image")
            if image is None:
                foreign.empty_drive(draft, where, kind)
                continue
            file, layer = places.get(image.get("uuid", ""), ("", False))
            if kind not in _ORDER or not file:
                draft.lost(
                    where,
                    f"{kind} {image.get('uuid')}",
                    "the machine's list of media does not say where it lies",
                    "add [[disk]]",
                )
                continue
            if layer:
                reason = "it is a layer on other disks, made by a snapshot, and QEMU does not read those of VirtualBox"
                draft.lost(where, file, reason, f"VBoxManage clonemedium {image.get('uuid')} whole.vdi, then name that")
                continue
            disk = Disk(where, file, cdrom=kind == "DVD")
            foreign.attach(draft, disk, controller.get("type", ""), windows=windows)


def _boot(draft: Draft, hardware: Element | None) -> None:
    order = sorted(children(hardware, "Boot/Order"), key=lambda one: whole(one.get("position", "9")) or 9)
    first = next((one.get("device", "") for one in order if one.get("device") in _ORDER), "HardDisk")
    for disk in draft.disks:
        if disk.cdrom and _ORDER[first]:
            disk.order = 0
    for one in order:
        if one.get("device") == "Network":
            draft.lost("Boot", "Network", "network cards carry no boot programs", "boot from a disc or a disk")


def _adapter(draft: Draft, adapter: Element, *, windows: bool) -> None:
    modes = {
        "NAT": "nat",
        "NATNetwork": "nat",
        "BridgedInterface": "bridged",
        "InternalNetwork": "internal",
        "HostOnlyInterface": "internal",
    }
    where = f"Adapter {adapter.get('slot', '')}"
    mode = next((one for one in adapter if one.tag in modes), None)
    name = mode.get("name", "") if mode is not None else ""
    kind = modes[mode.tag] if mode is not None else "unconnected"
    mac = adapter.get("MACAddress", "")
    mac = ":".join(mac[at : at + 2] for at in range(0, len(mac), 2))
    net = foreign.connect(
        draft, where, kind, name, _CARDS.get(adapter.get("type", ""), adapter.get("type", "")), mac, windows=windows
    )
    for one in children(mode, "Forwarding"):
        protocol = "udp" if one.get("proto") in ("0", "UDP") else "tcp"
        text = f"{protocol}:{one.get('hostip', '')}:{one.get('hostport')}-{one.get('guestip', '')}:{one.get('guestport')}"
        nets.forward(draft, net, where, text)


def _rest(draft: Draft, machine: Element, hardware: Element | None) -> None:
    for one in children(hardware, "SharedFolders/SharedFolder"):
        foreign.folder(draft, "SharedFolder", one.get("hostPath", ""))
    audio = _inside(hardware, "AudioAdapter")
    if audio is not None and switch(audio.get("enabled", "")):
        draft.lost("AudioAdapter", audio.get("controller", ""), "there is no sound card")
    for snapshot in machine.iter("Snapshot"):
        draft.lost(
            "Snapshot", snapshot.get("name", ""), "snapshots of VirtualBox stay there", "convert the state you go on from"
        )
    other = [one.tag for one in (hardware if hardware is not None else ()) if one.tag not in _READ]
    if other:
        draft.done(", ".join(dict.fromkeys(other)), "", "how VirtualBox runs the machine, not what it is")
    if description := text_of(machine, "Description"):
        draft.done("Description", description[:60], "a machine file has comments")
