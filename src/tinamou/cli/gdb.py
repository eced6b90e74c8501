"""The verb ``gdb``: a debugger on a machine's processors."""

from __future__ import annotations

import asyncio
import contextlib
import sys

from tinamou.cli import after_dashes, output
from tinamou.cli.grammar import Switch
from tinamou.cli.loop import run_until_told
from tinamou.errors import StateError
from tinamou.operations import by_hand
from tinamou.system.exec import find_tool


def command(name: str, /, *, symbols: str = "", server: Switch = False) -> int:
    """Debug a guest with gdb, which stops it; when gdb ends, it runs on if it ran: tinamou gdb NAME -- GDB-OPTIONS.

    Parameters
    ----------
    symbols
        The program that runs there, with its symbols: a kernel's vmlinux.
    server
        Start no gdb: open the server, print the line that connects to it, close it at Ctrl-C.
    """
    return run_until_told(_debug(name, symbols, server=server))


async def _debug(name: str, symbols: str, *, server: bool) -> int:
    from tinamou.system.exec_async import attended

    gdb = find_tool("gdb")
    if not gdb and not server:
        fix = "install gdb, or --server, and connect with another debugger"
        raise StateError("there is no gdb on this host", fix=fix)
    async with by_hand.debugged(name) as socket:
        if gdb and not server:
            given = [*(["--symbols", symbols] if symbols else []), *(after_dashes.words or ())]
            return await attended([gdb, "-q", "-iex", "set confirm off", "-ex", f"target remote {socket}", *given])
        sys.stdout.write(f"target remote {socket}\n")
        sys.stdout.flush()
        output.say("Ctrl-C closes it")
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
    return 0
