"""Whether a machine's disks are whole: every file of every chain, how they hang together, and who else has them open."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tinamou import late
from tinamou.errors import ImageError, TinamouError
from tinamou.facts import files
from tinamou.images.chain import verify_tables
from tinamou.images.seal import check_seals
from tinamou.late import dataclass
from tinamou.snapshots.graph import attached
from tinamou.snapshots.history import History
from tinamou.snapshots.layers import Forest, read_forest
from tinamou.snapshots.machine_disks import Disks, encrypted
from tinamou.system.exec import CommandError
from tinamou.system.exec_async import run_async
from tinamou.system.image_locks import processes_with_open, written_by_others
from tinamou.system.replaced import replace_text
from tinamou.system.shut_in import ENVIRONMENT, shut_in

__all__ = ["RESULTS", "DiskFinding", "check", "last_results", "repair"]

RESULTS = "check.json"
_DISK_ENDINGS = (".qcow2", ".raw", ".img", ".vmdk", ".vhdx", ".vdi")


@dataclass(frozen=True)
class DiskFinding:
    """Something wrong with one file: ``severity`` is ``error`` (it must not be booted), ``warning`` or ``note``."""

    severity: str
    file: str
    what: str
    fix: str = ""


async def check(disks: Disks, history: History, *, deep: bool = True) -> list[DiskFinding]:
    """Look at everything; ``deep`` has qemu-img walk every file that is not being written to. Results are kept beside it."""
    found: list[DiskFinding] = []
    for disk in history.disks:
        try:
            forest = read_forest(disks, history, disk)
            found += [*_links(disks, history, forest), *_tables(forest), *_open_elsewhere(disks, history, forest)]
        except TinamouError as error:
            found.append(
                DiskFinding("error", _named(error, disk), f"{error.what}{': ' + error.why if error.why else ''}", error.fix)
            )
            continue
        if deep:
            for name in forest.layers:
                found += await _walk(disks, history, forest, name)
    found += [*_seals(disks, history), *_foreign(disks, history)]
    if disks.session is not None:
        found += await _graph(disks, history)
    _keep(disks, found, deep)
    return found


async def repair(disks: Disks, file: str) -> Path:
    """Have qemu-img repair a file of a machine that is off; a copy is kept first, whose path is returned.

    Raises ImageError when it cannot be repaired; the copy is there all the same.
    """
    source = disks.path(file)
    copy = source.with_name(f"{source.name}.before-repair-{time.strftime('%Y%m%d-%H%M%S')}")
    try:
        await run_async(["cp", "--reflink=auto", "--sparse=always", "--preserve=all", "--", str(source), str(copy)])
        node = {"driver": "qcow2", "backing": None, "file": {"driver": "file", "filename": str(source)}}
        argv = [disks.qemu_img, "check", "-q", "-r", "all", f"json:{json.dumps(node)}"]
        words = shut_in(argv, writes=[source], owner=source.stat().st_uid)
        await run_async(words, environment=ENVIRONMENT)
    except CommandError as error:
        raise ImageError(f"{file} cannot be repaired", why=str(error), fix=f"a copy is {copy}; restore a backup") from error
    return copy


def last_results(directory: Path) -> dict[str, Any] | None:
    """What the last check found and when, None where there was none."""
    try:
        return dict(json.loads((directory / RESULTS).read_text()))
    except (FileNotFoundError, ValueError):
        return None


def _named(error: TinamouError, disk: str) -> str:
    return next((word.rstrip(",:") for word in error.what.split() if "/" in word or word.endswith(".qcow2")), disk)


def _links(disks: Disks, history: History, forest: Forest) -> Iterator[DiskFinding]:
    """Chains that end where they should, in the order the history tells, each file at least as large as the one below."""
    floor = history.disks[forest.disk].floor
    for name in sorted(forest.named(history)):
        if forest.chain(name)[-1] != floor:
            what = f"its chain ends at {forest.chain(name)[-1]}, not at {floor}"
            yield DiskFinding("error", name, what, "restore a backup, or put the right file back")
    for shot in history.snapshots:
        parent = next((one for one in history.snapshots if one.number == shot.parent), None)
        mine = shot.files.get(forest.disk, "")
        below = parent.files.get(forest.disk, "") if parent else ""
        if mine and below and below not in forest.chain(mine) and not set(forest.chain(mine)) & set(history.flattened):
            yield DiskFinding("error", mine, f"snapshot {shot.name} does not rest on {below}, its parent's file")
    for upper, lower in forest.below.items():
        sizes = [
            (int(lay.header.size) if lay.header else lay.length) for lay in (forest.layers[upper], forest.layers[lower])
        ]
        if sizes[0] < sizes[1]:
            yield DiskFinding("warning", upper, f"it is smaller ({sizes[0]}) than {lower} below it ({sizes[1]})")


def _tables(forest: Forest) -> Iterator[DiskFinding]:
    for name, layer in forest.layers.items():
        try:
            verify_tables(layer)
        except ImageError as error:
            yield DiskFinding("error", name, error.why or error.what, error.fix)


def _open_elsewhere(disks: Disks, history: History, forest: Forest) -> Iterator[DiskFinding]:
    """A file of a machine that is off which some process writes to."""
    if disks.session is not None:
        return
    for name in forest.layers:
        if written_by_others(disks.path(name)):
            who = (
                ", ".join(f"{comm} ({pid})" for pid, comm in processes_with_open(disks.path(name)))
                or "another user's process"
            )
            yield DiskFinding(
                "error", name, f"it is open for writing in {who}", "end that program before the machine starts"
            )


def _seals(disks: Disks, history: History) -> Iterator[DiskFinding]:
    shared = [disk.floor for disk in history.disks.values() if disk.floor.startswith("/") and disk.floor != disk.top]
    for path in shared:
        try:
            check_seals(disks.directory / files.SEALS, [path])
        except ImageError as error:
            yield DiskFinding("error", path, error.why or error.what, error.fix)


def _foreign(disks: Disks, history: History) -> Iterator[DiskFinding]:
    """Images in the machine's folder that belong to none of its chains."""
    known: set[str] = set()
    for disk in history.disks:
        try:
            forest = read_forest(disks, history, disk)
            known |= forest.needed(history)
        except TinamouError:
            return
    for path in sorted(disks.directory.iterdir()):
        if path.suffix in _DISK_ENDINGS and path.name not in known:
            yield DiskFinding(
                "note", path.name, "no disk and no snapshot of this machine reads it", "remove it if nobody else does"
            )


async def _walk(disks: Disks, history: History, forest: Forest, name: str) -> list[DiskFinding]:
    if forest.layers[name].format != "qcow2":
        return []
    if disks.session is not None and any(name == one.top for one in history.present.values()):
        return [DiskFinding("note", name, "the guest is writing to it; stop the machine to have it walked")]
    try:
        shared = ["-U"] if disks.session is not None else []
        argv = [disks.qemu_img, "check", "-q", *shared, *_opened(disks, forest, name)]
        reads = [*forest.files(name), *filter(None, [disks.keys.get(forest.disk)])]
        await run_async(shut_in(argv, reads=reads), environment=ENVIRONMENT)
    except CommandError as error:
        text = (error.stderr or error.stdout).strip().splitlines()
        leaks = error.status == 3
        what = "; ".join(text[:3]) or f"qemu-img check ended with status {error.status}"
        severity = "warning" if leaks else "error"
        return [
            DiskFinding(severity, name, f"space is lost, data is not: {what}" if leaks else what, "tinamou check --repair")
        ]
    return []


def _opened(disks: Disks, forest: Forest, name: str) -> list[str]:
    """A file for qemu-img, with its key where it is encrypted."""
    path, key = str(disks.path(name)), disks.keys.get(forest.disk, "")
    if not key or not encrypted(forest.layers[name]):
        return ["-f", "qcow2", path]
    file = {"driver": "file", "filename": path}
    node = {"driver": "qcow2", "backing": None, "encrypt": {"format": "luks", "key-secret": "key"}, "file": file}
    return ["--object", f"secret,id=key,file={key}", f"json:{json.dumps(node)}"]


async def _graph(disks: Disks, history: History) -> list[DiskFinding]:
    assert disks.session is not None
    found = []
    devices = await attached(disks.session)
    for name, disk in history.present.items():
        one = devices.get(disk.device)
        if one is None or not one.files:
            found.append(DiskFinding("warning", name, f"QEMU has no device {disk.device}"))
            continue
        live = tuple(disks.name(file) for file in one.files)
        told = await asyncio.to_thread(lambda d=name, t=disk.top: read_forest(disks, history, d).chain(t))  # type: ignore[misc]
        if live != told:
            found.append(
                DiskFinding("error", name, f"QEMU reads through {' > '.join(live)}, the headers say {' > '.join(told)}")
            )
    return found


def _keep(disks: Disks, found: list[DiskFinding], deep: bool) -> None:
    results = {"at": time.time(), "deep": deep, "findings": [late.asdict(one) for one in found]}
    replace_text(disks.directory / RESULTS, json.dumps(results, indent=1))
