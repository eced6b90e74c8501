"""The verb ``receive``: what `tinamou move` on another host speaks to here, by ssh."""

from __future__ import annotations

import os
import stat

from tinamou.cli import output
from tinamou.cli.grammar import Switch
from tinamou.cli.loop import run_until_done
from tinamou.errors import StateError
from tinamou.fleet import receiving
from tinamou.machine import arriving


def command(
    *,
    go: str = "",
    whose: str = "",
    drop: str = "",
    replica: Switch = False,
    checkpoint: Switch = False,
    image: Switch = False,
    created: float = 0.0,
    generation: int = 0,
    json: Switch = False,
) -> None:
    """Take in a machine that moves here from another host; `tinamou move` calls this there.

    What is said on stdin and stdout is for that alone.

    Parameters
    ----------
    go
        Let run what came by the move of this name: its source, which says so, has given it up.
    whose
        Say whether what was to leave by the move of this name has left.
    drop
        Throw away what came by the move of this name: its source stays. Answers whose the machine is beyond that.
    replica
        Take in a replica; `tinamou replicate` calls this there.
    checkpoint
        Take in a checkpoint; `tinamou checkpoints send` calls this there.
    image
        Give an image of this host, pulled first where it is a vendor's; `tinamou image pull --from` calls this there.
    created
        With --drop, when the machine was made, in seconds since 1970, as its source has it.
    generation
        With --drop, how many hosts the source knows that it had.
    json
        The answer as JSON.
    """
    if go:
        done = run_until_done(receiving.go(go))
    elif whose:
        done = receiving.whose(whose)
    elif drop:
        done = {"owner": arriving.drop(created, generation, drop)}
    else:
        _refuse_people()
        run_until_done(_received("replica" if replica else "checkpoint" if checkpoint else "image" if image else "machine"))
        return
    if json:
        output.print_json(done)


def _refuse_people() -> None:
    """Raises StateError where nobody can be spoken to by stdin and stdout as `tinamou move` is."""
    if not all(stat.S_ISFIFO(mode) or stat.S_ISSOCK(mode) for mode in (os.fstat(0).st_mode, os.fstat(1).st_mode)):
        why = "stdin and stdout are no line to another host"
        raise StateError("this is for tinamou alone", why=why, fix="tinamou move NAME HOST, on the other host")


async def _received(what: str) -> None:
    from tinamou.fleet import images, receiving, replicas, sending

    parts = {"replica": replicas.keep, "checkpoint": sending.take, "image": images.give, "machine": receiving.received}
    part = parts[what]
    async with receiving.on_stdio() as frames:
        await receiving.told(frames, part(frames))
