"""Files that all machines of this host share: in a folder nobody else can write to, of this boot alone, under one lock.

What is read is acted on, so that a file of somebody else, one others can write to, or a link is never believed.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tinamou.errors import StateError
from tinamou.system.lock import take
from tinamou.system.paths import run_dir
from tinamou.system.plain_file import OddFileError, folder_fault, read_own
from tinamou.system.replaced import replace_text

__all__ = ["fault", "held", "read", "write"]

_LOCK = "tinamou.lock"
_MOST = 16 << 20


def read(name: str) -> dict[str, Any]:
    """What the file says; nothing where it is missing, of an earlier boot, damaged, or not to be believed (`fault`)."""
    return _read(name)[0]


def fault(name: str) -> str:
    """Why the file there is not believed, in one sentence; empty where it is, or there is none."""
    return _read(name)[1]


def _read(name: str) -> tuple[dict[str, Any], str]:
    if not run_dir().exists():
        return {}, ""
    wrong = _folder_fault(run_dir())
    path = run_dir() / name
    if wrong and path.exists():
        return {}, f"{path} is not read: {wrong}"
    try:
        data = json.loads(read_own(path, most=_MOST))
        return (data, "") if data["boot"] == boot() else ({}, "")
    except FileNotFoundError:
        return {}, ""
    except OddFileError as error:
        return {}, f"{error}: it is not read"
    except (OSError, ValueError, TypeError, KeyError, RecursionError) as error:
        return {}, f"{path} is damaged and not read: {error!r}"


@functools.cache
def boot() -> str:
    """What tells this boot of the host from every other."""
    return Path("/proc/sys/kernel/random/boot_id").read_text().strip()


def _folder_fault(folder: Path) -> str:
    return folder_fault(folder.resolve())


@contextlib.contextmanager
def held() -> Iterator[None]:
    """The files are nobody else's until the block ends. Raises StateError where the folder is not to be trusted."""
    folder = run_dir()
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        wrong = _folder_fault(folder)
        if wrong:
            raise _refused(folder, wrong)
        flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK
        descriptor = os.open(folder / _LOCK, flags, 0o600)
    except OSError as error:
        raise _refused(folder, str(error)) from error
    try:
        os.fchmod(descriptor, 0o600)
        take(descriptor, folder / _LOCK)
        yield
    finally:
        os.close(descriptor)


def _refused(folder: Path, why: str) -> StateError:
    fix = "remove it, or let TINAMOU_RUN name a folder that is yours alone"
    return StateError(f"what machines of this host share cannot be kept in TINAMOU_RUN = {folder}", why=why, fix=fix)


def write(name: str, data: Mapping[str, Any]) -> None:
    """Replace the file as a whole; whatever had its name is gone. Raises StateError."""
    try:
        replace_text(run_dir() / name, json.dumps({"boot": boot(), **data}))
    except OSError as error:
        raise _refused(run_dir(), str(error)) from error
