"""This host's terminal as that of a command in a guest: keys, output, size, and an end that leaves it as it was."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from tinamou.errors import GuestError, TimeLimitError
from tinamou.system import terminal

if TYPE_CHECKING:
    import asyncio

    from tinamou.guest.resident.frames import Size
    from tinamou.guest.resident.underway import RunningCommand

__all__ = ["LEAVE", "hold", "kind", "size"]

LEAVE = "Enter ~ ."
"""The keys that leave a command whose guest no longer answers, as with ssh."""

_UNKNOWN_SIZE = (80, 24)


def size(descriptor: int = 0) -> Size:
    """Columns and rows of the terminal; those of a terminal of old where it does not know."""
    return terminal.window(descriptor) or _UNKNOWN_SIZE


def kind() -> str:
    """What the terminal is called here, for the guest's ``TERM``."""
    return os.environ.get("TERM") or "xterm"


async def hold(session: RunningCommand, *, input: int = 0, output: int = 1, time_limit: float | None = None) -> int:
    """Be the terminal of a command until it ends; returns its exit status as a shell has it.

    The terminal is raw meanwhile: every key goes to the guest, Ctrl-C too, but for `LEAVE`; it is restored on every way out,
    and the command's hangs up then. Raises GuestError when the line to the guest ends, TimeLimitError.
    """
    import asyncio

    try:
        async with asyncio.timeout(time_limit):
            with terminal.raw(input), terminal.on_resize(lambda: session.resize(size(input))):
                session.resize(size(input))
                await _both_ways(session, input, output)
    except TimeoutError:
        what = f"The command {session.command} did not end within {time_limit:g} s"
        raise TimeLimitError(what, why="its terminal hung up") from None
    finally:
        session.leave()
    assert session.status is not None
    return session.status if session.status >= 0 else 128 - session.status


async def _both_ways(session: RunningCommand, input: int, output: int) -> None:
    import asyncio

    typing = asyncio.create_task(_type(session, input))
    try:
        await _print(session, output, typing)
    finally:
        typing.cancel()
        await asyncio.gather(typing, return_exceptions=True)


async def _print(session: RunningCommand, output: int, typing: asyncio.Task[None]) -> None:
    """What the guest prints, to its end, or until typing has ended in an error."""
    import asyncio

    while True:
        reading = asyncio.ensure_future(session.read())
        try:
            await asyncio.wait([reading, typing], return_when=asyncio.FIRST_COMPLETED)
            if typing.done() and not reading.done():
                typing.result()
            said = await reading
        finally:
            reading.cancel()
        if said is None:
            return
        terminal.write_all(output, said[1])


async def _type(session: RunningCommand, input: int) -> None:
    """What is typed, until it asks to leave; when the terminal is gone, the command's hangs up."""
    keys = Keys()
    async for typed in terminal.read_all(input):
        await session.write(keys.passed(typed))
        if keys.leave:
            raise GuestError(f"{session.command} was left", why=f"{LEAVE} was typed; its terminal has hung up")
    session.leave()


class Keys:
    """Watches for `LEAVE` in what is typed."""

    def __init__(self) -> None:
        self.leave: bool = False
        self._before = "Enter"

    def passed(self, typed: bytes) -> bytes:
        """What of it goes to the guest: a ~ at the beginning of a line waits for the next key, two of them are one."""
        passed = bytearray()
        for key in typed:
            if self._before == "~" and key == ord("."):
                self.leave = True
                break
            if self._before == "~" and key != ord("~"):
                passed += b"~"
            if self._before == "Enter" and key == ord("~"):
                self._before = "~"
                continue
            self._before = "Enter" if key in b"\r\n" else ""
            passed.append(key)
        return bytes(passed)
