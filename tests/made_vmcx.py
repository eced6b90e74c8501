"""Settings of Hyper-V's as a .vmcx, made of nested tables."""

from __future__ import annotations

import struct
from typing import Any

NODE, STRING, UINT, BOOL = 9, 6, 4, 8


def made(tree: dict[str, Any], *, waiting: int = 0) -> bytes:
    """Two headers, a table of objects, an empty log, a table of keys; a long text lies apart."""
    keys, at, apart = 0x4000, 10, 0x20000
    table, far = bytearray(struct.pack("<HHHI", 2, 1, 1, 0)), bytearray()

    def put(name: str, value: Any, parent: tuple[int, int]) -> None:
        nonlocal at
        word = name.encode() + b"\0"
        flag, body = 0, b""
        if isinstance(value, dict):
            kind, body = NODE, bytes(12)
        elif isinstance(value, bool):
            kind, body = BOOL, struct.pack("<I", value)
        elif isinstance(value, int):
            kind, body = UINT, struct.pack("<Q", value)
        else:
            raw = value.encode("utf-16-le")
            kind, body = STRING, struct.pack("<I", len(raw)) + raw
            if len(raw) >= 0x800:
                flag, body = 0x100, struct.pack("<IQ", len(raw), apart + len(far))
                far.extend(raw)
        place = at
        entry = struct.pack("<HIHIIIB", kind | flag, 21 + len(word) + len(body), *parent, 0, 0, len(word)) + word + body
        table.extend(entry)
        at += len(entry)
        if isinstance(value, dict):
            for key, one in value.items():
                put(key, one, (1, place))

    for key, one in tree.items():
        put(key, one, (0, 0))
    table.extend(bytes(32))
    data = bytearray(apart) + far
    for place, sequence in ((0, 1), (0x1000, 2)):
        struct.pack_into("<IIHIQIQQI", data, place, 0x01282014, 0, sequence, 0x400, 0, 0x1000, 0x3000, 0x1000, 0x2000)
    struct.pack_into("<II", data, 0x2000, 0x01110001, 2)
    struct.pack_into("<BIQIB", data, 0x2008, 2, 0, keys, len(table), 1)
    struct.pack_into("<BIQIB", data, 0x2008 + 18, 4, 0, 0, 0, 0)
    struct.pack_into("<III", data, 0x3000, 0x01110003, 0, waiting)
    data[keys : keys + len(table)] = table
    return bytes(data)


MACHINE: dict[str, Any] = {
    "configuration": {
        "_aaaaaaaa-0000-0000-0000-000000000001_": {"controller0": {"drive0": {"type": "VHD", "pathname": "C:\\vm\\a.vhdx"}}},
        "manifest": {"vdev001": {"instance": "AAAAAAAA-0000-0000-0000-000000000001", "name": "Synthetic SCSI Controller"}},
        "properties": {"name": "Web", "subtype": 1, "notes": "n" * 2000},
        "settings": {"memory": {"bank": {"size": 1024, "dynamic_memory_enabled": False}}, "processors": {"count": 2}},
    }
}
"""A machine of generation 2 with one disk."""
