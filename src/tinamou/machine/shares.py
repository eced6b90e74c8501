"""Folders of the host in a running guest: plugged in and mounted, and taken out again where the machine is to be saved."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tinamou.blueprint import Plan, StartHelper, Why
from tinamou.control.commands import device_add, device_del, getfd
from tinamou.errors import GuestError, PrepareError, Problem
from tinamou.parts.share import ShareSpec
from tinamou.prepare import companions
from tinamou.prepare.journal import Journal
from tinamou.spec import MachineSpec, load_spec
from tinamou.state.record import Record
from tinamou.system.exec import find_tool
from tinamou.system.sockets import NotListeningError, connect_unix

if TYPE_CHECKING:
    from tinamou.control import Session
    from tinamou.guest.agent import Completed
    from tinamou.guest.resident import Line

__all__ = ["attach", "attach_to_fork", "check", "detach", "mount", "taken_out"]

Run = Callable[[Sequence[str]], Awaitable["Completed"]]

_MOUNT = """
modprobe virtiofs 2>/dev/null; mkdir -p "$2" || exit 1
grep -q "^$1 $2 virtiofs " /proc/mounts && exit 0
tries=0
until mount -t virtiofs -o "$3,nosuid,nodev" "$1" "$2" 2>/tmp/.tinamou-mount; do
    tries=$((tries + 1)); [ $tries -lt 100 ] || { cat /tmp/.tinamou-mount >&2; exit 1; }
    sleep 0.1
done
"""
_UNMOUNT = 'grep -q "^$1 " /proc/mounts || exit 0; umount "$2"'
_READ_ONLY = 'mount --bind "$1" "$1" && mount -o remount,bind,ro "$1" && shift && exec "$@"'
_VIRTIOFSD = "virtiofsd"


def check(spec: MachineSpec) -> None:
    """Whether the folders can be shared from this host. Raises PrepareError with every problem."""
    if not spec.share:
        return
    problems = [
        Problem(f"share[{n}].path", one.host, "is not a folder of this host", "make it first")
        for n, one in enumerate(spec.share)
        if not Path(one.host).is_dir()
    ]
    if os.geteuid() != 0:
        problems.append(Problem("share", None, "virtiofsd of QEMU 7.2 must be started by root", "run tinamou as root"))
    if find_tool(_VIRTIOFSD) is None:
        fix = "apt-get install qemu-system-common (Debian 12), virtiofsd (Debian 13)"
        problems.append(Problem("share", None, "there is no virtiofsd", fix))
    if problems:
        raise PrepareError("folders cannot be shared", problems=problems)


async def attach(record: Record, plan: Plan, session: Session, run: Run) -> None:
    """Plug in the machine's shares that are not there yet, and mount all. Raises PrepareError, ControlError, GuestError."""
    for number, share in enumerate(_shares(record)):
        step = _daemon(record, number, share)
        if companions.find(step.argv) is None:
            await _plug(record, session, number, _bus(plan, number, len(_shares(record))), step)
    await mount(record, run)


async def mount(record: Record, run: Run) -> None:
    """Mount every share that is plugged in. Raises GuestError."""
    for number, share in enumerate(_shares(record)):
        words = ["sh", "-c", _MOUNT, "sh", _name(number), share.guest, "ro" if share.fixed else "rw"]
        done = await run(words)
        if done.status:
            raise GuestError(
                f"{share.host} could not be mounted in {record.name} on {share.guest}",
                why=done.stderr.decode(errors="replace").strip(),
                fix="the guest's kernel must have virtiofs, and its agent must be allowed to run commands",
            )


async def detach(record: Record, session: Session, run: Run) -> None:
    """Unmount and unplug every share. Raises GuestError where a program of the guest uses one, ControlError."""
    for number, share in enumerate(_shares(record)):
        done = await run(["sh", "-c", _UNMOUNT, "sh", _name(number), share.guest])
        if done.status:
            raise GuestError(
                f"{share.guest} in {record.name} cannot be taken out for the checkpoint",
                why=done.stderr.decode(errors="replace").strip(),
                fix="end what has its working folder or an open file there",
            )
        if companions.find(_daemon(record, number, share).argv) is not None:
            await device_del(session, _name(number))
            await session.execute("chardev-remove", id=f"{_name(number)}-chr")
        await asyncio.to_thread(_end_daemon, record, number)


@contextlib.asynccontextmanager
async def taken_out(record: Record, session: Session, run: Run) -> AsyncIterator[None]:
    """The machine without its shares, which are there again when the block ends. Raises as `detach` does."""
    if "share" not in record.spec:
        yield
        return
    from tinamou.machine.portable import plan_of

    try:
        await detach(record, session, run)
        yield
    finally:
        await attach(record, plan_of(record), session, run)


async def attach_to_fork(record: Record, plan: Plan, line: Line | None) -> None:
    """The shares of a machine that has just been started from a checkpoint. Raises as `attach` does."""
    from tinamou.control import connect_qmp

    if line is None:
        raise GuestError("folders cannot be shared with a fork whose guest has no agent", fix="leave share out")
    async with await connect_qmp(record.directory, alive=lambda: record.running) as session:
        await attach(record, plan, session, line.run)


async def _plug(record: Record, session: Session, number: int, bus: str, step: StartHelper) -> None:
    await asyncio.to_thread(_end_daemon, record, number)
    await asyncio.to_thread(companions.start, step, Journal(Path(record.directory)))
    name = _name(number)
    connection = await _connected(step.socket)
    try:
        connection.setblocking(True)
        await getfd(session, connection.fileno(), name)
    finally:
        connection.close()
    address = {"type": "fd", "data": {"str": name}}
    backend = {"type": "socket", "data": {"addr": address, "server": False}}
    await session.execute("chardev-add", {"id": f"{name}-chr", "backend": backend})
    device = {"driver": "vhost-user-fs-pci", "id": name, "chardev": f"{name}-chr", "tag": name, "bus": bus}
    await device_add(session, {**device, "queue-size": 1024})


async def _connected(path: str) -> socket.socket:
    """A connection to a daemon whose socket has its name a moment before it listens. Raises NotListeningError."""
    for _ in range(500):
        with contextlib.suppress(NotListeningError):
            return connect_unix(path)
        await asyncio.sleep(0.01)
    return connect_unix(path)


def _shares(record: Record) -> tuple[ShareSpec, ...]:
    return load_spec(record.spec).share if "share" in record.spec else ()


def _name(number: int) -> str:
    return f"share{number}"


def _bus(plan: Plan, number: int, count: int) -> str:
    """The hot-plug slot of a share: they are the machine's last ones."""
    ports = [element.id for element in plan.elements if element.props.get("driver") == "pcie-root-port"]
    return str(ports[len(ports) - count + number])


def _daemon(record: Record, number: int, share: ShareSpec) -> StartHelper:
    why = Why("spec share", f"serves {share.host} to the guest")
    socket = str(record.file(f"{_name(number)}.sock"))
    argv = (find_tool(_VIRTIOFSD) or _VIRTIOFSD, f"--socket-path={socket}", "-o", f"source={share.host}", "-f")
    options = ("-o", "sandbox=namespace", "-o", "cache=auto", "-o", "modcaps=-mknod:-setfcap")
    prefix = ("unshare", "--mount", "--propagation", "private", "sh", "-c", _READ_ONLY, "sh", share.host)
    return StartHelper(f"virtiofsd-{number}", (*argv, *options), socket, why, prefix=prefix if share.fixed else ())


def _end_daemon(record: Record, number: int) -> None:
    """End the daemon of a share, if it still runs, and write down that it is gone."""
    journal = Journal(Path(record.directory))
    for taken, entry in journal.open_entries().items():
        if entry["kind"] == "helper" and entry["name"] == f"virtiofsd-{number}":
            companions.stop(entry)
            journal.give(taken)
