"""Disks: the image's own, and those the user adds; each is a chain of blockdev nodes and a device in front of it."""

from __future__ import annotations

from tinamou.parts.disk.contribute import PART
from tinamou.parts.disk.disk import PlanDisk, disks, numbered
from tinamou.parts.disk.spec import DiskSpec

__all__ = ["PART", "DiskSpec", "PlanDisk", "disks", "numbered"]
