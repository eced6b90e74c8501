"""Reader of VMware's .vmx files: ``key = "value"``, one a line.

Source: what VMware Workstation, Fusion and ESXi write; the VMware Virtual Disk Development Kit names the disks' keys.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from urllib.parse import unquote

from tinamou.convert import foreign
from tinamou.convert.account import Keys, Rules, report
from tinamou.convert.result import Disk, Draft
from tinamou.convert.values import size, switch, whole
from tinamou.errors import SpecError

__all__ = ["read"]

_MOST = 2048
_SLOT = re.compile(r"(?:scsi|ide|sata|nvme)\d+:\d+")
_CARD = re.compile(r"ethernet\d+")
_PORT = re.compile(r"serial\d+")
_OWN = "how VMware runs the machine, not what it is"
_RULES: Rules = (
    (r"sched\.cpu\.max", "lost", "what a machine may use is set in [limits]", "set limits.cpu"),
    (r"sched\.mem\.max(size)? mem\.max", "lost", "what a machine may use is set in [limits]", "set limits.memory"),
    (r"sched\.(cpu|mem)\.(min|shares|affinity) numa\..*", "changed", "a share is not set here", "set limits, or cpu.pin"),
    (r"bios\.(bootorder|hddorder) bios\.bootdelay", "check", "the machine starts from its image", "set boot.order"),
    (
        r"rtc\.(difffromutc|starttime) .*localtime.*",
        "lost",
        "the clock is in UTC",
        "-rtc in qemu_args, or the guest's clock",
    ),
    (r"floppy\d+\..*", "lost", "there is no floppy drive", "make it a disc or a disk"),
    (r"parallel\d+\..*", "lost", "there is no parallel port", ""),
    (r"pcipassthru.*", "lost", "a device of the other host is not given to the machine", "set pci = …; see tinamou pci ls"),
    (r"usb\.(autoconnect|generic|quirks).*", "lost", "which device of that host is meant is not told", "set usb = …"),
    (r"usb(_xhci)?:\d+\..*", "check", "VMware's own hub and mouse, or a device of that host", "set usb = …"),
    (r"mks\.enable3d svga\.3d.*", "lost", "the display's card draws nothing by itself", "give the machine a card: pci"),
    (
        r"vhv\.enable vvtd\.enable hypervisor\.cpuid.* monitor_control\.restrict_backdoor",
        "check",
        "virtualization inside the guest is there under KVM where the host permits it; it is not hidden from the guest",
        "tinamou doctor; cpu.model = host,kvm=off",
    ),
    (r"smbios\..* board-id.* hw\.model.* cpuid\..*", "lost", "the guest sees QEMU's own identity", "-smbios in qemu_args"),
    (r"guestinfo\..*", "lost", "properties reach the guest through VMware's tools alone", "give them as cloud-init: [seed]"),
    (r"remotedisplay\..*", "changed", "the screen is on a Unix socket of the machine", 'set display = "vnc"'),
    (r"uuid\..* vc\.uuid", "done", "a machine is known by its name; its guest's identity changes with it", ""),
    (r"annotation", "done", "a machine file has comments", ""),
    (
        r"nvram extendedconfigfile .*vmstate.* checkpoint\..* snapshot\..*",
        "done",
        "what VMware keeps beside the machine",
        "",
    ),
    (r"isolation\..* tools\..* toolscripts\..* unity\..* viv\..*", "done", "there are no VMware tools", ""),
    (
        r"(scsi|sata|ide|nvme)\d*\..* pcibridge\d+\..* vmci.* hpet0\..* usb.*\.(present|virtualdev|pcislotnumber|speed|.*)"
        r" ehci.* uhci.* svga\..* mks\..* gui\..* .*\.pcislotnumber chipset\..*",
        "done",
        "controllers are there where devices need them",
        "",
    ),
    (
        r"\.encoding config\..* virtualhw\..* msg\..* vc\..* sched\..* replay\..* migrat.* vmotion\..* cleanshutdown"
        r" softpoweroff powertype\..* virtualdev.* disk\..* time\..* workingdir policy\..* vmxstats.* mem\..* prefvmx\..*"
        r" proxyapps\..* priority\..* mainmem\..* memory\..* bios\..* ulm\..* featmask\..* debugstub\..* log.* monitor.*"
        r" deploymentplatform floppy\d*\.present rtc\..* annotation.* vmx\..* .*\.swap.* autostart.*",
        "done",
        _OWN,
        "",
    ),
    (".*", "check", "this setting of VMware's has no counterpart known here", "see whether the guest needs it"),
)


def read(text: str) -> Draft:
    """The machine. Raises SpecError for one that is encrypted."""
    values = _values(text)
    if "encryption.keysafe" in values:
        why = "its settings and disks need VMware's key"
        raise SpecError("the .vmx is encrypted", why=why, fix="remove the encryption there")
    draft = Draft("a VMware machine", confined=True)
    guest = values.pop("guestos")
    windows = foreign.system(draft, "guestOS", guest)
    if guest:
        draft.done("guestOS", guest, "it decides about drivers alone")
    if guest.lower().startswith("arm"):
        draft.put("arch", "aarch64")
    foreign.named(draft, "displayName", values.pop("displayname"))
    memory = size(values.pop("memsize") or "256", unit="M")
    draft.put("memory.size", str(memory) if memory else "512M")
    count = whole(values.pop("numvcpus") or "1") or 1
    foreign.topology(draft, "cpuid.coresPerSocket", count, whole(values.pop("cpuid.corespersocket") or "1") or 1)
    _firmware(draft, values)
    _tpm(draft, values)
    _disks(draft, values, windows=windows)
    _cards(draft, values, windows=windows)
    _shares(draft, values)
    _serial(draft, values)
    _sound(draft, values)
    foreign.screen(draft, "svga", " ".join(f"{key}={one}" for key, one in _taken(values, "svga").items()))
    off = {key: value for key, value in values.items() if value.lower() in ("false", "")}
    if off:
        draft.done("off", "; ".join(f"{key} {value}".strip() for key, value in off.items()), "what is off is not there")
    values.read(*off)
    report(draft, values.unread(), _RULES)
    return draft


def _values(text: str) -> Keys:
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition("="))
        if key and not key.startswith("#") and len(value) >= 2 and value[0] == value[-1] == '"':
            value = unquote(value[1:-1]) if key.lower() == "displayname" else value[1:-1]
            values[key.lower()] = re.sub(r"(?:\|[0-9A-Fa-f]{2})+", _piped, value)
    if len(values) > _MOST:
        raise SpecError(f"the .vmx has {len(values)} settings", why=f"more than {_MOST} are no machine's")
    return Keys(values)


def _piped(match: re.Match[str]) -> str:
    """Bytes of UTF-8, each as ``|`` and two digits. A name has ``%`` and two digits beneath that, undone before it."""
    return bytes.fromhex(match[0].replace("|", "")).decode(errors="replace")


def _firmware(draft: Draft, values: Keys) -> None:
    kind, secure = values.pop("firmware").lower(), values.pop("uefi.secureboot.enabled")
    if kind == "efi":
        foreign.uefi(draft, "firmware", secure=switch(secure))
    elif kind not in ("bios", ""):
        draft.lost("firmware", kind, "no such firmware is known", 'set firmware = "uefi"')
    elif kind:
        draft.done("firmware", kind, "SeaBIOS is there without being asked for")
    if secure and kind != "efi":
        draft.done("uefi.secureBoot.enabled", secure, "only UEFI firmware has that")


def _taken(values: Keys, stem: str) -> Keys:
    """All keys of one device, taken out."""
    keys = [key for key in values if key.startswith(f"{stem}.")]
    return Keys({key.removeprefix(f"{stem}."): values.pop(key) for key in keys})


def _all(one: Keys) -> str:
    one.all_read()
    return ", ".join(f"{key} = {value}" for key, value in one.items())


def _present(draft: Draft, values: Keys, pattern: re.Pattern[str]) -> Iterator[tuple[str, Keys]]:
    """Devices whose keys match: the name and settings of each; one that is switched off is told."""
    for stem in dict.fromkeys(key.partition(".")[0] for key in values if pattern.match(key)):
        one = _taken(values, stem)
        if switch(one.get("present", "true")):
            yield stem, one
        else:
            draft.done(stem, _all(one), "it is not there")


def _disks(draft: Draft, values: Keys, *, windows: bool) -> None:
    for slot, one in _present(draft, values, _SLOT):
        kind, file = one.get("devicetype", "disk").lower(), one.get("filename")
        cdrom = "cdrom" in kind or file.lower().endswith(".iso")
        if "raw" in kind or kind in ("atapi-cdrom", "scsi-passthru") or file in ("", "auto detect", "emptyBackingString"):
            reason = "a drive of the host, or an empty one: a disc can be plugged in while the machine runs (tinamou disk)"
            draft.done(slot, _all(one), reason)
            continue
        if cdrom and (not switch(one.get("startconnected", "true")) or foreign.tools_disc(file)):
            foreign.empty_drive(draft, slot, _all(one))
            continue
        controller = values.get(f"{slot.partition(':')[0]}.virtualdev") or slot.rstrip("0123456789:")
        disk = Disk(slot, file, cdrom=cdrom)
        if (mode := one.get("mode", "persistent")) not in ("persistent", "independent-persistent"):
            disk.discards = f"mode = {mode}"
        if kind not in ("disk", "cdrom-image", "scsi-harddisk", "ata-harddisk"):
            draft.check(slot, f"deviceType = {kind}", "no such kind is known; it is a disk here", "see whether it is one")
        foreign.attach(draft, disk, controller, windows=windows)
        _left(draft, slot, one)


def _left(draft: Draft, stem: str, one: Keys) -> None:
    left = [f"{key} = {value}" for key, value in one.unread()]
    if left:
        draft.done(stem, ", ".join(left), "how VMware runs the device, not what it is")


def _cards(draft: Draft, values: Keys, *, windows: bool) -> None:
    kinds = {"nat": "nat", "bridged": "bridged", "hostonly": "internal", "custom": "bridged", "": "bridged"}
    draft.nets = []
    for stem, one in _present(draft, values, _CARD):
        if not switch(one.get("startconnected", "true")):
            foreign.uncabled(draft, stem, _all(one))
            continue
        given = one.get("address") if one.get("addresstype") == "static" else one.get("generatedaddress")
        kind = one.get("connectiontype").lower()
        name = one.get("networkname") or one.get("vnet")
        model = one.get("virtualdev") or ("e1000" if kind else "pcnet")
        _left(draft, stem, one)
        foreign.connect(draft, stem, kinds.get(kind, kind), name, model, given or one.get("address"), windows=windows)


def _tpm(draft: Draft, values: Keys) -> None:
    keys = [key for key in ("vtpm.present", "managedvm.autoaddvtpm") if key in values]
    given = [values.pop(key) for key in keys]
    if {one.lower() for one in given} & {"true", "software"}:
        foreign.tpm(draft, ", ".join(keys), ", ".join(given))
    elif keys:
        draft.done(", ".join(keys), ", ".join(given), "there is no TPM unless one is asked for")


def _shares(draft: Draft, values: Keys) -> None:
    for stem in dict.fromkeys(key.partition(".")[0] for key in list(values) if key.startswith("sharedfolder")):
        one = _taken(values, stem)
        if path := one.get("hostpath"):
            foreign.folder(draft, stem, path)
        draft.done(stem, _all(one), "a share is named by its folder")


def _sound(draft: Draft, values: Keys) -> None:
    """Source: what VMware writes into ``sound.virtualDev``: hdaudio is Intel's HDA, es1371 and sb16 are older cards."""
    one = _taken(values, "sound")
    if switch(one.get("present")):
        draft.put("devices.sound", "hda")
        rank = "done" if one.get("virtualdev") == "hdaudio" else "changed"
        reason = "the sound card is Intel's (hda); it is heard through the screen's server"
        draft.note(rank, "sound", _all(one), reason, "")  # type: ignore[arg-type]
    elif one:
        draft.done("sound", _all(one), "it is not there")


def _serial(draft: Draft, values: Keys) -> None:
    """The first port is the console; what it led to is not."""
    for number, stem in enumerate(dict.fromkeys(key.partition(".")[0] for key in list(values) if _PORT.match(key))):
        one = _taken(values, stem)
        if not switch(one.get("present", "true")):
            draft.done(stem, _all(one), "it is not there")
        elif number:
            foreign.serial(draft, stem, _all(one), one.get("filename"))
        elif one.get("filename"):
            draft.lost(stem, _all(one), "it led there; here it is the console", "tinamou console, tinamou logs")
        else:
            draft.done(stem, _all(one), "the serial port is the guest's console")
