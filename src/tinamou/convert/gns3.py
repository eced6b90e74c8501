"""Reader of GNS3's appliances (.gns3a): machines of QEMU, of registry versions up to 8.

Source: GNS3's schemas/appliance_v8.json and appliance.json, and its documentation, *Appliances*.
"""

from __future__ import annotations

from tinamou.convert import foreign, nets
from tinamou.convert.account import Rules, report
from tinamou.convert.result import Disk, Draft
from tinamou.convert.tree import Node, of_json
from tinamou.convert.values import size, whole, words
from tinamou.errors import SpecError

__all__ = ["read"]

_ARCHES = {"x86_64": "x86_64", "i386": "x86_64", "aarch64": "aarch64", "riscv64": "riscv64", "": "x86_64"}
_DRIVES = ("hda", "hdb", "hdc", "hdd")
_PLACE = r"(settings\[\d+\]\.template_properties|qemu)"
_RULES: Rules = (
    (r"(appliance_id|name|category|description|vendor.*|documentation_url|product.*|registry_version|status|maintainer.*|usage"
     r"|symbol|first_port_name|port_.*|availability|tags.*|linked_clone|installation_instructions|default_.*)"
     rf" settings\[\d+\]\.(name|default|template_type|inherit_.*) {_PLACE}\.(usage|symbol|name|default_name_format|category"
     r"|port_.*|first_port_name|linked_clone|custom_adapters.*|console_type|aux_type|tags.*|platform)", "done",
     "what GNS3 shows of the machine", ""),
    (r"(images|versions)\[\d+\]\..*", "changed", "another release of the appliance, or where a file is fetched from",
     "set image"),
    (rf"{_PLACE}\.(on_close|process_priority|cpu_throttling|replicate_network_connection_state|create_config_disk|legacy_networking)",
     "changed", "how GNS3 runs the machine is another way here", "set limits.cpu"),
    (rf"{_PLACE}\.(kvm|boot_priority|qemu_path|arch)", "done", "it follows from the machine", ""),
    (r"settings\[\d+\]\..*", "changed", "settings for another release of the appliance", "convert that one by itself"),
)  # fmt: skip


def read(text: str) -> Draft:
    """The newest release of the appliance. Raises SpecError for one that is no machine of QEMU's."""
    root = of_json(text, "the GNS3 appliance")
    settings = [one for one in root.at("settings").items() if one.text_at("template_type") in ("qemu", "")]
    chosen = next((one for one in settings if one.on("default")), settings[0] if settings else Node(None))
    own = root.at("qemu") or chosen.at("template_properties")
    if not own:
        kinds = {key for key in ("docker", "dynamips", "iou", "virtualbox", "vmware") if root.at(key)}
        kinds |= {one.text_at("template_type") for one in root.at("settings").items()}
        raise SpecError(f"the GNS3 appliance is of {', '.join(sorted(kinds)) or 'no kind'}, not QEMU", fix="run it in GNS3")
    draft = Draft("a GNS3 appliance", confined=True)
    foreign.named(draft, "name", root.text_at("name"))
    _size(draft, own)
    _drives(draft, own, root)
    _cards(draft, own)
    if line := own.text_at("options"):
        foreign.passed_on(draft, "options", words(line), line)
    kind = own.text_at("console_type")
    if kind in ("vnc", "spice", "spice+agent"):
        draft.put("display.type", "vnc" if kind == "vnc" else "spice")
    draft.done("console_type", kind, "the serial port is the guest's console, and there is a screen where that is asked")
    report(draft, root.unread(), _RULES)
    return draft


def _size(draft: Draft, own: Node) -> None:
    name = own.text_at("arch") or own.text_at("platform")
    if name not in _ARCHES:
        raise SpecError(f"tinamou has no machines of {name}", fix="it has x86_64, aarch64, riscv64")
    draft.put("arch", _ARCHES[name])
    if name != _ARCHES[name]:
        draft.changed("arch", name or "none", f"{_ARCHES[name]} runs everything it does")
    own.at("ram").give(draft, "memory.size", lambda said: str(found) if (found := size(said, unit="M")) else None)
    if not own.put(draft, "cpus", "cpu.count", whole):
        draft.put("cpu.count", 1)


def _drives(draft: Draft, own: Node, root: Node) -> None:
    """The files of the release that comes first; it may name none of its own."""
    version = next(iter(root.at("versions").items()), Node(None))
    images = version.at("images")
    if said := version.text_at("name"):
        draft.changed(
            "versions", said, "the release that comes first is taken", "name another one's files in image and [[disk]]"
        )
    for number, drive in enumerate(_DRIVES):
        bus = own.text_at(f"{drive}_disk_interface")
        if name := images.text_at(f"{drive}_disk_image"):
            foreign.attach(draft, Disk(f"{drive}_disk_image", name, order=number), bus or "ide", windows=False)
        elif bus:
            draft.done(f"{drive}_disk_interface", bus, "no disk is there")
    if name := images.text_at("cdrom_image"):
        first = own.text_at("boot_priority").startswith("d")
        draft.disks.append(Disk("cdrom_image", name, cdrom=True, order=-1 if first else 9))
        draft.done("cdrom_image", f"{name} {own.text_at('boot_priority')}", "the disc of the release")
    if name := images.text_at("bios_image"):
        if "OVMF" in name.upper() or "EFI" in name.upper():
            foreign.uefi(draft, "bios_image", secure=False, files=name)
        else:
            draft.lost("bios_image", name, "a firmware file of one's own is not used", 'set firmware = "uefi" if it is one')
    for key, field in (("kernel_image", "boot.kernel"), ("initrd", "boot.initrd")):
        if name := images.text_at(key):
            draft.put(field, name)
    if line := own.text_at("kernel_command_line"):
        draft.put("boot.cmdline", line)


def _cards(draft: Draft, own: Node) -> None:
    """As many as it has: what they are connected to is a project's, not the appliance's."""
    draft.nets = []
    model, count = own.text_at("adapter_type") or "e1000", whole(own.text_at("adapters") or "1") or 0
    for number in range(min(count, 64)):
        net = draft.net()
        if number:
            net["isolated"] = True
        nets.card(draft, net, f"adapter {number}", model)
    reason = "what the cards are connected to is a project's: the first is on a network of its own, the others reach nothing"
    draft.check("adapters", f"{count} {model}", reason, "set network in [[net]]")
