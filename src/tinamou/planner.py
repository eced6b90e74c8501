"""plan(spec, facts) -> Plan: pure. Resolve the shared decisions once, check every part, collect contributions.

`check` stops before the last: what is refused is known then.
"""

from __future__ import annotations

from tinamou import late
from tinamou.arch import ARCHES
from tinamou.blueprint import Contribution, Flag, Plan, Why
from tinamou.blueprint.plan import Confinement
from tinamou.errors import PlanError
from tinamou.facts import Facts, HostFacts
from tinamou.facts.host import EVERYBODY
from tinamou.parts import (
    boot,
    clock,
    confidential,
    cpu,
    disk,
    display,
    display_tcp,
    extra,
    frames,
    identity,
    monitor,
    net,
    passthrough,
    placement,
    pmem,
    process,
    replicate,
    security,
    seed_disk,
    share,
    standard,
    tpm,
    usb,
    windows,
    windows_setup,
)
from tinamou.parts.protocol import Need, Part, Resolved
from tinamou.spec import MachineSpec
from tinamou.tuning import accel, apparmor, board, group, memory, pci, resources, syscalls, walls

__all__ = ["PARTS", "check", "disk_alone", "plan", "plan_card", "plan_cpu"]

PARTS: tuple[Part, ...] = (
    process.PART,
    board.PART,
    accel.PART,
    cpu.PART,
    memory.PART,
    resources.PART,
    group.PART,
    boot.PART,
    monitor.PART,
    pci.PART,
    disk.PART,
    seed_disk.PART,
    net.PART,
    display_tcp.PART,
    display.PART,
    share.PART,
    tpm.PART,
    passthrough.PART,
    confidential.PART,
    security.PART,
    standard.PART,
    extra.PART,
    frames.PART,
    usb.PART,
    identity.PART,
    clock.PART,
    windows.PART,
    windows_setup.PART,
    pmem.PART,
    passthrough.LOCAL,
    placement.PART,
    replicate.PART,
    Part(lambda resolved: Contribution(notes=resolved.notes)),
    process.ARGUMENTS,
)
"""Every part. Their order is that of slots on the PCI bus, of the command line, of host steps and of notes."""


def plan(spec: MachineSpec, facts: Facts) -> Plan:
    """Decide everything about one machine. Raises PlanError with every problem found."""
    return _spelled(_decided(spec, facts))


def check(spec: MachineSpec, facts: Facts) -> None:
    """Raise what `plan` raises, in half the time: the plan is made only where that can still refuse something.

    That is for devices of the host, whose groups its steps name, and in what is replicated.
    """
    resolved = _decided(spec, facts)
    if resolved.assigned or spec.replicate.to:
        _spelled(resolved)


def _decided(spec: MachineSpec, facts: Facts) -> Resolved:
    """Every decision, and what it needs of the host. Raises PlanError."""
    resolved = _checked(_resolved(spec, facts), PARTS)
    resolved = late.replace(resolved, resources=resources.decide(resolved))
    if resolved.accel.accel == "kvm" and facts.place.uid is not None:
        _group_of("/dev/kvm", facts.host)
    return resolved


def _spelled(resolved: Resolved) -> Plan:
    """The plan. Raises PlanError for devices of the host that QEMU may not open, and for what cannot be replicated."""
    spec, facts = resolved.spec, resolved.facts
    whole = Contribution.merge([part.contribute(resolved) for part in PARTS])
    made = _collected(resolved, whole)
    if security.has_profiles(resolved):
        made = apparmor.confined(made, facts.place)
    made = walls.confined(made, facts.walls, spec.confine.without)
    if security.has_labels(resolved):
        from tinamou.tuning import selinux

        made = selinux.confined(made, facts.host.selinux, facts.place.directory, facts.place.uid)
    return _in_groups(made, facts.host)


def _collected(resolved: Resolved, whole: Contribution) -> Plan:
    facts = resolved.facts
    return Plan(
        name=facts.place.name,
        arch=resolved.arch.name,
        binary=facts.qemu.binary,
        accel=resolved.accel.accel,
        machine_type=resolved.machine.name,
        elements=pci.on_the_root_bus(confidential.on_shared_memory(whole, resolved).elements, spec=resolved.spec),
        flags=_merged(whole.flags),
        steps=whole.steps,
        notes=whole.notes,
        confinement=_confinement(resolved, whole),
        ssh_port=facts.place.ssh_port if facts.image.may_have_sshd else None,
        pinning=resolved.resources.pinning,
    )


def plan_card(spec: MachineSpec, facts: Facts, number: int) -> Contribution:
    """What the network interface of that number adds to the machine, to plug it in while it runs. Raises PlanError."""
    return _element(net.PART, spec, facts, number)


def disk_alone(spec: MachineSpec, facts: Facts, number: int) -> Contribution:
    """What the disk of that number adds to the machine, to plug it in while it runs. Raises PlanError."""
    return _element(disk.PART, spec, facts, number)


def plan_cpu(spec: MachineSpec, facts: Facts, number: int) -> Contribution:
    """The same of the virtual CPU of that number. Raises PlanError."""
    return _element(cpu.PART, spec, facts, number)


def _element(part: Part, spec: MachineSpec, facts: Facts, number: int) -> Contribution:
    """The contribution of one element of a part. What the running machine has of the host is not asked for again."""
    resolved = _checked(_resolved(spec, facts), (part,))
    return confidential.on_shared_memory(part.elements(resolved).get(number, Contribution()), resolved)


def _resolved(spec: MachineSpec, facts: Facts) -> Resolved:
    """Every decision that several parts rest on, but for what the machine gets of the host."""
    spec = windows.settled(spec, facts.image.drivers)
    facts = late.replace(facts, image=boot.guest_of(spec, facts.image))
    arch = ARCHES[facts.image.arch]
    trial, why, notes = accel.choose(spec.accel, facts.accel)
    resolved = Resolved(
        spec=spec,
        facts=facts,
        arch=arch,
        machine=board.choose(arch, facts.qemu, facts.place.machine_type),
        accel=trial,
        accel_why=why,
        boot=boot.way(spec, facts),
        disks=disk.disks(spec.disk, facts, "sata" if windows.without_virtio(spec) else "virtio"),
        assigned=passthrough.choose(spec.pci, facts)[0],
        resources=resources.Resources(),
        notes=notes,
    )
    if spec.confidential.type != "off":
        from tinamou.tuning.confidential import choose

        resolved = choose(late.replace(resolved, needs=_needs(resolved)))
    return pci.with_slots(resolved, _needs(resolved))


def _needs(resolved: Resolved) -> tuple[Need, ...]:
    return tuple(need for part in PARTS for need in part.needs(resolved))


def _checked(resolved: Resolved, parts: tuple[Part, ...]) -> Resolved:
    """The same. Raises PlanError with every problem of these parts, and of the decisions they rest on."""
    problems = [*resolved.problems, *(problem for part in parts for problem in part.check(resolved))]
    if problems:
        raise PlanError("the machine cannot be planned on this host", problems=problems)
    return resolved


def _merged(flags: tuple[Flag, ...]) -> tuple[Flag, ...]:
    """All ``-machine`` options in one flag, the reasons joined."""
    machine = [flag for flag in flags if flag.name == "machine"]
    head = machine[0]
    options = {key: value for flag in machine for key, value in flag.options.items()}
    reason = "; ".join(flag.why.reason for flag in machine)
    joined = Flag("machine", Why(head.why.asked_by, reason), head.value, options)
    return tuple(joined if flag is head else flag for flag in flags if flag is head or flag.name != "machine")


def _confinement(resolved: Resolved, whole: Contribution) -> Confinement:
    place, encryption = resolved.facts.place, resolved.encryption
    mapped = passthrough.locked(resolved.assigned, resolved.spec.memory.size)
    locked = confidential.lockable(encryption.kind, resolved.spec.memory.size) if encryption else mapped
    return Confinement(
        place.uid,
        place.uid,
        locked=locked,
        files=group.files(resolved),
        file_size=group.file_size(resolved),
        tasks=group.tasks(resolved),
        reads=resolved.facts.qemu.loads,
        calls=syscalls.decide(resolved, whole.elements),
        own_cores=security.cores(resolved),
    )


def _in_groups(made: Plan, host: HostFacts) -> Plan:
    """The plan with the groups through which a QEMU that is another user uses its devices."""
    if made.confinement.uid is None:
        return made
    found = dict.fromkeys(_group_of(device, host) for device in made.confinement.devices)
    groups = tuple(one for one in found if one != EVERYBODY)
    return late.replace(made, confinement=late.replace(made.confinement, groups=groups))


def _group_of(device: str, host: HostFacts) -> int:
    """The group through which a QEMU that is not root may use the device. Raises PlanError where only root may."""
    group = host.device_groups.get(device, host.groups.get(device.rpartition("/")[2], EVERYBODY))
    if group is not None:
        return group
    other = "; or use --accel tcg" if device == "/dev/kvm" else ""
    raise PlanError(
        f"QEMU may not use {device}",
        why="only its owner may open the device, and QEMU never runs as root",
        fix=f"chmod 666 {device}, or give it to a group with chmod 660, as the rules of udev do{other}",
    )
