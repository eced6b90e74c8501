"""The machine type: always the versioned one, so that a saved machine finds the same board again."""

from __future__ import annotations

from tinamou.arch import Arch
from tinamou.blueprint import Flag, Why
from tinamou.errors import PlanError
from tinamou.facts import MachineType, QemuFacts


def choose(arch: Arch, qemu: QemuFacts) -> MachineType:
    """The versioned type behind the architecture's board. Raises PlanError when the binary lacks it."""
    machine = qemu.machine(arch.machine)
    if machine is None:
        raise PlanError(f"{qemu.binary} has no machine type {arch.machine}", fix=f"install a QEMU that emulates {arch.name}")
    return machine


def flag(arch: Arch, machine: MachineType, qemu: QemuFacts, *, bare: bool, left_out: tuple[str, ...] = ()) -> Flag:
    """``-machine`` with the options the architecture asks for, as far as this binary knows them.

    ``bare`` leaves out the board's own devices that only firmware, a screen or hand-written arguments could use. What is
    ``left_out`` is another part's to decide for this machine.
    """
    wanted = {**arch.machine_options, **(arch.unused if bare else {})}
    offered = {name: pair for name, pair in wanted.items() if qemu.has(f"property:{arch.board}.{name}")}
    known = {name: pair for name, pair in offered.items() if name not in left_out}
    reasons = [f"{arch.machine} is {machine.name} in this QEMU: pinned, so that a restored machine finds the same board"]
    reasons += [f"{name}={value}: {reason}" for name, (value, reason) in known.items()]
    return Flag("machine", Why("architecture", "; ".join(reasons)), machine.name, {n: v for n, (v, _) in known.items()})
