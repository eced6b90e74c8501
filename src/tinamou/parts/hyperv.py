"""Hyper-V enlightenments: what KVM offers to guests that know Hyper-V, which of them a machine gets, and why.

Source: QEMU docs/system/i386/hyperv.rst, target/i386/kvm/kvm.c (kvm_hyperv_properties); Hyper-V Top Level Functional
Specification.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from tinamou.blueprint import Note, Why
from tinamou.errors import Problem
from tinamou.late import dataclass
from tinamou.parts import windows
from tinamou.parts.protocol import Resolved

__all__ = ["BASE", "ENLIGHTENMENTS", "Decision", "Feature", "closure", "complete", "decide", "parse", "without"]


@dataclass(frozen=True)
class Enlightenment:
    """What it needs, itself named without ``hv-``, and one sentence about what a guest has of it."""

    needs: tuple[str, ...]
    reason: str


ENLIGHTENMENTS: Mapping[str, Enlightenment] = {
    "relaxed": Enlightenment((), "no watchdog of the guest's ends it because the host was busy"),
    "vapic": Enlightenment((), "interrupts are acknowledged in memory, without leaving the guest"),
    "spinlocks": Enlightenment((), "a virtual CPU that waits for a lock says so, and its host CPU does something else"),
    "vpindex": Enlightenment((), "virtual CPUs have numbers of the hypervisor's, which others rest on"),
    "runtime": Enlightenment((), "the guest sees how much time others took from it"),
    "time": Enlightenment((), "the time is read from a page of memory, without leaving the guest"),
    "synic": Enlightenment(("vpindex",), "an interrupt controller that timers and messages rest on"),
    "stimer": Enlightenment(
        ("vpindex", "synic", "time"), "timers of the hypervisor: without them Windows keeps the RTC busy, even when idle"
    ),
    "stimer-direct": Enlightenment(("stimer",), "timers as plain interrupts, which Hyper-V inside the guest needs"),
    "frequencies": Enlightenment((), "the guest is told its clocks' frequencies and does not measure them"),
    "tlbflush": Enlightenment(("vpindex",), "other CPUs' translations are flushed without waking those that do not run"),
    "tlbflush-ext": Enlightenment(("tlbflush",), "flushes name ranges of addresses"),
    "ipi": Enlightenment(("vpindex",), "one call interrupts any number of CPUs"),
    "xmm-input": Enlightenment((), "calls pass their arguments in registers"),
    "avic": Enlightenment((), "the processor delivers interrupts by itself (AVIC, APICv), beside the synthetic controller"),
    "evmcs": Enlightenment(
        ("vapic",), "Hyper-V inside the guest (VBS, WSL 2) leaves its own guests faster; VBS with MBEC hangs without it"
    ),
    "emsr-bitmap": Enlightenment((), "Hyper-V inside the guest tells which of its permissions changed"),
    "tlbflush-direct": Enlightenment(("tlbflush", "vapic"), "flushes of guests inside the guest are served at once"),
    "reset": Enlightenment((), "the guest may reset itself by a register"),
    "crash": Enlightenment((), "the guest says why it crashed, and stops there"),
    "reenlightenment": Enlightenment((), "the guest is told when its clock's frequency changes"),
    "no-nonarch-coresharing": Enlightenment((), "only CPUs that are shown as siblings share a core"),
    "vendor-id": Enlightenment((), "the name of the hypervisor, at most 12 characters"),
}
"""By name, in the order they are said in."""

BASE = (
    *("relaxed", "vapic", "spinlocks", "vpindex", "runtime", "time", "synic", "stimer", "stimer-direct"),
    *("frequencies", "tlbflush", "ipi"),
)
"""What every Windows gets: KVM has had all of them since Linux 5.0, and nothing is lost by any."""

_LATER = ("tlbflush-ext", "xmm-input")
"""Those of newer kernels: taken where the kernel says that it has them."""

_NESTED = ("emsr-bitmap", "tlbflush-direct")
"""Likewise, and of use only beside the base of a hypervisor inside the guest."""

_VALUES = {"spinlocks": "0x1fff", "vendor-id": "tinamou"}
"""8191 attempts before the host is told (as libvirt, Proxmox and virt-manager have it); any name but Microsoft's."""

_UNFIT = {
    "passthrough": "it shows whatever this kernel has, so that the machine could not go on under another",
    "syndbg": "it needs a VMBus, and keeps Windows from starting where it is not set up",
    "enforce-cpuid": "it is for finding faults in hypervisors",
}

_ALIASES = {"apicv": "avic"}


@dataclass(frozen=True)
class Feature:
    """One property of the CPU: ``hv-spinlocks``, ``0x1fff``, and the reason; a value of ``off`` takes something away."""

    name: str
    value: str
    why: Why

    def __str__(self) -> str:
        return f"{self.name}={self.value}"


@dataclass(frozen=True)
class Decision:
    """The CPU's features, what the user must hear, and what rules the machine out."""

    features: tuple[Feature, ...] = ()
    notes: tuple[Note, ...] = ()
    problems: tuple[Problem, ...] = ()


def parse(text: str) -> dict[str, str]:
    """``"relaxed,hv_spinlocks=0x1fff"`` → names without prefix, and values. Raises ValueError with the name and why."""
    found: dict[str, str] = {}
    for word in filter(None, (one.strip() for one in text.split(","))):
        name, _, value = word.partition("=")
        name = re.sub(r"^hv-", "", name.replace("_", "-"))
        name = _ALIASES.get(name, name)
        if name not in ENLIGHTENMENTS:
            raise ValueError(f"{word}: {_UNFIT.get(name, 'no such enlightenment: ' + ', '.join(ENLIGHTENMENTS))}")
        if not re.fullmatch(
            {"spinlocks": r"0x[0-9a-fA-F]{1,8}|\d{1,10}|", "vendor-id": r"[ -+.-~]{1,12}"}.get(name, "|on"), value
        ):
            raise ValueError(f"{word}: {ENLIGHTENMENTS[name].reason}; {value or 'nothing'} is no value of it")
        found[name] = value or _VALUES.get(name, "on")
    return found


def closure(names: Iterable[str]) -> tuple[str, ...]:
    """The same with everything they need, in the order of the table."""
    wanted = set(names)
    while more := {need for name in wanted for need in ENLIGHTENMENTS[name].needs} - wanted:
        wanted |= more
    return tuple(name for name in ENLIGHTENMENTS if name in wanted)


def complete(text: str) -> dict[str, str]:
    """What a description names and what that needs, each with its value; nothing for auto and off. Raises ValueError."""
    values = parse(text) if text not in ("auto", "off", "") else {}
    return {name: values.get(name) or _VALUES.get(name, "on") for name in closure(values)}


def without(names: Iterable[str], missing: Iterable[str]) -> tuple[str, ...]:
    """Those that are left when some are missing: neither these nor what needs them."""
    gone = set(missing)
    return tuple(name for name in ENLIGHTENMENTS if name in set(names) and not set(closure([name])) & gone)


def decide(resolved: Resolved) -> Decision:
    """What the description asks for, or what the guest's system needs on this host; nothing for others."""
    asked = resolved.spec.cpu.hyperv
    release = windows.release(resolved.spec)
    if asked == "off" or (asked == "auto" and release is None):
        return Decision()
    if asked != "auto":
        return _asked(asked, resolved)
    if resolved.accel.accel != "kvm":
        text = f"no Hyper-V enlightenments under {resolved.accel.accel}: they are KVM's; Windows runs without them, slower"
        return Decision(notes=(Note("warning", text, Why("spec os", "the table of docs/guides/windows.md")),))
    return _for_windows(resolved)


def _why_not(name: str, resolved: Resolved) -> str:
    """Why this host or binary cannot give a guest that one; empty where it can, or where only QEMU will know."""
    facts = resolved.facts
    known = facts.hyperv
    if not facts.qemu.has(f"property:host-x86_64-cpu.hv-{name}"):
        return f"{facts.qemu.binary} does not know it"
    if name == "evmcs" and known.vendor != "GenuineIntel":
        return f"it is for processors of Intel, and this one is {known.vendor or 'of an unknown maker'}"
    if name == "evmcs" and not known.nested:
        return "kvm_intel.nested is off: the guest sees no VMX"
    if name == "avic" and not known.apic:
        return "the processor's own interrupt controller for guests (AVIC, APICv) is not there, or switched off"
    if known.offered is not None and name in known.asked and name not in known.offered:
        return "this kernel's KVM does not have it"
    return ""


def _asked(text: str, resolved: Resolved) -> Decision:
    """Exactly what the description names, with what that needs; all that cannot be had is a problem."""
    path, values = "cpu.hyperv", parse(text)
    if resolved.arch.name != "x86_64":
        return Decision(problems=(Problem(path, text, "Hyper-V's interfaces are for x86_64 guests", "leave it out"),))
    if resolved.accel.accel != "kvm":
        reason = f"enlightenments are KVM's, and the machine runs under {resolved.accel.accel}"
        return Decision(problems=(Problem(path, text, reason, "use --accel kvm, or hyperv = auto or off"),))
    names = closure(values)
    refused = [(name, reason) for name in names if (reason := _why_not(name, resolved))]
    problems = tuple(Problem(path, name, reason, "leave it out") for name, reason in refused)
    features = [_feature(name, values.get(name, ""), "spec cpu.hyperv", name not in values) for name in names]
    return Decision(tuple(features), problems=problems)


def _feature(name: str, value: str, asked_by: str, needed: bool = False) -> Feature:
    reason = ENLIGHTENMENTS[name].reason + ("; others that were asked for need it" if needed else "")
    return Feature(f"hv-{name}", value or _VALUES.get(name, "on"), Why(asked_by, f"hv-{name}: {reason}"))


def _for_windows(resolved: Resolved) -> Decision:
    """The base, what this host has beyond it, and what Windows must not see."""
    known, qemu = resolved.facts.hyperv, resolved.facts.qemu
    offered = known.offered or frozenset()
    nested = ("evmcs", *_NESTED) if known.vendor == "GenuineIntel" else _NESTED
    wanted = [*BASE, *(name for name in ("evmcs", "avic") if not _why_not(name, resolved))]
    wanted += [name for name in (*_LATER, *_NESTED) if name in offered and qemu.has(f"property:host-x86_64-cpu.hv-{name}")]
    if "evmcs" in nested and "evmcs" not in wanted:
        wanted = [name for name in wanted if name not in _NESTED]
    wanted += ["no-nonarch-coresharing"] * _cores_are_its_own(resolved) + ["vendor-id"] * _has_nvidia(resolved)
    missing = {name: reason for name in wanted if (reason := _why_not(name, resolved))}
    kept = without(wanted, {*missing, *_taken_away(resolved.spec.cpu.model)})
    features = [_feature(name, "", "spec os") for name in kept]
    why = Why("spec os", "the base of docs/guides/windows.md")
    said = tuple(Note("warning", f"no hv-{name} for Windows: {reason}", why) for name, reason in missing.items())
    if known.vendor == "GenuineIntel" and (reason := _why_not("evmcs", resolved)):
        said += (Note("warning", f"no hv-evmcs for Windows: {reason}; VBS may hang", why),)
    return Decision((*features, *_hidden(resolved)), said)


def _taken_away(model: str) -> list[str]:
    """The enlightenments that the description takes from the CPU by hand: ``-hv_time``, ``hv-time=off``."""
    words = (word.replace("_", "-") for word in model.split(","))
    return [re.sub(r"^-?hv-|=off$", "", word) for word in words if re.fullmatch(r"-hv-[a-z-]+|hv-[a-z-]+=off", word)]


def _cores_are_its_own(resolved: Resolved) -> bool:
    """Whether the guest's cores are the host's: pinned, arranged as there, and not by hand."""
    resources = resolved.resources
    return bool(resources.pinning and resources.topology and not resolved.spec.cpu.arranged)


def _threads(resolved: Resolved) -> int:
    """How many threads a core of the guest has: as asked for, or as the host CPUs it is pinned to."""
    cpu, mirrored = resolved.spec.cpu, resolved.resources.topology
    return mirrored.threads if mirrored and not cpu.arranged else cpu.topology()[2]


def _has_nvidia(resolved: Resolved) -> bool:
    """Drivers of before 2021 (465) refuse to work where they see a hypervisor they know."""
    return any(one.vendor == "10de" and one.kind == "graphics" for card in resolved.assigned for one in card.functions)


def _hidden(resolved: Resolved) -> list[Feature]:
    """What the processor has and Windows had better not see (source: changelog of Proxmox's qemu-server 9.1.12 to 9.2.0)."""
    release, known = windows.release(resolved.spec), resolved.facts.hyperv
    assert release is not None
    has, hidden = resolved.facts.qemu.has, []
    if release.vbs:
        shadow = "control-flow enforcement is hidden: with it, VBS keeps Windows from starting on QEMU 11"
        hidden += [(name, "off", shadow) for name in ("cet-ss", "cet-ibt")]
        if known.vendor == "GenuineIntel" and windows.board_before(resolved.machine.name, (11, 0)):
            hidden.append(
                ("vmx-mbec", "off", "boards of before 11.0 did not show it, and VBS hangs where it comes and goes")
            )
    if known.vendor == "AuthenticAMD" and _threads(resolved) > 1:
        hidden.append(("topoext", "on", "AMD processors say by it which threads share a core"))
    there = [one for one in hidden if has(f"property:host-x86_64-cpu.{one[0]}")]
    return [Feature(name, value, Why("spec os", f"{name}={value}: {reason}")) for name, value, reason in there]
