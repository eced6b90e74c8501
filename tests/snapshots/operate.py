"""Works on a machine's disks until it is killed, every operation in random order: ``operate.py DIRECTORY live|off SEED``."""

from __future__ import annotations

import asyncio
import contextlib
import random
import sys
from pathlib import Path

from tinamou.control import connect
from tinamou.errors import TinamouError
from tinamou.snapshots.create import create
from tinamou.snapshots.history import History
from tinamou.snapshots.machine_disks import Disks
from tinamou.snapshots.merge import flatten, forget, tidy
from tinamou.snapshots.reconcile import reconcile
from tinamou.snapshots.revert import revert
from tinamou.system.lock import exclusive


async def one(disks: Disks, history: History, dice: random.Random) -> None:
    names = [shot.name for shot in history.snapshots]
    kind = dice.choice(["create", "create", "rm", "rm", "flatten", "revert"])
    if kind == "create" or len(names) < 2:
        await create(disks, history)
    elif kind == "rm" or len(names) > 8:
        await tidy(disks, forget(disks, history, dice.choice(names)))
    elif kind == "revert" and disks.session is None:
        await tidy(disks, revert(disks, history, dice.choice(names)))
    else:
        for disk in history.disks:
            history = await flatten(disks, history, disk)


async def work(directory: Path, live: bool, seed: int) -> None:
    dice = random.Random(seed)
    async with contextlib.AsyncExitStack() as stack:
        stack.enter_context(exclusive(directory / "operation.lock"))
        session = await stack.enter_async_context(await connect(str(directory / "qmp.sock"))) if live else None
        disks = Disks(directory, session=session)
        await tidy(disks, await reconcile(disks))
        print("ready", flush=True)
        while True:
            await one(disks, await reconcile(disks), dice)


if __name__ == "__main__":
    try:
        asyncio.run(work(Path(sys.argv[1]), sys.argv[2] == "live", int(sys.argv[3])))
    except TinamouError as error:
        print(f"ended: {error}", flush=True)
