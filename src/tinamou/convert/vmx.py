"""Reader of VMware's .vmx files: ``key = "value"``, one a line.

Source: what VMware Workstation, Fusion and ESXi write; the VMware Virtual Disk Development Kit names the disks' keys.
"""

from __future__ import annotations

import re

from tinamou.convert import foreign
from tinamou.convert.result import Disk, Draft
from tinamou.convert.values import size, switch, whole
from tinamou.errors import SpecError

__all__ = ["read"]

_MOST = 2048
_SLOT = re.compile(r"(?:scsi|ide|sata|nvme)\d+:\d+")
_CARD = re.compile(r"ethernet\d+")
_OWN = [
    ".encoding",
    "config.",
    "virtualhw.",
    "pcibridge",
    "vmci",
    "hpet0",
    "tools",
    "uuid.",
    "msg.",
    "vc.",
    "sched",
    "replay.",
    "migrat",
    "vmotion.",
    "cleanshutdown",
    "softpoweroff",
    "extendedconfigfile",
    "nvram",
    "monitor.",
    "snapshot.",
    "svga",
    "mks.",
    "gui.",
    "isolation.",
    "powertype.",
    "annotation",
    "checkpoint.",
    "virtualdev",
    "disk.",
    "guestinfo.",
    "numa.",
    "rtc.",
    "time.",
    "workingdir",
    "policy.",
    "vmxstats",
    "viv.",
    "unity.",
    "ehci",
    "usb",
    "uhci",
    "mem.",
    "prefvmx.",
    "proxyapps.",
    "priority.",
    "cpuid.",
    "mainmem.",
    "bios",
    "ulm.",
    "featmask.",
    "debugstub.",
    "log",
    "chipset.",
    "deploymentplatform",
    "scsi",
    "sata",
    "ide",
    "nvme",
]
"""Beginnings of keys that say how VMware runs a machine, not what it is."""
_LOST = {
    "sound": ("there is no sound card", ""),
    "floppy": ("there is no floppy drive", ""),
    "serial": ("one serial port is there, the console", ""),
    "parallel": ("there is no parallel port", ""),
    "pcipassthru": ("a device of the other host is not given to the machine", "set pci = …; see tinamou pci ls"),
    "vhv.enable": ("virtualization inside the guest is there under KVM where the host permits it", "tinamou doctor"),
    "sharedfolder": ("", ""),
}


def read(text: str) -> Draft:
    """The machine. Raises SpecError for one that is encrypted."""
    values = _values(text)
    if "encryption.keysafe" in values:
        raise SpecError(
            "the .vmx is encrypted", why="its settings and disks need VMware's key", fix="remove the encryption there"
        )
    draft = Draft("a VMware machine", confined=True)
    windows = foreign.system(draft, "guestOS", values.pop("guestos", ""))
    foreign.named(draft, "displayName", values.pop("displayname", ""))
    memory = size(values.pop("memsize", "256"), unit="M")
    draft.put("memory.size", str(memory) if memory else "512M")
    count = whole(values.pop("numvcpus", "1")) or 1
    foreign.topology(draft, "cpuid.coresPerSocket", count, whole(values.pop("cpuid.corespersocket", "1")) or 1)
    secure = switch(values.pop("uefi.secureboot.enabled", ""))
    if values.pop("firmware", "bios").lower() == "efi":
        foreign.uefi(draft, "firmware", secure=secure)
    _tpm(draft, values)
    _disks(draft, values, windows=windows)
    _cards(draft, values, windows=windows)
    _shares(draft, values)
    _rest(draft, values)
    return draft


def _values(text: str) -> dict[str, str]:
    values: dict[str, str] = {}
    for line in text.splitlines():
        key, _, value = (part.strip() for part in line.partition("="))
        if key and not key.startswith("#") and len(value) >= 2 and value[0] == value[-1] == '"':
            values[key.lower()] = re.sub(r"\|([0-9A-Fa-f]{2})", lambda match: chr(int(match[1], 16)), value[1:-1])
    if len(values) > _MOST:
        raise SpecError(f"the .vmx has {len(values)} settings", why=f"more than {_MOST} are no machine's")
    return values


def _taken(values: dict[str, str], stem: str) -> dict[str, str]:
    """All keys of one device, taken out."""
    keys = [key for key in values if key.startswith(f"{stem}.")]
    return {key.removeprefix(f"{stem}."): values.pop(key) for key in keys}


def _disks(draft: Draft, values: dict[str, str], *, windows: bool) -> None:
    slots = dict.fromkeys(key.partition(".")[0] for key in values if _SLOT.match(key))
    for slot in slots:
        one = _taken(values, slot)
        kind, file = one.get("devicetype", "disk").lower(), one.get("filename", "")
        if not switch(one.get("present", "true")):
            continue
        if "raw" in kind or kind == "atapi-cdrom" or file in ("", "auto detect"):
            reason = "a drive of the host, or an empty one: a disc can be plugged in while the machine runs (tinamou disk)"
            draft.done(slot, file, reason)
            continue
        controller = values.get(f"{slot.partition(':')[0]}.virtualdev", slot.rstrip("0123456789:"))
        disk = Disk(slot, file, cdrom="cdrom" in kind or file.lower().endswith(".iso"))
        if one.get("mode", "persistent") != "persistent":
            draft.changed(
                slot, f"mode = {one['mode']}", "what the guest writes goes into a layer of the machine's own anyway"
            )
        foreign.attach(draft, disk, controller, windows=windows)
        _left(draft, slot, one.keys() - {"devicetype", "filename", "present", "mode"})


def _left(draft: Draft, stem: str, keys: set[str]) -> None:
    if keys:
        draft.done(stem, ", ".join(sorted(keys)), "how VMware runs the device, not what it is")


def _cards(draft: Draft, values: dict[str, str], *, windows: bool) -> None:
    kinds = {"nat": "nat", "bridged": "bridged", "hostonly": "internal", "custom": "bridged", "": "bridged"}
    draft.nets = []
    for stem in dict.fromkeys(key.partition(".")[0] for key in list(values) if _CARD.match(key)):
        one = _taken(values, stem)
        if not switch(one.get("present", "true")):
            continue
        given = one.get("address") if one.get("addresstype") == "static" else one.get("generatedaddress")
        kind = one.get("connectiontype", "").lower()
        name = one.get("networkname") or one.get("vnet", "")
        model = one.get("virtualdev", "e1000" if kind else "pcnet")
        used = {
            "present",
            "addresstype",
            "address",
            "generatedaddress",
            "connectiontype",
            "networkname",
            "vnet",
            "virtualdev",
        }
        _left(draft, stem, one.keys() - used)
        foreign.connect(draft, stem, kinds.get(kind, kind), name, model, given or "", windows=windows)


def _tpm(draft: Draft, values: dict[str, str]) -> None:
    keys = [key for key in ("vtpm.present", "managedvm.autoaddvtpm") if key in values]
    if {values.pop(key).lower() for key in keys} & {"true", "software"}:
        foreign.tpm(draft, "vtpm.present", "TRUE")


def _shares(draft: Draft, values: dict[str, str]) -> None:
    for stem in dict.fromkeys(key.partition(".")[0] for key in list(values) if key.startswith("sharedfolder")):
        one = _taken(values, stem)
        if path := one.get("hostpath"):
            foreign.folder(draft, stem, path)


def _rest(draft: Draft, values: dict[str, str]) -> None:
    own = []
    for key, value in values.items():
        said = next((told for stem, told in _LOST.items() if key.startswith(stem)), None)
        off = value.lower() in ("false", "")
        if said and said[0] and not off and (key.endswith(".present") or "." not in key or key == "vhv.enable"):
            draft.lost(key, value, *said)
        elif said or off or key.startswith(tuple(_OWN)):
            own.append(key)
        else:
            draft.check(
                key, value, "this setting of VMware's has no counterpart known here", "see whether the guest needs it"
            )
    if own:
        draft.done(", ".join(own), "", "how VMware runs the machine, not what it is")
