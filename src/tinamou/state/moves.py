"""Who owns a machine that goes from one host to another: two records, one on each host, in two phases on stable storage.

::

    source   (owner) ── leaving ─┬─ left        a tombstone: it never runs here again, and says where it went
                                 └─ (owner)     given up, whoever failed; it never stopped being the owner
    target   arriving ── ready ──┬─ (owner)     one generation later, once the source has left
                                 └─ gone        the source stays, and says so

A source that stays after it began to send the memory cannot know whether the target is ``ready``, which somebody may take
over if this host is lost: it is the owner in doubt until the target was heard, and is not started meanwhile.

The source decides, alone, by writing ``left``; it may do so once the target is ``ready``: has all of the machine, disks on
stable storage. The target lets it run after that, and never by itself: one that is ``ready`` and hears nothing stays as it
is until it is told. So there is never more than one owner, and after any interruption the source's record names the host.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tinamou import late
from tinamou.errors import StateError
from tinamou.facts import files
from tinamou.state.record import Record, update
from tinamou.system.durable import sync_file, sync_folder
from tinamou.system.spawn import Process, alive, process_of

__all__ = [
    "ARRIVING",
    "LEAVING",
    "LEFT",
    "READY",
    "arriving",
    "attended",
    "begin_leaving",
    "confirmed",
    "doubtful",
    "dropped",
    "keep",
    "leave",
    "lost",
    "mark",
    "phase",
    "ready",
    "refuse_doubtful",
    "refuse_elsewhere",
    "sending",
    "stay",
    "sure",
    "take_over",
    "token_of",
]

LEAVING, LEFT, ARRIVING, READY = "leaving", "left", "arriving", "ready"
_OWNER = ""


def phase(record: Record) -> str:
    """Where a machine's move is; empty for one that is its host's own."""
    return str(record.move.get("phase", _OWNER))


def token_of(record: Record) -> str:
    """What the last move of this machine was called by both hosts; empty where there was none."""
    return str(record.move.get("token", ""))


def attended(record: Record) -> bool:
    """Whether the process that moves it, or receives it, is alive."""
    pid, started = record.move.get("pid"), record.move.get("started")
    return isinstance(pid, int) and isinstance(started, int) and alive(Process(pid, started))


def mark(path: str, token: str) -> Path:
    """Where a file lies, for the duration of that move, whose name tells both hosts that they see the same folder."""
    return Path(path).parent / f".tinamou-{token}"


def begin_leaving(record: Record, host: str, token: str) -> Record:
    """The source begins to move it to ``host``. Raises StateError where a move is under way, or it has left."""
    return _step(record, _OWNER, lambda _: {"phase": LEAVING, "host": host, "token": token, **_me()})


def sending(record: Record, token: str) -> Record:
    """The source begins to send what lets the target become ready. Raises StateError."""
    return _step(record, LEAVING, lambda move: {**move, "sent": True}, token)


def stay(record: Record, token: str) -> Record:
    """The move is given up: the source owns it, as it did all along. Raises StateError for one that has left."""

    def given_up(move: dict[str, Any]) -> dict[str, Any]:
        return {"phase": _OWNER, "host": move["host"], "token": token, "doubt": True} if move.get("sent") else {}

    return _step(record, LEAVING, given_up, token)


def doubtful(record: Record) -> bool:
    """Whether the machine, which is this host's, may have been taken over by the one to which it was to move."""
    return bool(record.move.get("doubt"))


def sure(record: Record, token: str) -> Record:
    """The target has nothing of it that could run: it is this host's. Raises StateError."""
    return _step(record, _OWNER, lambda _: {}, token)


def lost(record: Record, token: str) -> Record:
    """The target was made the owner while this host was not heard. Raises StateError."""
    return _step(record, _OWNER, lambda move: {"phase": LEFT, "host": move["host"], "token": token, "told": True}, token)


def leave(record: Record, token: str) -> Record:
    """The decision: from here on the machine is the target's, which is ready. Raises StateError, OSError."""
    return _step(record, LEAVING, lambda move: {**move, "phase": LEFT, "told": False}, token)


def confirmed(record: Record, token: str) -> Record:
    """The target has said that the machine is its own."""
    return _step(record, LEFT, lambda move: {**move, "told": True}, token)


def arriving(host: str, token: str) -> dict[str, Any]:
    """What the record of a machine says that comes from ``host``, until it is ready."""
    return {"phase": ARRIVING, "host": host, "token": token, **_me()}


def ready(record: Record, token: str) -> Record:
    """The target has all of it. From here on it cannot throw it away by itself."""
    return _step(record, ARRIVING, lambda move: {**move, "phase": READY, "at": time.time()}, token)


def dropped(record: Record, token: str) -> Record:
    """The source stays: what has come can be thrown away, and be taken over by nobody. Raises StateError."""
    return _step(record, READY, lambda move: {**move, "phase": ARRIVING}, token)


def take_over(record: Record, token: str) -> Record:
    """The source has left: the machine is this host's. Nothing changes where it is already, by this very move.

    On stable storage after `keep`, which the source must not hear of before: should this host lose its power in between it
    has a machine that is ready, which its source's record says is this host's.
    """
    if phase(record) == _OWNER and token_of(record) == token:
        return record
    return _written(record, READY, lambda move: {"phase": _OWNER, "host": move["host"], "token": token}, token)


def keep(record: Record) -> None:
    """Have the record on stable storage. Raises OSError."""
    sync_file(record.file(files.RECORD))
    sync_folder(record.path)


def refuse_elsewhere(record: Record, done: str) -> None:
    """Raises StateError for a machine that is not this host's to be ``done`` something with."""
    host, name = record.move.get("host", "another host"), record.name
    if phase(record) == LEFT:
        if record.move.get("told"):
            fix = f"it runs there; tinamou rm {name} forgets here that it went there"
        else:
            fix = f"{host} was not heard to have it: tinamou move {name} {host} tells it"
        raise StateError(f"{name} has moved to {host}, and cannot be {done} here", fix=fix)
    if phase(record) == ARRIVING:
        raise StateError(f"{name} is arriving from {host}, and cannot be {done} yet", fix="wait for the move to end")
    if phase(record) == READY:
        why = f"all of it is here, and {host} has not said that it gave it up: it may run there"
        fix = f"tinamou settle {name} asks {host}, and with --other-is-off takes it over"
        raise StateError(f"{name} has come from {host}, and cannot be {done} yet", why=why, fix=fix)


def refuse_doubtful(record: Record) -> None:
    """Raises StateError for a machine that may have been taken over elsewhere, and must not be started."""
    if doubtful(record):
        host, name = record.move["host"], record.name
        why = f"its move to {host} was cut short after its memory went there, and {host} was not heard since"
        fix = f"tinamou settle {name} asks {host}; --other-is-off when that will never run it"
        raise StateError(f"{name} may have been taken over by {host}, and cannot be started", why=why, fix=fix)


def _me() -> dict[str, int]:
    me = process_of(os.getpid())
    return {"pid": me.pid, "started": me.started}


def _step(record: Record, before: str, move: Callable[[dict[str, Any]], dict[str, Any]], token: str = "") -> Record:
    """Go on from that phase, of this very move, on stable storage before it returns."""
    now = _written(record, before, move, token)
    keep(now)
    return now


def _written(record: Record, before: str, move: Callable[[dict[str, Any]], dict[str, Any]], token: str) -> Record:
    def changed(now: Record) -> Record:
        if phase(now) != before or (token and token_of(now) != token):
            what = f"{phase(now) or 'owned'}{f' ({token_of(now)})' if token_of(now) else ''}"
            raise StateError(f"the move of {now.name} is not where it was", why=f"it is {what}", fix="tinamou ls")
        return late.replace(now, move=move(now.move))

    return update(record.path, changed)
