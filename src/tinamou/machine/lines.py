"""Connections of QEMU to its networks, with which another QEMU goes on: to a helper that hears one only (passt), and taps.

The next QEMU is started with a connection that nobody speaks on, and with the real one beside it, which it does not look at;
once the devices' state is over, the real connection becomes what the next QEMU took the other for. Before the machine stands
still a helper is stopped where its frame ends; it notices nothing, and goes on when the old QEMU is gone.

A tap must not be two QEMUs' either: how long the header of its packets is belongs to the interface, and a QEMU that starts
sets that to its first guess (source: net_tap_fd_init of QEMU's net/tap.c). What the guest sent would be two bytes out from
then on, until the state is over, and for ever where the machine stays with the old QEMU.
"""

from __future__ import annotations

import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from tinamou.blueprint import OpenTap, Plan
from tinamou.errors import StateError
from tinamou.late import dataclass
from tinamou.parts.net.passt import SOCKET
from tinamou.prepare import helper_processes
from tinamou.prepare.journal import Entry, Journal
from tinamou.state.record import Record
from tinamou.system import frames
from tinamou.system.holding import why_not
from tinamou.system.spawn import Process

if TYPE_CHECKING:
    from tinamou.system.tap import StandIn

__all__ = ["Line", "hold", "let_go", "paths", "put_in", "settle", "taken_along", "why_no_line"]

_SECONDS = 5.0
"""A helper that sends without a pause in all that time is let go on."""


@dataclass(frozen=True)
class Line:
    """A connection: the ``helper`` at its other end, our descriptors of QEMU's end and of what stands in for that.

    At the other end of a tap is the kernel; ``interface`` is what stands in for it, of all its queues.
    """

    helper: Process | None
    real: int
    stand_in: int
    interface: StandIn | None = None


def paths(plan: Plan) -> list[str]:
    """The sockets of the helpers to which networks of the machine are connected."""
    found = []
    for element in plan.elements:
        address = element.props.get("addr") if element.kind == "netdev" else None
        path = Path(str(address.get("path"))) if isinstance(address, dict) else Path()
        if path.name == SOCKET and path.parent.name == element.id:
            found.append(str(path))
    return found


def why_no_line(plan: Plan) -> str:
    """Why such a connection cannot be handed on, though the machine has one; empty where it can, or has none."""
    if _taps(plan) and os.geteuid() != 0:
        return "what stands in for a tap is root's to make"
    return why_not() if paths(plan) or _taps(plan) else ""


def _taps(plan: Plan) -> list[str]:
    return [step.name for step in plan.steps if isinstance(step, OpenTap)]


@contextlib.contextmanager
def taken_along(record: Record, plan: Plan) -> Iterator[tuple[list[Line], dict[str, int]]]:
    """The connections, and by the plan's path what the next QEMU is given in their place: whoever closes that
    empties the mapping. After the block no helper is held. Raises StateError where a helper or its connection is gone.
    """
    with contextlib.ExitStack() as stack:
        lines, given = list[Line](), dict[str, int]()
        stack.callback(_close, given)
        try:
            for name in _taps(plan):
                _take_tap(record, name, stack, lines, given)
            for path, helper in _helpers(record, plan):
                real = frames.connection(record.pid, helper)
                stack.callback(os.close, real)
                ours, theirs = socket.socketpair()
                stack.callback(ours.close)  # open as long as somebody looks at the other end
                kept = os.dup(theirs.fileno())
                stack.callback(os.close, kept)
                lines.append(Line(helper, real, kept))
                given[path] = theirs.detach()
        except OSError as error:
            raise StateError(f"the network of {record.name} cannot be handed on", why=str(error)) from error
        stack.callback(let_go, lines)
        yield lines, given


def _take_tap(record: Record, name: str, stack: contextlib.ExitStack, lines: list[Line], given: dict[str, int]) -> None:
    """The queues of a tap that QEMU has, and what stands in for each; of a macvtap the next QEMU has queues of its own."""
    from tinamou.launch.handover import TAP
    from tinamou.system import tap
    from tinamou.system.descriptors import taken, taps_of

    numbers = taps_of(record.pid, name)
    if not numbers:
        return
    interface = tap.stand_in(len(numbers))
    stack.callback(interface.rtnetlink.close)
    given |= {f"{TAP}{name}#{index}": queue for index, queue in enumerate(interface.queues)}
    for number, queue in zip(numbers, interface.queues, strict=True):
        real, kept = taken(record.pid, number), os.dup(queue)
        stack.callback(os.close, real)
        stack.callback(os.close, kept)
        lines.append(Line(None, real, kept, interface))


def _helpers(record: Record, plan: Plan) -> Iterator[tuple[str, Process]]:
    """The helpers that networks are connected to, by their sockets. Raises StateError where one has ended."""
    started = [one for one in Journal(record.path).open_entries().values() if one["kind"] == "helper"]
    for path in paths(plan):
        entry = next((one for one in started if path in _words(one)), None)
        helper = None if entry is None else helper_processes.found(entry)
        if helper is None:
            raise StateError(f"{record.name} has no network any more", why=f"what listened on {path} has ended")
        yield path, helper


def _close(given: dict[str, int]) -> None:
    for descriptor in given.values():
        os.close(descriptor)


def _words(entry: Entry) -> list[object]:
    words = entry.get("argv")
    return words if isinstance(words, list) else []


async def hold(lines: list[Line], qemu: Process) -> None:
    """From now on the helpers say nothing, and ``qemu`` has read all they said. Raises StateError."""
    from tinamou.system.loop_thread import in_thread

    for line in lines:
        if line.helper and not await in_thread(frames.hold, line.helper, qemu, line.real, _SECONDS):
            why = f"passt sent without a pause for {_SECONDS:g} s, and a frame must not be cut in two"
            raise StateError("the network cannot be handed on", why=why, fix="try again when less comes in")


def let_go(lines: list[Line]) -> None:
    """The helpers go on, if they were held."""
    for line in lines:
        if line.helper:
            frames.let_go(line.helper)


async def put_in(lines: list[Line], pid: int) -> None:
    """The process, which nobody has spoken to yet, has the real connections from now on. Raises StateError."""
    from tinamou.system.inject import begin
    from tinamou.system.loop_thread import in_thread

    def work() -> None:
        for line in lines:
            frames.put_in(pid, line.stand_in, line.real)
        for one in {id(line.interface): line.interface for line in lines if line.interface}.values():
            one.remove()  # a QEMU that waits by io_uring waits for the file, not for the number, until something comes

    try:
        await in_thread(lambda: begin(work).result())
    except OSError as error:
        raise StateError("the network cannot be handed on", why=str(error)) from error


def settle(record: Record) -> None:
    """Helpers that a command held, which was killed then, go on."""
    for entry in Journal(record.path).open_entries().values():
        if entry["kind"] == "helper" and (process := helper_processes.found(entry)) is not None:
            frames.let_go(process)
