"""Where tinamou keeps things: state (machines), cache (facts) and images, each overridable by environment."""

from __future__ import annotations

import os
import zlib
from pathlib import Path

__all__ = ["cache_dir", "image_dir", "ram_dir", "state_dir"]


def _base(variable: str, system: str, user: str) -> Path:
    override = os.environ.get(variable)
    if override:
        return Path(override).absolute()
    if os.geteuid() == 0:
        return Path(system)
    return Path.home() / user


def state_dir() -> Path:
    """Machines: ``$TINAMOU_STATE``, else /var/lib/tinamou for root, else ~/.local/state/tinamou."""
    return _base("TINAMOU_STATE", "/var/lib/tinamou", ".local/state/tinamou")


def cache_dir() -> Path:
    """What can be made again: ``$TINAMOU_CACHE``, else /var/cache/tinamou for root, else ~/.cache/tinamou."""
    return _base("TINAMOU_CACHE", "/var/cache/tinamou", ".cache/tinamou")


def image_dir() -> Path:
    """Built and downloaded guests, below the cache."""
    return cache_dir() / "images"


def ram_dir() -> Path:
    """Where checkpoints' memory lies: a folder in shared memory that belongs to this user and this state directory."""
    return Path("/dev/shm") / f"tinamou-{os.geteuid()}-{zlib.crc32(os.fsencode(state_dir())):08x}"  # noqa: S108
