"""Part pci: devices of the host that the guest has for itself, through VFIO."""

from tinamou.parts.passthrough.cards import HOW_TO_LOCK, LOCAL, PART, locked, node
from tinamou.parts.passthrough.choice import choose
from tinamou.parts.passthrough.spec import AssignedDevice, PassthroughSpec

__all__ = ["HOW_TO_LOCK", "LOCAL", "PART", "AssignedDevice", "PassthroughSpec", "choose", "locked", "node"]
