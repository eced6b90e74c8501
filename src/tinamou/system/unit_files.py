"""Unit files of systemd that tinamou writes: put into their folder, taken away; told to systemd where it runs."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path

from tinamou.system.exec import run
from tinamou.system.paths import unit_dir

__all__ = ["removed", "systemctl", "systemd_runs", "written"]


def written(files: Mapping[str, str]) -> list[Path]:
    """Write unit files by their names (a drop-in's is ``NAME.d/FILE``), and have systemd read them. Raises OSError."""
    paths = [unit_dir() / name for name in files]
    for path, text in zip(paths, files.values(), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    systemctl("daemon-reload")
    return paths


def removed(paths: Iterable[Path]) -> list[Path]:
    """Remove unit files and links that are there, and folders of drop-ins that are empty then; those that were there."""
    gone = [path for path in paths if os.path.lexists(path)]
    for path in gone:
        path.unlink()
        if path.parent.suffix == ".d" and not any(path.parent.iterdir()):
            path.parent.rmdir()
    if gone:
        systemctl("daemon-reload")
    return gone


def systemd_runs() -> bool:
    """Whether systemd is the init of this host (sd_booted(3))."""
    return Path("/run/systemd/system").is_dir()


def systemctl(*words: str) -> None:
    """Tell the systemd of this user, or the host's where this is root; nothing where none runs. Raises CommandError."""
    if systemd_runs():
        run(["systemctl", *([] if os.geteuid() == 0 else ["--user"]), *words], timeout=30)
