"""Bring the state directory and the living processes together: what a crash left over is given back and cleaned away."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from pathlib import Path

from tinamou import late
from tinamou.errors import StateError
from tinamou.facts import files
from tinamou.machine import moving, sockets_aside
from tinamou.prepare.journal import Entry, Journal
from tinamou.snapshots import orphans
from tinamou.state import ledger, machines, moves, networks, pools, uids
from tinamou.state.index import Look, look
from tinamou.state.record import Record, change, read
from tinamou.system.known import matching
from tinamou.system.logs import complete
from tinamou.system.plain_file import place_fault
from tinamou.system.spawn import Process, end, found_started, process_of

__all__ = ["claim", "clear_unfinished", "end_machine", "give_back", "reconcile"]


def reconcile(found: Look | None = None) -> list[str]:
    """Look at every machine that is not at rest; returns one sentence for each thing that was put right."""
    found = found or look()
    done = [*found.odd, *(line for directory in found.others for line in _said(_reconcile_one, directory))]
    _tidy_networks()
    return done + networks.odd() + _reconcile_ledger() + orphans.clear() + pools.clear()


def _said(work: Callable[[Path], list[str]], directory: Path) -> list[str]:
    """What was put right; or what is wrong with a damaged entry, with which the other machines have nothing to do."""
    try:
        return work(directory)
    except StateError as error:
        return [f"{error.what}: {error.why}; {error.fix}"]


def _tidy_networks() -> None:
    if networks.names():
        from tinamou.prepare.networks import tidy

        tidy()


def _reconcile_ledger() -> list[str]:
    """Machines of other state directories that hold something of the host: their dead do not keep it from the living."""
    done = [wrong for wrong in (ledger.fault(),) if wrong]
    for place in sorted(ledger.look().holders()):
        if Path(place).parent != machines.machines_dir():
            done += _said(_reconcile_other, Path(place))
    return done


def _reconcile_other(directory: Path) -> list[str]:
    """A folder that the ledger names: it is acted on where nobody else can have put it there."""
    if os.path.lexists(directory):
        wrong = place_fault(directory)
        return [f"{wrong}: it is left alone, with what the ledger says it holds"] if wrong else _reconcile_one(directory)
    from tinamou.prepare.borrow import give_all

    give_all(str(directory))
    return [f"machine {directory.name} is gone with its folder {directory}; what it held was given back"]


def _reconcile_one(directory: Path) -> list[str]:
    record = read(directory)
    if record is not None and moves.phase(record):
        return moving.settle(record, _over)
    if record is not None and not _left_behind(record):
        _settle_upgrade(record)
        said = orphans.let_run_on_if_left(record) if record.running else orphans.clear_half_suspended(record)
        return [*([said] if said else []), *_settle_name(record)]
    with machines.held(directory, wait=record is not None) as there:
        record = read(directory)
        if not there or (record is not None and not _left_behind(record)):
            return []
        return _end_left_behind(record) if record else clear_unfinished(directory)


def _over(record: Record, *, gone: bool) -> None:
    end_machine(late.replace(record, ephemeral=record.ephemeral or gone))


def _settle_name(record: Record) -> list[str]:
    """A rename that was cut short: all that names the machine names it as its folder."""
    if not record.file(files.RENAMED).exists():
        return []
    from tinamou.machine import known_by

    with machines.held(record.path, wait=False) as ours:
        return known_by.settle(record.path) if ours else []


def _settle_upgrade(record: Record) -> None:
    """An upgrade that was cut short: the machine is the QEMU's that its record names, and the other one ends."""
    if record.running and sockets_aside.left(record.path) and not orphans.being_saved(record):
        from tinamou.machine import lines
        from tinamou.prepare import helper_processes

        for process in strays(record.path):
            if process != record.process:
                end(process)
        helper_processes.settle(Journal(record.path), record.pid)
        lines.settle(record)
        sockets_aside.settle(record)


def _left_behind(record: Record) -> bool:
    """Whether nobody attends it, though it was started: by a crash, or because it ended by itself."""
    if record.owned or (record.running and not record.ephemeral and not _must_not_run_on(record)):
        return False
    return bool(record.pid or record.ephemeral or record.owner_pid)


def _must_not_run_on(record: Record) -> bool:
    """Whether its state is saved already: what its guest did from now on would not fit that state."""
    return orphans.is_suspended(record)


def _end_left_behind(record: Record) -> list[str]:
    cause = _cause_of_death(record)
    failed = _end(record, cause)
    what = "is removed" if record.ephemeral and not failed else "is stopped"
    kept = f", but could not give back: {'; '.join(failed)}" if failed else ""
    how = f"ended: {cause}" if cause else "was left behind by a crash or ended by itself"
    return [f"machine {record.name} {how}; it {what} now{kept}"]


def _cause_of_death(record: Record) -> str:
    """Asked while its control group is there, which is given back next."""
    if record.running:
        return ""
    from tinamou.monitor.deaths import cause_of

    return cause_of(record)


def clear_unfinished(directory: Path) -> list[str]:
    """Remove a folder without a record that can be read: what runs from it is ended, what it had given back.

    Whoever wants its name waits for that.
    """
    with contextlib.suppress(OSError):  # on a full disk nobody waits
        directory.joinpath(files.CLEARED).touch()
    _end_strays(directory)
    _undone(directory)
    machines.remove(directory)
    return [f"removed the remains of a start that was cut short: {directory.name}"]


def _end_strays(directory: Path) -> None:
    """End them until none is left: the launcher goes on as another process than it was started as."""
    while found := strays(directory):
        for process in found:
            end(process)


def strays(directory: Path) -> list[Process]:
    """QEMU processes that were handed files of this machine, found by their command lines; one just born is waited for."""
    token, users = f"opaque={directory}/".encode(), {os.geteuid(), *_uid(directory)}
    return found_started(lambda: matching(lambda words: token in words, users), directory / files.QEMU_LOG)


def _uid(directory: Path) -> list[int]:
    """The user id leased to the machine's QEMU, where there is one: no other user's process is the machine's."""
    uid = uids.of(directory)
    return [] if uid is None else [uid]


def end_machine(record: Record) -> list[str]:
    """The machine is over: end what still runs, give everything back, remove it when it was a throw-away one.

    Returns what could not be given back; the machine's folder is kept then, and the next command tries again.
    """
    with machines.held(Path(record.directory)) as there:
        return _end(record) if there else []


def _end(record: Record, cause: str = "") -> list[str]:
    directory = Path(record.directory)
    newest = read(directory)
    if newest is not None and _anothers(record, newest):
        return []
    known = {process for one in (record, newest) if one is not None and (process := one.process) is not None}
    for process in known:
        end(process)
    if not known or sockets_aside.left(directory):
        _end_strays(directory)
    complete(directory / files.QEMU_LOG)
    failed = give_back(record)
    if record.ephemeral and not failed:
        machines.remove(directory)
        return failed
    sockets_aside.forget(directory)
    for path in directory.glob("*.sock"):
        path.unlink(missing_ok=True)
    if newest is not None:
        change(newest, pid=0, started=0, owner_pid=0, owner_started=0, ended=cause)
    return failed


def _anothers(record: Record, newest: Record) -> bool:
    """Whether another process has taken the machine since: what was known of it is over already."""
    if (newest.owner_pid, newest.owner_started) == (record.owner_pid, record.owner_started):
        return False
    same = newest.process is not None and newest.process == record.process
    return not same and (newest.running or newest.owned)


def claim(record: Record) -> Record:
    """A machine at rest taken by this process, to be started: nobody else can until it is released or has ended.

    Its user id is nobody else's then. Raises StateError for a machine that runs, that another process has claimed, or that
    is gone.
    """
    me = process_of(os.getpid())
    with machines.held(record.path):
        newest = machines.find(record.name)
        _refuse_taken(newest)
        _end(newest)
        newest.file(files.ASKED).unlink(missing_ok=True)
        uid = machines.uid_again(newest.path, newest.uid)
        return change(newest, uid=uid, owner_pid=me.pid, owner_started=me.started)


def _refuse_taken(record: Record) -> None:
    moves.refuse_elsewhere(record, "started")
    moves.refuse_doubtful(record)
    if record.running:
        raise StateError(f"machine {record.name} is running already", fix=f"tinamou stop {record.name} first")
    if record.owned:
        why = f"process {record.owner_pid} is starting it, or taking it up"
        raise StateError(f"machine {record.name} is in the hands of another command", why=why, fix="wait for it to end")


def give_back(record: Record) -> list[str]:
    """Undo everything the machine's journal holds open; what fails stays open and is returned, with the reason."""
    return [f"{entry['kind']}: {error}" for entry, error in _undone(Path(record.directory))]


def _undone(directory: Path) -> list[tuple[Entry, Exception]]:
    return Journal(directory).give_back(_undo)


def _undo(entry: Entry) -> None:
    from tinamou.prepare.apply import undo

    undo(entry)
