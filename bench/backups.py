"""Backups of a disk half of which is data: whole beside `qemu-img convert`, then what changed beside writing as much."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.boot import TINAMOU
from bench.framework import AtLeast, Bar, Table, Way, Within

__all__ = ["tables"]

SIZE = int(os.environ.get("TINAMOU_BENCH_DISK_MIB", "10240"))
CHANGED = max(SIZE // 40, 16)
"""MiB of the disk, and how many of them the guest writes anew before the second backup."""
FULL, CONVERT = "backup, full", "qemu-img convert"
INCREMENTAL, WRITE = "backup, incremental", "as many bytes written to the host's disk"


def tables(stack: ExitStack, scratch: Path) -> list[Table]:
    """One table; a round is one backup of each kind, into a folder of its own."""
    disk = scratch / "disk.qcow2"
    _half_full(disk)
    stack.callback(_tinamou, "rm", "-f", "kept")
    _tinamou("run", "-d", "--name", "kept", "--net", "none", "--disk", str(disk))
    shelf, changed = scratch / "shelf", scratch / "changed"
    changed.write_bytes(os.urandom(CHANGED << 20))  # made before: to make it takes longer than to write it

    def full() -> Mapping[str, float]:
        shutil.rmtree(shelf, ignore_errors=True)
        return {"": _timed([str(TINAMOU), "backup", "create", "kept", str(shelf), "--full"])}

    def convert() -> Mapping[str, float]:
        copy = scratch / "copy.qcow2"
        try:
            return {"": _timed(["qemu-img", "convert", "-U", "-O", "qcow2", str(disk), str(copy)]) + _flushed(copy)}
        finally:
            copy.unlink(missing_ok=True)

    def incremental() -> Mapping[str, float]:
        _tinamou(
            "exec", "kept", "--", "sh", "-c", f"yes | dd of=/dev/vda bs=1M iflag=fullblock count={CHANGED} conv=fsync 2>&1"
        )
        return {"": _timed([str(TINAMOU), "backup", "create", "kept", str(shelf)])}

    def write() -> Mapping[str, float]:
        file = scratch / "written"
        words = ["dd", f"if={changed}", f"of={file}", "bs=1M", "conv=fsync"]
        try:
            return {"": _timed(words)}
        finally:
            file.unlink(missing_ok=True)

    ways = [Way(FULL, full), Way(CONVERT, convert), Way(INCREMENTAL, incremental), Way(WRITE, write)]
    bars: list[Bar] = [AtLeast(FULL, 0.9, CONVERT), Within(INCREMENTAL, 1.2, WRITE)]
    notes = [f"A disk of {SIZE} MiB, half of it random data; {CHANGED} MiB are written before an incremental backup."]
    return [Table(f"backups of {SIZE} MiB half full", ways, CONVERT, notes, bars=bars)]


def _half_full(disk: Path) -> None:
    plain = disk.with_suffix(".raw")
    with plain.open("wb") as file:
        file.truncate(SIZE << 20)
        for _ in range(SIZE // 2):
            file.write(os.urandom(1 << 20))
    subprocess.run(["qemu-img", "convert", "-O", "qcow2", plain, disk], check=True)
    plain.unlink()
    disk.chmod(0o666)


def _tinamou(*words: str) -> None:
    subprocess.run([str(TINAMOU), *words], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def _timed(words: Sequence[str]) -> float:
    began = time.perf_counter()
    subprocess.run(words, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    return time.perf_counter() - began


def _flushed(file: Path) -> float:
    """Seconds until a file is on the host's disk, as a backup is when it is told of."""
    began = time.perf_counter()
    with file.open("rb") as copy:
        os.fsync(copy)
    return time.perf_counter() - began
