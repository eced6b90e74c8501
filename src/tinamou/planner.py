"""plan(spec, facts) -> Plan: pure. Ask every part what it needs, settle the shared decisions once, collect contributions."""

from __future__ import annotations

import dataclasses

from tinamou.arch import ARCHES
from tinamou.blueprint import Contribution, Flag, Note, Plan, Why
from tinamou.blueprint.plan import Confinement
from tinamou.errors import PlanError, Problem
from tinamou.facts import Facts, HostFacts, MachineType, Trial
from tinamou.facts.encryption import DEVICE
from tinamou.facts.host import EVERYBODY
from tinamou.parts import (
    boot,
    confidential,
    cpu,
    disk,
    display,
    limits,
    monitor,
    net,
    passthrough,
    seed_disk,
    share,
    standard,
    tpm,
)
from tinamou.parts.confidential import Choice
from tinamou.parts.settled import Need, Settled
from tinamou.spec import MachineSpec
from tinamou.tuning import accel, board, memory, pci, resources
from tinamou.tuning.placement import GuestTopology

__all__ = ["disk_alone", "plan", "plan_card"]


def plan(spec: MachineSpec, facts: Facts) -> Plan:
    """Decide everything about one machine. Raises PlanError with every problem found."""
    arch = ARCHES[facts.image.arch]
    given = _given(spec, facts)
    trial, accel_why, notes = accel.choose(spec.accel, facts.accel)
    machine = board.choose(arch, facts.qemu)
    spec, choice = _encrypted(_kept_inside(spec), facts, trial)
    settled, every, needs, ports = _settled(spec, facts, trial, choice)
    _check(spec, settled, every, machine, choice)
    translation = accel.translation_cache(trial, spec.memory.size)
    iothreads = tuple(f"{one.node}-io" for one in every if one.options.iothread)
    got = resources.settle(spec.cpu, spec.memory, spec.limits, facts, translation, iothreads, passthrough.node(given))
    whole = Contribution.merge(
        [
            _frame(facts.place.name),
            Contribution(flags=(_board(spec, settled, machine),)),
            Contribution(flags=(accel.flag(trial, accel_why, arch, spec.cpu.count, spec.memory.size, facts.host),)),
            cpu.contribute(spec.cpu, settled, _mirrored(got.topology)),
            memory.contribute(spec.memory, needs, got, facts.qemu, facts.place.file("ram")),
            Contribution(steps=got.steps, notes=got.notes),
            Contribution(steps=limits.step(spec.limits, facts.place.name, facts.place.directory)),
            boot.contribute(spec.boot, settled, facts.place.name, _words(spec, every, facts)),
            monitor.contribute(settled),
            pci.contribute(ports, facts.qemu),
            disk.contribute(spec.disk, every, settled),
            seed_disk.contribute(spec.seed, net.macs(spec.net, facts), settled, net.fixed(spec.net)),
            net.contribute(spec.net, spec.cpu.count, settled),
            display.contribute(spec.display, settled),
            tpm.contribute(spec.tpm, settled),
            passthrough.contribute(given, settled),
            confidential.contribute(spec.confidential, settled),
            standard.contribute(
                spec.devices, settled, forkable=spec.memory.forkable, locked=bool(given), floor=spec.memory.floor
            ),
            Contribution(flags=_escape_hatch(spec), notes=(*notes, *choice.notes, *_hatch_notes(spec))),
        ]
    )
    return Plan(
        name=facts.place.name,
        arch=arch.name,
        binary=facts.qemu.binary,
        accel=trial.accel,
        machine_type=machine.name,
        elements=confidential.on_shared_memory(whole.elements, settled.encryption),
        flags=_merged(whole.flags),
        steps=whole.steps,
        notes=whole.notes,
        confinement=_confinement(spec, settled, passthrough.locked(given, spec.memory.size)),
        ssh_port=facts.place.ssh_port if facts.image.may_have_sshd else None,
        pinning=got.pinning,
    )


def plan_card(spec: MachineSpec, facts: Facts, number: int) -> Contribution:
    """The part of the machine's plan that is one of its network interfaces. Raises PlanError as `plan` does."""
    plan(spec, facts)
    trial, _, _ = accel.choose(spec.accel, facts.accel)
    spec, choice = _encrypted(_kept_inside(spec), facts, trial)
    settled, _, _, _ = _settled(spec, facts, trial, choice)
    return _adapted(net.contribute(spec.net, spec.cpu.count, settled, only=number), settled)


def disk_alone(spec: MachineSpec, facts: Facts, number: int) -> Contribution:
    """What the disk of that number adds to the machine, for plugging it in while the machine runs. Raises PlanError."""
    trial = accel.choose(spec.accel, facts.accel)[0]
    spec, choice = _encrypted(_kept_inside(spec), facts, trial)
    settled, every, _, _ = _settled(spec, facts, trial, choice)
    if problems := [
        *choice.problems,
        *disk.check(spec.disk, 1 if facts.image.disk else 0),
        *disk.check_aio(spec.disk, facts),
    ]:
        raise PlanError("the disk cannot be added", problems=problems)
    return _adapted(disk.contribute(spec.disk, [one for one in every if one.number == number], settled), settled)


def _adapted(part: Contribution, settled: Settled) -> Contribution:
    """What is plugged in, as a guest with encrypted memory can use it."""
    return dataclasses.replace(part, elements=confidential.on_shared_memory(part.elements, settled.encryption))


def _encrypted(spec: MachineSpec, facts: Facts, trial: Trial) -> tuple[MachineSpec, Choice]:
    """How the memory is encrypted; without a balloon then: QEMU gives no page back of a guest whose memory is encrypted."""
    if spec.confidential.type == "off":
        return spec, Choice()
    from tinamou.tuning.confidential import Situation, choose

    arch = ARCHES[facts.image.arch]
    needs = (*share.needs(spec.share), *net.needs(spec.net, facts))
    now = Situation(trial, board.choose(arch, facts.qemu).name, needs, _possible_way(spec, facts, left_out="bios"))
    choice = choose(spec, facts, now)
    if choice.encryption is None:
        return spec, choice
    return dataclasses.replace(spec, devices=dataclasses.replace(spec.devices, balloon=False)), choice


def _settled(
    spec: MachineSpec, facts: Facts, trial: Trial, choice: Choice
) -> tuple[Settled, tuple[disk.Disk, ...], tuple[Need, ...], int]:
    """The shared decisions, every disk, every need, and how many hot-plug slots there are."""
    order, arch = boot.disks_in_order(spec.boot), ARCHES[facts.image.arch]
    found = choice.encryption
    way, pvh = (found.boot, False) if found else (_way(spec, facts), _may_use_pvh(spec, facts))
    settled = Settled(facts, arch, trial, way, order, pvh, pci={}, encryption=found)
    every = disk.disks(spec.disk, settled)
    needs = _needs(spec, every, settled)
    ports = pci.ports_of(needs, pci.reserved(spec.devices.hotplug, plugs=_plugs(spec, facts)) + len(spec.share))
    return dataclasses.replace(settled, pci=pci.assign(needs, ports), ports=pci.taken(needs)), every, needs, ports


def _given(spec: MachineSpec, facts: Facts) -> tuple[passthrough.Given, ...]:
    """The devices of the host that the machine gets. Raises PlanError with everything that keeps them from it."""
    given, problems = passthrough.choose(spec.pci, facts.pci, facts.host)
    problems += passthrough.check(given, spec.memory, facts)
    if problems:
        raise PlanError("devices of the host cannot be given to the machine", problems=problems)
    return given


def _mirrored(topology: GuestTopology | None) -> dict[str, int] | None:
    return dataclasses.asdict(topology) if topology else None


def _kept_inside(spec: MachineSpec) -> MachineSpec:
    """A forkable machine's network of no particular type is QEMU's own: its state is saved and forked with the machine."""
    if not spec.memory.forkable:
        return spec
    nets = tuple(dataclasses.replace(one, type="user") if one.type == "auto" else one for one in spec.net)
    return dataclasses.replace(spec, net=nets)


def _way(spec: MachineSpec, facts: Facts) -> str:
    """The way of booting. Raises PlanError where there is none."""
    if way := _possible_way(spec, facts):
        return way
    wish, possible = boot.wish(spec.boot), _possible_ways(spec, facts)
    path, value = ("boot.secure", "true") if spec.boot.secure else ("boot.firmware", wish)
    reason = f"{facts.image.name} on {facts.image.arch} boots by: {', '.join(possible)}"
    problem = Problem(path, value, reason, "choose one of these, or another image")
    if not possible:
        reason = f"nothing that {facts.image.arch} boots was found in {facts.image.name}: no boot loader of any firmware"
        problem = Problem("image", spec.image, reason, "use another image or --arch, or boot with --kernel")
    raise PlanError("the machine cannot start this way", problems=[problem])


def _possible_ways(spec: MachineSpec, facts: Facts) -> list[str]:
    return [way for way in boot.ways(spec.boot, facts.image.boots) if way in ARCHES[facts.image.arch].boots]


def _possible_way(spec: MachineSpec, facts: Facts, left_out: str = "") -> str:
    """As asked, or the image's first that the architecture knows; empty where there is none.

    A throw-away machine is started directly where that is possible: it is faster, and what a boot loader is there for, the
    guest's own choice of kernel at a later start, never comes.
    """
    possible = [way for way in _possible_ways(spec, facts) if way != left_out]
    wish = boot.wish(spec.boot)
    if wish != "auto":
        return wish if wish in possible else ""
    return "direct" if facts.place.throwaway and "direct" in possible else next(iter(possible), "")


def _may_use_pvh(spec: MachineSpec, facts: Facts) -> bool:
    """Whether a kernel may be entered through PVH: not where it is reset often, nor where its initrd would hit ACPI tables.

    docs/reference/boot-speed.md has both stories.
    """
    return facts.place.throwaway and not spec.tpm.enabled


def _board(spec: MachineSpec, settled: Settled, machine: MachineType) -> Flag:
    left_out = ("smm",) if spec.boot.secure else ()
    return board.flag(settled.arch, machine, settled.facts.qemu, bare=_bare(spec, settled), left_out=left_out)


def _bare(spec: MachineSpec, settled: Settled) -> bool:
    """Whether nothing can use what the board brings along."""
    return settled.encryption is None and settled.boot == "direct" and spec.display.type == "none" and not spec.qemu_args


def _plugs(spec: MachineSpec, facts: Facts) -> bool:
    """Whether anything may be plugged in: not where the guest is soon gone, nor where forks must have the same hardware."""
    return not facts.place.throwaway and not spec.memory.forkable


def _needs(spec: MachineSpec, every: tuple[disk.Disk, ...], settled: Settled) -> tuple[Need, ...]:
    return (
        *monitor.needs(),
        *disk.needs(every),
        *seed_disk.needs(spec.seed, settled.facts.image),
        *net.needs(spec.net, settled.facts),
        *display.needs(spec.display),
        *share.needs(spec.share),
        *passthrough.needs(spec.pci),
        *standard.needs(spec.devices, settled.arch.panic_device),
    )


def _check(spec: MachineSpec, settled: Settled, every: tuple[disk.Disk, ...], machine: MachineType, choice: Choice) -> None:
    problems = [
        *choice.problems,
        *boot.check(spec.boot, settled, machine.name),
        *disk.check(spec.disk, 1 if settled.facts.image.disk else 0),
        *boot.check_order(spec.boot, [one.node for one in every]),
        *display.check(spec.display, settled),
        *tpm.check(spec.tpm, settled),
        *seed_disk.check(spec.seed, settled.facts.image),
        *net.check(spec.net, spec.cpu.count, settled.facts),
        *disk.check_aio(spec.disk, settled.facts),
    ]
    if spec.cpu.count > machine.max_cpus:
        reason = f"{machine.name} has at most {machine.max_cpus} CPUs"
        problems.append(Problem("cpu.count", spec.cpu.count, reason, f"set it to {machine.max_cpus} or less"))
    if problems:
        raise PlanError("the machine cannot be planned on this host", problems=problems)


def _frame(name: str) -> Contribution:
    """What every machine is given, whatever it is."""
    bare = Why("planner", "only the devices named here exist: none is added by default")
    config = Why("planner", "no configuration file of the host changes this machine")
    named = Why("spec name", "the process and its windows carry the machine's name")
    sandbox = Why(
        "confinement", "system calls a machine never needs are refused: obsolete ones, new privileges, new processes"
    )
    denied = {"obsolete": "deny", "elevateprivileges": "deny", "spawn": "deny", "resourcecontrol": "deny"}
    return Contribution(
        flags=(
            Flag("name", named, f"guest={name}", {"debug-threads": "on"}),
            Flag("no-user-config", config),
            Flag("nodefaults", bare),
            Flag("sandbox", sandbox, "on", dict(denied)),
        )
    )


def _words(spec: MachineSpec, every: tuple[disk.Disk, ...], facts: Facts) -> dict[str, str]:
    """Kernel arguments for the tiny guest, which has no seed to read fixed addresses from, and answers early."""
    words = {} if facts.image.seed else net.kernel_words(spec.net)
    if every and facts.image.resident:
        words[f"tinamou.disks={len(every)}"] = "the guest answers when it has its disks"
    return words


def _escape_hatch(spec: MachineSpec) -> tuple[Flag, ...]:
    why = Why("spec qemu_args", "passed on as it is; tinamou does not check it")
    return tuple(Flag("", why, argument) for argument in spec.qemu_args)


def _hatch_notes(spec: MachineSpec) -> tuple[Note, ...]:
    if not spec.qemu_args:
        return ()
    why = Why("spec qemu_args", "the escape hatch was used")
    return (Note("warning", f"passed to QEMU unchecked: {' '.join(spec.qemu_args)}", why),)


def _merged(flags: tuple[Flag, ...]) -> tuple[Flag, ...]:
    """All ``-machine`` options in one flag, the reasons joined."""
    machine = [flag for flag in flags if flag.name == "machine"]
    head = machine[0]
    options = {key: value for flag in machine for key, value in flag.options.items()}
    reason = "; ".join(flag.why.reason for flag in machine)
    joined = Flag("machine", Why(head.why.asked_by, reason), head.value, options)
    return tuple(joined if flag is head else flag for flag in flags if flag is head or flag.name != "machine")


def _confinement(spec: MachineSpec, settled: Settled, mapped: int | None) -> Confinement:
    """``mapped`` is how much memory devices of the host reach, None without any."""
    facts, encryption = settled.facts, settled.encryption
    locked = confidential.lockable(encryption.kind, spec.memory.size) if encryption else mapped
    if facts.place.uid is None:
        return Confinement(None, None, locked=locked)
    devices = ("/dev/kvm",) * (settled.accel.accel == "kvm") + ("/dev/vfio/vfio",) * (mapped is not None)
    devices += (DEVICE,) * (encryption is not None and encryption.kind != "tdx")
    groups = dict.fromkeys(_group_of(device, facts.host) for device in devices)
    return Confinement(facts.place.uid, facts.place.uid, tuple(group for group in groups if group != EVERYBODY), locked)


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
