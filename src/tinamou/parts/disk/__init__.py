"""Disks: the image's own, and those the user adds; each is a chain of blockdev nodes and a device in front of it."""

from __future__ import annotations

from tinamou.parts.disk.aio import check as check_aio
from tinamou.parts.disk.contribute import contribute, needs
from tinamou.parts.disk.resolved import Disk, check, disks, numbered
from tinamou.parts.disk.spec import DiskSpec

__all__ = ["Disk", "DiskSpec", "check", "check_aio", "contribute", "disks", "needs", "numbered"]
