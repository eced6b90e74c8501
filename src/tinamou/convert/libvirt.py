"""Reader of libvirt domains (``virsh dumpxml``): memory, firmware, what a domain says of itself.

CPUs are in libvirt_cpu, devices in libvirt_devices, disks in libvirt_disks, interfaces in libvirt_nets. What none of them
asks for is reported, by the rules of libvirt_rules or as lost. Source: libvirt's documentation, *Domain XML format*.
"""

from __future__ import annotations

from tinamou.arch import ARCHES
from tinamou.convert import foreign, libvirt_cpu, libvirt_devices, libvirt_features
from tinamou.convert.account import report
from tinamou.convert.libvirt_rules import RULES
from tinamou.convert.result import Draft
from tinamou.convert.values import size, switch, whole
from tinamou.convert.xml import Element, attribute, children, documents, shown_of, text_of
from tinamou.errors import SpecError
from tinamou.units import Size

__all__ = ["read"]

_NEAR = {"i686": "x86_64"}


def read(text: str) -> Draft:
    """The machine of a domain. Raises SpecError for one of another hypervisor or architecture."""
    found = [domain for root in documents(text, "the libvirt domain") for domain in _domains(root)]
    if not found:
        raise SpecError("there is no libvirt domain in it", fix="virsh dumpxml NAME writes one")
    root = found[0]
    kind = root.get("type") or "kvm"
    if kind not in ("kvm", "qemu", "hvf"):
        raise SpecError(f"the domain is of {kind}, not of QEMU", fix="convert it with virt-v2v first")
    draft = Draft("a libvirt domain")
    foreign.named(draft, "name", text_of(root, "name"))
    ids = (one.get("id").rpartition("microsoft.com/") for one in root.iter("os"))
    windows = any(foreign.system(draft, "libosinfo:os", one[2]) for one in ids if one[1])
    _accel(draft, kind)
    _memory(draft, root)
    libvirt_cpu.count(draft, root)
    _os(draft, root)
    libvirt_features.read(draft, root)
    libvirt_cpu.model(draft, root, kind)
    libvirt_cpu.pins(draft, root)
    libvirt_cpu.nodes(draft, root)
    _security(draft, root)
    libvirt_devices.read(draft, root.find("devices"), windows=windows)
    _boot(draft, root.find("os"))
    _rest(draft, root)
    report(draft, root.unread(), RULES)
    for other in found[1:]:
        draft.lost("domain", text_of(other, "name"), "a second machine in the same document", "convert it on its own")
    return draft


def _domains(root: Element) -> list[Element]:
    """The domains of a document: itself, or those a status, a snapshot or a node of another tool's has in it."""
    if root.tag == "domain":
        return [root]
    if root.tag == "domainCapabilities":
        return []
    return [one for one in root.iter("domain") if one.find("devices") is not None]


def _accel(draft: Draft, kind: str) -> None:
    reason = "an accelerator is tried before it is relied on; where none runs code, that is said"
    draft.done("domain", f"type={kind}", reason, 'set accel = "kvm" to refuse to start without it')


def _balloon(draft: Draft, root: Element, amount: Size | None) -> None:
    """What of its memory the guest is given at the start."""
    if (now := root.find("currentMemory")) is not None:
        balloon = size(text_of(now), unit=now.get("unit") or "KiB")
        if balloon and amount and balloon < amount:
            reason = "the guest has all its memory from the start; the balloon takes back what it does not use"
            draft.changed("currentMemory", now.shown(), reason, "tinamou set NAME memory.now=…")
        else:
            draft.done("currentMemory", now.shown(), "the balloon takes back what the guest does not use")


def _memory(draft: Draft, root: Element) -> None:
    node = root.find("memory")
    amount = size(text_of(node), unit=node.get("unit") or "KiB") if node is not None else None
    if nodes := libvirt_cpu.cells(root):
        amount = nodes
    if amount and nodes and node is not None:
        draft.done("memory", node.shown(), "the memory nodes' sizes are the machine's memory")
    if amount is None and node is not None and (said := node.shown()):
        draft.check("memory", said, "what it means is not known here", "set memory")
    if amount:
        draft.put("memory.size", str(Size(-(-amount >> 20) << 20)))
    _balloon(draft, root, amount)
    if (most := root.find("maxMemory")) is not None:
        draft.lost("maxMemory", most.shown(), "memory is not plugged in while the machine runs", "set memory = …")
    backing = root.find("memoryBacking")
    for one in backing if backing is not None else ():
        if one.tag == "hugepages":
            _huge(draft, one)
        elif one.tag == "nosharepages":
            draft.done("nosharepages", one.shown(), "memory is not merged with other machines' unless memory.merge says so")
        elif one.tag == "locked":
            fix = 'memory.hugepages = "auto": huge pages are never swapped out'
            draft.lost("locked", one.shown(), "memory is not locked", fix)
        else:
            draft.done(f"memoryBacking/{one.tag}", one.shown(), "the backend follows from what the machine needs")


def _huge(draft: Draft, node: Element) -> None:
    page = node.find("page")
    asked = size(page.get("size"), unit=page.get("unit") or "KiB") if page is not None else None
    fits = asked in (2 << 20, 1 << 30)
    draft.put("memory.hugepages", str(asked) if asked and fits else "auto")
    reason = "pages are reserved when the machine starts and returned when it ends"
    if asked and not fits:
        reason += f"; pages of {asked} are not huge"
    draft.changed("hugepages", node.shown(), reason)


def _os(draft: Draft, root: Element) -> None:
    os = root.find("os")
    kind = root.find("os/type")
    name = kind.get("arch", "") if kind is not None else ""
    arch = _NEAR.get(name, name)
    if arch and arch not in ARCHES:
        raise SpecError(f"tinamou has no machines of {arch}", fix=f"it has {', '.join(ARCHES)}")
    if arch:
        draft.put("arch", arch)
    if arch != name:
        draft.changed("os/type", f"arch={name}", f"{arch} runs everything {name} does")
    _board(draft, kind)
    _firmware(draft, os)
    for tag, field in (("kernel", "boot.kernel"), ("initrd", "boot.initrd"), ("cmdline", "boot.cmdline")):
        if value := text_of(os, tag):
            draft.put(field, value)
    for one in children(os, "bootmenu"):
        if switch(one.get("enable")):
            draft.put("boot.menu", True)
        draft.done("os/bootmenu", one.shown(), "boot.menu shows the firmware's own")
    _identity(draft, root, next((one.get("mode") for one in children(os, "smbios")), "emulate"))


def _identity(draft: Draft, root: Element, mode: str) -> None:
    """What ``<sysinfo>`` says of the machine's maker, where ``<os><smbios mode='sysinfo'/>`` shows it to the guest."""
    if mode in ("host", "sysinfo"):
        rank, reason = ("lost", "the guest sees QEMU's own identity") if mode == "host" else ("done", "smbios has it")
        draft.note(rank, "os/smbios", f"mode={mode}", reason, "-smbios in qemu_args" if mode == "host" else "")  # type: ignore[arg-type]
    elif mode:
        draft.done("os/smbios", mode, "the guest sees QEMU's own identity")
    for table in root.findall("sysinfo"):
        entries = {one.get("name"): text_of(one) for one in children(table, "system/entry")}
        if (kind := table.get("type")) not in ("", "smbios"):
            draft.lost("sysinfo", f"type={kind} {table.shown()}", "a machine has no such table", "keep it with qemu_args")
        elif mode == "sysinfo":
            foreign.identity(draft, "sysinfo", {key: value for key, value in entries.items() if key})
        else:
            draft.done("sysinfo", " ".join(f"{key}={value}" for key, value in entries.items()), "no smbios element shows it")


def _board(draft: Draft, kind: Element | None) -> None:
    if kind is None:
        return
    board = kind.get("machine", "")
    if (what := kind.text) and what != "hvm":
        draft.lost("os/type", what, "every machine has virtual hardware", "see whether the guest starts")
    elif what:
        draft.done("os/type", what, "every machine has virtual hardware")
    if "q35" in board or board.startswith("virt"):
        draft.done("os/type", board, "tinamou takes this board, in the version its QEMU offers, and keeps that version")
    elif board:
        reason = "tinamou's board is q35 (virt on other architectures)"
        draft.changed("os/type", board, reason, "a guest that knows only the old chipset does not start")


def _boot(draft: Draft, os: Element | None) -> None:
    """The order of kinds of devices, where devices have none of their own."""
    kinds = [one.get("dev", "") for one in children(os, "boot")]
    if "network" in kinds:
        draft.lost("os/boot", "network", "network cards carry no boot programs", "boot from a disc or a disk")
    if next((kind for kind in kinds if kind in ("hd", "cdrom")), "") == "cdrom":
        for disk in draft.disks:
            if disk.cdrom and disk.order is None:
                disk.order = -1
    if kinds:
        draft.done("os/boot", ", ".join(kinds), "the machine's image is what is started from", "set boot.order")


def _firmware(draft: Draft, os: Element | None) -> None:
    loader = os.find("loader") if os is not None else None
    nvram = os.find("nvram") if os is not None else None
    name, template = text_of(loader), nvram.get("template") if nvram is not None else ""
    features = {one.get("name"): one.get("enabled") for one in children(os, "firmware/feature")}
    secure = (loader is not None and switch(loader.get("secure"))) or features.get("secure-boot") == "yes"
    keyless = features.get("enrolled-keys") == "no"
    chosen = attribute(os, "", "firmware")
    if said := " ".join([f"firmware={chosen}"] * bool(chosen) + [f"{key}={value}" for key, value in features.items()]):
        draft.done("os/firmware", said, "the firmware that fits machine and QEMU is found by its description")
    flash = attribute(loader, "", "type") == "pflash"
    if chosen == "efi" or flash or "efi" in name.lower() or "ovmf" in name.lower():
        keys = features.get("enrolled-keys") == "yes" or any(map(foreign.enrolled, (template, text_of(nvram), name)))
        foreign.uefi(draft, "os/loader", secure=secure and not keyless and keys, files=shown_of(loader, nvram))
        if secure and not keyless and not keys:
            reason = "whether its variables hold keys is not told by their name; without keys everything starts"
            draft.check("os/nvram", template or name, reason, "set boot.secure = true if they do")
        if secure and keyless:
            reason = "Secure Boot without keys lets everything start"
            draft.check("os/firmware", "enrolled-keys no", reason, "set boot.secure = true for it with keys")
        if not secure and foreign.enrolled(template):
            reason = "its variables hold keys, but Secure Boot is not asked for"
            draft.check("os/nvram", template, reason, "set boot.secure = true if it was on")
    elif name and "bios" not in name.lower():
        reason = "a firmware file of one's own is not used"
        draft.lost("os/loader", shown_of(loader, nvram), reason, 'set firmware = "uefi" if it is one')
    elif shown := shown_of(loader, nvram):
        draft.done("os/loader", shown, "SeaBIOS is there without being asked for")


def _security(draft: Draft, root: Element) -> None:
    for one in root.findall("launchSecurity"):
        kind, policy = one.get("type"), whole(text_of(one, "policy")) if one.find("policy") is not None else None
        foreign.encrypted(
            draft, "launchSecurity", kind, foreign.sev(draft, kind, policy), bit=one.find("cbitpos") is not None
        )
        for tag in ("cbitpos", "reducedPhysBits"):
            if value := text_of(one, tag):
                draft.done(f"launchSecurity/{tag}", value, "it differs between processors and is read from CPUID")


_ENDS = {
    "on_poweroff": ("destroy", "a machine that shuts down ends, and stays on the list", ""),
    "on_reboot": ("restart", "a machine that reboots goes on", 'set qemu_args = ["-no-reboot"]'),
    "on_crash": ("preserve", "a panicked guest stops where it is, so that it can be examined", "tinamou kill NAME"),
    "on_lockfailure": ("", "disks are not leased from a lock manager", ""),
}
"""Element → what it says where tinamou does the same, what tinamou does, and the other way."""


def _rest(draft: Draft, root: Element) -> None:
    for tag, (same, reason, fix) in _ENDS.items():
        if value := text_of(root, tag):
            there = value == same or (tag == "on_crash" and value == "destroy")
            draft.note("done" if value == same else "changed" if there else "lost", tag, value, reason, fix)
    for clock in root.findall("clock"):
        _clock(draft, clock)
    words = [arg.get("value") for one in root.findall("commandline") for arg in children(one, "arg")]
    if words:
        foreign.passed_on(draft, "qemu:commandline", words, " ".join(words))


def _clock(draft: Draft, clock: Element) -> None:
    """Local time, UTC, or an offset that the guest has set itself; how late ticks are made up for follows from the guest."""
    offset = clock.get("offset") or "utc"
    shown = " ".join(
        f"{key}={value}" for key in ("offset", "basis", "adjustment", "timezone", "start") if (value := clock.get(key))
    )
    if offset == "localtime" or (offset == "variable" and clock.get("basis") == "localtime"):
        if offset == "localtime" or not draft.get("os"):  # a Windows takes it for local time by itself
            draft.put("clock.base", "localtime")
        draft.done("clock", shown, "the clock is the host's local time")
    elif offset in ("utc", "variable"):
        if draft.get("os"):
            draft.put("clock.base", "utc")
        draft.done("clock", shown, "the clock is in UTC")
    else:
        draft.lost("clock", shown, "the clock is UTC, local time, or seconds away from it", "set clock.offset")
    if offset == "variable" and (seconds := whole(clock.get("adjustment", "0"))):
        draft.put("clock.offset", seconds)
    for one in children(clock, "timer"):
        if one.get("name") != "hypervclock":
            draft.changed("clock/timer", one.shown(), "timers are those QEMU has for the machine", "keep it with qemu_args")
