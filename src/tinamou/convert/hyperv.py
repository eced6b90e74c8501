"""Reader of Hyper-V's machines: the .vmcx of an export, or the .xml of one before Windows 10; disks lie beside.

::

    NAME/Virtual Machines/GUID.vmcx │ .xml     settings: of the machine, and of each device by its instance's GUID
    NAME/Virtual Hard Disks/*.vhdx             named there by their old path on Windows

Source: Microsoft's documentation of Export-VM, Set-VM and Set-VMFirmware for what they mean; names as a real export has.
"""

from __future__ import annotations

from typing import Any

from tinamou.convert import foreign, nets, vmcx
from tinamou.convert.account import Rules, report
from tinamou.convert.result import Disk, Draft
from tinamou.convert.tree import Node, bounded
from tinamou.convert.values import colons, mebibytes, whole
from tinamou.convert.xml import Element, documents, text_of
from tinamou.errors import SpecError

__all__ = ["DISKS", "read", "read_store"]

DISKS = "Virtual Hard Disks"
_FULL = 100_000
_DEVICE = r"_[0-9a-f-]+_"
_RULES: Rules = (
    (rf"(manifest|properties|global_settings)\..* {_DEVICE}\.(VDEVVersion|\w+InstanceGuid|FriendlyName)", "done",
     "what Hyper-V notes about the machine and its devices", ""),
    (rf"{_DEVICE}\.controller\d+\.drive\d+\.(iops_limit|iops_reservation|weight|qos_.*)", "changed",
     "what a disk may use is another setting here", "iops, bandwidth in [[disk]]"),
    (rf"{_DEVICE}\.controller\d+\.drive\d+\..*", "done", "how Hyper-V opens a disk is another way here", ""),
    (rf"{_DEVICE}\.port\d+\.connection", "changed", "the serial port is the guest's console", "devices.serial"),
    (rf"{_DEVICE}\.(boot|bios_.*|base_board|chassis|num_lock|pause_.*|pxe_.*|secure_boot.*)(\..*)?", "changed",
     "the firmware and what it shows of the maker are the machine's own", "smbios, boot.order"),
    (rf"{_DEVICE}\.(Connection|Allow.*|Interrupt.*|Numa.*|MediaType|PortName|Cluster.*|DeviceNaming.*|Mac.*|IsConn.*)(\..*)?",
     "changed", "how a switch of Hyper-V treats the card is another way here", "[[net]]"),
    (rf"{_DEVICE}\..*", "done", "the device is there where the machine needs it", ""),
    (r"settings\.(memory\.(bank|sgx|vnuma)|vnuma|topology|guest_.*|global)(\..*)?", "changed",
     "how much it may take, and where it lies, is set here in another way", "memory, cpu.nodes, limits"),
    (r"settings\.processors\..*", "changed", "the CPU is the host's own, with all it has", "cpu.model, limits.cpu"),
    (r"(security|pools?)(\..*)?", "lost", "keys sealed to that host do not open here", "have recovery keys at hand"),
)  # fmt: skip


def read(text: str) -> Draft:
    """The machine of an export as XML. Raises SpecError."""
    root = documents(text, "the Hyper-V machine")[0]
    return _machine(bounded(_table(root), "the Hyper-V machine"))


def read_store(data: bytes) -> Draft:
    """The machine of a .vmcx. Raises SpecError."""
    return _machine(vmcx.tables(data).get("configuration"))


def _table(node: Element) -> Any:
    """Elements as nested tables; of those with one name, the last."""
    node.attrib  # noqa: B018 - the type of a value is told by it
    return {one.tag: _table(one) for one in node} or text_of(node)


def _machine(found: Any) -> Draft:
    root = Node(found)
    if not (root.at("properties") and root.at("settings")):
        raise SpecError("there is no machine of Hyper-V in it", fix="Export-VM writes one, in the folder Virtual Machines")
    draft = Draft("a Hyper-V machine", confined=True)
    foreign.named(draft, "properties.name", root.text_at("properties.name"))
    names = {one.text_at("instance").lower(): one.text_at("name") for _, one in root.at("manifest").pairs()}
    shown = "; ".join(f"{instance} {name}" for instance, name in names.items())
    draft.done("manifest", shown, "devices are there where the machine needs them")
    devices = [(names.get(key.strip("_").lower(), ""), one) for key, one in root.pairs() if key.startswith("_")]
    _size(draft, root.at("settings"))
    _firmware(draft, root, devices)
    draft.nets = []
    for name, device in devices:
        if "Ethernet" in name:
            _card(draft, name, device)
        elif "TPM" in name and device.on("Enabled", default=True):
            foreign.tpm(draft, name, device.shown())
        else:
            _drives(draft, name, device)
    draft.put("display.type", "vnc")
    reason = "which system is in the guest is not said: a Windows needs virtio drivers before it is moved, or its os told"
    draft.check("properties.type_id", root.text_at("properties.type_id"), reason, 'set os = "windows-11" if it is one')
    report(draft, root.unread(), _RULES)
    return draft


def _size(draft: Draft, settings: Node) -> None:
    count = settings.put(draft, "processors.count", "cpu.count", whole) or 1
    share = whole(settings.text_at("processors.limit"))
    if share and share < _FULL:
        draft.put("limits.cpu", count * share / _FULL)
        draft.done("processors.limit", str(share), "limits.cpu")
    settings.put(draft, "memory.bank.size", "memory.size", lambda text: mebibytes(f"{text}M"))
    if settings.on("memory.bank.dynamic_memory_enabled"):
        bank = settings.at("memory.bank")
        draft.changed(
            "memory.bank", bank.shown(), "memory the guest does not use is taken back by the balloon", "memory.floor"
        )


def _firmware(draft: Draft, root: Node, devices: list[tuple[str, Node]]) -> None:
    """A machine of generation 2 starts by UEFI, of generation 1 by a BIOS."""
    generation = root.text_at("properties.subtype")
    if generation == "1":
        asked = any(one.on("secure_boot_enabled") for _, one in devices)
        foreign.uefi(draft, "properties.subtype", secure=asked, files=f"generation 2, secure_boot_enabled={asked}")
    else:
        draft.put("boot.firmware", "bios")
        draft.done("properties.subtype", generation, "generation 1: a BIOS")


def _drives(draft: Draft, controller: str, device: Node) -> None:
    for _, slots in device.pairs():
        for key, drive in slots.pairs() if _key(slots).startswith("controller") else ():
            kind, path = drive.text_at("type"), drive.text_at("pathname")
            name = path.replace("\\", "/").rpartition("/")[2]
            if kind in ("", "NONE"):
                continue
            if kind == "VFD":
                draft.done(drive.place, f"{kind} {path}".strip(), "there is no floppy drive")
            elif not name:
                foreign.empty_drive(draft, drive.place, kind)
            elif kind not in ("VHD", "ISO"):
                draft.lost(
                    drive.place, drive.shown(), "a disk of the other host is not given to the machine", "add [[disk]]"
                )
            else:
                disk = Disk(drive.place, f"{DISKS}/{name}" if kind == "VHD" else name, cdrom=kind == "ISO")
                draft.done(drive.place, f"{kind} {path} {key}", f"it is looked for in {DISKS}, as an export has it")
                foreign.attach(draft, disk, controller, windows=False)
                if name.lower().endswith((".avhdx", ".avhd")):
                    reason = "it is a checkpoint's layer, and what lies below may be named by a path of Windows"
                    draft.check(drive.place, name, reason, "merge it first: Remove-VMCheckpoint, Merge-VHD")


def _key(node: Node) -> str:
    """The last name of a value's place."""
    return node.place.rpartition(".")[2]


def _card(draft: Draft, name: str, device: Node) -> None:
    switch = device.text_at("SwitchName") or device.text_at("Connection.AltSwitchName")
    model = "" if name.startswith("Synthetic") else "tulip"
    said = device.text_at("IsConnected")
    if not device.on("IsConnected", default=bool(switch)):
        foreign.uncabled(draft, device.place, f"{name} {switch} {said}")
        return
    net = draft.net()
    reason = "which switch it was on, is that host's: here it is on a network of its own"
    draft.check(device.place, f"{name} {switch} {said}", reason, "[[net]]")
    nets.card(draft, net, device.place, model)
    mac = device.text_at("MacAddress")
    if mac.strip("0-:"):
        pairs = mac.replace("-", "")
        nets.set_mac(draft, net, device.place, colons(pairs))
