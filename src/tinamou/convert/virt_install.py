"""Reader of virt-install's command lines: the words, or a shell script with them; nothing of it is run.

Source: virt-install(1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from tinamou.convert import foreign, nets
from tinamou.convert.account import HIDDEN, Keys, hidden
from tinamou.convert.qemu_line import pairs
from tinamou.convert.result import Disk, Draft
from tinamou.convert.shell import Command, commands
from tinamou.convert.values import machine_name, size, whole
from tinamou.errors import SpecError

__all__ = ["read", "read_words"]

_BARE = frozenset(
    [
        "import",
        "pxe",
        "noautoconsole",
        "noreboot",
        "autostart",
        "transient",
        "destroy-on-exit",
        "hvm",
        "paravirt",
        "container",
        "debug",
        "quiet",
        "q",
        "d",
        "nographics",
        "vnc",
        "accelerate",
        "v",
        "nonetworks",
        "nodisks",
        "force",
    ]
)
"""Options without a value."""
_SHORT = {
    "n": "name",
    "r": "memory",
    "ram": "memory",
    "l": "location",
    "c": "cdrom",
    "w": "network",
    "f": "disk",
    "x": "extra-args",
}
_SHORT |= {"osinfo": "os-variant", "host-device": "hostdev", "file": "disk"}
_IMPLIED = {"memory": "memory", "vcpus": "vcpus", "cpu": "model", "disk": "path", "network": "type", "graphics": "type"}
_HOW = "noautoconsole wait noreboot autoconsole debug quiet q d connect check force transient destroy-on-exit metadata"
_SMALL = "console serial channel rng controller memballoon panic input video vsock"
_DONE = {
    **dict.fromkeys(["virt-type", "hvm", "accelerate", "v", "machine"], "accelerator and board are what this host has best"),
    **dict.fromkeys(_SMALL.split(), "small devices are there where the machine needs them"),
    **dict.fromkeys([*_HOW.split(), "uuid", "import"], "how virt-install goes about it"),
    "description": "a machine file has comments",
    "os-type": "it decides about drivers alone",
    "autostart": "a machine starts with the host where that is asked: tinamou autostart",
}


def read(text: str) -> Draft:
    """The machine of the first such line in a script. Raises SpecError."""
    found, others = list[Command](), list[Command]()
    for one in commands(text):
        is_it = any(word.rpartition("/")[2] == "virt-install" for word in one.words[:3])
        (found if is_it else others).append(one)
    if not found:
        raise SpecError("there is no virt-install in it", fix="tinamou convert -- virt-install …")
    draft = read_words(found[0].words)
    for one in found[1:]:
        draft.lost(
            f"line {one.line}", " ".join(one.words)[:80], "a second machine in the same file", "convert it on its own"
        )
    for one in others:
        draft.check(f"line {one.line}", " ".join(one.words)[:80], "nothing is run here", "see whether the machine needs it")
    return draft


def read_words(words: Sequence[str]) -> Draft:
    """The machine of one line, as a shell gives it. Raises SpecError."""
    draft = Draft("a virt-install line")
    draft.nets = []
    options = _options(draft, words)
    system = "".join(value for name, value in options if name == "os-variant").removeprefix("name=").partition(",")[0]
    windows = foreign.system(draft, "--os-variant", system) if system else False
    if system and not windows:
        draft.done("--os-variant", system, "it decides about drivers alone")
    given = {name for name, _ in options}
    for name, value in options:
        if name == "os-variant":
            continue
        if reader := _READERS.get(name):
            reader(draft, name, Keys(dict(pairs(value, _IMPLIED.get(name, "")))), value, windows)
        elif name in _DONE:
            draft.done(f"--{name}", value, _DONE[name])
        else:
            draft.lost(f"--{name}", hidden(name, value), "no rule of tinamou's reads this", "see docs/reference/spec.md")
    if not given & {"network", "nonetworks"}:
        draft.net()
        draft.changed(
            "--network", "", "virt-install joins a network of libvirt's; here one of the machine's own", "set type"
        )
    if not given & {"graphics", "nographics", "vnc"}:
        draft.put("display.type", "vnc")
        draft.changed("--graphics", "", "virt-install gives a screen unless it is told not to", "leave display out")
    if given & {"cdrom"}:
        for disk in draft.disks:
            disk.order = 0 if disk.cdrom else None
    return draft


def _options(draft: Draft, words: Sequence[str]) -> list[tuple[str, str]]:
    start = next((at for at, word in enumerate(words) if word.rpartition("/")[2] == "virt-install"), -1)
    found: list[tuple[str, str]] = []
    rest = iter(words[start + 1 :])
    for word in rest:
        name, equals, value = word.lstrip("-").partition("=")
        if not word.startswith("-"):
            draft.lost("word", word, "it belongs to no option", "see virt-install(1)")
            continue
        name = _SHORT.get(name, name)
        found.append((name, value if equals else "" if name in _BARE else next(rest, "")))
    return found


def _left(draft: Draft, name: str, options: Keys) -> None:
    if left := [f"{key}={HIDDEN if hidden(key, value) == HIDDEN else value}" for key, value in options.unread()]:
        draft.lost(f"--{name}", ",".join(left), "no rule of tinamou's reads this", "see docs/reference/spec.md")


def _name(draft: Draft, _: str, options: Keys, text: str, windows: bool) -> None:
    foreign.named(draft, "--name", text)


def _memory(draft: Draft, name: str, options: Keys, text: str, windows: bool) -> None:
    amount = options.get("memory")
    if found := size(amount, unit="M"):
        draft.put("memory.size", str(found))
    else:
        draft.check("--memory", text, "what it means is not known here", "set memory")
    if options.get("hugepages") in ("on", "yes"):
        draft.put("memory.hugepages", "auto")
    _left(draft, name, options)


def _vcpus(draft: Draft, name: str, options: Keys, text: str, windows: bool) -> None:
    parts = {key: number for key in ("sockets", "cores", "threads") if (number := whole(options.get(key)))}
    count = whole(options.get("vcpus"))
    if count is None:
        count = math.prod(parts.values())
    draft.put("cpu.count", max(1, count))
    for key, number in parts.items():
        draft.put(f"cpu.{key}", number)
    if (most := whole(options.get("maxvcpus"))) and most > count:
        draft.put("cpu.max", most)
    _left(draft, name, options)


def _cpu(draft: Draft, name: str, options: Keys, text: str, windows: bool) -> None:
    model, *features = text.split(",")
    if model in ("host", "host-passthrough", "host-model", "host-copy", "maximum"):
        draft.done("--cpu", model, "auto takes the host's own model under KVM")
        model = "host"
    plain = [one for one in features if one[:1] in "+-"]
    if model != "host" or plain:
        draft.put("cpu.model", ",".join([model, *plain]))
    if rest := ",".join(one for one in features if one not in plain):
        draft.lost("--cpu", rest, "it is set another way here", "set cpu.model, cpu.cores")


def _disk(draft: Draft, name: str, options: Keys, text: str, windows: bool) -> None:
    if text == "none":
        draft.done("--disk", text, "there is no disk")
        return
    path, amount, kind = options.get("path"), options.get("size"), options.get("device")
    pool, volume, bus = options.get("pool"), options.get("vol"), options.get("bus")
    if volume or (pool and not path):
        path = f"{volume.partition('/')[2] or draft.get('name') or 'machine'}.qcow2"
        draft.check(
            "--disk", text, f"a volume of libvirt's: the machine looks for {path}", "virsh vol-path; name it in path"
        )
    bytes_of = size(amount, unit="G")
    disk = Disk("--disk", path, str(bytes_of) if bytes_of else "", cdrom=kind == "cdrom")
    if options.get("boot_order") or options.get("boot.order"):
        disk.order = whole(options.get("boot_order") or options.get("boot.order"))
    if form := options.get("format") or options.get("driver.type"):
        disk.format = form
    if (cache := options.get("cache")) in ("none", "writeback", "writethrough", "directsync", "unsafe") and not disk.cdrom:
        disk.options["cache"] = cache
    if options.get("readonly") in ("on", "yes") and not disk.cdrom:
        disk.options["readonly"] = True
    if options.get("backing_store"):
        draft.lost("--disk", f"backing_store={options['backing_store']}", "a layer is made by hand", "qemu-img create -b")
        options.read("backing_format")
    if bus == "scsi":
        disk.options["interface"], bus = "scsi", "virtio"
    foreign.attach(draft, disk, bus or "virtio", windows=windows)
    _left(draft, name, options)


def _cdrom(draft: Draft, name: str, options: Keys, text: str, windows: bool) -> None:
    draft.disks.append(Disk("--cdrom", text, cdrom=True))


def _location(draft: Draft, name: str, options: Keys, text: str, windows: bool) -> None:
    reason = "kernel and initrd of an installer are not fetched"
    draft.lost("--location", text, reason, "name its disc with --cdrom, or set boot.kernel and boot.initrd")


def _network(draft: Draft, name: str, options: Keys, text: str, windows: bool) -> None:
    kind = options.get("type")
    if kind.startswith(("network:", "bridge:")):  # as before virt-install 0.400
        old, _, given = kind.partition(":")
        options, kind = Keys(options, {old: given}), ""
        options.read("type")
    if kind == "none" or name == "nonetworks":
        draft.done(f"--{name}", text, "net = []")
        return
    net, bridge, network = draft.net(), options.get("bridge"), options.get("network")
    source = options.get("source")
    if bridge or kind == "bridge":
        net |= {"type": "bridge", "bridge": bridge or source}
    elif network == "default" or kind == "default":
        draft.changed(
            "--network", text, "a network of the machine's own with a way out", 'bridge = "virbr0" joins libvirt\'s'
        )
    elif network:
        net |= {"type": "bridge", "network": machine_name(network)[:31] or "default"}
        draft.check("--network", network, "what that network is, only libvirt knows", "virsh net-info")
    elif kind == "direct" or kind.startswith("macvtap"):
        net |= {"type": "macvtap", "interface": source}
        options.read("source_mode")
    elif kind not in ("user", "passt", ""):
        draft.lost("--network", text, "no network of that kind is here; the card is on an ordinary one", "set type")
    nets.card(draft, net, "--network", options.get("model") or options.get("model.type"), windows=windows)
    if mac := options.get("mac") or options.get("mac.address"):
        if mac.upper() != "RANDOM":
            nets.set_mac(draft, net, "--network", mac)
        else:
            draft.done("--network", "mac=RANDOM", "an address is derived from the machine's name")
    _left(draft, name, options)


def _graphics(draft: Draft, name: str, options: Keys, text: str, windows: bool) -> None:
    kind = options.get("type") if name == "graphics" else {"vnc": "vnc", "nographics": "none"}[name]
    if kind in ("vnc", "spice"):
        draft.put("display.type", kind)
        options.all_read()
        shown = ",".join(f"{key}={hidden(key, value)}" for key, value in options.items())
        draft.changed(f"--{name}", shown, "the screen is on a Unix socket of the machine", "tinamou display")
    else:
        draft.done(f"--{name}", text, "there is no screen unless one is asked for")


def _boot(draft: Draft, name: str, options: Keys, text: str, windows: bool) -> None:
    if "uefi" in options or options.get("firmware") == "efi":
        options.read("uefi", "firmware")
        secure = [key for key in options if "secure-boot" in str(options[key])]
        foreign.uefi(draft, "--boot", secure=bool(secure), files=text)
        options.all_read()
    for key, field in (("kernel", "kernel"), ("initrd", "initrd"), ("cmdline", "cmdline"), ("kernel_args", "cmdline")):
        if value := options.get(key):
            draft.put(f"boot.{field}", value)
    order = [key for key in options if key in ("hd", "cdrom", "network", "fd")]
    if order:
        options.read(*order)
        draft.changed("--boot", ",".join(order), "the machine's image is what is started from", "set boot.order")
    if options.get("menu") in ("on", "yes"):
        draft.put("boot.menu", True)
    _left(draft, name, options)


def _arch(draft: Draft, name: str, options: Keys, text: str, windows: bool) -> None:
    draft.put("arch", {"i686": "x86_64"}.get(text, text))


def _tpm(draft: Draft, name: str, options: Keys, text: str, windows: bool) -> None:
    if text == "none":
        draft.done("--tpm", text, "there is no TPM unless one is asked for")
    else:
        foreign.tpm(draft, "--tpm", text)


def _hostdev(draft: Draft, name: str, options: Keys, text: str, windows: bool) -> None:
    address = text.partition(",")[0].removeprefix("pci_").replace("_", ":", 2).replace("_", ".")
    foreign.passed_through(draft, "--hostdev", text, address if address.count(":") == 2 else f"0000:{address}")


def _folder(draft: Draft, name: str, options: Keys, text: str, windows: bool) -> None:
    path = options.get("source") or text.partition(",")[0]
    draft.append("share", {"path": path})
    draft.changed(
        "--filesystem", text, "a virtio-fs share that is mounted by itself", "take the line out of the guest's fstab"
    )


_READERS = {
    "name": _name, "memory": _memory, "vcpus": _vcpus, "cpu": _cpu, "disk": _disk, "cdrom": _cdrom, "location": _location,
    "network": _network, "nonetworks": _network, "graphics": _graphics, "nographics": _graphics, "vnc": _graphics,
    "boot": _boot, "arch": _arch, "tpm": _tpm, "hostdev": _hostdev, "filesystem": _folder,
}  # fmt: skip
"""Option → its reader."""
