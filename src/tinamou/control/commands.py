"""QMP commands as typed functions of a session (source: the QEMU QMP reference manual, one entry per command name)."""

from __future__ import annotations

import asyncio
import base64
import contextlib
import re
from collections.abc import Mapping

from tinamou.control.answers import flag, number, record, records, shown, text
from tinamou.control.session import DisconnectedError, Event, Listener, RefusedError, Session
from tinamou.control.wire import LARGE_BYTES
from tinamou.errors import ControlError
from tinamou.late import dataclass

Json = Mapping[str, object]

_ASKED_AGAIN, _BUSY = 7.0, 0.5
"""Seconds until a guest is asked again to release a device: a Linux guest waits 5 before it heeds the button at all."""

_STATE = re.compile(r"[a-z-]{1,40}")


_NEVER_RAN = ("prelaunch", "inmigrate")


@dataclass(frozen=True)
class Status:
    """``state`` is a RunState: running, paused, prelaunch, shutdown, guest-panicked, inmigrate, suspended, …"""

    state: str
    running: bool


@dataclass(frozen=True)
class Vcpu:
    """A virtual CPU: ``thread`` is the host thread that runs it (0 where there is none), ``place`` its topology."""

    index: int
    thread: int
    path: str
    place: Json


@dataclass(frozen=True)
class IoThread:
    """An I/O thread object and the host thread that runs it."""

    id: str
    thread: int


@dataclass(frozen=True)
class Job:
    """A background job; ``progress`` of ``total`` in units only the job knows; ``error`` is empty unless it failed."""

    id: str
    kind: str
    status: str
    progress: int
    total: int
    error: str


@dataclass(frozen=True)
class Migration:
    """``status``: none, setup, active, completed, failed, cancelled, …; ``transferred`` of ``total`` bytes of memory, in
    ``rounds`` passes over it."""

    status: str
    transferred: int
    total: int
    error: str
    rounds: int = 0


@dataclass(frozen=True)
class TraceEvent:
    """One of QEMU's trace events, whether it is told, and whether this QEMU was built to tell it."""

    name: str
    on: bool
    available: bool


async def status(session: Session) -> Status:
    """``query-status``."""
    answer = record(await session.execute("query-status"))
    state, running = text(answer, "status"), flag(answer, "running")
    if not _STATE.fullmatch(state):
        raise ControlError("QEMU answered what is no run state", why=f"the answer: {shown(state)}")
    return Status(state, running)


async def open_ports(session: Session) -> set[str]:
    """Names of the character devices whose other end has been opened: of a port into the guest, by a program there."""
    found = records(await session.execute("query-chardev"))
    return {text(one, "label") for one in found if flag(one, "frontend-open", False)}


async def stop(session: Session) -> None:
    """Freeze the virtual CPUs."""
    await session.execute("stop")


async def cont(session: Session) -> None:
    """Let the virtual CPUs run on."""
    await session.execute("cont")


async def quit(session: Session, timeout: float = 5.0) -> None:
    """End QEMU without asking the guest; returns when it has closed the session. Raises SilentError, TimeoutError."""
    with contextlib.suppress(DisconnectedError):
        await session.execute("quit", timeout=timeout)
    await session.wait_closed(timeout)


async def vcpus(session: Session) -> tuple[Vcpu, ...]:
    """``query-cpus-fast``: does not stop the guest."""
    return tuple(
        Vcpu(number(c, "cpu-index"), number(c, "thread-id", 0, least=0), text(c, "qom-path"), record(c.get("props", {})))
        for c in records(await session.execute("query-cpus-fast"))
    )


async def iothreads(session: Session) -> tuple[IoThread, ...]:
    """``query-iothreads``."""
    found = records(await session.execute("query-iothreads"))
    return tuple(IoThread(text(one, "id"), number(one, "thread-id")) for one in found)


async def add_fd(session: Session, fd: int, *, note: str) -> int:
    """Give QEMU a copy of an open file; it is then ``/dev/fdset/N``, N being the answer."""
    return number(record(await session.execute_with_fd(fd, "add-fd", opaque=note)), "fdset-id")


async def reopenable(session: Session, fd: int) -> tuple[int, str]:
    """Give QEMU a copy of an open file: its set, and the path by which QEMU opens it where it takes plain files only."""
    fdset, theirs = await add_fd_numbered(session, fd)
    return fdset, f"/dev/fd/{theirs}"


async def add_fd_numbered(session: Session, fd: int) -> tuple[int, int]:
    """Give QEMU a copy of an open file: its set, and its number in QEMU."""
    told = record(await session.execute_with_fd(fd, "add-fd"))
    return number(told, "fdset-id"), number(told, "fd")


async def remove_fd(session: Session, fdset: int) -> None:
    """Have QEMU close a set it was given."""
    await session.execute("remove-fd", fdset_id=fdset)


async def getfd(session: Session, fd: int, name: str) -> None:
    """Give QEMU a copy of an open file under a name (``netdev_add`` and ``migrate`` take such names)."""
    await session.execute_with_fd(fd, "getfd", fdname=name)


async def device_del(session: Session, id: str, timeout: float = 30.0) -> None:
    """Ask the guest to give a device back, and wait until it has. Raises ControlError when it does not (seconds).

    It is asked again while it is silent: one that is just bringing the slot up takes the button for something else (the
    attention button is the same for both: PCI Express Base Specification, 6.7.1.5), and QEMU does not press it meanwhile.
    It is never asked before the machine has run: QEMU takes that once and refuses every repeat until it is started anew.
    """
    if (state := (await status(session)).state) in _NEVER_RAN:
        why = f"the machine has not run yet ({state}): its guest cannot take part in unplugging"
        raise ControlError(
            f"The device {id} cannot be released now", why=why, fix="let it run first, or leave the device out"
        )
    with session.listen("DEVICE_DELETED", "DEVICE_UNPLUG_GUEST_ERROR", "MEM_UNPLUG_ERROR") as events:
        try:
            async with asyncio.timeout(timeout):
                asked = await _asked_to_release(session, id, again=False)
                while (event := await _told_of(events, id, _ASKED_AGAIN if asked else _BUSY)) is None:
                    asked = await _asked_to_release(session, id, again=True)
        except TimeoutError:
            raise ControlError(
                f"The guest did not release the device {id} within {timeout:g} s",
                why="the guest must take part in unplugging: it is not far enough in its boot, or has no hot-plug driver; "
                "where somebody asked QEMU for it before the machine ran, only a restart helps",
            ) from None
    if event.name != "DEVICE_DELETED":
        raise ControlError(f"The guest refused to release the device {id}", why=event.name)


async def _asked_to_release(session: Session, id: str, *, again: bool) -> bool:
    """Press the button; whether QEMU did. Refusals pass where the guest is at work on the slot; others are raised."""
    try:
        await session.execute("device_del", id=id)
    except RefusedError as error:
        if not again and "guest is busy" not in error.description and "process of unplug" not in error.description:
            raise
        return False
    return True


async def _told_of(events: Listener, id: str, seconds: float) -> Event | None:
    """The next event about a device, within so many seconds; None where there is none."""
    try:
        async with asyncio.timeout(seconds):
            while (event := await events.next()).data.get("device") != id:
                pass
            return event
    except TimeoutError:
        return None


async def jobs(session: Session) -> tuple[Job, ...]:
    """``query-jobs``."""
    return tuple(
        Job(
            text(j, "id"),
            text(j, "type"),
            text(j, "status"),
            number(j, "current-progress"),
            number(j, "total-progress"),
            text(j, "error", ""),
        )
        for j in records(await session.execute("query-jobs"))
    )


async def set_migration(
    session: Session, *, capabilities: Mapping[str, bool] | None = None, parameters: Json | None = None
) -> None:
    """Set migration capabilities and parameters; what is not named stays as it is."""
    if capabilities:
        wanted = [{"capability": name, "state": state} for name, state in capabilities.items()]
        await session.execute("migrate-set-capabilities", capabilities=wanted)
    if parameters:
        await session.execute("migrate-set-parameters", parameters)


async def migrate(session: Session, uri: str) -> None:
    """Start sending the machine's state to ``uri`` (``file:…``, ``exec:…``, ``unix:…``, ``tcp:…``)."""
    await session.execute("migrate", uri=uri)


async def migrate_incoming(session: Session, uri: str) -> None:
    """Receive a machine's state; QEMU was started with ``-incoming defer``."""
    await session.execute("migrate-incoming", uri=uri)


async def migration(session: Session) -> Migration:
    """``query-migrate``."""
    answer = record(await session.execute("query-migrate"))
    ram = record(answer.get("ram", {}))
    return Migration(
        text(answer, "status", "none"),
        number(ram, "transferred", 0, least=0),
        number(ram, "total", 0, least=0),
        text(answer, "error-desc", ""),
        number(ram, "dirty-sync-count", 0, least=0),
    )


async def heard(events: Listener, seconds: float) -> Event | None:
    """The next event, or None after so many seconds: to look then at what QEMU tells by no event."""
    try:
        return await events.next(seconds)
    except TimeoutError:
        return None


async def wait_migrated(session: Session, timeout: float | None = None) -> Migration:
    """Poll until the migration has ended; raises ControlError when it failed, TimeoutError (seconds).

    Polled, at 2 to 50 ms, because the MIGRATION event must be switched on by a capability before the migration.
    """
    pause = 0.002
    async with asyncio.timeout(timeout):
        while (now := await migration(session)).status not in ("completed", "failed", "cancelled"):
            await asyncio.sleep(pause)
            pause = min(pause * 1.5, 0.05)
    if now.status != "completed":
        raise ControlError(f"The migration ended as {now.status}", why=now.error)
    return now


async def firmware_log(session: Session, most: int = 64 << 10) -> bytes:
    """The end of what the firmware wrote down, ``most`` bytes of it; empty where it does not do so, or QEMU cannot tell.

    Source: ``query-firmware-log`` of QEMU 10.2 and later, for an OVMF that is built with a log in memory.
    """
    try:
        answer = record(await session.execute("query-firmware-log", {"max-size": most}, timeout=5.0))
        return base64.b64decode(text(answer, "log", most=2 * most))
    except (ControlError, TimeoutError, ValueError):
        return b""


async def qom_get(session: Session, path: str, property: str) -> object:
    """A property of a QEMU object."""
    return await session.execute("qom-get", path=path, property=property)


async def qom_set(session: Session, path: str, property: str, value: object) -> None:
    """Set a property of a QEMU object."""
    await session.execute("qom-set", path=path, property=property, value=value)


async def monitor(session: Session, line: str) -> str:
    """Run a line of the human monitor and return what it prints; for what QMP does not offer."""
    answer = await session.execute("human-monitor-command", command_line=line)
    return text({line: answer}, line, most=LARGE_BYTES)


async def trace_events(session: Session, pattern: str) -> tuple[TraceEvent, ...]:
    """``trace-event-get-state``: those a pattern means; a name without ``*`` that is none is refused by QEMU."""
    found = records(await session.execute("trace-event-get-state", name=pattern))
    each = ((text(one, "name"), text(one, "state")) for one in found)
    return tuple(TraceEvent(name, state == "enabled", state != "unavailable") for name, state in each)


async def trace(session: Session, pattern: str, *, on: bool) -> None:
    """``trace-event-set-state``: have QEMU tell the events a pattern means, or no more; without those it cannot tell."""
    await session.execute("trace-event-set-state", name=pattern, enable=on, ignore_unavailable=True)
