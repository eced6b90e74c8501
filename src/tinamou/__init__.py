"""Tinamou starts QEMU virtual machines the right way and keeps them right.

Public names are loaded on first use, so that importing the package costs nothing.
"""

from __future__ import annotations

__version__ = "0.1.0"
