"""How the user ids of machines and of their helpers lie to each other."""

from __future__ import annotations

__all__ = ["COUNT", "PASST", "TPM"]

COUNT = 65536
"""How many machines one host can give ids to. As many follow for each kind of helper with an identity of its own."""
PASST = COUNT
"""How far the id of a machine's passt lies from that of its QEMU: neither can signal or trace the other."""
TPM = 2 * COUNT
"""How far the TPM emulator's lies: QEMU can neither signal it nor read the TPM's secrets."""
