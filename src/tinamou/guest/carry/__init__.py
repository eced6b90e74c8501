"""Carrying files between this host and a guest: the line between them, the guest's scripts at its end, and bounds."""

from __future__ import annotations
