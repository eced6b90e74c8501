"""How a disk's requests are queued: as asked, or the best way that a trial on this host went well with."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from tinamou.errors import Problem
from tinamou.facts import ChainFile, Facts
from tinamou.parts.disk.spec import DIRECT, DiskSpec

__all__ = ["check", "choose"]

Way = Literal["threads", "native", "io_uring"]

_MERITS = {
    "native": "Linux's own queue, which goes with requests around the page cache",
    "io_uring": "one ring shared with the kernel instead of a thread for each request",
    "threads": "a thread for each request",
}


_ODD = "its file ends within a sector, and a request for that one never ends"


def choose(options: DiskSpec, files: Sequence[ChainFile], facts: Facts) -> tuple[Way, str]:
    """The way for a disk of these files, and why; no reason where it was asked for, or nothing was tried."""
    if options.aio != "auto":
        return options.aio, ""
    if any(file.odd for file in files):
        return "threads", f"aio threads: {_MERITS['threads']} (io_uring: {_ODD})"
    if options.interface == "cdrom":
        return "threads", f"aio threads: {_MERITS['threads']} (discs that are put in later may end anywhere)"
    wanted: tuple[Way, ...] = ("native", "io_uring") if options.cache in DIRECT else ("io_uring",)
    refused = {way: _refusal(way, facts) for way in wanted}
    for way in wanted:
        if refused[way] == "":
            return way, f"aio {way}: {_MERITS[way]}, tried on this host"
    said = [f"{way}: {reason}" for way, reason in refused.items() if reason]
    return "threads", f"aio threads: {_MERITS['threads']} ({'; '.join(said)})" if said else ""


def check(specs: Sequence[tuple[int, DiskSpec]], facts: Facts) -> list[Problem]:
    """Ways and cache modes that were asked for and cannot be had here; each disk has its number beside it."""
    found = []
    for number, (at, disk) in enumerate(specs):
        if disk.aio in ("native", "io_uring") and (reason := _refusal(disk.aio, facts)):
            found.append(Problem(f"disk[{number}].aio", disk.aio, reason, "use aio = auto, or threads"))
        if disk.aio == "io_uring" and any(file.odd for file in facts.chains.get(f"disk{at}", ())):
            fix = "use aio = auto, or give the file whole sectors: tinamou image resize"
            found.append(Problem(f"disk[{number}].aio", disk.aio, _ODD, fix))
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
