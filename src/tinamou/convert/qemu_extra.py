"""The options of a QEMU command line about sound, watchdogs, USB, vsock and SMBIOS.

Source: QEMU docs/system/invocation; qemu-system-x86_64 -device help.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, get_args, get_type_hints

from tinamou.convert import foreign
from tinamou.convert.qemu_line import Line, keys
from tinamou.convert.values import size, whole
from tinamou.parts.identity import SmbiosSpec
from tinamou.parts.standard import DeviceSpec

if TYPE_CHECKING:
    from tinamou.convert.qemu_cpu import Handler

__all__ = ["HANDLERS", "device", "joined", "persistent"]

_HDA = ("intel-hda", "ich9-intel-hda")
_OTHER_SOUND = ("AC97", "ES1370", "sb16", "usb-audio", "adlib", "gus", "cs4231a")
_USB = {"usb-tablet": "tablet", "usb-mouse": "mouse", "usb-kbd": "keyboard", "usb-hub": "hub"}
_OF_TYPE_1 = ("manufacturer", "product", "version", "serial", "uuid", "sku", "family")


def device(line: Line, driver: str, found: dict[str, str], text: str) -> bool:
    """One -device of these kinds; whether it was one."""
    if driver.startswith("virtio-sound") or driver in _HDA or driver.startswith(_OTHER_SOUND):
        _sound(line, "-device", text, "virtio" if driver.startswith("virtio") else driver)
    elif driver.startswith("hda-"):
        line.draft.done("-device", text, "the sound card has a codec for both ways")
    elif driver in _USB:
        line.draft.append("usb", _USB[driver])
        line.draft.done("-device", text, "it is plugged into a USB 3 controller of the machine's own")
    elif driver == "i6300esb":
        line.seen.add("watchdog")
        line.draft.done("-device", text, "the watchdog is there: devices.watchdog")
    elif driver.startswith("vhost-vsock") and (number := whole(found.get("guest-cid", ""))) and 2 < number < 1 << 32:
        line.draft.put("devices.vsock", number)
        line.draft.done("-device", text, "host and guest speak over AF_VSOCK under this number")
    elif driver == "ivshmem-plain" and (backend := line.take("object", found.get("memdev", ""))):
        foreign.frames(line.draft, "-device", f"{text}: {backend.text}", size(backend.keys.get("size", ""), unit="B"))
    else:
        return False
    return True


def persistent(line: Line, text: str, name: str) -> None:
    """Memory of that name that is a file: one that is not shared kept nothing of what the guest wrote."""
    definition = line.take("object", name)
    backend = definition.keys if definition else {}
    text = f"{text}: {definition.text}" if definition else text
    path, readonly = backend.get("mem-path", ""), backend.get("readonly") in ("on", "true")
    if path and (readonly or backend.get("share") in ("on", "true")):
        foreign.persistent(line.draft, "-device", text, path, readonly=readonly)
    else:
        reason = "what the guest wrote to it was thrown away, and persistent memory is a file it writes to"
        line.draft.lost("-device", text, reason, "set pmem, with readonly = true")


def _sound(line: Line, where: str, text: str, kind: str) -> None:
    known = "hda" if kind in (*_HDA, "hda") else "virtio" if kind == "virtio" else ""
    line.draft.put("devices.sound", known or "hda")
    heard = "it is heard through the screen's server"
    if known:
        line.draft.done(where, text, f"the sound card is there; {heard}")
    else:
        line.draft.changed(where, text, f"the sound card is Intel's (hda), which every guest of today knows; {heard}")


def joined(line: Line) -> None:
    """The watchdog, once both its device and what it does are known."""
    actions = [one.partition(":")[2] for one in line.seen if one.startswith("watchdog-action:")]
    if "watchdog" in line.seen:
        line.draft.put("devices.watchdog", actions[0] if actions else "reset")


def _audio(line: Line, option: str, text: str) -> None:
    """``-audio driver,model=hda`` has a card; ``-audiodev`` is QEMU's end of it alone."""
    model = keys(text, "driver").get("model", "")
    if option == "audio" and model and model != "none":
        _sound(line, "-audio", text, model)
    else:
        line.draft.done(f"-{option}", text, "a sound card is heard through the screen's server")


def _soundhw(line: Line, option: str, text: str) -> None:
    _sound(line, "-soundhw", text, text)


def _watchdog_action(line: Line, option: str, text: str) -> None:
    if text in get_args(get_type_hints(DeviceSpec)["watchdog"]) and text != "none":
        line.seen.add(f"watchdog-action:{text}")
        line.draft.done("-watchdog-action", text, "it is what devices.watchdog says")
    else:
        line.passed.append((option, text))
        line.draft.check("-watchdog-action", text, "kept in qemu_args", "see whether the machine needs it")


def _smbios(line: Line, option: str, text: str) -> None:
    """Tables of type 1 and 11, as far as they are the machine's own words; others are passed on."""
    found = keys(text, "")
    kind, spec = found.pop("type", ""), SmbiosSpec()
    fits = {name: value for name, value in found.items() if name in _OF_TYPE_1 and re.fullmatch(r"[ -~]{1,64}", value)}
    if kind == "1" and fits and fits.keys() == found.keys():
        for name, value in fits.items():
            line.draft.put(f"smbios.{name}", value)
    elif kind == "11" and found.keys() == {"value"} and not SmbiosSpec(oem=(found["value"],)).problems():
        line.draft.put("smbios.oem", [*(line.draft.get("smbios.oem") or spec.oem), found["value"]])
    else:
        line.passed.append((option, text))
        line.draft.changed("-smbios", text, "kept in qemu_args: what the guest sees of its maker and identity stays")
        return
    line.draft.done("-smbios", text, "the guest reads the same about its maker")


HANDLERS: dict[str, Handler] = {
    **dict.fromkeys(("audio", "audiodev"), _audio),
    "soundhw": _soundhw,
    "watchdog-action": _watchdog_action,
    "smbios": _smbios,
}
"""Option → what it does to the draft."""
