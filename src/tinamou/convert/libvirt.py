"""Reader of libvirt domains (``virsh dumpxml``): memory, CPUs, firmware, placement; the devices are in libvirt_devices.

Source: libvirt's documentation, *Domain XML format*.
"""

from __future__ import annotations

from tinamou.arch import ARCHES
from tinamou.convert import foreign, libvirt_devices, libvirt_features
from tinamou.convert.result import Draft
from tinamou.convert.values import cpu_set, size, switch, whole
from tinamou.convert.xml import Element, children, parse, text_of
from tinamou.errors import SpecError
from tinamou.units import CpuSet

__all__ = ["read"]

_NEAR = {"i686": "x86_64"}
_ITSELF = {
    "uuid": "a machine is known by its name; its guest's identity changes with it",
    "metadata": "what other tools noted about the machine",
    "genid": "the generation id is there",
    "pm": "the machine can be shut down and suspended",
    "on_poweroff": "a machine that shuts down ends, and stays on the list",
    "on_reboot": "a machine that reboots goes on",
    "on_crash": "a panicked guest stops where it is, so that it can be examined",
    "seclabel": "QEMU runs confined: no rights, a user id of its own",
    "resource": "a machine has a control group of its own",
    "description": "a machine file has comments",
    "title": "a machine file has comments",
    "currentMemory": "the balloon takes back what the guest does not use",
    "iothreads": "a disk asks for a thread of its own: iothread = true",
    "iothreadids": "a disk asks for a thread of its own: iothread = true",
}
_READ = frozenset(
    ["name", "memory", "vcpu", "cpu", "os", "devices", "memoryBacking", "cputune", "numatune", "launchSecurity", "maxMemory"]
)


_OS = frozenset(["type", "loader", "nvram", "kernel", "initrd", "cmdline", "boot", "bootmenu", "firmware"])


def read(text: str) -> Draft:
    """The machine of a domain. Raises SpecError for one of another hypervisor or architecture."""
    root = parse(text, "the libvirt domain")
    if root.get("type") not in ("kvm", "qemu", "hvf", None):
        raise SpecError(f"the domain is of {root.get('type')}, not of QEMU", fix="convert it with virt-v2v first")
    draft = Draft("a libvirt domain")
    foreign.named(draft, "name", text_of(root, "name"))
    ids = (one.get("id", "").rpartition("microsoft.com/") for one in root.iter("os"))
    windows = any(foreign.system(draft, "libosinfo:os", one[2]) for one in ids if one[1])
    _memory(draft, root)
    _cpus(draft, root)
    _model(draft, root.find("cpu"), root.get("type") or "kvm")
    _os(draft, root)
    _pins(draft, root)
    _numa(draft, root)
    _security(draft, root)
    libvirt_devices.read(draft, root.find("devices"), windows=windows)
    _boot(draft, root.find("os"))
    _rest(draft, root)
    return draft


def _memory(draft: Draft, root: Element) -> None:
    node = root.find("memory")
    amount = size(text_of(node), unit=node.get("unit", "KiB")) if node is not None else None
    if amount:
        draft.put("memory.size", str(amount))
    if root.find("maxMemory") is not None:
        draft.lost(
            "maxMemory", text_of(root, "maxMemory"), "memory is not plugged in while the machine runs", "set memory = …"
        )
    backing = root.find("memoryBacking")
    for one in backing if backing is not None else ():
        if one.tag == "hugepages":
            page = one.find("page")
            asked = size(page.get("size", ""), unit=page.get("unit", "KiB")) if page is not None else None
            draft.put("memory.hugepages", str(asked) if asked else "auto")
            draft.changed(
                "hugepages", str(asked or ""), "pages are reserved when the machine starts and returned when it ends"
            )
        elif one.tag == "nosharepages":
            draft.done("nosharepages", "", "memory is not merged with other machines' unless memory.merge says so")
        elif one.tag == "locked":
            draft.lost("locked", "", "memory is not locked", 'memory.hugepages = "auto": huge pages are never swapped out')
        else:
            draft.done(
                f"memoryBacking/{one.tag}",
                one.get("mode", one.get("type", "")),
                "the backend follows from what the machine needs",
            )


def _cpus(draft: Draft, root: Element) -> None:
    vcpu = root.find("vcpu")
    most = whole(text_of(vcpu)) or 1
    count = (whole(vcpu.get("current", "")) if vcpu is not None else None) or most
    draft.put("cpu.count", count)
    if count != most:
        draft.lost(
            "vcpu",
            f"{count} of {most}",
            f"it has {count}, and no room for more while it runs",
            f"set cpus = {most}, or cpu.max = {most} where nothing is pinned",
        )
    topology = root.find("cpu/topology")
    if topology is None:
        return
    parts = {key: whole(topology.get(key, "1")) or 1 for key in ("sockets", "cores", "threads")}
    levels = (whole(topology.get("dies", "1")) or 1) * (whole(topology.get("clusters", "1")) or 1)
    if levels == 1 and parts["sockets"] * parts["cores"] * parts["threads"] == count:
        for key, value in parts.items():
            draft.put(f"cpu.{key}", value)
    else:
        shown = " ".join(f"{key}={value}" for key, value in topology.attrib.items())
        draft.changed(
            "topology",
            shown,
            f"it does not make the {count} CPUs in sockets, cores and threads; it is left out",
            "set cpu.cores",
        )


def _model(draft: Draft, cpu: Element | None, kind: str) -> None:
    if cpu is None:
        draft.changed(
            "cpu", "", "libvirt's default hides what every CPU of today has; auto takes the best there is", "set cpu.model"
        )
        return
    mode, model = cpu.get("mode", "custom"), text_of(cpu, "model")
    for one in cpu:
        if one.tag not in ("model", "feature", "topology", "numa"):
            draft.done(f"cpu/{one.tag}", text_of(one), "it follows from the CPU's model")
    signs = {"require": "+", "force": "+", "disable": "-", "forbid": "-"}
    features = [
        f"{signs[one.get('policy', 'require')]}{one.get('name')}"
        for one in children(cpu, "feature")
        if one.get("policy") in signs
    ]
    if mode in ("host-passthrough", "host-model", "maximum"):
        draft.done(
            "cpu", mode, "auto takes the host's own model under KVM, and the fastest complete one where QEMU must emulate"
        )
        if features and kind == "kvm":
            draft.put("cpu.model", ",".join(["host", *features]))
            draft.check("cpu", ", ".join(features), "features of the host's own CPU need KVM", "leave cpu.model out for TCG")
    elif model in ("qemu64", "kvm64", "qemu32", "kvm32") or not model:
        draft.changed(
            "cpu",
            model or mode,
            "this model hides what every CPU of today has; auto takes the best there is",
            f'set cpu.model = "{model or "qemu64"}"',
        )
    else:
        draft.put("cpu.model", ",".join([model, *features]))


def _os(draft: Draft, root: Element) -> None:
    os = root.find("os")
    kind = root.find("os/type")
    name = kind.get("arch", "") if kind is not None else ""
    arch = _NEAR.get(name, name)
    if arch and arch not in ARCHES:
        raise SpecError(f"tinamou has no machines of {arch}", fix=f"it has {', '.join(ARCHES)}")
    if arch:
        draft.put("arch", arch)
    board = kind.get("machine", "") if kind is not None else ""
    if "q35" in board or "virt" in board:
        draft.done("os/type", board, "tinamou takes this board, in the version its QEMU offers, and keeps that version")
    elif board:
        draft.changed(
            "os/type",
            board,
            "tinamou's board is q35 (virt on other architectures)",
            "a guest that knows only the old chipset does not start",
        )
    _firmware(draft, os)
    for tag, field in (("kernel", "boot.kernel"), ("initrd", "boot.initrd"), ("cmdline", "boot.cmdline")):
        if value := text_of(os, tag):
            draft.put(field, value)
    if any(one.get("enable") == "yes" for one in children(os, "bootmenu")):
        draft.put("boot.menu", True)
    for one in os if os is not None else ():
        if one.tag not in _OS:
            value = text_of(one) or " ".join(f"{key}={value}" for key, value in one.attrib.items())
            draft.done(f"os/{one.tag}", value, "the firmware's own settings, and what it shows, follow from the machine")


def _boot(draft: Draft, os: Element | None) -> None:
    """The order of kinds of devices, where devices have none of their own."""
    kinds = [one.get("dev", "") for one in children(os, "boot")]
    if "network" in kinds:
        draft.lost("os/boot", "network", "network cards carry no boot programs", "boot from a disc or a disk")
    if next((kind for kind in kinds if kind in ("hd", "cdrom")), "") == "cdrom":
        for disk in draft.disks:
            if disk.cdrom and disk.order is None:
                disk.order = -1


def _firmware(draft: Draft, os: Element | None) -> None:
    loader = os.find("loader") if os is not None else None
    name = text_of(loader)
    features = {one.get("name"): one.get("enabled") for one in children(os, "firmware/feature")}
    secure = (loader is not None and switch(loader.get("secure", ""))) or features.get("secure-boot") == "yes"
    keyless = features.get("enrolled-keys") == "no"
    flash = loader is not None and loader.get("type") == "pflash"
    if (os is not None and os.get("firmware") == "efi") or flash or "efi" in name.lower():
        foreign.uefi(draft, "os/loader", secure=secure and not keyless)
        if secure and keyless:
            draft.check(
                "os/firmware",
                "enrolled-keys no",
                "Secure Boot without keys lets everything start",
                "set boot.secure = true for it with keys",
            )
    elif name and "bios" not in name.lower() and "seabios" not in name.lower():
        draft.lost("os/loader", name, "a firmware file of one's own is not used", 'set firmware = "uefi" if it is one')


def _pins(draft: Draft, root: Element) -> None:
    vcpu, tune = root.find("vcpu"), root.find("cputune")
    pins = [cpu_set(one.get("cpuset", "")) for one in children(tune, "vcpupin")]
    crowd = vcpu.get("cpuset", "") if vcpu is not None else ""
    cpus = CpuSet.of(number for one in pins for number in one) or cpu_set(crowd)
    if cpus:
        draft.put("cpu.pin", str(cpus))
        reason = "each virtual CPU has one of these host CPUs, in the order of their cores; they are leased to nobody else"
        draft.changed("cputune", str(cpus), reason, 'cpu.pin = "auto" chooses them on whatever host this is')
    for one in tune if tune is not None else ():
        if one.tag in ("emulatorpin", "iothreadpin"):
            draft.done(
                one.tag, one.get("cpuset", ""), "QEMU's other threads run beside the virtual CPUs, on CPUs these do not have"
            )
        elif one.tag in ("quota", "global_quota"):
            draft.lost(one.tag, text_of(one), "a limit is set for the machine as a whole", "set limits.cpu")
        elif one.tag == "vcpusched":
            draft.lost(one.tag, one.get("scheduler", ""), "real-time priority is a number here", "set cpu.realtime")
        elif one.tag != "vcpupin":
            draft.lost(one.tag, text_of(one), "no such weight is set here", "set limits.cpu")


def _numa(draft: Draft, root: Element) -> None:
    cells = list(children(root, "cpu/numa/cell"))
    count = draft.get("cpu.count")
    if len(cells) > 1 and count % len(cells) == 0:
        draft.put("cpu.nodes", len(cells))
        draft.changed("cpu/numa", f"{len(cells)} cells", "CPUs and memory are dealt out to the nodes in equal parts")
    elif len(cells) > 1:
        draft.lost("cpu/numa", f"{len(cells)} cells", f"{count} CPUs do not make equal nodes", "set cpu.nodes")
    elif cells:
        draft.done("cpu/numa", "1 cell", "one memory node is what every machine has")
    for one in children(root, "numatune/*"):
        reason = "memory lies on the memory node of the CPUs the machine is pinned to"
        if draft.get("cpu.pin") and one.get("mode") == "strict" and one.tag == "memory":
            draft.put("cpu.strict", True)
        fix = "" if draft.get("cpu.pin") else "set cpu.pin to that node's CPUs"
        draft.changed(f"numatune/{one.tag}", f"{one.get('mode', '')} {one.get('nodeset', '')}".strip(), reason, fix)


def _security(draft: Draft, root: Element) -> None:
    for one in root.iter("launchSecurity"):
        kind = one.get("type", "")
        foreign.encrypted(draft, "launchSecurity", kind, kind, bit=one.find("cbitpos") is not None)


def _clock(draft: Draft, node: Element) -> None:
    """Local time, UTC, or an offset that the guest has set itself; how late ticks are made up for follows from the guest."""
    offset = node.get("offset", "utc")
    if offset == "localtime":
        draft.put("clock.base", "localtime")
        draft.done("clock", offset, "the clock is the host's local time")
    elif offset == "variable" and (seconds := whole(node.get("adjustment", "0"))):
        draft.put("clock.offset", seconds)
        draft.done("clock", f"{offset} {seconds}", "the clock is as far from the host's")
    elif offset in ("timezone", "absolute"):
        shown = node.get("timezone", node.get("start", ""))
        draft.lost("clock", f"{offset} {shown}", "the clock is UTC, local time, or seconds away from it", "set clock.offset")
    else:
        if draft.get("os"):
            draft.put("clock.base", "utc")
        draft.done("clock", offset, "the clock is in UTC")


def _rest(draft: Draft, root: Element) -> None:
    for one in root:
        value = text_of(one) or one.get("offset", "")
        if one.tag == "clock":
            _clock(draft, one)
        elif one.tag == "features":
            libvirt_features.read(draft, one)
        elif one.tag == "commandline":
            words = [arg.get("value", "") for arg in children(one, "arg")]
            draft.put("qemu_args", [*(draft.get("qemu_args") or []), *words])
            draft.check(
                "qemu:commandline",
                " ".join(words),
                "kept in qemu_args",
                "see whether the machine needs it; it is not checked",
            )
        elif one.tag in _ITSELF:
            draft.done(one.tag, value[:60], _ITSELF[one.tag])
        elif one.tag not in _READ:
            draft.lost(one.tag, value[:60], "it has no counterpart known here", "see docs/reference/spec.md")
