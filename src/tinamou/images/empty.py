"""New, empty image files, of every format that machines have disks in."""

from __future__ import annotations

import asyncio
from pathlib import Path

from tinamou.errors import ImageError, Problem, SpecError
from tinamou.images.offline import made
from tinamou.system.qcow2 import write_overlay
from tinamou.units import Size

__all__ = ["FORMATS", "create", "format_of"]

FORMATS = ("qcow2", "raw", "vmdk", "vhdx", "vdi", "vpc")

_ENDINGS = {**{f".{name}": name for name in FORMATS}, ".img": "raw", ".vhd": "vpc"}
_LOOSE = (".img", "")
"""Endings that promise nothing."""


def format_of(path: Path, asked: str = "") -> str:
    """The format of a new file: the one asked for, else the one its name's ending stands for. Raises SpecError."""
    ending = path.suffix.lower()
    meant = _ENDINGS.get(ending, "")
    if asked and asked not in FORMATS:
        problem = Problem("format", asked, "not a format that machines have disks in", f"write {', '.join(FORMATS)}")
    elif not asked and not meant:
        problem = Problem("format", None, f"the name {path.name} does not tell which", "add for example --format qcow2")
    elif asked and meant not in ("", asked) and ending not in _LOOSE:
        fix = f"name it {path.stem}.{asked}, or ask for {meant}"
        problem = Problem("format", asked, f"the name {path.name} stands for {meant}", fix)
    else:
        return asked or meant
    raise SpecError(f"what {path} is to be is not clear", problems=[problem])


async def create(path: Path, size: Size, format: str = "") -> None:
    """Make an empty image of ``size`` bytes, rounded up to whole sectors. Raises SpecError, ImageError, OSError.

    ``format`` is one of `FORMATS`; by the ending of the name when left out. No file is left after an error.
    """
    kind = format_of(path, format)
    if path.exists():  # noqa: ASYNC240 (a look)
        raise ImageError(f"{path} exists already", fix="remove it, or name another file")
    if kind == "qcow2":
        await asyncio.to_thread(_qcow2, path, size)
        return
    target = path.absolute()  # noqa: ASYNC240
    force = ["-o", "force_size=on"] if kind == "vpc" else []
    argv = ["qemu-img", "create", "-q", "-f", kind, *force, str(target), str(int(size.whole))]
    await made(argv, f"making {path.name}", (), target, mode=0o600)


def _qcow2(path: Path, size: Size) -> None:
    try:
        write_overlay(path, size)
    except ValueError as error:
        problem = Problem("size", str(size), str(error), "ask for less, or for another format")
        raise SpecError(f"{path} cannot be made", problems=[problem]) from error
