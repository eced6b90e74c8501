"""Folders of the host in a running guest: plugged in and mounted, and taken out again where the machine is to be saved."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Callable

from tinamou.blueprint import Contribution, Element, HandOver, Note, Plan, StartHelper, Why
from tinamou.control import hotplug
from tinamou.errors import GuestError
from tinamou.guest.resident import Line
from tinamou.machine.calls import walled
from tinamou.machine.connected import Connected
from tinamou.machine.named import VIRTIOFSD
from tinamou.machine.slots import slot_of_share
from tinamou.parts.share import ShareSpec
from tinamou.prepare import helper_processes
from tinamou.prepare.journal import Journal
from tinamou.spec import MachineSpec
from tinamou.state.record import Record
from tinamou.system.exec import find_tool
from tinamou.system.loop_thread import in_thread

__all__ = ["attach", "attach_to_fork", "by_hand", "detach", "plug", "taken_out"]

_SECONDS = 60.0
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


async def attach(machine: Connected) -> None:
    """Plug in the machine's shares that are not there yet, and mount all. Raises PrepareError, ControlError, GuestError."""
    await plug(machine)
    for number, share in enumerate(machine.spec.share):
        words = ["sh", "-c", _MOUNT, "sh", _name(number), share.guest, "ro" if share.fixed else "rw"]
        done = await machine.run(words, timeout=_SECONDS, check=False)
        if done.status:
            raise GuestError(
                f"{share.host} could not be mounted in {machine.name} on {share.guest}",
                why=done.stderr.decode(errors="replace").strip(),
                fix="the guest's kernel must have virtiofs, and its agent must be allowed to run commands",
            )


async def attach_to_fork(record: Record, plan: Plan, line: Line | None) -> None:
    """The shares of a machine that has just been started from a checkpoint. Raises as `attach` does."""
    if not record.has("share"):
        return
    if line is None:
        raise GuestError("folders cannot be shared with a fork whose guest has no agent", fix="leave share out")
    machine = Connected(record, plan, owner=False, line=line)
    try:
        await attach(machine)
    finally:
        await machine.hang_up()


async def plug(machine: Connected) -> None:
    """Plug in the machine's shares that are not there yet; the guest can mount them. Raises PrepareError, ControlError."""
    for number, share in enumerate(machine.spec.share):
        if helper_processes.running(_daemon(machine.record, number, share), Journal(machine.record.path)) is None:
            await in_thread(_end_daemon, machine.record, number)
            part = _part(machine.record, number, share)
            for step in part.steps:
                if isinstance(step, StartHelper):
                    await in_thread(helper_processes.start, step, Journal(machine.record.path))
            await hotplug.plug(await machine.session(), part, _name(number))


async def detach(machine: Connected) -> None:
    """Unmount and unplug every share. Raises GuestError where a program of the guest uses one, ControlError."""
    for number, share in enumerate(machine.spec.share):
        words = ["sh", "-c", _UNMOUNT, "sh", _name(number), share.guest]
        done = await machine.run(words, timeout=_SECONDS, check=False)
        if done.status:
            raise GuestError(
                f"{share.guest} in {machine.name} cannot be taken out for the checkpoint",
                why=done.stderr.decode(errors="replace").strip(),
                fix="end what has its working folder or an open file there",
            )
        if helper_processes.running(_daemon(machine.record, number, share), Journal(machine.record.path)) is not None:
            await hotplug.unplug(await machine.session(), _part(machine.record, number, share).elements)
        await in_thread(_end_daemon, machine.record, number)


@contextlib.asynccontextmanager
async def taken_out(machine: Connected, *, over: Callable[[], bool] = lambda: False) -> AsyncIterator[None]:
    """The machine without its shares, which are there again when the block ends. Raises as `detach` does.

    They stay out where the machine is ``over`` by then.
    """
    if not machine.record.has("share"):
        yield
        return
    try:
        await detach(machine)
        yield
    finally:
        if not over():
            await attach(machine)


def by_hand(spec: MachineSpec) -> tuple[Note, ...]:
    """What must be said where nobody waits for the guest, which has to mount the folders then."""
    how = "; ".join(f"mount -t virtiofs {_name(number)} {share.guest}" for number, share in enumerate(spec.share))
    why = Why("spec share", "a folder is mounted when the guest has answered")
    return (Note("warning", f"its shared folders are not mounted; in the guest: {how}", why),) if how else ()


def _name(number: int) -> str:
    return f"share{number}"


def _part(record: Record, number: int, share: ShareSpec) -> Contribution:
    """What a share adds to the running machine: its daemon, a connection to that, and the device the guest sees."""
    step, name = _daemon(record, number, share), _name(number)
    bus = f"plug{slot_of_share(record, number)}"
    device = {"driver": "vhost-user-fs-pci", "id": name, "chardev": f"{name}-chr", "tag": name, "bus": bus}
    part = Contribution(
        elements=(
            Element("chardev", {"id": f"{name}-chr", "path": step.socket}, step.why, "socket"),
            Element("device", {**device, "queue-size": 1024}, step.why),
        ),
        steps=(step, HandOver(step.socket, "connect", step.why)),
    )
    return walled(record, part)


def _daemon(record: Record, number: int, share: ShareSpec) -> StartHelper:
    why = Why("spec share", f"serves {share.host} to the guest")
    socket = str(record.file(f"{_name(number)}.sock"))
    argv = (find_tool(VIRTIOFSD) or VIRTIOFSD, f"--socket-path={socket}", "-o", f"source={share.host}", "-f")
    options = ("-o", "sandbox=namespace", "-o", "cache=auto", "-o", "modcaps=-mknod:-setfcap")
    return StartHelper(f"virtiofsd-{number}", (*argv, *options), socket, why, fixed=share.host if share.fixed else "")


def _end_daemon(record: Record, number: int) -> None:
    """End the daemon of a share, if it still runs, and write down that it is gone."""
    journal = Journal(record.path)
    for taken, entry in journal.open_entries().items():
        if entry["kind"] == "helper" and entry["name"] == f"virtiofsd-{number}":
            helper_processes.stop(entry)
            journal.give(taken)
