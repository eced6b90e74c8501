"""Unit files of systemd that tinamou writes: put into their folder, taken away; told to systemd where it runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from tinamou.system.exec import run
from tinamou.system.paths import unit_dir
from tinamou.system.signals import held_back

__all__ = ["put", "removed", "systemctl", "systemd_runs", "taken", "written"]


def written(files: Mapping[str, str]) -> list[Path]:
    """Write unit files, all of them or none, and have systemd read them. Raises OSError."""
    with held_back():
        paths = put(files)
    systemctl("daemon-reload")
    return paths


def put(files: Mapping[str, str]) -> list[Path]:
    """Write unit files by their names (a drop-in's is ``NAME.d/FILE``). Raises OSError."""
    paths = [unit_dir() / name for name in files]
    for path, text in zip(paths, files.values(), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return paths


def removed(paths: Iterable[Path]) -> list[Path]:
    """Remove unit files, all of them or none, and have systemd read the rest; those that were there."""
    with held_back():
        gone = taken(paths)
    if gone:
        systemctl("daemon-reload")
    return gone


def taken(paths: Iterable[Path]) -> list[Path]:
    """Remove unit files and links that are there, and folders of drop-ins that are empty then; those that were there."""
    gone = [path for path in paths if os.path.lexists(path)]
    for path in gone:
        path.unlink()
        if path.parent.suffix == ".d" and not any(path.parent.iterdir()):
            path.parent.rmdir()
    return gone


def systemd_runs() -> bool:
    """Whether systemd is the init of this host (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def systemctl(*words: str) -> None:
    """Tell the systemd of this user, or the host's where this is root; nothing where none runs. Raises CommandError."""
    if systemd_runs():
        run(["systemctl", *([] if os.geteuid() == 0 else ["--user"]), *words], timeout=30)
