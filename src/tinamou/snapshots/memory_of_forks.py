"""What the memory of a fork is made of: nothing at first, to be put on the checkpoint's; a copy of that; or that itself."""

from __future__ import annotations

import os

from tinamou.blueprint import HandOver, Plan
from tinamou.errors import StateError
from tinamou.late import dataclass
from tinamou.snapshots import branching, changes
from tinamou.snapshots.checkpoint import Checkpoint
from tinamou.state.record import Record
from tinamou.system import ram
from tinamou.tuning.memory import RAM

__all__ = ["ForkMemory", "is_copied", "is_mapped", "memory_for"]


def is_copied(record: Record, *, same: bool) -> bool:
    """Whether a fork gets memory of its own: other processes work in it, those of shared folders.

    One that is to be the ``same`` machine does where it could not be checkpointed again otherwise.
    """
    return bool(record.spec.get("share") or (same and branching.why_not()))


def is_mapped(record: Record, *, same: bool) -> bool:
    """Whether QEMU maps the checkpoint's memory itself, privately: where it cannot be put on that later."""
    return not is_copied(record, same=same) and bool(branching.why_not())


@dataclass(frozen=True)
class ForkMemory:
    """``given`` is by the plan's path, and closed where it is; it is put on the ``template``, ``changes`` written over."""

    given: dict[str, int]
    size: int
    merge: bool
    template: int | None = None
    changes: int | None = None

    async def put_on(self, pid: int) -> None:
        """QEMU is up, and waits for its state. Raises StateError."""
        if self.template is not None:
            await branching.put_on(pid, self.template, self.changes, self.size, merge=self.merge)

    def close(self) -> None:
        """Close what stays here."""
        for descriptor in (self.template, self.changes):
            if descriptor is not None:
                os.close(descriptor)


def memory_for(checkpoint: Checkpoint, plan: Plan, record: Record) -> ForkMemory:
    """What the fork of this plan is given. Raises StateError."""
    path = next(step.path for step in plan.steps if isinstance(step, HandOver) and step.access == "memory")
    props = next(element.props for element in plan.elements if element.id == RAM)
    assert checkpoint.ram is not None
    own = bool(record.spec.get("share")) or bool(branching.why_not())
    try:
        kept = checkpoint.ram.open()
        changed = checkpoint.changes.open() if checkpoint.changes is not None else None
        merge = props["merge"] is True
        if not own:
            return ForkMemory({path: ram.blank(ram.NAME, checkpoint.memory)}, checkpoint.memory, merge, kept, changed)
        if props["share"]:
            kept = ram.copied(kept, ram.NAME)
            if changed is not None:
                changes.apply_to(changed, kept)
        return ForkMemory({path: kept}, checkpoint.memory, merge, changes=changed)
    except OSError as error:
        fix = f"tinamou checkpoints rm {checkpoint.name}, and take it again"
        raise StateError(f"the memory of checkpoint {checkpoint.name} is gone", why=str(error), fix=fix) from error
