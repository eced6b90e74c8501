"""The virtual CPUs: count, topology, model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tinamou.blueprint import Contribution, Element, Flag, Value, Why
from tinamou.errors import Problem
from tinamou.fields import option
from tinamou.late import dataclass, replace
from tinamou.parts import hyperv
from tinamou.parts.hyperv import Feature
from tinamou.parts.protocol import Part, Resolved
from tinamou.units import CpuSet

if TYPE_CHECKING:
    from tinamou.tuning.placement import GuestTopology


@dataclass(frozen=True)
class CpuSpec:
    """How many virtual CPUs, how they are arranged, which model they are."""

    shorthand = "count"

    count: int = option(1, "number of virtual CPUs; 1 unless the topology says otherwise", minimum=1, maximum=4096)
    sockets: int = option(0, "CPU packages; 0 leaves it to tinamou", minimum=0)
    cores: int = option(0, "cores per socket; 0 leaves it to tinamou", minimum=0)
    threads: int = option(0, "threads per core; 0 leaves it to tinamou", minimum=0)
    max: int = option(
        0,
        "virtual CPUs it may be given while it runs (tinamou set NAME cpus=N); 0: no more than count",
        minimum=0,
        maximum=4096,
    )
    plugged: int = option(0, "those of them that were plugged in since it was started", minimum=0, maximum=4096)
    nodes: int = option(
        0, "memory nodes the guest is shown, CPUs and memory in equal parts; 0: as it lies on the host", minimum=0
    )
    model: str = option(
        "auto", "CPU model as QEMU names it, with +feature,-feature; auto takes the best for the accelerator"
    )

    hyperv: str = option(
        "auto",
        "interfaces of Hyper-V the guest is shown: auto (what its system needs), off, or a list: relaxed,vapic,time",
    )
    pin: str = option(
        "off", "host CPUs for the virtual ones: off (the kernel decides), auto (tinamou decides), or a list such as 8-11"
    )
    strict: bool = option(False, "refuse to start rather than run unpinned, or with memory away from the CPUs")
    latency: bool = option(False, "pin one virtual CPU per core and leave its sibling threads idle")
    near: str = option(
        "",
        "a device of the host to sit beside, by PCI address (0000:65:00.0), interface (eth0) or disk (nvme0n1): "
        "CPUs and memory of its memory node",
    )
    realtime: int = option(
        0,
        "real-time priority (SCHED_FIFO) of the virtual CPUs, each pinned to a CPU of its own; 0: none",
        minimum=0,
        maximum=98,
    )

    def problems(self) -> list[Problem]:
        """Topologies that do not multiply to the count, and pins that are no list of CPUs."""
        mine = [*self._topology_problems(), *self._pin_problems(), *self._node_problems()]
        return [*mine, *self._room_problems(), *self._hyperv_problems()]

    @property
    def present(self) -> int:
        """How many the guest has."""
        return self.count + self.plugged

    @property
    def room(self) -> int:
        """How many it can have while it runs."""
        return max(self.count, self.max)

    def _room_problems(self) -> Iterator[Problem]:
        if self.max and self.max < self.count:
            yield Problem("max", self.max, f"it has {self.count} from the start", f"set it to {self.count} or more")
        if self.present > self.room:
            reason = f"{self.count} and {self.plugged} more are beyond {self.room}"
            yield Problem("plugged", self.plugged, reason, f"set max = {self.present}")
        if self.room > self.count and (self.pin != "off" or self.nodes > 1):
            other = "pin" if self.pin != "off" else "nodes"
            reason = f"what is plugged in later has no place in {other}, which is chosen before"
            yield Problem("max", self.max, reason, f"leave max or {other} out")

    def _hyperv_problems(self) -> list[Problem]:
        if self.hyperv in ("auto", "off"):
            return []
        try:
            hyperv.parse(self.hyperv)
        except ValueError as error:
            return [Problem("hyperv", self.hyperv, str(error), "auto, off, or a list of names")]
        return []

    def _node_problems(self) -> list[Problem]:
        if self.nodes > 1 and self.count % self.nodes:
            fix = f"a number that divides {self.count}"
            return [Problem("nodes", self.nodes, f"{self.count} virtual CPUs do not make {self.nodes} equal parts", fix)]
        return []

    def _pin_problems(self) -> list[Problem]:
        if self.pin in ("off", "auto"):
            asked = [name for name in ("strict", "latency", "near", "realtime") if getattr(self, name) and self.pin == "off"]
            reason = "says how to pin, but nothing is pinned"
            return [Problem(name, getattr(self, name), reason, 'add pin = "auto"') for name in asked]
        try:
            CpuSet.parse(self.pin)
        except ValueError as error:
            return [Problem("pin", self.pin, str(error), "off, auto, or a list such as 8-11")]
        return []

    def _topology_problems(self) -> list[Problem]:
        given = [n for n in (self.sockets, self.cores, self.threads) if n]
        product = 1
        for number in given:
            product *= number
        text = f"sockets {self.sockets or '?'} x cores {self.cores or '?'} x threads {self.threads or '?'}"
        name = "max" if self.room > self.count else "count"
        if given and self.room % product:
            fix = f"set {name} to a multiple of {product}, or leave one of the three out"
            return [Problem(name, self.room, f"the topology {text} does not divide it", fix)]
        if len(given) == 3 and product != self.room:
            return [Problem(name, self.room, f"the topology {text} makes {product} CPUs", f"set {name} = {product}")]
        return []

    @property
    def arranged(self) -> bool:
        """Whether the user said how the virtual CPUs are arranged."""
        return bool(self.sockets or self.cores or self.threads)

    def topology(self) -> tuple[int, int, int]:
        """(sockets, cores, threads) with what was left open filled in: one socket of cores with one thread each."""
        threads = self.threads or (self.room // (self.sockets * self.cores) if self.sockets and self.cores else 1)
        cores = self.cores or self.room // ((self.sockets or 1) * threads)
        return self.sockets or self.room // (cores * threads), cores, threads


def check(resolved: Resolved) -> list[Problem]:
    """More virtual CPUs than the board has room for, and enlightenments that cannot be had."""
    problems = list(hyperv.decide(resolved).problems)
    spec, machine = resolved.spec.cpu, resolved.machine
    if spec.room > spec.count and (reason := _fixed(resolved)):
        return [*problems, Problem("cpu.max", spec.max, reason, "leave it out")]
    if spec.room <= machine.max_cpus:
        return problems
    reason = f"{machine.name} has at most {machine.max_cpus} CPUs"
    field, value = ("cpu.max", spec.max) if spec.room > spec.count else ("cpu.count", spec.count)
    return [*problems, Problem(field, value, reason, f"set it to {machine.max_cpus} or less")]


def _fixed(resolved: Resolved) -> str:
    """Why no CPU can be plugged in later; empty where one can."""
    if not resolved.arch.plugs_cpus:
        return f"the board {resolved.machine.name} takes no CPU while it runs"
    if resolved.encryption is not None:
        return "the CPUs of a machine with encrypted memory are measured when it is started"
    return ""


def contribute(resolved: Resolved) -> Contribution:
    """``-smp`` and ``-cpu``, arranged like the host CPUs it is pinned to for who did not ask for a topology."""
    spec, mirrored = resolved.spec.cpu, resolved.resources.topology
    sockets, cores, threads = spec.topology()
    options: dict[str, Value] = {"sockets": sockets, "cores": cores, "threads": threads}
    plural = "s" if spec.count > 1 else ""
    why = Why("spec cpu.count", f"{spec.count} virtual CPU{plural} as they would sit in a real machine")
    caches: tuple[Flag, ...] = ()
    if mirrored and not spec.arranged:
        options = _arranged(mirrored, resolved)
        why = Why("spec cpu.pin", f"{spec.count} virtual CPU{plural} arranged as the host CPUs they are pinned to")
        caches = _caches(mirrored, options, resolved)
    if spec.room > spec.count:
        options = {**options, "maxcpus": spec.room}
        why = Why(why.asked_by, f"{why.reason}; room for {spec.room} while it runs (spec cpu.max)")
    decided = hyperv.decide(resolved)
    flags = (Flag("smp", why, str(spec.count), options), *caches, _with(decided.features, _model(spec, resolved)))
    return Contribution.merge([Contribution(flags=flags, notes=decided.notes), *elements(resolved).values()])


def elements(resolved: Resolved) -> dict[int, Contribution]:
    """What each CPU that was plugged in adds to the machine, by its number."""
    spec, (_, cores, threads) = resolved.spec.cpu, resolved.spec.cpu.topology()
    kind = f"{(_model(spec, resolved).value or '').partition(',')[0]}-{resolved.arch.name}-cpu"
    why = Why("spec cpu.plugged", "it was plugged in while the machine ran")
    found = {}
    for number in range(spec.count, spec.present):
        core, thread = divmod(number, threads)
        seat: dict[str, Value] = {"socket-id": core // cores, "core-id": core % cores, "thread-id": thread}
        one = Element("device", {"driver": kind, "id": f"cpu{number}", **seat}, why)
        found[number] = Contribution(elements=(one,))
    return found


def _with(features: tuple[Feature, ...], model: Flag) -> Flag:
    """The model with more features, but for those the user has named."""
    named = {word.replace("_", "-").lstrip("+-").partition("=")[0] for word in (model.value or "").split(",")}
    more = [one for one in features if one.name not in named]
    reason = "; ".join([model.why.reason, *(one.why.reason for one in more)])
    return replace(model, value=",".join([model.value or "", *map(str, more)]), why=Why(model.why.asked_by, reason))


def _arranged(topology: GuestTopology, resolved: Resolved) -> dict[str, Value]:
    """``-smp`` options as this board and binary can say them; what they cannot say counts to the next level below."""
    options: dict[str, Value] = {"sockets": topology.sockets}
    beyond = 1
    for name, count in (("dies", topology.dies), ("clusters", topology.clusters)):
        option = resolved.arch.levels.get(name)
        if option and resolved.facts.qemu.has(f"option:smp-opts.{option}") and (count > 1 or name == "dies"):
            options[option], beyond = count * beyond, 1
        else:
            beyond *= count
    return {**options, "cores": topology.cores * beyond, "threads": topology.threads}


def _caches(topology: GuestTopology, options: Mapping[str, Value], resolved: Resolved) -> tuple[Flag, ...]:
    """Cores that share a level 2 cache on the host do so in the guest, where QEMU can show it (10.0 on x86)."""
    level = resolved.arch.levels.get("clusters", "")
    known = resolved.arch.caches and resolved.facts.qemu.has(f"property:{resolved.arch.board}.smp-cache")
    if not (topology.shared_l2 and level in options and known):
        return ()
    why = Why("spec cpu.pin", "the cores of a module share their level 2 cache, as on the host")
    return (Flag("machine", why, options={"smp-cache.0.cache": "l2", "smp-cache.0.topology": level.removesuffix("s")}),)


def _model(spec: CpuSpec, resolved: Resolved) -> Flag:
    if spec.model != "auto":
        name, _, features = spec.model.partition(",")
        why = Why("spec cpu.model", "the model that was asked for")
        return Flag("cpu", why, ",".join([name, *filter(None, [features]), *_dropped(resolved)]))
    if resolved.accel.accel != "tcg":
        native = resolved.arch.native
        return Flag("cpu", Why("accelerator", native.reason), ",".join([native.model, *_dropped(resolved)]))
    models = resolved.arch.tcg
    model = next((m for m in models if resolved.facts.qemu.has(f"cpu:{m.model}")), models[-1])
    return Flag("cpu", Why("accelerator", model.reason), model.model, dict(model.options))


def _dropped(resolved: Resolved) -> list[str]:
    """Features the trial found must be left out here, as ``-feature``."""
    return [need for need in resolved.accel.needs if need.startswith("-")]


PART = Part(contribute, check=check, elements=elements)
