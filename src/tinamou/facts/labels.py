"""What tinamou's SELinux policy has: its file, the types of processes, and how many categories a label may choose from."""

from __future__ import annotations

from pathlib import Path

__all__ = ["CATEGORIES", "POLICY", "TYPES"]

POLICY = str(Path(__file__).with_name("tinamou.cil"))
"""What `semodule -i` loads."""
CATEGORIES = 1024
"""As many as the policies of every distribution have."""
TYPES = ("qemu", "qemu_net", "tcg", "tcg_net", "swtpm", "passt", "virtiofsd", "dnsmasq")
"""What a process may be, ``tinamou_TYPE_t``: QEMU in four kinds, and helper processes by the first part of their names."""
