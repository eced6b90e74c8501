"""A machine with persistent memory: a file it writes to, and one it reads."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from fields import Group, guest, host

MIB = 1 << 20
_THERE = "until [ -e /dev/pmem1 ] || [ $((i += 1)) -gt 600 ]; do sleep 0.1; done;"
"""The kernel looks for such memory while the guest boots on."""


def _describe(place: Path) -> dict[str, Any]:
    for number in range(2):
        (place / f"memory{number}").write_bytes(f"from the host {number}".encode().ljust((number + 1) * 2 * MIB, b"\0"))
    files = [{"path": str(place / "memory0")}, {"path": str(place / "memory1"), "readonly": True}]
    return {"name": "walk", "accel": "tcg", "arch": "x86_64", "memory": {"size": "256M"}, "pmem": files}


PERSISTENT = Group(
    _describe,
    {
        "pmem[].path": guest(
            f"{_THERE} head -c 15 /dev/pmem0; cat /sys/block/pmem1/size", f"from the host 0{4 * MIB // 512}"
        ),
        "pmem[].readonly": host(
            lambda seen: (seen.prop("pmem0", "readonly"), seen.prop("pmem1", "readonly")), (False, True)
        ),
    },
)
