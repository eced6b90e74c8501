"""How a disk's requests are queued: as asked, or the best way that a trial on this host went well with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tinamou.errors import Problem
from tinamou.facts import Facts
from tinamou.parts.disk.spec import DIRECT, DiskSpec

__all__ = ["check", "choose"]

Way = Literal["threads", "native", "io_uring"]

_MERITS = {
    "native": "Linux's own queue, which goes with requests around the page cache",
    "io_uring": "one ring shared with the kernel instead of a thread for each request",
    "threads": "a thread for each request",
}


def choose(options: DiskSpec, facts: Facts) -> tuple[Way, str]:
    """The way, and why it was taken; no reason where it was asked for, or nothing was tried."""
    if options.aio != "auto":
        return options.aio, ""
    wanted: tuple[Way, ...] = ("native", "io_uring") if options.cache in DIRECT else ("io_uring",)
    refused = {way: _refusal(way, facts) for way in wanted}
    for way in wanted:
        if refused[way] == "":
            return way, f"aio {way}: {_MERITS[way]}, tried on this host"
    said = [f"{way}: {reason}" for way, reason in refused.items() if reason]
    return "threads", f"aio threads: {_MERITS['threads']} ({'; '.join(said)})" if said else ""


def check(specs: Sequence[DiskSpec], facts: Facts) -> list[Problem]:
    """Ways and cache modes that were asked for and cannot be had here."""
    found = []
    for number, disk in enumerate(specs):
        if disk.aio in ("native", "io_uring") and (reason := _refusal(disk.aio, facts)):
            found.append(Problem(f"disk[{number}].aio", disk.aio, reason, "use aio = auto, or threads"))
        place = disk.path or facts.place.directory
        if disk.cache in DIRECT and (reason := facts.permits.direct.get(place, "")):
            fix = "use cache = writeback, or keep the disk on another filesystem"
            found.append(Problem(f"disk[{number}].cache", disk.cache, f"{place}: {reason}", fix))
    return found


def _refusal(way: str, facts: Facts) -> str | None:
    """Why not, None when nobody tried."""
    if way == "io_uring" and not facts.qemu.has("aio:io_uring"):
        return f"{facts.qemu.binary} was built without it"
    return facts.permits.io_uring if way == "io_uring" else facts.permits.native
