"""A machine without a boot: from a pool where one is kept for this request, else a fork of a machine booted once for it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from tinamou.images.progress import Progress
from tinamou.machine.forking import fork_many
from tinamou.machine.pooled import PoolClient, for_key
from tinamou.machine.warm import key_of, warm
from tinamou.snapshots.fork import Restored
from tinamou.spec import MachineSpec
from tinamou.state import pools

__all__ = ["pooled_or_forked"]


async def pooled_or_forked(
    spec: MachineSpec, *, keep: bool, timeout: float, progress: Progress
) -> tuple[Restored, Callable[[], None] | None]:
    """A machine from a pool made for this request where there is one, else a fork of a machine booted once for it.

    A machine to ``keep``, or that is to have a name, does not come from a pool. Raises what booting and forking raise.
    """
    if not keep and not spec.name and pools.every():
        name = for_key(await asyncio.to_thread(key_of, spec, progress))
        if name:
            return await PoolClient(name).claim()
    checkpoint = await warm(spec, timeout=timeout, progress=progress)
    names = [spec.name] if spec.name else []
    [restored] = await fork_many(checkpoint, 1, ephemeral=not keep, dies_with_parent=not keep, names=names)
    return restored, None
