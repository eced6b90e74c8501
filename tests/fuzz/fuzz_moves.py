"""What another host says when a machine is to come from it: frames, and the offer in them."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import json
from typing import Any, cast
from unittest import mock

from fuzzing import target

from tinamou.blueprint import Element, Flag, Plan, Why
from tinamou.blueprint.stored import plain
from tinamou.fleet import receiving
from tinamou.fleet.frames import Frames

WHY = Why("cpu", "host")


@functools.cache
def _loop() -> asyncio.AbstractEventLoop:
    return asyncio.new_event_loop()


def _frame(payload: bytes = b"", **data: Any) -> bytes:
    text = json.dumps(data).encode()
    return b"%d %d\n" % (len(text), len(payload)) + text + payload


def _said() -> list[bytes]:
    disk = Element("device", {"driver": "virtio-blk", "id": "disk0-dev"}, WHY)
    plan = Plan("web", "x86_64", "/usr/bin/qemu-system-x86_64", "pc-q35-7.2", "tcg", (disk,), (Flag("m", WHY, "1G"),), ())
    offer = {"name": "web", "host": "h1", "token": "0af1", "created": 1795952776.5, "generation": 3, "plan": plain(plan)}
    offer |= {"key": "", "boots": {}}
    alive, sample = _frame(what="alive"), _frame(b"QEVM" + bytes(60), what="sample")
    whole = _frame(bytes(300), what="offer", disks={"disk0": ["qcow2", 1 << 30, 4096]}, **offer)
    failed = _frame(
        what="error", said={"error": "no", "code": 118, "problems": [{"path": "disk", "value": 1, "reason": "x"}]}
    )
    asked = _frame(what="files", files=[[5, "0af1"]], address="", peer="10.0.0.1")
    return [asked + whole + alive + sample, alive + asked + alive + whole + sample + failed, asked + failed, failed]


class _Nobody:
    """What is said to the other side goes nowhere."""

    def write(self, data: bytes) -> None: ...

    async def drain(self) -> None: ...


@target(
    "offer of a machine",
    seeds=_said,
    words=[
        "what",
        "alive",
        "error",
        "offer",
        "files",
        "address",
        "peer",
        "disks",
        "-1 ",
        " 5000000000\n",
        "99999999 0\n",
        "[" * 2000,
        "1e999",
        "\n",
    ],
)
def offered(data: bytes) -> object:
    async def heard() -> object:
        reader = asyncio.StreamReader(limit=1 << 20)
        reader.feed_data(data)
        reader.feed_eof()
        with contextlib.ExitStack() as stack, mock.patch.object(receiving.store, "by_content", lambda wanted: {}):
            return await receiving._offer(Frames(reader, cast("asyncio.StreamWriter", _Nobody())), stack)

    return repr(_loop().run_until_complete(heard()))
