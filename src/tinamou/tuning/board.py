"""The machine type: always the versioned one, so that a saved machine finds the same board again."""

from __future__ import annotations

from tinamou.arch import Arch
from tinamou.blueprint import Contribution, Flag, Why
from tinamou.errors import PlanError
from tinamou.facts import MachineType, QemuFacts
from tinamou.parts import windows
from tinamou.parts.protocol import Part, Resolved


def choose(arch: Arch, qemu: QemuFacts, held: str) -> MachineType:
    """``held``, else the versioned type behind the architecture's board. Raises PlanError when the binary lacks it."""
    name = held or arch.machine
    machine = qemu.machine(name)
    if machine is None:
        raise PlanError(f"{qemu.binary} has no machine type {name}", fix=f"install a QEMU that emulates {arch.name}")
    return machine


def contribute(resolved: Resolved) -> Contribution:
    """``-machine`` with the options the architecture asks for, as far as this binary knows them.

    Management mode is part boot's to decide where Secure Boot needs it.
    """
    arch, machine, has = resolved.arch, resolved.machine, resolved.facts.qemu.has
    wanted = {**arch.machine_options, **(arch.unused if _bare(resolved) else {})}
    if resolved.spec.boot.checked:
        wanted.pop("smm", None)
    known = {name: pair for name, pair in wanted.items() if has(f"property:{arch.board}.{name}")}
    reasons = [f"{arch.machine} is {machine.name} in this QEMU: pinned, so that a restored machine finds the same board"]
    if resolved.facts.place.machine_type:
        reasons = [f"the state that is loaded was saved on {machine.name}"]
    reasons += [f"{name}={value}: {reason}" for name, (value, reason) in known.items()]
    options = {name: value for name, (value, _) in known.items()}
    return Contribution(flags=(Flag("machine", Why("architecture", "; ".join(reasons)), machine.name, options),))


def _bare(resolved: Resolved) -> bool:
    """Whether nothing can use the board's own devices: no firmware, no screen, no hand-written arguments."""
    spec = resolved.spec
    alone = resolved.boot == "direct" and spec.display.type == "none" and not windows.release(spec)
    sata = any(disk.options.interface == "sata" for disk in resolved.disks)
    return resolved.encryption is None and alone and not sata and not spec.qemu_args


PART = Part(contribute)
