"""The terminal's page of machines, by textual: a table that is looked at anew, keys that start, stop, remove, attach."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import ClassVar

from rich.text import Text
from textual.app import App, ComposeResult, SuspendNotSupported
from textual.binding import Binding, BindingType
from textual.widgets import DataTable, Footer, Header, Static

from tinamou.cli import plots
from tinamou.errors import TinamouError
from tinamou.guest.console import attach
from tinamou.machine import life
from tinamou.machine.listing import rows, size_of
from tinamou.monitor import processes
from tinamou.monitor.states import states_of
from tinamou.operations import machines as cases
from tinamou.state import machines
from tinamou.state.index import look
from tinamou.state.record import Record
from tinamou.system.loop_thread import in_thread
from tinamou.system.rooted import Rooted
from tinamou.system.shown import visible
from tinamou.units import Size

__all__ = ["Machines", "shown"]

_COLUMNS = ("Name", "State", "CPU lately", "CPUs", "Memory", "Image", "Arch", "Accel")
_LOOKS = 20
_TOGETHER, _AGAIN = 5.0, 0.2
"""Seconds a page has to be put together, until which it bears not to be left; and after which it is asked to again."""

Work = Callable[[str], Awaitable[object]]


class Machines(App[int]):
    """All machines; what is done to one goes on while the others are looked at, and is ended when this is."""

    TITLE: str | None = "tinamou"
    CSS: ClassVar[str] = "#said { height: auto; color: $text-muted; }"
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("s", "start", "Start"),
        Binding("x", "stop", "Stop"),
        Binding("p", "pause", "Pause"),
        Binding("r", "resume", "Resume"),
        Binding("c", "console", "Console"),
        Binding("D", "remove", "Remove"),
        Binding("q", "quit", "Quit"),
    ]

    def __init__(self, interval: float) -> None:
        super().__init__()
        self._interval = interval
        self._lately: dict[str, deque[float]] = {}
        self._spent: dict[str, processes.Spent] = {}
        self._doomed = ""
        self._table: DataTable[Text] = DataTable(cursor_type="row", zebra_stripes=True)
        self._said = Static(id="said", markup=False)
        self.together: asyncio.Event = asyncio.Event()

    def compose(self) -> ComposeResult:
        """The table, and a line of what was done last."""
        yield Header()
        yield self._table
        yield self._said
        yield Footer()

    def on_mount(self) -> None:
        """Begin to look."""
        self.call_after_refresh(self.together.set)
        self._table.add_columns(*_COLUMNS)
        self.run_worker(self._look_on(), name="looks")

    async def _look_on(self) -> None:
        while True:
            try:
                await self._look()
            except (TinamouError, OSError) as error:
                self._say(str(error))
            await asyncio.sleep(self._interval)

    async def _look(self) -> None:
        """Show what is; the line that is chosen stays so."""
        found = await in_thread(look)
        records = await in_thread(machines.awake, found)
        told = rows(found, records, await states_of(records))
        self._measure([one for one in records if one.running])
        table = self._table
        if not table.is_attached:
            return  # it is left just now
        chosen, at = self._chosen(), table.cursor_row
        table.clear()
        for row in told:
            name, lately = str(row["name"]), self._lately.get(str(row["name"]), ())
            cells = (name, row["state"], plots.spark(lately, 100.0), row["cpus"], Size(int(row["memory"])).short)
            more = (row["image"], row["arch"], row["accel"])
            table.add_row(*(Text(visible(str(cell))) for cell in (*cells, *more)), key=name)
        names = [str(row["name"]) for row in told]
        table.move_cursor(row=names.index(chosen) if chosen in names else max(min(at, len(names) - 1), 0))

    def _measure(self, running: Sequence[Record]) -> None:
        """How busy each was since the last look."""
        files, before = Rooted(), self._spent
        told = {one.name: (one, processes.spent(files, one.pid)) for one in running}
        self._spent = {name: spent for name, (_, spent) in told.items() if spent is not None}
        self._lately = {name: self._lately.get(name, deque(maxlen=_LOOKS)) for name in told}
        for name, (record, spent) in told.items():
            percent = processes.percent(before.get(name), spent, size_of(record)[0])
            if percent is not None:
                self._lately[name].append(percent)

    def _chosen(self) -> str:
        """The machine of the line the cursor is in; empty where there is none."""
        table = self._table
        if not table.row_count:
            return ""
        return str(table.coordinate_to_cell_key(table.cursor_coordinate).row_key.value or "")

    def _say(self, text: str) -> None:
        self._said.update(visible(text))

    def _do(self, verb: str, work: Work) -> None:
        """Have something done with the chosen machine; how it ends is said."""
        if name := self._chosen():
            self.run_worker(self._done(verb, name, work), name=f"{verb} {name}")

    async def _done(self, verb: str, name: str, work: Work) -> None:
        self._say(f"{verb} {name}…")
        try:
            await work(name)
        except TinamouError as error:
            self._say("; ".join(filter(None, (error.what, error.why, error.fix))))
            return
        self._say(f"{verb} {name}: done")
        await self._look()

    def action_start(self) -> None:
        """Start the chosen machine."""
        self._do("start", cases.start)

    def action_stop(self) -> None:
        """Shut its guest down."""
        self._do("stop", cases.stop)

    def action_pause(self) -> None:
        """Freeze it."""
        self._do("pause", cases.pause)

    def action_resume(self) -> None:
        """Let it run on."""
        self._do("resume", cases.resume)

    def action_remove(self) -> None:
        """Remove it, running or not, when asked for twice."""
        name, asked = self._chosen(), self._doomed
        self._doomed = name if name != asked else ""
        if name and name == asked:
            self._do("remove", lambda name: cases.remove([name], force=True))
        elif name:
            self._say(f"D again removes {name} and its disks")

    async def action_console(self) -> None:
        """The terminal becomes the machine's console until Ctrl-]."""
        try:
            directory = life.running(self._chosen(), others=True).directory
            with self.suspend():
                await attach(directory)
        except (TinamouError, SuspendNotSupported) as error:
            self._say(str(error))


async def shown(interval: float) -> int:
    """Show them until it is left. Asked to end it leaves as by its key: cancelled, it would fail amid making a page."""
    app = Machines(max(interval, 0.2))
    running = asyncio.ensure_future(app.run_async())
    try:
        await asyncio.shield(running)
    except asyncio.CancelledError:
        put = asyncio.ensure_future(app.together.wait())
        await asyncio.wait([running, put], timeout=_TOGETHER, return_when=asyncio.FIRST_COMPLETED)
        put.cancel()
        while not running.done():
            app.exit()
            await asyncio.wait([running], timeout=_AGAIN)
        raise
    return app.return_code or 0
