"""Guests installed from discs."""

from __future__ import annotations

from tinamou.machine.installing import Installed, install

__all__ = ["Installed", "install"]
