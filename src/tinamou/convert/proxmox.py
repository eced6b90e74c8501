"""Reader of Proxmox VE's machines (``/etc/pve/qemu-server/NNN.conf``), with the storage.cfg beside it or of this host.

Source: Proxmox VE's qm.conf(5) and *Storage* (storage.cfg); its qemu-server for what is generated.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Callable
from urllib.parse import unquote

from tinamou.convert import foreign, nets
from tinamou.convert.account import Keys, Rules, report
from tinamou.convert.result import Disk, Draft
from tinamou.convert.values import cpu_set, size, switch, whole, words
from tinamou.parts.display import MOST_REDIRECTED

__all__ = ["DISK", "read"]

DISK = re.compile(r"(?:scsi|virtio|sata|ide)\d+")
_LINE = re.compile(r"([a-zA-Z][\w-]*):\s*(.*)")
_CARDS = ("virtio", "e1000", "e1000e", "rtl8139", "vmxnet3", "ne2k_pci", "pcnet", "i82551")
_THERE = {"serial0": "the serial port is the guest's console", "rng0": "random numbers of the host are there"}
_FILES = {
    "dir": "",
    "nfs": "/mnt/pve/{}",
    "cifs": "/mnt/pve/{}",
    "glusterfs": "/mnt/pve/{}",
    "cephfs": "/mnt/pve/{}",
    "btrfs": "",
}
"""Kind of storage that keeps files → where it is, unless it says its path."""
_RULES: Rules = (
    (r"vmgenid meta", "done", "a machine is known by its name; its guest's identity changes with it", ""),
    (r"(description|tags|parent|snaptime|lock|digest|snapstate|vmstatestorage|vmstate|running.*)", "done",
     "what Proxmox notes about the machine", ""),
    (r"onboot|startup", "done", "a machine starts with the host where that is asked", "tinamou autostart"),
    (r"protection hotplug tablet keyboard kvm freeze acpi reboot autostart migrate_.*", "changed",
     "how Proxmox runs the machine is another way here", "docs/reference/spec.md"),
    (r"(cpuunits|shares|balloon)", "lost", "what a machine may use is set in [limits]", "set limits.cpu"),
    (r"(ci.*|sshkeys|ipconfig\d+|nameserver|searchdomain)", "lost", "Proxmox makes a cloud-init drive of it", "[seed]"),
    (r"(parallel|virtiofs|numa)\d*", "lost", "no such device is taken over",
     "docs/reference/spec.md: usb, devices.sound, share"),
    (r"hookscript", "lost", "no script of the host is run with a machine", "tinamou events follows it"),
    (r"unused\d+", "changed", "a disk that no device has is left where it is", "add it as [[disk]]"),
    (r"scsihw bootdisk", "done", "where a disk sits is tinamou's to choose", ""),
    (r"snapshot .*", "changed", "snapshots stay where they are", "convert the state you go on from"),
)  # fmt: skip


def read(text: str, companion: Callable[[str], str] = lambda _: "") -> Draft:
    """The machine as it is now; ``companion`` gives the text of a file by its name, empty where there is none."""
    draft = Draft("a Proxmox machine")
    values = _values(draft, text)
    stores = _stores(companion("storage.cfg"))
    foreign.named(draft, "name", values.get("name"))
    draft.put("arch", values.get("arch") or "x86_64")
    system = values.get("ostype")
    windows = _system(draft, system)
    _size(draft, values)
    _firmware(draft, values)
    order = re.split(r"[;,]", values.get("boot").removeprefix("order=").replace("order=", ""))
    for key in [key for key in values if DISK.fullmatch(key)]:
        _disk(draft, key, values.get(key), stores, order, windows=windows)
    if order != [""]:
        draft.done("boot", ";".join(order), "the machine's image is what is started from", "set boot.order")
    draft.nets = []
    for key in [key for key in values if re.fullmatch(r"net\d+", key)]:
        _card(draft, key, values.get(key), windows=windows)
    _devices(draft, values)
    report(draft, values.unread(), _RULES)
    return draft


def _values(draft: Draft, text: str) -> Keys:
    """The lines before the first section; of what follows, only that it is there, by its names."""
    found: dict[str, str] = {}
    head, *sections = re.split(r"^\[", text, flags=re.MULTILINE)
    for line in head.splitlines():
        if line.startswith("#"):
            if said := line.lstrip("# ").strip():
                draft.done("description", unquote(said), "a machine file has comments")
        elif match := _LINE.fullmatch(line.strip()):
            if match[1] in found:
                draft.lost(match[1], match[2], "the same setting once more: the first holds", "keep one")
            found.setdefault(match[1], match[2])
        elif line.strip():
            draft.lost("line", line.strip(), "it is no setting", "see qm.conf(5)")
    for one in sections:
        shown = " ".join(one.split())
        rank = "check" if one.startswith("PENDING") else "done" if one.startswith("special") else "changed"
        reasons = {"PENDING": "not yet in effect there", "special": "what Proxmox notes about the machine"}
        reason = reasons.get(re.split(r"[:\]]", one)[0], "snapshots stay where they are")
        draft.note(rank, "section", "[" + re.sub(r"(cipassword: )\S+", r"\1(not shown)", shown), reason)  # type: ignore[arg-type]
    return Keys(found)


def _stores(text: str) -> dict[str, tuple[str, dict[str, str]]]:
    """Name → kind and settings of each storage."""
    stores: dict[str, tuple[str, dict[str, str]]] = {}
    settings: dict[str, str] = {}
    for line in text.splitlines():
        if match := re.fullmatch(r"(\w+):\s*(\S+)\s*", line):
            settings = {}
            stores[match[2]] = (match[1], settings)
        elif line[:1].isspace() and (pair := line.split(None, 1)):
            settings[pair[0]] = pair[1].strip() if len(pair) > 1 else ""
    return stores


def _place(volume: str, stores: dict[str, tuple[str, dict[str, str]]]) -> str:
    """The path of ``local-lvm:vm-100-disk-0``; empty where its storage is not known, or is none of this host's files."""
    store, colon, name = volume.partition(":")
    if not colon or volume.startswith("/"):
        return volume
    kind, settings = stores.get(store, ("", {}))
    if kind in _FILES and (path := settings.get("path") or _FILES[kind].format(store)):
        return f"{path}/template/{name}" if name.startswith("iso/") else f"{path}/images/{name}"
    if kind in ("lvm", "lvmthin") and "vgname" in settings:
        return f"/dev/{settings['vgname']}/{name}"
    if kind == "zfspool" and "pool" in settings:
        return f"/dev/zvol/{settings['pool']}/{name}"
    return ""


def _system(draft: Draft, system: str) -> bool:
    """Source: qm.conf(5), ``ostype``."""
    names = {"win11": "win11", "win10": "win10"}
    if system in names:
        foreign.system(draft, "ostype", names[system])
        return True
    if system:
        draft.done("ostype", system, "it decides about drivers alone")
    if windows := system.startswith(("w2k", "win", "wxp", "wvista")):
        draft.check("ostype", system, "which Windows it is cannot be told from this", 'set os = "windows-10"')
    return windows


def _size(draft: Draft, values: Keys) -> None:
    memory = values.get("memory").removeprefix("current=")
    draft.put("memory.size", str(size(memory or "512", unit="M") or "512M"))
    if memory and not size(memory, unit="M"):
        draft.check("memory", memory, "what it means is not known here", "set memory")
    cores, sockets = whole(values.get("cores") or "1") or 1, whole(values.get("sockets") or "1") or 1
    plugged = whole(values.get("vcpus")) or cores * sockets
    draft.put("cpu.count", plugged)
    if plugged < cores * sockets:
        draft.put("cpu.max", cores * sockets)
    if values.get("cores") and plugged == cores * sockets:
        draft.put("cpu.cores", cores)
        draft.put("cpu.sockets", sockets)
    if limit := values.get("cpulimit"):
        if re.fullmatch(r"\d{1,4}(\.\d{1,6})?", limit):
            draft.put("limits.cpu", float(limit))
        draft.done("cpulimit", limit, "limits.cpu")
    _nodes(draft, values.get("numa"), sockets if plugged == cores * sockets else 1)
    if pinned := values.get("affinity"):
        draft.put("cpu.pin", str(cpu_set(pinned)))
        draft.changed("affinity", pinned, "each CPU on one of these", "leave cpu.pin out")
    if huge := values.get("hugepages"):
        draft.put("memory.hugepages", {"2": "2M", "1024": "1G"}.get(huge, "auto"))
        draft.done("hugepages", huge, "pages are reserved when the machine starts and returned when it ends")
    cpu = values.get("cpu")
    model, *rest = cpu.removeprefix("cputype=").split(",")
    flags = [flag for one in rest if one.startswith("flags=") for flag in one.removeprefix("flags=").split(";") if flag]
    if cpu and model.startswith(("custom-", "x86-64-v", "kvm64", "qemu64")):
        draft.changed("cpu", cpu, "the CPU is the host's own", "set cpu.model")
    elif cpu:
        draft.put("cpu.model", ",".join([model, *flags]))
    for one in rest:
        if not one.startswith("flags="):
            draft.lost("cpu", one, "the guest sees the CPU's own identity", "set cpu.model")


def _nodes(draft: Draft, said: str, sockets: int) -> None:
    """Memory nodes are one for each socket there, where they are asked for."""
    if switch(said) and sockets > 1:
        draft.put("cpu.nodes", sockets)
    if said:
        draft.done("numa", said, "a memory node for each socket, where that is asked")


def _firmware(draft: Draft, values: Keys) -> None:
    kind, machine = values.get("bios"), values.get("machine")
    variables = values.get("efidisk0")
    if kind == "ovmf":
        foreign.uefi(draft, "bios", secure="pre-enrolled-keys=1" in variables, files=variables)
    elif kind or variables:
        draft.done("bios", f"{kind} {variables}".strip(), "SeaBIOS is there without being asked for")
    if machine and "q35" in machine:
        draft.done("machine", machine, "tinamou takes this board, in the version its QEMU offers")
    elif machine:
        draft.changed("machine", machine, "tinamou's board is q35", "a guest that knows only the old chipset does not start")
    _sealed(draft, values)
    if state := values.get("tpmstate0"):
        foreign.tpm(draft, "tpmstate0", state)


def _sealed(draft: Draft, values: Keys) -> None:
    """Memory the host cannot read; by default Proxmox lets a guest be debugged, and its keys be shared."""
    for key, kinds in (("amd-sev", {"std": "sev", "es": "sev-es", "snp": "sev-snp"}), ("intel-tdx", {"tdx": "tdx"})):
        if said := values.get(key):
            kind = said.removeprefix("type=").partition(",")[0]
            if kind in kinds:
                foreign.encrypted(draft, key, said, kinds[kind], bit=False)
            else:
                draft.lost(key, said, "no such way to keep the host out is known here", "set confidential.type")


def _parts(text: str) -> tuple[str, dict[str, str]]:
    """``local:iso/x.iso,media=cdrom`` → what is first, and the rest by key."""
    first, *rest = text.split(",")
    pairs = {key: value for key, _, value in (one.partition("=") for one in rest)}
    return first, pairs


def _disk(
    draft: Draft, key: str, text: str, stores: dict[str, tuple[str, dict[str, str]]], order: list[str], *, windows: bool
) -> None:
    volume, found = _parts(text)
    volume = volume.removeprefix("file=").removeprefix("volume=")
    options = Keys(found)
    cdrom = options.get("media") == "cdrom"
    if cdrom and volume == "none":
        foreign.empty_drive(draft, key, text)
        return
    if cdrom and ("cloudinit" in volume or volume == "cdrom"):
        draft.done(key, text, "cloud-init finds the machine's configuration by itself; a drive of the host is not given")
        return
    place = _place(volume, stores)
    if not place:
        reason = "where that storage lies is said by storage.cfg, or it is on no file of this host"
        draft.check(key, text, reason, f"put storage.cfg beside the file; pvesm path {volume}")
    disk = Disk(key, place or volume.replace(":", "/", 1), cdrom=cdrom)
    disk.order = order.index(key) if key in order else None
    draft.done(key, f"{volume} size={options.get('size')} format={options.get('format')}", "told by what is in the disk")
    kinds = {"iothread": "iothread", "ro": "readonly"}
    disk.options |= {field: True for name, field in kinds.items() if switch(options.get(name))}
    if (cache := options.get("cache") or "none") and not cdrom:
        disk.options["cache"] = cache
    if not cdrom and not switch(options.get("discard").replace("ignore", "off")):
        disk.options["discard"] = False
    if (aio := options.get("aio")) in ("native", "threads", "io_uring"):
        disk.options["aio"] = aio
    if iops := whole(options.get("iops")):
        disk.options["iops"] = iops
    if bandwidth := size(options.get("mbps"), unit="M"):
        disk.options["bandwidth"] = str(bandwidth)
    if key.startswith("scsi") and not cdrom:
        disk.options["interface"] = "scsi"
    foreign.attach(draft, disk, "virtio" if key.startswith(("scsi", "virtio")) else key, windows=windows)
    if left := [f"{name}={value}" for name, value in options.unread()]:
        fix = "iops, bandwidth, queues in [[disk]]"
        draft.lost(key, ",".join(left), "this setting of a disk is made another way, or not at all", fix)


def _card(draft: Draft, key: str, text: str, *, windows: bool) -> None:
    first, *rest = text.split(",")
    options = Keys({name: value for name, _, value in (one.partition("=") for one in rest)})
    model, _, mac = first.partition("=")
    if model == "model":
        model, mac = mac, options.get("macaddr")
    if switch(options.get("link_down")):
        options.all_read()
        foreign.uncabled(draft, key, text)
        return
    net, bridge, tag = draft.net(), options.get("bridge"), whole(options.get("tag"))
    if bridge:
        net |= {"type": "bridge", "bridge": bridge}
        draft.check(key, f"bridge={bridge}", "a bridge of that host", "leave it out, or name one of this host")
    if tag:
        draft.lost(key, f"tag={tag}", "the bridge tags a VLAN there; here an Open vSwitch does", 'type = "ovs", vlan = …')
    if queues := whole(options.get("queues")):
        net["queues"] = queues
    if mtu := whole(options.get("mtu")):
        net["mtu"] = mtu if mtu > 1 else 0
    nets.card(draft, net, key, model, windows=windows)
    if mac:
        nets.set_mac(draft, net, key, mac)
    if left := [f"{name}={value}" for name, value in options.unread()]:
        draft.lost(key, ",".join(left), "it is set another way here", "anti_spoof, rate_in, rate_out, trunk in [[net]]")


def _usb(draft: Draft, values: Keys) -> None:
    """Devices of the host, and ports that a viewer of SPICE may hand its own to (source: qm(1), usb[n])."""
    viewers = 0
    for key in [key for key in values if re.fullmatch(r"usb\d+", key)]:
        text = values.get(key)
        device = text.partition(",")[0].removeprefix("host=").removeprefix("0x").replace(":0x", ":")
        if device == "spice" and viewers < MOST_REDIRECTED:
            viewers += 1
            draft.done(key, text, "a USB device of the viewer's can be handed to the guest: display.redirected_usb")
        else:
            foreign.usb_device(draft, key, text, device)
    if viewers:
        draft.put("display.type", "spice")
        draft.put("display.redirected_usb", viewers)


def _passed(draft: Draft, values: Keys) -> None:
    """Devices of the host, and serial ports beside the console."""
    for key in [key for key in values if re.fullmatch(r"hostpci\d+", key)]:
        text = values.get(key)
        address = text.removeprefix("host=").partition(",")[0].partition(";")[0]
        if "=" in address:
            draft.lost(key, text, "what a mapping stands for, the cluster alone knows", "set pci = …; see tinamou pci ls")
            continue
        said = dict(one.partition("=")[::2] for one in text.split(",")[1:])
        whole_address = address if address.count(":") == 2 else f"0000:{address}"
        shown = whole_address if "." in whole_address else f"{whole_address}.0"
        foreign.passed_through(draft, key, text, shown, rom=said.get("rombar") != "0")
        if left := ",".join(f"{name}={said[name]}" for name in said if name not in ("pcie", "rombar")):
            draft.lost(key, left, "a device of the host has no such setting here", "see pci; -device vfio-pci in qemu_args")
    for key in [key for key in values if re.fullmatch(r"serial[1-9]", key)]:
        foreign.serial(draft, key, values[key], "" if values[key] == "socket" else values[key])


def _devices(draft: Draft, values: Keys) -> None:
    vga = values.get("vga").removeprefix("type=")
    if vga.startswith(("none", "serial")):
        draft.done("vga", vga, "there is no graphics card unless a display is asked for")
    else:
        draft.put("display.type", "spice" if vga.startswith("qxl") else "vnc")
        draft.changed("vga", vga or "std", "the display has the card every guest can drive (virtio-vga)", "display.video")
    _passed(draft, values)
    _usb(draft, values)
    if switch(agent := values.get("agent").removeprefix("enabled=").partition(",")[0]):
        draft.done("agent", values["agent"], "the channel to the guest's agent is there")
    elif agent:
        draft.done("agent", values["agent"], "a guest without an agent is reached by ssh or its console")
    for key, reason in _THERE.items():
        if value := values.get(key):
            draft.done(key, value, reason)
    if shared := values.get("ivshmem"):
        amount = dict(one.partition("=")[::2] for one in shared.split(",")).get("size", "")
        foreign.frames(draft, "ivshmem", shared, size(amount, unit="M"))
    _choices(draft, values)
    if given := values.get("smbios1"):
        pairs = dict(one.partition("=")[::2] for one in given.split(","))
        if pairs.pop("base64", "") == "1":
            pairs = {key: value if key == "uuid" else _decoded(value) for key, value in pairs.items()}
        foreign.identity(draft, "smbios1", pairs)


def _decoded(text: str) -> str:
    """A word in base64; as it is, where it is none."""
    try:
        return base64.b64decode(text, validate=True).decode()
    except (ValueError, UnicodeDecodeError):
        return text


def _choices(draft: Draft, values: Keys) -> None:
    if balloon := values.get("balloon"):
        if balloon == "0":
            draft.put("devices.balloon", False)
        else:
            draft.done("balloon", balloon, "the balloon takes back what the guest does not use")
    if switch(local := values.get("localtime")):
        draft.put("clock.base", "localtime")
    elif local:
        draft.put("clock.base", "utc")
    if dog := values.get("watchdog"):
        action = dict(one.partition("=")[::2] for one in dog.split(",")).get("action", "reset")
        draft.put("devices.watchdog", action)
        draft.changed("watchdog", dog, "the watchdog is an i6300esb")
    if sound := values.get("audio0"):
        draft.put("devices.sound", "hda")
        draft.changed("audio0", sound, "the sound card is Intel's (hda), heard through the screen's server")
    if line := values.get("args"):
        foreign.passed_on(draft, "args", words(line), line)
    if switch(values.get("template")):
        draft.changed("template", "1", "a machine is made of it", "tinamou template keeps one to clone")
