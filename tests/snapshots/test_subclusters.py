"""Files with subclusters (extended_l2), which QEMU 7.2 must not be asked to stream into: committed down, or refused."""

from __future__ import annotations

import asyncio
import subprocess
from collections.abc import Callable
from unittest.mock import patch

import pytest
from bare_machine import SIZE, BareMachine, live_reads, run

from tinamou.control import Session
from tinamou.errors import StateError
from tinamou.facts.qemu import streams_subclusters
from tinamou.snapshots.create import create
from tinamou.snapshots.history import load
from tinamou.snapshots.merge import flatten, forget, tidy
from tinamou.snapshots.reconcile import reconcile
from tinamou.system.qcow2 import read_header

Build = Callable[..., BareMachine]
pytestmark = pytest.mark.usefixtures("every_qemu")


def _with_subclusters(m: BareMachine, snapshots: int) -> None:
    """So many snapshots; every file but the first has subclusters."""
    m.write("disk0", 1)
    for number in range(1, snapshots + 1):
        run(create(m.disks, load(m.directory), f"v{number}"))
        top, below = m.chain("disk0")[:2]
        words = ["-o", "extended_l2=on", "-b", below.name, "-F", "qcow2", str(top), str(SIZE)]
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", *words], check=True)
        assert read_header(top).extended_l2
        m.write("disk0", 1 + number, f"{number * 64}k")


def _streamed_into(m: BareMachine, work: str) -> tuple[bool, list[str]]:
    """A snapshot is removed, or the chain flattened: if this QEMU can stream into such, and into which it did.

    The guest reads the same data after it.
    """
    asked: list[str] = []
    real = Session.execute

    async def noted(self: Session, command: str, *words: dict[str, object], **arguments: object) -> object:
        if command == "block-stream":
            asked.append(str(words[0]["device"]))
        return await real(self, command, *words, **arguments)

    async def both() -> bool:
        async with m.session() as (session, disks):
            history = await reconcile(disks)
            able = streams_subclusters(session.version)
            with patch.object(Session, "execute", noted):
                if work == "rm":
                    await tidy(disks, forget(disks, history, "v1"))
                elif able:
                    await flatten(disks, history, "disk0")
                else:
                    with pytest.raises(StateError, match="extended_l2"):
                        await flatten(disks, history, "disk0")
            assert await live_reads(session, "disk0", 1)
            assert await live_reads(session, "disk0", 2, "64k")
            return able

    m.start()
    able = asyncio.run(both())
    m.kill()
    m.check()
    return able, [one for one in asked if read_header(m.directory / f"{one}.qcow2").extended_l2]


def test_a_file_with_subclusters_is_merged_another_way_where_qemu_cannot_stream_into_it(machine: Build) -> None:
    m = machine()
    _with_subclusters(m, 1)
    extended = m.directory / "disk0-1.qcow2"
    able, asked = _streamed_into(m, "rm")
    assert asked == (["disk0-1"] if able else [])
    assert extended.exists() == able, "one file is left of the two, whichever way"


def test_a_chain_with_subclusters_is_not_flattened_by_a_qemu_that_cannot(machine: Build) -> None:
    m = machine()
    _with_subclusters(m, 3)
    able, asked = _streamed_into(m, "flatten")
    assert asked == (["disk0-2"] if able else [])
