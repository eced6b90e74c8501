"""Keys that are pressed: none of them stays down, whatever becomes of whoever presses them."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tinamou.control.screen import press
from tinamou.errors import ControlError


class Keyboard:
    """A session whose QEMU has a keyboard alone; ``at_down`` is what comes of a key pressed."""

    def __init__(self, at_down: BaseException | None = None) -> None:
        self.held: list[str] = []
        self.pressed = asyncio.Event()
        self.at_down = at_down

    async def execute(self, command: str, *, events: list[dict[str, Any]]) -> object:
        for event in events:
            key = event["data"]["key"]["data"]
            if event["data"]["down"]:
                self.held.append(key)
            else:
                assert self.held.pop() == key
        await asyncio.sleep(0)
        if self.held:
            self.pressed.set()
            if self.at_down is not None:
                raise self.at_down
        return {}


def test_a_cancelled_press_lets_go_of_its_keys() -> None:
    async def cancelled() -> list[str]:
        keyboard: Any = Keyboard()
        pressing = asyncio.ensure_future(press(keyboard, [["ctrl", "alt", "delete"]], hold=600))
        await keyboard.pressed.wait()
        assert keyboard.held == ["ctrl", "alt", "delete"]
        pressing.cancel()
        with pytest.raises(asyncio.CancelledError):
            await pressing
        return list(keyboard.held)

    assert asyncio.run(cancelled()) == []


def test_a_press_that_failed_lets_go_of_its_keys() -> None:
    async def failed() -> list[str]:
        keyboard: Any = Keyboard(ControlError("no answer"))
        with pytest.raises(ControlError, match="no answer"):
            await press(keyboard, [["shift", "a"]])
        return list(keyboard.held)

    assert asyncio.run(failed()) == []
