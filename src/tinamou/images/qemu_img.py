"""qemu-img on images nobody vouches for: what it says of one, and pieces of what one holds."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Sequence
from typing import Any

from tinamou.errors import ImageError
from tinamou.system.closing import Closing
from tinamou.system.exec import CommandError
from tinamou.system.shut_in import ask

__all__ = ["MISSING", "check", "complaint", "extract", "info"]

_SECONDS, _CPU_SECONDS = 20.0, 10
QEMU_IMG = "qemu-img"
MISSING = "apt-get install -y --no-install-recommends qemu-utils"
"""What to do where there is no qemu-img."""


def info(path: str, format: str, others: Sequence[str]) -> dict[str, Any]:
    """What ``qemu-img info`` says of one file, which may read ``others`` besides. Raises ImageError."""
    said = _asked(path, [QEMU_IMG, "info", "--output=json", "-f", format, path], others)
    try:
        told = json.loads(said)
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{path} cannot be read as an image", why="qemu-img does not say what it is") from error
    if (
        not isinstance(told, dict)
        or not isinstance(told.get("virtual-size"), int)
        or not 0 <= told["virtual-size"] < 1 << 63
    ):
        raise ImageError(f"{path} cannot be read as an image", why="qemu-img does not say how large it is")
    return told


def check(path: str, image: Sequence[str], others: Sequence[str]) -> None:
    """Have ``image`` (in qemu-img's words, a part of ``path``) checked. Raises ImageError for a damaged one."""
    _asked(path, [QEMU_IMG, "check", "-q", *image], others)


def extract(path: str, format: str, others: Sequence[str], place: tuple[int, int]) -> bytes:
    """The bytes of the guest's disk at ``place`` (offset, length). Raises ImageError."""
    offset, length = place
    file = {"driver": format, "file": {"driver": "file", "filename": path}}
    source = "json:" + json.dumps({"driver": "raw", "offset": offset, "size": length, "file": file})
    with Closing(os.memfd_create("piece", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)) as memory:
        os.ftruncate(memory, length)
        fcntl.fcntl(memory, fcntl.F_ADD_SEALS, fcntl.F_SEAL_GROW | fcntl.F_SEAL_SHRINK)
        argv = [QEMU_IMG, "convert", "-n", "-O", "raw", source, f"/proc/self/fd/{memory}"]
        _asked(path, argv, others, [memory])
        return os.pread(memory, length, 0)


def complaint(error: CommandError) -> str:
    """Why qemu-img failed, in one line."""
    if error.status in (-9, -24):
        return "qemu-img was ended: it computed for longer than any sound image of that size takes"
    lines = error.stderr.strip().splitlines()[-1:]
    return lines[0][:500] if lines else f"qemu-img ended with status {error.status}"


def _asked(path: str, argv: Sequence[str], others: Sequence[str], inherited: Sequence[int] = ()) -> str:
    try:
        return ask(argv, reads=[path, *others], seconds=_SECONDS, cpu_seconds=_CPU_SECONDS, pass_fds=inherited)
    except CommandError as error:
        raise ImageError(f"{path} cannot be read as an image", why=complaint(error)) from error
    except TimeoutError as error:
        raise ImageError(f"{path} cannot be read as an image", why=str(error)) from error
    except FileNotFoundError as error:
        raise ImageError(f"{path} cannot be read as an image", why=str(error), fix=MISSING) from error
