"""Which files of the host a program is made of when it runs: itself, its libraries, and the folders it looks for more in."""

from __future__ import annotations

import os
import select
import subprocess
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import IO, cast

from tinamou.system.jail import beyond_the_system

__all__ = ["folders_of"]

_SECONDS = 20.0
_SEARCHED = (b"LD_LIBRARY_PATH", b"QEMU_MODULE_DIR")
"""Variables that name folders of libraries; the script that starts a program may set them."""


def folders_of(argv: Sequence[str], data: Iterable[str] = ()) -> tuple[str, ...]:
    """The files and folders beyond those of the system that a program needs to run, and those of its ``data``.

    It is started, and ended when it has said something on stdout: what is mapped by then counts (source: proc_pid_maps(5)).
    """
    found = {os.path.realpath(argv[0])}
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as process:
        try:
            select.select([cast("IO[bytes]", process.stdout)], [], [], _SECONDS)
            place = Path(f"/proc/{process.pid}")
            for line in (place / "maps").read_text().splitlines():
                path = line.partition("/")[2]
                if path and not path.endswith(" (deleted)"):
                    found.add(_part(f"/{path}"))
            named = dict(entry.partition(b"=")[::2] for entry in (place / "environ").read_bytes().split(b"\0"))
        except OSError:
            named = {}
        finally:
            process.kill()
    searched = (folder for name in _SEARCHED for folder in os.fsdecode(named.get(name, b"")).split(":"))
    found |= {folder for folder in searched if folder and Path(folder).is_dir()}
    return beyond_the_system(found | {folder for one in data for folder in _with_targets(Path(one))})


def _part(path: str) -> str:
    """Of a library its folder, where those are that it asks for later; else the file."""
    return os.path.dirname(path) if ".so" in os.path.basename(path) else path  # noqa: PTH119, PTH120


def _with_targets(folder: Path) -> set[str]:
    """A folder, and those its links lead to."""
    if not folder.is_dir():
        return set()
    return {os.path.realpath(folder), *(os.path.dirname(os.path.realpath(one)) for one in folder.iterdir())}  # noqa: PTH120
