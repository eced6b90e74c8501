"""Hyper-V's storage of settings (.vmcx), read as nested tables; what is in them is read by `convert.hyperv`.

::

    header │ header │ 0x2000: table of objects: type, offset, size │ tables of keys │ large values │ log of changes

All numbers are little-endian. A key has its parent's table and place, its name, and a value of one of seven types; values
of 2 KiB and more lie apart. The layout is not published: Fox-IT's dissect.hypervisor describes it, a real file agrees.
"""

from __future__ import annotations

import struct
from typing import Any

from tinamou.errors import SpecError

__all__ = ["is_store", "tables"]

_MAGIC, _OBJECTS, _KEYS, _LOG = 0x01282014, 0x01110001, 2, 0x01110003
_HEADER, _ENTRY, _OBJECT = struct.Struct("<IIHIQIQQI"), struct.Struct("<HIHIIIB"), struct.Struct("<BIQIB")
_VERSION, _TABLE = 0x400, 0x2000
_TABLES, _KEYTABLE, _MOST = 1, 2, 20_000
_FREE, _INT, _UINT, _DOUBLE, _STRING, _ARRAY, _BOOL, _NODE = 1, 3, 4, 5, 6, 7, 8, 9


def is_store(data: bytes) -> bool:
    """Whether bytes begin like one."""
    return data[:4] == _MAGIC.to_bytes(4, "little")


def tables(data: bytes) -> dict[str, Any]:
    """All keys with their values. Raises SpecError for what is damaged, of another version, or has changes in its log."""
    try:
        return _read(data)
    except (struct.error, OverflowError, ValueError) as error:
        raise _damaged(str(error)) from error


def _damaged(why: str) -> SpecError:
    return SpecError("the settings of Hyper-V are damaged", why=why[:200], fix="export the machine again")


def _read(data: bytes) -> dict[str, Any]:
    heads = [_HEADER.unpack_from(data, at) for at in (0, 0x1000)]
    head = max((one for one in heads if one[0] == _MAGIC), key=lambda one: one[2])
    if head[3] != _VERSION:
        raise SpecError(f"the settings of Hyper-V are of version {head[3]:#x}", fix="export them from a newer Hyper-V")
    magic, _, waiting = struct.unpack_from("<III", data, head[6])
    if magic != _LOG:
        raise _damaged("no log of changes is where its header says")
    if waiting:
        why = f"{waiting} changes wait in its log"
        raise SpecError("the machine was not shut down", why=why, fix="shut it down, and export it again")
    newest: dict[int, tuple[int, int, int]] = {}
    for at, size in _key_tables(data):
        magic, index, sequence = struct.unpack_from("<HHH", data, at)
        if magic == _KEYS and sequence >= newest.get(index, (-1, 0, 0))[0]:
            newest[index] = (sequence, at, size)
    return _joined(data, newest)


def _key_tables(data: bytes) -> list[tuple[int, int]]:
    """Offset and size of each table of keys."""
    found, todo, seen = [], [_TABLE], set[int]()
    while todo:
        start = todo.pop()
        magic, count = struct.unpack_from("<II", data, start)
        if magic != _OBJECTS or count > _MOST or start in seen:
            raise ValueError("its table of objects is none")
        seen.add(start)
        for number in range(count):
            kind, _, at, size, used = _OBJECT.unpack_from(data, start + 8 + number * _OBJECT.size)
            if used and kind == _TABLES and at != start:
                todo.append(at)
            elif used and kind == _KEYTABLE:
                found.append((at, size))
    return found


def _joined(data: bytes, newest: dict[int, tuple[int, int, int]]) -> dict[str, Any]:
    nodes: dict[tuple[int, int], tuple[str, Any, tuple[int, int]]] = {}
    for index, (_, start, size) in newest.items():
        at = 10
        while at + _ENTRY.size <= size:
            kind, length, table, place, _, _, skip = _ENTRY.unpack_from(data, start + at)
            if not length:
                break
            if length < _ENTRY.size + skip or len(nodes) > _MOST:
                raise ValueError("a key has an impossible size")
            if kind & 0xFF != _FREE:
                inside = data[start + at + _ENTRY.size : start + at + length]
                name = inside[: max(0, skip - 1)].decode()
                nodes[index, at] = (name, _value(data, kind, inside[skip:]), (table, place))
            at += length
    root: dict[str, Any] = {}
    for name, value, parent in nodes.values():
        above = nodes[parent][1] if parent in nodes else root if not parent[0] else None
        if not isinstance(above, dict):
            raise ValueError(f"{name[:40]!r} hangs on nothing")
        above[name] = value
    return root


def _value(data: bytes, kind: int, raw: bytes) -> Any:
    apart, kind = bool(kind & 0x100), kind & 0xFF
    if kind == _NODE:
        return {}
    if kind in (_STRING, _ARRAY):
        size, at = struct.unpack_from("<IQ", raw) if apart else (struct.unpack_from("<I", raw)[0], 4)
        body = (data if apart else raw)[at : at + size]
        return body.decode("utf-16-le").rstrip("\0") if kind == _STRING else body.hex()
    if kind in (_INT, _UINT, _DOUBLE):
        return struct.unpack_from({_INT: "<q", _UINT: "<Q", _DOUBLE: "<d"}[kind], raw)[0]
    if kind == _BOOL:
        return struct.unpack_from("<I", raw)[0] != 0
    raise ValueError(f"a value is of the type {kind}")
