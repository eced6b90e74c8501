"""The CPUs of a libvirt domain: how many, of which model, with which features, where on the host.

Source: libvirt's documentation, *Domain XML format*: *CPU Allocation*, *CPU Tuning*, *CPU model*, *Hypervisor features*.
"""

from __future__ import annotations

from tinamou.convert.result import Draft
from tinamou.convert.values import cpu_set, size, whole
from tinamou.convert.xml import Element, children, text_of
from tinamou.units import CpuSet, Size

__all__ = ["cells", "count", "model", "nodes", "pins"]

_SIGNS = {"require": "+", "force": "+", "disable": "-", "forbid": "-"}
_HIDING = ("qemu64", "kvm64", "qemu32", "kvm32")
_KVM = {"hint-dedicated": "kvm-hint-dedicated", "poll-control": "kvm-poll-control", "pv-ipi": "kvm-pv-ipi"}


def count(draft: Draft, root: Element) -> None:
    """How many, and in which arrangement."""
    vcpu = root.find("vcpu")
    most = whole(text_of(vcpu)) or 1
    if (said := text_of(vcpu)) and whole(said) is None:
        draft.check("vcpu", said, "what it means is not known here", "set cpus")
    number = (whole(vcpu.get("current", "")) if vcpu is not None else None) or most
    draft.put("cpu.count", number)
    if number != most:
        reason = f"it has {number}, and no room for more while it runs"
        draft.lost("vcpu", f"{number} of {most}", reason, f"set cpus = {most}, or cpu.max = {most} where nothing is pinned")
    if vcpu is not None and (placement := vcpu.get("placement")):
        draft.done("vcpu", f"placement={placement}", "where virtual CPUs run is what cpu.pin says, or the kernel decides")
    topology = root.find("cpu/topology")
    if topology is None:
        return
    given = topology.attrib
    parts = {key: whole(given.get(key, "1")) or 1 for key in ("sockets", "cores", "threads")}
    plain = all(value == "1" for key, value in given.items() if key not in parts)
    if plain and parts["sockets"] * parts["cores"] * parts["threads"] == number:
        for key, value in parts.items():
            draft.put(f"cpu.{key}", value)
        return
    reason = f"it does not make the {number} CPUs in sockets, cores and threads; it is left out"
    draft.changed("topology", topology.shown(), reason, "set cpu.cores")


def model(draft: Draft, root: Element, kind: str) -> None:
    """The model; ``kind`` is the domain's type. Features of the hypervisor are features of the CPU to QEMU."""
    cpu = root.find("cpu")
    features = _features(draft, cpu)
    extra = _hints(draft, root)
    if cpu is None and not extra:
        reason = "libvirt's default hides what every CPU of today has; auto takes the best there is"
        draft.changed("cpu", "", reason, "set cpu.model")
        return
    if cpu is not None and (shown := " ".join(f"{key}={one}" for key in ("mode", "match") if (one := cpu.get(key)))):
        draft.done("cpu", shown, "the model is that of cpu.model, whatever the host has")
    mode, name = (cpu.get("mode") or "custom", text_of(cpu, "model")) if cpu is not None else ("", "")
    match = cpu.get("match", "exact") if cpu is not None else ""
    if mode in ("host-passthrough", "host-model", "maximum"):
        reason = "auto takes the host's own model under KVM, and the fastest complete one where QEMU must emulate"
        draft.done("cpu", f"{mode} {name}".strip(), reason)
        name = ""
    elif match == "minimum" and name:
        draft.changed("cpu", f"match=minimum {name}", "auto is at least that under KVM", f'set cpu.model = "{name}"')
        name = ""
    elif name in _HIDING or not name:
        reason = "this model hides what every CPU of today has; auto takes the best there is"
        draft.changed("cpu", name or mode, reason, f'set cpu.model = "{name or "qemu64"}"')
        name = ""
    if name:
        draft.put("cpu.model", ",".join([name, *features, *extra]))
    elif (features or extra) and kind == "kvm":
        draft.put("cpu.model", ",".join(["host", *features, *extra]))
        shown = ", ".join([*features, *extra])
        draft.check("cpu", shown, "features of the host's own CPU need KVM", "leave cpu.model out for TCG")
    elif features:
        draft.lost("cpu", ", ".join(features), "features of the host's own CPU need KVM", "set cpu.model")


def _features(draft: Draft, cpu: Element | None) -> list[str]:
    found, optional = [], []
    for one in children(cpu, "feature"):
        policy, name = one.get("policy") or "require", one.get("name")
        if policy in ("force", "forbid"):
            draft.done("cpu/feature", f"{name} {policy}", "it is there, or not, as with require and disable")
        if policy in _SIGNS:
            found.append(f"{_SIGNS[policy]}{name}")
        else:
            optional.append(f"{name} ({policy})")
    if optional:
        reason = "a feature that may be there: the model decides"
        draft.changed("cpu/feature", ", ".join(optional), reason, "add +FEATURE to cpu.model to demand it")
    return found


def _hints(draft: Draft, root: Element) -> list[str]:
    """Features of <kvm> and <pmu> as features of QEMU's CPU."""
    found: list[str] = []
    kvm = root.find("features/kvm")
    for one in kvm if kvm is not None else ():
        state = one.get("state", "off")
        if state == "off" and one.tag != "pv-ipi":
            draft.done(f"features/kvm/{one.tag}", "state=off", "as the CPU's model has it")
        elif one.tag in _KVM:
            found.append(f"{_KVM[one.tag]}={state}")
        elif one.tag != "hidden":
            draft.lost(f"features/kvm/{one.tag}", one.shown(), "it is no feature of a CPU", "keep it with qemu_args")
    pmu = root.find("features/pmu")
    if pmu is not None and pmu.get("state"):
        found.append(f"pmu={pmu.get('state')}")
    return found


def pins(draft: Draft, root: Element) -> None:
    """CPUs of the host."""
    vcpu, tune = root.find("vcpu"), root.find("cputune")
    given = [(one.get("vcpu"), one.get("cpuset")) for one in children(tune, "vcpupin")]
    crowd = vcpu.get("cpuset", "") if vcpu is not None else ""
    cpus = CpuSet.of(number for _, one in given for number in cpu_set(one)) or cpu_set(crowd)
    if cpus:
        draft.put("cpu.pin", str(cpus))
        reason = "each virtual CPU has one of these host CPUs, in the order of their cores; they are leased to nobody else"
        shown = " ".join(f"{number}:{one}" for number, one in given) + (f" cpuset={crowd}" if crowd else "")
        draft.changed("cputune", shown, reason, 'cpu.pin = "auto" chooses them on whatever host this is')
    elif given or crowd:
        draft.lost("cputune", f"{given} {crowd}", "it names no CPUs of a host", "set cpu.pin")
    for one in tune if tune is not None else ():
        if one.tag in ("emulatorpin", "iothreadpin"):
            reason = "QEMU's other threads run beside the virtual CPUs, on CPUs these do not have"
            draft.done(one.tag, one.shown(), reason)
        elif one.tag in ("quota", "global_quota", "period", "global_period"):
            draft.lost(one.tag, one.shown(), "a limit is set for the machine as a whole", "set limits.cpu")
        elif one.tag == "vcpusched":
            draft.lost(one.tag, one.shown(), "real-time priority is a number here", "set cpu.realtime")
        elif one.tag != "vcpupin":
            draft.lost(one.tag, one.shown(), "no such weight is set here", "set limits.cpu")


def cells(root: Element) -> Size:
    """The memory of all memory nodes of the guest, each in whole MiB; 0 where it has none: it is what the guest has then."""
    amounts = [size(one.get("memory"), unit=one.get("unit") or "KiB") for one in children(root, "cpu/numa/cell")]
    return Size(sum(-(-(amount or 0) >> 20) << 20 for amount in amounts))


def nodes(draft: Draft, root: Element) -> None:
    """Memory nodes, the guest's and the host's."""
    found = list(children(root, "cpu/numa/cell"))
    shown = "; ".join([f"{len(found)} cells", *(one.shown() for one in found)]) if len(found) > 1 else ""
    number = draft.get("cpu.count")
    if len(found) > 1 and number % len(found) == 0:
        draft.put("cpu.nodes", len(found))
        draft.changed("cpu/numa", shown, "CPUs and memory are dealt out to the nodes in equal parts")
    elif len(found) > 1:
        draft.lost("cpu/numa", shown, f"{number} CPUs do not make equal nodes", "set cpu.nodes")
    elif found:
        draft.done("cpu/numa", f"1 cell {found[0].shown()}", "one memory node is what every machine has")
    for one in children(root, "numatune/*"):
        reason = "memory lies on the memory node of the CPUs the machine is pinned to"
        if draft.get("cpu.pin") and one.get("mode") == "strict" and one.tag == "memory":
            draft.put("cpu.strict", True)
        fix = "" if draft.get("cpu.pin") else "set cpu.pin to that node's CPUs"
        draft.changed(f"numatune/{one.tag}", one.shown(), reason, fix)
