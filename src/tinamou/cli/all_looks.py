"""What ``top --all-hosts`` shows: every host looks at its own machines and tells it here; silence is shown as silence."""

from __future__ import annotations

import asyncio
import json as jsonlib
import sys
import time
from collections.abc import AsyncIterator, Mapping, Sequence
from typing import Any, Self

from tinamou.cli import looks, output
from tinamou.cli.stats import short
from tinamou.errors import HostError, TinamouError
from tinamou.fleet import hosts, remote, ssh
from tinamou.fleet.hosts import Host
from tinamou.fleet.ssh import SilentHostError
from tinamou.system.shown import visible

__all__ = ["COLUMNS", "Told", "cells", "show_all"]

COLUMNS = ("where", "name", "state", "cpu", "used", "avail", "holds", "host", "swap", "read/s", "write/s", "in/s", "out/s")
_HERE = "here"
_AGAIN = 5.0
"""Seconds after which a host that was not heard is asked again, at least."""
_LONGEST, _PIECE = 16 << 20, 1 << 16
"""Bytes of one look that are listened to, and at once."""

Told = dict[str, "Mapping[str, Any] | TinamouError"]
"""The last look of each host, or why there is none."""


async def show_all(interval: float, *, json: bool) -> int:
    """Show them again and again until it is cancelled."""
    others = hosts.every()
    told: Told = {_HERE: HostError("the first look is not over"), **{one.name: _unheard(one) for one in others}}
    mine = asyncio.ensure_future(looks.look((), interval, lambda pairs: told.update({_HERE: looks.plain(pairs)})))
    listening = [mine, *(asyncio.ensure_future(_listen(one, interval, told)) for one in others)]
    try:
        with _Screen(json=json) as screen:
            while True:
                await asyncio.sleep(max(0.1, interval))
                screen.show(told)
                if mine.done():  # it only ends with an error
                    return mine.result()
    finally:
        for one in listening:
            one.cancel()
        await asyncio.gather(*listening, return_exceptions=True)


def _unheard(host: Host) -> HostError:
    return SilentHostError(f"{host.name} was not heard yet")


async def _listen(host: Host, interval: float, told: Told) -> int:
    """Keep what that host tells; where it tells nothing in its time, that is kept, and it is asked again."""
    while True:
        try:
            await remote.call_json(host, ["host", "ls"], timeout=host.patience)  # whether it is one of this version
            words = [*host.command, "top", "--json", "--interval", str(interval)]
            async with remote.stream(host, ssh.attended(words), connect=host.patience) as pipe:
                async for look in _looks(host, pipe.reader, host.patience + 2 * interval):
                    told[host.name] = look
            raise HostError(f"{host.name} tells no more", why=pipe.errors.decode(errors="replace").strip()[-300:])
        except TinamouError as error:
            told[host.name] = error
        except (OSError, ValueError) as error:  # no more processes or files here
            told[host.name] = HostError(f"{host.name} cannot be asked", why=str(error))
        await asyncio.sleep(max(interval, _AGAIN))


async def _looks(host: Host, reader: asyncio.StreamReader, patience: float) -> AsyncIterator[Mapping[str, Any]]:
    """The lines that come, as data. Raises SilentHostError, HostError for what is no look."""
    kept = b""
    while True:
        try:
            async with asyncio.timeout(patience):
                piece = await reader.read(_PIECE)
        except TimeoutError:
            raise SilentHostError(f"{host.name} says nothing more", why=f"for {patience:g} s") from None
        if not piece:
            return
        *lines, kept = (kept + piece).split(b"\n")
        if len(kept) > _LONGEST:
            raise HostError(f"{host.name} says more than the {_LONGEST} bytes that are listened to")
        for line in lines:
            yield _read(host, line)


def _read(host: Host, line: bytes) -> Mapping[str, Any]:
    """Raises HostError for what is no look of a tinamou."""
    try:
        data = jsonlib.loads(line)
        for one in data["machines"]:
            cells(host.name, one)
        int(data["host"]["available"]), int(data["host"]["total"])
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError, OverflowError) as error:
        raise HostError(f"{host.name} says what is no look at its machines", why=repr(error)[:200]) from error
    return dict(data)


def cells(where: str, one: Mapping[str, Any]) -> list[str]:
    """A machine's line. Raises KeyError, TypeError, ValueError, AttributeError, OverflowError for what is none."""
    memory, percent = one["memory"], one["cpu"]["percent"]
    guest, host, moving = memory["guest"] or {}, memory["host"] or {}, one["per_second"] or {}
    holds, size = short(memory["balloon"]), short(memory["size"])
    return [
        where,
        str(one["name"]),
        str(one["state"]),
        "-" if percent is None else f"{percent:.0f}%",
        *(short(guest.get(what)) for what in ("used", "available")),
        holds if holds == size else f"{holds}/{size}",
        *(short(host.get(what)) for what in ("rss", "swap")),
        *(short(moving.get(what)) for what in ("read", "written", "received", "sent")),
    ]


def _rows(told: Told) -> list[list[str]]:
    rows = []
    for where, look in told.items():
        if isinstance(look, TinamouError):
            manner = "silent" if isinstance(look, SilentHostError) else "error"
            rows.append([where, "", manner, *[""] * (len(COLUMNS) - 3)])
        else:
            rows += [cells(where, one) for one in look["machines"]]
    return rows


def _remarks(told: Told) -> list[str]:
    """A line on each host: its memory, or why it says nothing."""
    found = []
    for where, look in told.items():
        if isinstance(look, TinamouError):
            found.append(f"{where}: {look.what}{f': {look.why}' if look.why else ''}")
        else:
            free, whole = look["host"]["available"], look["host"]["total"]
            found.append(f"{where}: {short(free)} of {short(whole)} available")
    return found


def _plain(told: Told) -> dict[str, Any]:
    shown: list[dict[str, Any]] = []
    for where, look in told.items():
        if isinstance(look, TinamouError):
            shown.append({"host": where, "error": look.to_json()})
        else:
            shown.append({"host": where, "memory": look["host"], "machines": look["machines"]})
    return {"at": round(time.time(), 3), "hosts": shown}


class _Screen:
    """Where looks are shown: a terminal's whole screen, lines of JSON, or tables one after another."""

    def __init__(self, *, json: bool) -> None:
        self._json = json
        self._live: Any = None

    def __enter__(self) -> Self:
        if not self._json and sys.stdout.isatty():
            from rich.live import Live

            self._live = Live(screen=True, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def show(self, told: Told) -> None:
        if self._json:
            print(jsonlib.dumps(_plain(told)), flush=True)
        elif self._live is not None:
            self._live.update(_drawn(_rows(told), _remarks(told)), refresh=True)
        else:
            output.lines(COLUMNS, _rows(told))
            print(*map(visible, _remarks(told)), "", sep="\n", flush=True)


def _drawn(rows: Sequence[Sequence[str]], remarks: Sequence[str]) -> Any:
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0), header_style="bold")
    for number, column in enumerate(COLUMNS):
        table.add_column(column.upper(), justify="left" if number < 3 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*(Text(visible(one)) for one in row))
    return Group(*(Text(visible(one), style="dim") for one in remarks), table)
