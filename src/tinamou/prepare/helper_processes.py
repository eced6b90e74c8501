"""Helper processes that live as long as their machine (swtpm, passt, virtiofsd): started, found again, ended."""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterable
from pathlib import Path

from tinamou.blueprint import Plan, StartHelper, Step
from tinamou.errors import PrepareError
from tinamou.facts.walls import letters
from tinamou.prepare.groups import enter_all
from tinamou.prepare.journal import Entry, Journal
from tinamou.prepare.logs import pipes_into
from tinamou.prepare.profiles import entering
from tinamou.system import confine, jail
from tinamou.system.ended import status_of
from tinamou.system.exec import find_tool
from tinamou.system.known import every
from tinamou.system.known import find as known_process
from tinamou.system.logs import complete, last_lines
from tinamou.system.spawn import Process, alive, end, found_started
from tinamou.system.syscalls import keyed

__all__ = ["all_of", "found", "running", "settle", "start", "start_all", "stop", "words_of_dead"]

READY_SECONDS = 10.0
_children: dict[int, Process] = {}
"""Those this process started, by their numbers: when one is over, its entry in the process table is ours to remove."""


def start_all(plan: Plan, directory: Path) -> None:
    """Start every helper of a copied machine, each in a folder of its own. Raises PrepareError."""
    for step in plan.steps:
        if isinstance(step, StartHelper):
            folder = Path(step.socket).parent
            folder.mkdir(mode=0o700, exist_ok=True)
            if step.owner is not None:
                os.chown(folder, step.owner, step.owner)
            start(step, Journal(directory))


def start(step: StartHelper, journal: Journal, *, beside: int = 0) -> None:
    """Start it and wait until its socket exists. Raises PrepareError with its last words.

    It is a second one where the machine's QEMU, of process number ``beside``, has its own: see `settle`.
    """
    _let_through(step)
    log = _log(Path(step.socket), journal.path.parent)
    entry: Entry = {"name": step.name, "argv": list(step.argv), "log": str(log), "owner": step.owner, "beside": beside}
    number = journal.take("helper", lasting=False, **entry)
    folder = (str(Path(step.socket).parent),) if "mount" in step.namespaces or step.landlock[0] else ()
    reads = (*jail.SYSTEM, *jail.tree_of(step.argv[0]))
    around = jail.Jail(
        step.owner,
        (),
        letters(step.namespaces),
        reads,
        folder,
        jail.nodes(),
        landlock=step.landlock,
        limits={resource.RLIMIT_AS: step.memory} if step.memory else {},
        fixed=step.fixed,
        profile=entering(step.name, journal),
        label=step.label,
        call_filter=keyed(step.calls, find_tool(step.argv[0]) or "") if step.calls else b"",
    )
    Path(step.socket).unlink(missing_ok=True)
    with pipes_into(log) as [end_of_log]:
        environment = {**confine.ENVIRONMENT, **step.environment}
        process = jail.spawn(around, step.argv, log=end_of_log, environment=environment)
    entry = {**entry, "pid": process.pid, "started": process.started}
    journal.add(number, **entry)
    _children[process.pid] = process
    enter_all(journal, process.pid)
    deadline = time.monotonic() + READY_SECONDS
    while not Path(step.socket).exists():
        gone = not alive(process) and found(entry) is None
        if gone or time.monotonic() > deadline:
            status = status_of(process.pid) if gone else ""
            stop(entry)
            journal.give(number)
            complete(log)
            said = " ".join(filter(None, (status, last_lines(log)[-800:])))
            raise PrepareError(f"{step.name} did not start", why=said, fix=_fix(step, said))
        time.sleep(0.002)


def _fix(step: StartHelper, said: str) -> str:
    """What would help one that did not start, by what it said last."""
    import shlex

    if step.label and "permission denied" in said.lower():
        where = Path(step.socket).parent
        return (
            f"SELinux lets it write where machines are kept, not below /tmp (here in {where}): set TINAMOU_STATE to "
            'a folder in /var/lib; what was refused is in: ausearch -m avc. Or set security.selinux = "off"'
        )
    return f"run it by hand: {shlex.join(step.argv)}"


def words_of_dead(steps: Iterable[Step]) -> dict[str, str]:
    """What the helpers of these steps that have ended said last: evidence for an error that follows from it."""
    said: dict[str, str] = {}
    for step in steps:
        if isinstance(step, StartHelper) and found({"argv": list(step.argv), "owner": step.owner}) is None:
            socket = Path(step.socket)
            logs = (_log(socket, home) for home in (socket.parent, socket.parent.parent))
            said |= {f"{step.name} said": last_lines(log)[-800:] for log in logs if log.exists()}
    return said


def _log(socket: Path, home: Path) -> Path:
    """Its log in the machine's own folder, also where the socket lies in one that is the helper's."""
    inner = socket.relative_to(home) if socket.is_relative_to(home) else Path(socket.name)
    return home / "-".join(inner.with_suffix(".log").parts)


def _let_through(step: StartHelper) -> None:
    """Whoever the helper runs as can reach its socket. Raises PrepareError naming the folder that keeps it out."""
    for folder in reversed(Path(step.socket).parent.parents) if step.owner is not None else ():
        status = folder.stat()
        if status.st_uid != step.owner and not status.st_mode & 0o001:
            why = f"it runs as user {step.owner}, and {folder} lets no other user through"
            fix = f"chmod o+x {folder}, or have the machines elsewhere: TINAMOU_STATE=FOLDER"
            raise PrepareError(f"{step.name} cannot reach {step.socket}", why=why, fix=fix)


def running(step: StartHelper, journal: Journal) -> Process | None:
    """The helper of this step, None where it was not started or has ended."""
    entries = (entry for entry in journal.open_entries().values() if entry["kind"] == "helper")
    return next((found(entry) for entry in entries if entry.get("argv") == list(step.argv)), None)


def found(entry: Entry) -> Process | None:
    """The helper of a journal's entry, None where it has ended."""
    argv, owner = entry.get("argv"), entry.get("owner")
    pid, started = entry.get("pid"), entry.get("started")
    if not isinstance(argv, list) or not argv:
        return None
    known = Process(pid, started) if isinstance(pid, int) and isinstance(started, int) else None
    return known_process(argv, {owner if isinstance(owner, int) else os.geteuid()}, known)


def settle(journal: Journal, qemu: int) -> None:
    """Of two helpers of one kind the machine keeps that of its QEMU, of process number ``qemu``; the other one ends.

    One that was started beside that QEMU is for another one, which did not take the machine over.
    """
    helpers = {number: entry for number, entry in journal.open_entries().items() if entry["kind"] == "helper"}
    for number, second in helpers.items():
        if not second.get("beside"):
            continue
        firsts = [(n, e) for n, e in helpers.items() if n != number and e.get("argv") == second.get("argv")]
        going, staying = ([(number, second)], firsts) if second["beside"] == qemu else (firsts, [(number, second)])
        named = {found(entry) for _, entry in staying}
        for process in all_of(second):
            if process not in named:
                end(process, grace=1.0)
        for gone, entry in going:
            if "pid" in entry:
                stop(entry)
            journal.give(gone)
        for stays, _ in staying:
            journal.add(stays, beside=0)


def all_of(entry: Entry) -> list[Process]:
    """All processes with its command line, also one whose number there was no time to write down."""
    argv, owner = entry.get("argv"), entry.get("owner")
    users = {owner if isinstance(owner, int) else os.geteuid()}
    return every(argv, users) if isinstance(argv, list) and argv else []


def stop(entry: Entry) -> None:
    """End the helper if it still runs, or is just about to."""
    process = found_started(lambda: found(entry), str(entry.get("log", "")))
    if process is not None and process.pid != os.getpid():
        end(process, grace=1.0)
    pid = entry.get("pid")
    ours = _children.pop(pid, None) if isinstance(pid, int) else None
    if ours is not None and process is None:
        end(ours)
    if log := entry.get("log"):
        complete(Path(str(log)))
