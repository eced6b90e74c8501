"""Which walls may be built here, tried with the launcher around no program; tried again after a reboot or elsewhere."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from tinamou.facts.stored import Plain
from tinamou.facts.walls import NAMESPACES, WallFacts
from tinamou.probe import cache, place
from tinamou.system.jail import SYSTEM, Jail, JailError, nodes, spawn
from tinamou.system.own_programs import own_program
from tinamou.system.spawn import exit_code, wait_gone

__all__ = ["probe_walls"]

_SECONDS = 5.0
_TRIAL_UID = 1_900_300_000
"""Whom a trial by root becomes; nothing is run as it."""


def probe_walls(*, cached: bool = True) -> WallFacts:
    """What may be built around a process of this user, in this place; an earlier trial counts while neither has changed."""
    identity: list[Plain] = [*place.identity(), Path(own_program("jail")).stat().st_mtime_ns]
    subject = f"walls-{os.geteuid()}"
    stored = cache.load("host", subject, identity, _from) if cached else None
    if stored is not None:
        return stored
    facts = _tried()
    cache.store("host", subject, identity, {"refused": dict(facts.refused), "user": facts.user, "landlock": facts.landlock})
    return facts


def _from(plain: Plain) -> WallFacts:
    if not isinstance(plain, dict) or not isinstance(plain["refused"], dict):
        raise ValueError("not the facts about walls")
    refused = {kind: str(why) for kind, why in plain["refused"].items()}
    return WallFacts(refused, bool(plain["user"]), int(str(plain["landlock"])))


def _tried() -> WallFacts:
    from tinamou.system import landlock

    version, user = landlock.abi(), os.geteuid() != 0
    if not (why := _why_not(NAMESPACES, user)):
        return WallFacts({}, user, version)
    if user and (alone := _why_not((), user)):
        return WallFacts(dict.fromkeys(NAMESPACES, alone), user, version)
    refused = {kind: reason for kind in NAMESPACES if (reason := _why_not((kind,), user))}
    if not refused or _why_not((kind for kind in NAMESPACES if kind not in refused), user):
        refused = dict.fromkeys(NAMESPACES, f"not together: {why}")
    return WallFacts(refused, user, version)


def _why_not(kinds: Iterable[str], user: bool) -> str:
    """Why a process cannot be given these namespaces; empty when it can."""
    letters = "".join(NAMESPACES[kind] for kind in kinds)
    jail = Jail(None if user else _TRIAL_UID, (), "U" * user + letters, SYSTEM, devices=nodes())
    said = os.memfd_create("said", os.MFD_CLOEXEC)
    try:
        process = spawn(jail, [], log=said)
        wait_gone(process, _SECONDS)
        status = exit_code(process.pid)
        words = os.pread(said, 4096, 0).decode(errors="replace").strip()
    except JailError:
        status, words = 1, os.pread(said, 4096, 0).decode(errors="replace").strip()
    except OSError as error:
        return str(error)
    finally:
        os.close(said)
    return _in_words(words or f"the launcher ended with status {status}") if status else ""


def _in_words(said: str) -> str:
    """``jail: unshare network: error 1`` → ``unshare network: Operation not permitted``, and who may have forbidden it."""
    said = re.sub(r"error (\d+)$", lambda number: os.strerror(int(number[1])), said.removeprefix("jail: "))
    if place.setting("kernel/apparmor_restrict_unprivileged_userns") == "1" and os.geteuid():
        return f"{said} (kernel.apparmor_restrict_unprivileged_userns = 1)"
    if place.setting("kernel/unprivileged_userns_clone") == "0" and os.geteuid():
        return f"{said} (kernel.unprivileged_userns_clone = 0)"
    return said
