"""Who runs a command in a machine that does not answer yet waits for it, is told what for, and not for ever."""

from __future__ import annotations

import asyncio
import os
import time

import pytest
from lying import machine

from tinamou.errors import GuestError, StateError
from tinamou.guest.command import command
from tinamou.machine.waiting import _whose
from tinamou.operations import commands
from tinamou.state import machines
from tinamou.state.record import Record, change, create
from tinamou.system.spawn import process_of


def being_started(name: str) -> Record:
    """A machine that this process is starting."""
    directory = machines.machines_dir() / name
    directory.mkdir(mode=0o711)
    me = process_of(os.getpid())
    return create(Record(name, str(directory), {"image": "tiny"}, owner_pid=me.pid, owner_started=me.started))


def stream(name, said, **how):
    return commands.stream(name, command(["true"]), print, print, progress=lambda text, _: said.append(text), **how)


def test_a_machine_that_is_being_started_is_waited_for(state):
    async def work():
        record, said = being_started("one"), []
        waiting = asyncio.create_task(stream("one", said))
        while not said:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
        assert said == [f"waiting until process {os.getpid()} has started one"]
        change(record, owner_pid=0, owner_started=0, ended="its QEMU did not start")
        with pytest.raises(StateError, match="machine one is not running") as caught:
            await waiting
        assert caught.value.why == "its QEMU did not start"

    asyncio.run(work())


def test_and_not_for_ever(state):
    async def work():
        being_started("one")
        with pytest.raises(StateError, match="does not run yet") as caught:
            await stream("one", [], timeout=0.3)
        assert "--timeout" in caught.value.fix

    asyncio.run(work())


@pytest.mark.parametrize("resident", [True, False])
def test_a_guest_that_does_not_answer(state, resident):
    said = []
    with machine("one", agent="silent", resident="silent") as record:
        change(record, resident=resident)
        with pytest.raises(GuestError, match=r"did not answer|does not answer"):
            asyncio.run(stream("one", said, timeout=5.0))
    assert len(said) == 1 and said[0].startswith("waiting for the guest of one to answer; its machine was started ")
    assert "attends it" not in said[0]


def test_who_attends_a_machine_whose_guest_does_not_answer_is_told(state):
    with machine("one", agent="silent", resident="silent") as record:
        assert _whose(change(record, owner_pid=os.getppid(), owner_started=1)).endswith(" s ago")
        started = process_of(os.getppid()).started
        owned = change(record, owner_pid=os.getppid(), owner_started=started)
        assert _whose(owned).endswith(f" s ago, and process {os.getppid()} attends it")


def test_a_machine_that_ends_meanwhile(state):
    async def work():
        said = []
        with machine("one", agent="silent") as record:
            waiting = asyncio.create_task(stream("one", said))
            while not said:  # noqa: ASYNC110
                await asyncio.sleep(0.05)
            change(record, pid=0, started=0, ended="the guest powered off")
            with pytest.raises(StateError, match="ended before its guest answered") as caught:
                await waiting
            assert caught.value.why == "the guest powered off"

    asyncio.run(work())


def test_a_guest_whose_resident_does_not_answer_still_has_an_agent(state):
    heard = bytearray()

    async def work():
        with machine("one", resident="closes") as record:
            change(record, resident=True)
            began = time.monotonic()
            status = await commands.stream("one", command(["true"]), heard.extend, print)
            assert status == 0 and time.monotonic() > began

    asyncio.run(work())
