"""How long QEMU may take to answer a command, and how long its answer may be."""

from __future__ import annotations

from tinamou.control.wire import LARGE_BYTES, MESSAGE_BYTES

__all__ = ["CONNECT_SECONDS", "UNPLUG_SECONDS", "largest", "patience"]

CONNECT_SECONDS = 10.0
"""How long QEMU may take to greet."""

UNPLUG_SECONDS = 30.0
"""How long a guest may take to let go of a device."""

_SECONDS = 10.0

_DISK_SECONDS = 60.0
"""For what waits until data is on the host's disk: the guest may have written much that is not there yet."""

_WAITS_FOR_DISKS = frozenset(
    {
        "block_resize",
        "blockdev-add",
        "blockdev-create",
        "blockdev-del",
        "blockdev-remove-medium",
        "human-monitor-command",
        "job-finalize",
        "migrate",
        "migrate-continue",
        "query-migrate",
        "remove-fd",
        "stop",
        "transaction",
    }
)
"""``query-migrate`` because QEMU answers nothing while it saves the last of a machine's state."""

_LISTS_MUCH = frozenset(
    {
        "human-monitor-command",
        "query-block",
        "query-blockstats",
        "query-command-line-options",
        "query-commands",
        "query-fdsets",
        "query-named-block-nodes",
        "query-pci",
        "query-qmp-schema",
        "qom-list",
        "x-debug-query-block-graph",
    }
)


def patience(command: str) -> float:
    """Seconds until QEMU counts as silent."""
    return _DISK_SECONDS if command in _WAITS_FOR_DISKS else _SECONDS


def largest(command: str) -> int:
    """Bytes the answer may have at most."""
    return LARGE_BYTES if command in _LISTS_MUCH else MESSAGE_BYTES
