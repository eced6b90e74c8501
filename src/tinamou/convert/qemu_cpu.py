"""The options of a QEMU command line about CPUs, memory, the board and the accelerator.

Source: QEMU docs/system/invocation, sections *Standard options*; docs/system/qemu-cpu-models.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable

from tinamou.convert.qemu_line import Line, keys, pairs
from tinamou.convert.values import cpu_set, size, whole
from tinamou.parts.hyperv import parse
from tinamou.units import CpuSet, Size

__all__ = ["HANDLERS", "memory_objects", "model"]

_SMALLEST = Size(16 << 20)
_GENERIC = ("qemu64", "qemu32", "kvm64", "kvm32", "base")
_HIDING = {"kvm": "off", "hypervisor": "off"}
_ACCELERATORS = ("kvm", "hvf", "whpx", "nvmm", "hax", "xen")
_SET = frozenset([
    "acpi", "default-bus-bypass-iommu", "dump-guest-core", "gic-version", "graphics", "highmem", "hpet", "i8042",
    "kernel-irqchip", "kernel_irqchip", "kvm-shadow-mem", "mem-merge", "pic", "pit", "rtc", "sata", "smbus", "smm", "usb",
    "vmport", "x-oem-id",
])  # fmt: skip
"""Settings of a board that say no more than what every machine has, or what it needs for its devices."""
_BOARDS = {"q35": "", "virt": "", "pc": "the PC of 1996", "microvm": "a board without PCI by default"}


def _memory(line: Line, option: str, text: str) -> None:
    found = keys(text, "size")
    amount = size(found.get("size", ""), unit="M")
    if amount is None:
        line.draft.lost("-m", text, "not a size", "set memory = …")
        return
    if amount < _SMALLEST:
        line.draft.changed("-m", text, f"too little for any guest of today: {_SMALLEST} is the least", "set memory = …")
        amount = _SMALLEST
    line.draft.put("memory.size", str(amount))
    if "maxmem" in found or "slots" in found:
        reason = "memory is not plugged in while the machine runs: the balloon gives back what is not used"
        line.draft.lost("-m", text, reason, f'set memory = "{found.get("maxmem", amount)}" if the guest may need it')


def _smp(line: Line, option: str, text: str) -> None:
    found = keys(text, "cpus")
    numbers = {key: whole(value) for key, value in found.items()}
    parts = {key: numbers[key] for key in ("sockets", "cores", "threads") if numbers.get(key)}
    product = math.prod(value or 1 for value in parts.values())
    most = numbers.get("maxcpus") or 0
    count = numbers.get("cpus") or most or product
    line.draft.put("cpu.count", count)
    if most > count:
        reason = f"CPUs are not plugged in while the machine runs: it has the {count} it begins with"
        line.draft.lost("-smp", text, reason, f"set cpus = {most} if the guest may need them")
    levels = {"dies", "clusters", "modules", "books", "drawers"} & {key for key, value in numbers.items() if value != 1}
    if levels:
        reason = f"{' and '.join(sorted(levels))} are shown only as they lie on the host, with pin"
        line.draft.changed("-smp", text, reason, 'set cpu.pin = "auto"')
    elif parts and count % product == 0 and (len(parts) < 3 or product == count):
        for key, value in parts.items():
            line.draft.put(f"cpu.{key}", value)
    elif parts:
        reason = f"{' x '.join(f'{v} {k}' for k, v in parts.items())} do not make {count} CPUs; the arrangement is left out"
        line.draft.changed("-smp", text, reason, "set cpu.sockets, cpu.cores and cpu.threads to what makes that number")


def model(line: Line, where: str, text: str) -> None:
    """A CPU model with its features."""
    name, _, rest = text.partition(",")
    features = [one for one in rest.split(",") if one]
    hiding = [one for one in features if _hides(one)]
    for one in hiding:
        reason = "it hid KVM from graphics drivers of before 2021, which refused to work in a guest; today it costs time"
        line.draft.changed(where, one, reason, f'set cpu.model = "host,{one}" for such a driver')
    features = [one for one in features if one not in hiding]
    shown = [one for one in features if _enlightens(one)]
    if shown:
        line.draft.put("cpu.hyperv", ",".join(one.lstrip("+") for one in shown))
        reason = "the guest is shown exactly these interfaces of Hyper-V, and what they need; they are KVM's"
        line.draft.done(where, ",".join(shown), reason, "or set os, and leave cpu.hyperv out")
    features = [one for one in features if one not in shown]
    if name in _GENERIC:
        reason = f"{name} hides what every CPU of the last fifteen years has (AES, SSE4, AVX); auto takes the best there is"
        kept = ",".join([name, *features])
        line.draft.changed(where, text, reason, f'set cpu.model = "{kept}" to move the running machine between unlike hosts')
    elif name in ("host", "max") and not features:
        reason = "auto takes the host's own model under KVM, and the fastest complete one where QEMU must emulate"
        line.draft.done(where, name, reason)
    else:
        line.draft.put("cpu.model", ",".join([name, *features]))
        if name == "host":
            line.draft.check(where, text, "features of the host's own CPU need KVM", "leave cpu.model out for TCG")


def _enlightens(feature: str) -> bool:
    """Whether it is one of Hyper-V's interfaces, switched on, that a description can name."""
    try:
        return bool(re.match(r"\+?hv[-_]", feature)) and bool(parse(feature.lstrip("+")))
    except ValueError:
        return False


def _hides(feature: str) -> bool:
    key, _, value = feature.partition("=")
    return _HIDING.get(key.lstrip("+-")) == value or feature in ("-hypervisor", "-kvm")


def _machine(line: Line, option: str, text: str) -> None:
    for key, value in pairs(text, "type"):
        if key == "type":
            _board(line, value)
        elif key == "accel":
            _accel(line, "-machine accel=", value.replace(":", ","))
        elif key == "mem-merge" and value == "on":
            line.draft.put("memory.merge", True)
        elif key in ("pflash0", "pflash1"):
            line.hubs.append(("flash", value, {}))
        elif key == "memory-backend":
            line.seen.add(f"memory:{value}")
            line.draft.done("-machine", f"{key}={value}", "the memory's backend follows from what the machine needs")
        elif key in ("confidential-guest-support", "memory-encryption"):
            line.seen.add("confidential")
            line.draft.done("-machine", f"{key}={value}", "set by confidential.type")
        elif key in _SET or value in ("off", "no", "none"):
            line.draft.done("-machine", f"{key}={value}", "the board's own settings follow from what the machine has")
        else:
            line.draft.lost("-machine", f"{key}={value}", "a machine's board has no such setting", "-machine in qemu_args")


def _board(line: Line, name: str) -> None:
    family = next((known for known in _BOARDS if name.removeprefix("pc-").startswith(known)), "")
    family = family or ("pc" if name.startswith("pc") else "")
    if family in ("q35", "virt"):
        line.draft.done("-machine", name, "tinamou takes this board, in the version its QEMU offers, and keeps that version")
    elif family:
        reason = f"tinamou's board is q35 (virt on other architectures): {name} is {_BOARDS[family]}"
        line.draft.changed("-machine", name, reason, "a guest that knows only the old chipset (Windows XP) does not start")
    else:
        line.draft.lost("-machine", name, "tinamou has no machines of this board", "see whether the guest needs it")


def _accel(line: Line, where: str, text: str) -> None:
    name = text.split(",", maxsplit=1)[0]
    if name == "tcg" and "accel" not in line.seen:
        line.draft.put("accel", "tcg")
        line.draft.changed(
            where, text, "QEMU emulates even where KVM would work, as this asks for", "leave accel out for the best there is"
        )
    elif name in (*_ACCELERATORS, "tcg"):
        line.draft.machine.pop("accel", None)
        reason = "an accelerator is tried before it is relied on; where none runs code, that is said"
        line.draft.done(where, text, reason, f'set accel = "{name}" to refuse to start without it')
    else:
        line.draft.lost(where, text, "no accelerator of this name is known", "leave accel out for the best there is")
    line.seen.add("accel")


def _enable_kvm(line: Line, option: str, text: str) -> None:
    _accel(line, f"-{option}", "kvm")


def _huge(line: Line, where: str, path: str) -> None:
    """Memory on a file system: huge pages, or a file of the host."""
    if "huge" in path.lower():
        page = "1G" if "1g" in path.lower() else "auto"
        line.draft.put("memory.hugepages", page)
        reason = "pages are taken when the machine starts, on the memory node where it runs, and returned when it ends"
        line.draft.changed(where, path, reason, 'hugepages = "2M" or "1G" refuses to start without them')
    else:
        reason = "the guest's memory lies in memory: a file of the host behind it makes it slower"
        line.draft.lost(where, path, reason, "forkable = true gives memory other processes can map")


def _prealloc(line: Line, option: str, text: str) -> None:
    line.draft.done(
        "-mem-prealloc", "", "huge pages are counted and reserved before QEMU starts; ordinary memory need not be"
    )


def memory_objects(line: Line) -> None:
    """Every memory backend: what it asked for beside the size."""
    total = Size(0)
    for one in line.of("object"):
        kind = one.keys.get("qom-type", "")
        name = one.keys.get("id", "")
        if not kind.startswith("memory-backend-") or f"memory:{name}" not in line.seen:
            continue
        one.used = True
        line.draft.done("-object", one.text, "the memory's backend follows from what the machine needs")
        total = Size(total + (size(one.keys.get("size", ""), unit="B") or 0))
        if path := one.keys.get("mem-path"):
            _huge(line, "-object mem-path=", path)
        elif one.keys.get("hugetlb") == "on":
            page = size(one.keys.get("hugetlbsize", ""), unit="B")
            _huge(line, "-object", f"hugepages of {page}" if page else "hugepages")
            line.draft.put("memory.hugepages", str(page) if page else "auto")
        if "host-nodes" in one.keys:
            reason = "memory lies on the memory node of the CPUs the machine is pinned to"
            line.draft.changed("-object", f"host-nodes={one.keys['host-nodes']}", reason, "set cpu.pin to that node's CPUs")
        if one.keys.get("merge") == "on":
            line.draft.put("memory.merge", True)
    if total and not line.draft.get("memory.size"):
        line.draft.put("memory.size", str(total))


def _numa(line: Line, option: str, text: str) -> None:
    found = pairs(text, "kind")
    if ("kind", "node") in found:
        line.seen.add(f"memory:{dict(found).get('memdev', '')}")
        line.hubs.append(("numa", text, dict(found)))
    else:
        line.draft.changed("-numa", text, "distances and CPU places follow from the host, with pin", "set cpu.pin")


def numa_nodes(line: Line) -> None:
    """The guest's memory nodes, once all are known."""
    nodes = [(text, found) for kind, text, found in line.hubs if kind == "numa"]
    count = line.draft.get("cpu.count") or 1
    shown = " ".join([f"{len(nodes)} nodes", *(text for text, _ in nodes)])
    for text, found in nodes:
        bad = cpu_set(found.get("cpus", ""))
        if bad and max(bad) >= count:
            reason = f"it names CPU {max(bad)}, and the machine has {count}: QEMU refuses that"
            line.draft.changed("-numa", text, reason, "the nodes are made in equal parts")
    if len(nodes) == 1:
        line.draft.done("-numa", nodes[0][0], "one memory node is what a machine without this option has")
    elif nodes and count % len(nodes) == 0:
        line.draft.put("cpu.nodes", len(nodes))
        line.draft.changed("-numa", shown, "CPUs and memory are dealt out to the nodes in equal parts")
    elif nodes:
        reason = f"{count} CPUs do not make {len(nodes)} equal nodes"
        line.draft.lost("-numa", shown, reason, "set cpu.nodes to a number that divides the CPUs")


def pinned(line: Line, where: str, cpus: CpuSet, thing: str) -> None:
    """CPUs of the host that ``thing`` (a command, an option) would have kept the machine on."""
    line.draft.put("cpu.pin", str(cpus))
    reason = f"{thing} moves QEMU's threads as a crowd; here each virtual CPU has a host CPU that is nobody else's"
    line.draft.changed(where, str(cpus), reason, 'cpu.pin = "auto" chooses them on whatever host this is')


Handler = Callable[[Line, str, str], None]


def _option(read: Handler) -> Handler:
    """For what is read of other places of a line, too: it is told which this is."""
    return lambda line, option, text: read(line, f"-{option}", text)


HANDLERS: dict[str, Handler] = {
    "m": _memory,
    "smp": _smp,
    "cpu": _option(model),
    "M": _machine,
    "machine": _machine,
    "accel": _option(_accel),
    "enable-kvm": _enable_kvm,
    "enable-hax": _enable_kvm,
    "mem-path": _option(_huge),
    "mem-prealloc": _prealloc,
    "numa": _numa,
}
"""Option → what it does to the draft."""
