"""Reader of UTM's machines: the config.plist of a .utm folder, of QEMU's backend, as version 4 writes it and those before.

Source: UTM's Configuration/UTMQemuConfiguration*.swift (version 4) and Configuration/Legacy (2 and 3).
"""

from __future__ import annotations

import plistlib
from xml.parsers.expat import ExpatError

from tinamou.convert import foreign, nets
from tinamou.convert.account import Rules, report
from tinamou.convert.result import Disk, Draft
from tinamou.convert.tree import Node, bounded
from tinamou.convert.values import size, whole, words
from tinamou.errors import SpecError

__all__ = ["read"]

_ARCHES = ("x86_64", "aarch64", "riscv64")
_NEAR = {"i386": "x86_64"}
_RULES: Rules = (
    (r"(Information|Info)\..* ConfigurationVersion Drives?\[\d+\]\.(Identifier|DriveName|InterfaceVersion)", "done",
     "what UTM notes about the machine", ""),
    (r"(Display|Sharing|Serial|Input|Printing|Debug|Sound)(\[\d+\])?(\..*)?", "changed",
     "how UTM shows the machine, and what it shares",
     "display, usb, share, devices.serial"),
    (r"System\.(ForceMulticore|JITCacheSize|BootDevice|UseHypervisor|RngEnabled|CPUCount|InputLegacy|SystemUUID)", "done",
     "how UTM runs QEMU, not what the guest has", ""),
    (r"QEMU\.(DebugLog|Hypervisor|TSO|PS2Controller|RNGDevice|BalloonDevice|TPMDevice|UEFIBoot|RTCLocalTime)", "done",
     "it is off there, or always there here", ""),
    (r"Network(ing)?(\[\d+\])?\.(Vlan.*|HostNetUuid|NetworkDhcp.*|NetworkIP.*)", "lost",
     "the network's addresses are chosen", "subnet in [[net]]"),
    (r"Network|Drive|QEMU\.AdditionalArguments|System\.(CPUFlags.*|AddArgs)", "done", "there is none", ""),
)  # fmt: skip


def read(text: str) -> Draft:
    """The machine. Raises SpecError for what is no property list, and for a machine of Apple's backend."""
    try:
        found = plistlib.loads(text.encode(), fmt=plistlib.FMT_XML)
    except (ValueError, ExpatError, AttributeError, LookupError, OverflowError, RecursionError) as error:
        raise SpecError("the UTM machine is no property list", why=str(error)[:200], fix="export it again") from error
    root = Node(bounded(found, "the UTM machine"))
    if (backend := root.text_at("Backend")) not in ("", "QEMU"):
        why = "such a machine has the devices of macOS' own virtualization, and often an image of macOS"
        raise SpecError(f"the UTM machine is of the backend {backend}, not QEMU", why=why, fix="make one of QEMU's backend")
    draft = Draft("a UTM machine", confined=True)
    if name := root.text_at("Information.Name"):
        foreign.named(draft, "Information.Name", name)
    _system(draft, root)
    _drives(draft, root)
    _networks(draft, root)
    _rest(draft, root)
    report(draft, root.unread(), _RULES)
    return draft


def _system(draft: Draft, root: Node) -> None:
    system = root.at("System")
    name = system.text_at("Architecture")
    arch = _NEAR.get(name, name)
    if arch not in _ARCHES:
        raise SpecError(f"tinamou has no machines of {name or 'no architecture'}", fix=f"it has {', '.join(_ARCHES)}")
    draft.put("arch", arch)
    if arch != name:
        draft.changed("System.Architecture", name, f"{arch} runs everything {name} does")
    if board := system.text_at("Target"):
        draft.done("System.Target", board, "tinamou takes the board its architecture has, and keeps its version")
    count = whole(system.text_at("CPUCount")) or 0
    draft.put("cpu.count", count or 1)
    if not count:
        draft.changed("System.CPUCount", "0", "it is as many as the host has", "set cpus")
    memory = system.at("MemorySize") or system.at("Memory")
    memory.give(draft, "memory.size", lambda said: str(found) if (found := size(said, unit="M")) else None)
    flags = [f"+{one.text}" for one in system.at("CPUFlagsAdd").items()]
    flags += [f"-{one.text}" for one in system.at("CPUFlagsRemove").items()]
    flags += [one.text for one in system.at("CPUFlags").items()]
    model = system.text_at("CPU")
    if flags or model not in ("", "default", "Default"):
        draft.put("cpu.model", ",".join(["host" if model in ("", "default", "Default") else model, *flags]))
    if root.on("QEMU.UEFIBoot") or system.on("BootUefi"):
        foreign.uefi(draft, "UEFIBoot", secure=False)
    if root.on("QEMU.TPMDevice"):
        foreign.tpm(draft, "QEMU.TPMDevice", "true")
    if root.on("QEMU.RTCLocalTime"):
        draft.put("clock.base", "localtime")


def _drives(draft: Draft, root: Node) -> None:
    """Images lie in Data, before version 4 in Images; a removable drive has no image in the description."""
    new = bool(root.at("Drive"))
    for number, one in enumerate((root.at("Drive") or root.at("Drives")).items()):
        name = one.text_at("ImageName") or one.text_at("ImagePath")
        kind = one.text_at("ImageType").lower()
        bus = one.text_at("Interface") or one.text_at("InterfaceType")
        where = f"Drive {number}"
        file = f"{'Data' if new else 'Images'}/{name}"
        if kind in ("linuxkernel", "linuxinitrd", "kernel", "initrd"):
            draft.put("boot.kernel" if kind.endswith("kernel") else "boot.initrd", file)
        elif kind not in ("disk", "cd") or bus.lower() in ("mtd", "pflash", "sd", "floppy"):
            draft.lost(where, one.shown(), "a firmware, a flash chip or a floppy of one's own is not used", "qemu_args")
        elif not name or one.on("Removable"):
            foreign.empty_drive(draft, where, one.shown())
        else:
            disk = Disk(where, file, cdrom=kind == "cd", order=number)
            if one.on("ReadOnly") and kind != "cd":
                disk.options["readonly"] = True
            foreign.attach(draft, disk, bus, windows=False)


_MODES = {"emulated": "nat", "shared": "nat", "host": "internal", "bridged": "bridged"}


def _networks(draft: Draft, root: Node) -> None:
    draft.nets = []
    old = root.at("Networking")
    listed = [(one, "") for one in root.at("Network").items()] + ([(old, "Network")] if old else [])
    for one, prefix in listed:
        mode = one.text_at(f"{prefix}Mode")
        if mode.lower() == "none" or (prefix and not old.on("NetworkEnabled", default=True)):
            draft.done(one.place, one.shown(), "a machine without a network")
            continue
        model = one.text_at("Hardware") or one.text_at("NetworkCard")
        mac = one.text_at("MacAddress") or one.text_at("NetworkCardMAC")
        kind = _MODES.get(mode.lower(), mode)
        net = foreign.connect(draft, one.place, kind, one.text_at("BridgeInterface"), model, mac, windows=False)
        draft.done(one.place, f"{mode} {model}", "the card is on a network of tinamou's")
        if one.on("IsolateFromHost") or old.on("NetworkIsolate"):
            net["isolated"] = True
        for port in (one.at("PortForward") or one.at("NetworkPortForwarding")).items():
            said = [port.text_at(key) for key in ("Protocol", "HostAddress", "HostPort", "GuestAddress", "GuestPort")]
            said = [said[0].lower() or "tcp", *said[1:]]
            nets.forward(draft, net, port.place, "{}:{}:{}-{}:{}".format(*said))
            draft.done(port.place, " ".join(said), "the port is forwarded")


def _rest(draft: Draft, root: Node) -> None:
    screens = root.at("Display")
    if (screens.items() or screens.text_at("DisplayCard")) and not screens.on("ConsoleOnly"):
        draft.put("display.type", "vnc")
        draft.changed(
            "Display", screens.shown(), "the display has the card every guest can drive (virtio-vga)", "display.video"
        )
    if root.at("Sound").items() or root.on("Sound.SoundEnabled"):
        draft.put("devices.sound", "hda")
        draft.changed("Sound", root.at("Sound").shown(), "the sound card is Intel's (hda)")
    more = [one.text for key in ("QEMU.AdditionalArguments", "System.AddArgs") for one in root.at(key).items()]
    if found := [word for one in more for word in words(one)]:
        foreign.passed_on(draft, "QEMU.AdditionalArguments", found, " ".join(more))
    for key in ("QEMU.MachinePropertyOverride", "System.MachineProperties"):
        if value := root.text_at(key):
            draft.lost(key, value, "the board's own settings follow from what the machine has", "qemu_args")
