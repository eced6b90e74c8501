"""A machine as a libvirt domain (``virsh define``).

Source: libvirt's documentation, *Domain XML format*; its schema domain.rng, which the tests hold every document against.
"""

from __future__ import annotations

from xml.etree.ElementTree import Element, SubElement, indent, tostring

from tinamou.convert.out import libvirt_devices as devices
from tinamou.convert.out.asked import Asked, Place
from tinamou.parts.hyperv import complete
from tinamou.parts.windows import clock_base, release
from tinamou.units import CpuSet

__all__ = ["write"]

_BOARDS = {"x86_64": "q35", "aarch64": "virt", "riscv64": "virt"}
_FIRMWARE = {"aarch64": True}
"""Where a disk starts by UEFI alone."""
_FEATURES = {"x86_64": ("apic",)}
_POLICIES = {"+": "require", "-": "disable"}
_INNER = {
    "stimer-direct": ("stimer", "direct"),
    "tlbflush-direct": ("tlbflush", "direct"),
    "tlbflush-ext": ("tlbflush", "extended"),
}
_UNKNOWN = ("crash", "no-nonarch-coresharing")
_VALUES = {"spinlocks": "retries", "vendor-id": "value"}
_PERIOD = 100_000
"""Microseconds over which a share of CPUs is counted."""


def write(asked: Asked, place: Place) -> str:
    """The document; notes of what libvirt has otherwise are added to ``asked``."""
    spec = asked.spec
    kvm = spec.accel == "kvm" or (spec.accel == "auto" and place.kvm)
    asked.take("name", "arch", "accel", "image")
    root = Element("domain", {"type": "kvm" if kvm else "qemu"})
    _text(root, "name", spec.name or "machine")
    _text(root, "memory", str(spec.memory.size.mib), unit="MiB")
    asked.take("memory.size")
    _backing(asked, root)
    _cpus(asked, root)
    _os(asked, root, spec.arch or place.arch, place)
    _identity(asked, root)
    features = _features(asked, root, spec.arch or place.arch)
    _model(asked, root, kvm=kvm)
    _clock(asked, root, hyperv_time="time" in features)
    devices.write(asked, SubElement(root, "devices"), place)
    asked.windows("the board's sleep states are left on: a Windows that sleeps does not come back")
    if spec.qemu_args:
        asked.take("qemu_args")
        line = SubElement(root, "commandline", {"xmlns": "http://libvirt.org/schemas/domain/qemu/1.0"})
        for word in spec.qemu_args:
            SubElement(line, "arg", {"value": word})
    indent(root)
    return tostring(root, encoding="unicode") + "\n"


_ENTRIES = ("manufacturer", "product", "version", "serial", "uuid", "sku", "family")


def _text(parent: Element, tag: str, text: str, **attributes: str) -> Element:
    node = SubElement(parent, tag, attributes)
    node.text = text
    return node


def _backing(asked: Asked, root: Element) -> None:
    spec = asked.spec
    backing = Element("memoryBacking")
    if spec.memory.hugepages != "off":
        pages = SubElement(backing, "hugepages")
        if spec.memory.hugepages != "auto":
            size, unit = spec.memory.hugepages[:-1], spec.memory.hugepages[-1]
            SubElement(pages, "page", {"size": size, "unit": f"{unit}iB"})
        asked.take("memory.hugepages")
    if not spec.memory.merge:
        SubElement(backing, "nosharepages")
    asked.take("memory.merge")
    if asked.shared or spec.memory.forkable:
        SubElement(backing, "source", {"type": "memfd"})
        SubElement(backing, "access", {"mode": "shared"})
    root.append(backing)


def _cpus(asked: Asked, root: Element) -> None:
    cpu = asked.spec.cpu
    _text(root, "vcpu", str(cpu.count))
    asked.take("cpu.count")
    tune = Element("cputune")
    if cpu.pin not in ("off", "auto"):
        for number, host in zip(range(cpu.count), sorted(CpuSet.parse(cpu.pin)), strict=False):
            SubElement(tune, "vcpupin", {"vcpu": str(number), "cpuset": str(host)})
        asked.take("cpu.pin")
    elif cpu.pin == "auto":
        asked.note("lost", "cpu.pin", "auto", "which CPUs are free is not chosen by libvirt", "virsh vcpupin")
    if share := asked.spec.limits.cpu:
        _text(tune, "global_period", str(_PERIOD))
        _text(tune, "global_quota", str(int(share * _PERIOD)))
        asked.take("limits.cpu")
    if len(tune):
        root.append(tune)


def _os(asked: Asked, root: Element, arch: str, place: Place) -> None:
    boot = asked.spec.boot
    uefi = boot.requested == "uefi" or (_FIRMWARE.get(arch, False) and not boot.kernel)
    os = SubElement(root, "os", {"firmware": "efi"} if uefi else {})
    _text(os, "type", "hvm", arch=arch, machine=_BOARDS[arch])
    asked.take("boot.firmware", "boot.secure")
    if uefi:
        firmware = SubElement(os, "firmware")
        on = "yes" if boot.checked else "no"
        SubElement(firmware, "feature", {"enabled": on, "name": "secure-boot"})
        SubElement(firmware, "feature", {"enabled": on, "name": "enrolled-keys"})
        asked.notes.append(devices.told("check", "boot.firmware", "uefi", "libvirt makes firmware variables of its own"))
    for tag, value in place.started(boot).items():
        if value:
            _text(os, tag, value)
        asked.take(f"boot.{tag}")
    if boot.menu:
        SubElement(os, "bootmenu", {"enable": "yes"})
        asked.take("boot.menu")


def _identity(asked: Asked, root: Element) -> None:
    """What the guest reads of its maker; a UUID must be the domain's own too."""
    smbios, os = asked.spec.smbios, root.find("os")
    given = {key: value for key in _ENTRIES if (value := getattr(smbios, key))}
    if not given or os is None:
        return
    system = SubElement(SubElement(root, "sysinfo", {"type": "smbios"}), "system")
    for key, value in given.items():
        _text(system, "entry", value, name=key)
        asked.take(f"smbios.{key}")
    SubElement(os, "smbios", {"mode": "sysinfo"})
    if smbios.uuid:
        _text(root, "uuid", smbios.uuid)


def _features(asked: Asked, root: Element, arch: str) -> dict[str, str]:
    features = SubElement(root, "features")
    SubElement(features, "acpi")
    for tag in _FEATURES.get(arch, ()):
        SubElement(features, tag)
    if asked.spec.boot.checked:
        SubElement(features, "smm", {"state": "on"})
    said = asked.spec.cpu.hyperv
    found = complete(said)
    hyperv = Element("hyperv", {"mode": "custom"})
    _enlightened(hyperv, found)
    if len(hyperv):
        features.append(hyperv)
    if found or said == "off":
        asked.take("cpu.hyperv")
    if unwritten := ",".join(name for name in found if name in _UNKNOWN):
        asked.note("lost", "cpu.hyperv", unwritten, "libvirt has no such enlightenments", "qemu_args")
    return found


def _enlightened(hyperv: Element, found: dict[str, str]) -> None:
    for name, value in found.items():
        if name in _INNER or name in _UNKNOWN or name == "time":
            continue
        attributes = {"state": "on"} | (
            {_VALUES[name]: str(int(value, 0)) if name == "spinlocks" else value} if name in _VALUES else {}
        )
        node = SubElement(hyperv, name.replace("-", "_"), attributes)
        for inner, (outer, tag) in _INNER.items():
            if outer == name and inner in found:
                SubElement(node, tag, {"state": "on"})


def _model(asked: Asked, root: Element, *, kvm: bool) -> None:
    cpu = asked.spec.cpu
    name, *features = cpu.model.split(",")
    if name in ("auto", "host", "max"):
        node = SubElement(root, "cpu", {"mode": "host-passthrough" if kvm else "maximum"})
    else:
        node = SubElement(root, "cpu", {"mode": "custom", "match": "exact"})
        _text(node, "model", name, fallback="forbid")
    if cpu.sockets or cpu.cores or cpu.threads:
        parts = {"sockets": cpu.sockets or 1, "cores": cpu.cores or 1, "threads": cpu.threads or 1}
        missing = next((key for key in ("sockets", "cores", "threads") if not getattr(cpu, key)), "")
        if missing:
            parts[missing] = cpu.count // max(1, parts["sockets"] * parts["cores"] * parts["threads"])
        SubElement(node, "topology", {key: str(value) for key, value in parts.items()})
        asked.take("cpu.sockets", "cpu.cores", "cpu.threads")
    unwritten = []
    for one in features:
        plain, _, value = one.lstrip("+-").partition("=")
        policy = _POLICIES.get(one[0], {"on": "require", "off": "disable"}.get(value, ""))
        if policy:
            SubElement(node, "feature", {"policy": policy, "name": plain})
        else:
            unwritten.append(one)
    asked.take("cpu.model")
    if unwritten:
        asked.note("lost", "cpu.model", ",".join(unwritten), "libvirt's features have no value", "qemu_args")
    if cpu.nodes > 1 and cpu.count % cpu.nodes == 0:
        _cells(asked, node)


def _cells(asked: Asked, node: Element) -> None:
    cpu, memory = asked.spec.cpu, asked.spec.memory.size.mib
    numa, each = SubElement(node, "numa"), cpu.count // cpu.nodes
    for number in range(cpu.nodes):
        first, amount = number * each, memory // cpu.nodes + (memory % cpu.nodes if number == 0 else 0)
        cpus = str(CpuSet.of(range(first, first + each)))
        SubElement(numa, "cell", {"id": str(number), "cpus": cpus, "memory": str(amount), "unit": "MiB"})
    asked.take("cpu.nodes")


def _clock(asked: Asked, root: Element, *, hyperv_time: bool) -> None:
    clock = asked.spec.clock
    if clock.base not in ("auto", "utc", "localtime"):
        asked.note("lost", "clock.base", clock.base, "the guest's clock begins at the host's time", "set it in the guest")
    windows = release(asked.spec)
    base = "localtime" if clock.base == "localtime" else "utc"
    if clock.base == "auto":
        base = "localtime" if windows and clock.offset else clock_base(asked.spec)[0]
    if clock.offset:
        node = SubElement(root, "clock", {"offset": "variable", "adjustment": str(clock.offset), "basis": base})
    else:
        node = SubElement(root, "clock", {"offset": base})
    asked.take("clock.base", "clock.offset")
    if windows:
        SubElement(node, "timer", {"name": "rtc", "tickpolicy": "catchup"})
    if hyperv_time:
        SubElement(node, "timer", {"name": "hypervclock", "present": "yes"})
