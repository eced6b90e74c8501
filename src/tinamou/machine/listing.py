"""What is told of machines to whoever asks: one row of each, or everything about one, as plain data."""

from __future__ import annotations

import contextlib
import functools
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tinamou.errors import ProbeError, SpecError
from tinamou.facts import files
from tinamou.monitor.states import State, at_rest
from tinamou.state.index import Look, shape_of
from tinamou.state.record import Record
from tinamou.state.replicated import late, replica_of
from tinamou.units import Size

__all__ = ["COLUMNS", "described", "lines", "rows", "size_of"]

COLUMNS = ("name", "state", "image", "arch", "accel", "cpus", "memory", "pid", "age", "address", "ports", "replica")

_CPUS, _MEMORY = 1, "512M"
"""What a description that says nothing of them asks for: to list machines, the parts that say so need not be loaded."""


def rows(found: Look, records: Sequence[Record], states: Sequence[State]) -> list[dict[str, Any]]:
    """A table for each machine, by name: those at rest as they were found, the others as they are.

    ``age`` is in seconds, ``memory`` in bytes; ``addresses`` and ``ports`` are where it is reached now; ``why`` says what
    keeps its state from being known. ``replica`` is the newest of its disks on another host, with its age, and ``late``,
    what is to be said where that is too old.
    """
    now = time.time()
    told = [
        _row(now, name, "stopped", shape, {"image": image, "arch": arch, "accel": accel, "created": created})
        for name, image, arch, accel, created, *shape, _, _ in found.rows()
    ]
    for one, seen in zip(records, states, strict=True):
        is_like = {"image": one.image, "arch": one.arch, "accel": one.accel, "created": one.created, "pid": one.pid or None}
        reached = {"addresses": addresses_of(one), "ports": ports_of(one)} if one.running else {}
        kept = {"replica": replica_of(one), "late": late(one) or None}
        told.append(_row(now, one.name, seen.state, shape_of(one), {**is_like, **reached, **kept, "why": seen.why or None}))
    return sorted(told, key=lambda row: str(row["name"]))


def _row(now: float, name: str, state: str, shape: Sequence[Any], more: Mapping[str, Any]) -> dict[str, Any]:
    cpus, memory = _size(shape)
    like = {"cpus": cpus, "memory": memory}
    first = {"name": name, "state": state, "image": "", "arch": "", "accel": "", "pid": None, "created": 0.0}
    last: dict[str, Any] = {"addresses": [], "ports": [], "replica": None, "late": None, "why": None}
    return {**first, **like, "age": int(now - more["created"]), **last, **more}


def size_of(record: Record) -> tuple[int, int]:
    """The virtual CPUs a machine has and its memory in bytes, also where its description cannot be read."""
    return _size(shape_of(record))


def _size(shape: Sequence[Any]) -> tuple[int, int]:
    cpus, memory = shape
    return cpus or _CPUS, _bytes(memory)


@functools.lru_cache(maxsize=256)
def _bytes(memory: str) -> int:
    """The memory that was asked for; 0 where a record says what no description can."""
    try:
        return int(Size.parse(memory or _MEMORY))
    except ValueError:
        return 0


def lines(tables: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The same in `COLUMNS`, for reading."""
    shown = [
        {
            **row,
            "memory": Size(row["memory"]).short,
            "pid": row["pid"] or "",
            "age": _age(row["age"]),
            "address": ", ".join(row["addresses"]),
            "ports": ", ".join(row["ports"]),
            "replica": f"{_age(row['replica']['age'])} {row['replica']['host']}" if row["replica"] else "",
        }
        for row in tables
    ]
    return [[str(row[column]) for column in COLUMNS] for row in shown]


def addresses_of(record: Record) -> list[str]:
    """Addresses at which this host reaches the guest: those of networks of tinamou's, and fixed ones."""
    said = record.spec.get("net", ())
    if isinstance(said, list | tuple) and not any(map(_may_have_address, said)):
        return []
    from tinamou.machine.parts_of import nics_of

    try:
        return [text for nic in nics_of(record) for text in (nic.address.partition("/")[0], nic.address6) if text]
    except SpecError:  # a description nobody can read keeps no other machine from being listed
        return []


def ports_of(record: Record) -> list[str]:
    """Ports of this host that lead into the guest, ``127.0.0.1:8080->80/tcp``; that of ssh first."""
    found = [f"127.0.0.1:{record.ssh_port}->22/tcp"] if record.ssh_port else []
    nets = [net for net in _listed(record.spec.get("net", ())) if isinstance(net, Mapping)]
    if not any("forward" in net for net in nets):
        return found
    from tinamou.parts.net.forwards import forwards_of

    for text in (text for net in nets for text in net.get("forward", ())):
        with contextlib.suppress(ValueError):
            found += [f"{_address(address)}:{port}->{to}/{kind}" for kind, address, port, to in forwards_of(text)]
    return found


def _may_have_address(net: Any) -> bool:
    """Whether a card, as a record describes it, can have an address known here: others need no reading of descriptions."""
    return not isinstance(net, Mapping) or net.get("type") == "bridge" or "address" in net


def _listed(value: Any) -> Sequence[Any]:
    return value if isinstance(value, list | tuple) else ()


def _address(text: str) -> str:
    return f"[{text}]" if ":" in text else text


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(seconds)}s"


def storage_of(record: Record) -> int:
    """Bytes that the machine's own files take on this host."""
    total = 0
    for folder, _, names in os.walk(record.directory):
        for name in names:
            with contextlib.suppress(OSError):
                total += os.lstat(os.path.join(folder, name)).st_blocks * 512  # noqa: PTH118
    return total


def _trusts(record: Record) -> list[str] | None:
    """The certificates its firmware trusts for Secure Boot, of a machine that has it."""
    boot = record.spec.get("boot", {})
    if not (boot.get("secure") or boot.get("secure_keys")):
        return None
    from tinamou.probe.keys import of_store

    try:
        owners = {os.geteuid(), *([record.uid] if record.uid is not None else [])}
        return [str(one) for one in of_store(record.file(files.UEFI_VARS), owners)]
    except ProbeError as error:
        return [f"unknown: {error.why}"]


def described(record: Record) -> dict[str, Any]:
    """The machine as plain data; ``state`` is only running, suspended or stopped here, memory and storage are in bytes."""
    cpus, memory = shape_of(record)
    return {
        "name": record.name,
        "state": "running" if record.running else at_rest(record),
        "ended": record.ended or None,
        "pid": record.pid or None,
        "arch": record.arch,
        "accel": record.accel,
        "machine_type": record.machine_type,
        "image": record.image,
        "binary": record.binary,
        "package": record.package or None,
        "pinning": record.pinning or None,
        "encrypted": record.encrypted or None,
        "trusts": _trusts(record),
        "qmp": str(record.file(files.QMP_VISITORS)),
        "ssh": f"{record.ssh_user or 'root'}@127.0.0.1:{record.ssh_port}" if record.ssh_port else None,
        "cpus": cpus or _CPUS,
        "memory": _bytes(memory),
        "addresses": addresses_of(record) if record.running else [],
        "ports": ports_of(record) if record.running else [],
        "storage": storage_of(record),
        "display": record.screen or None,
        "directory": record.directory,
        "uid": record.uid,
        "ephemeral": record.ephemeral,
        "template": record.template or None,
        "base": record.base or None,
        "former": record.former or None,
        "replica": replica_of(record),
        "notes": record.notes or None,
        "created": record.created,
        "timings": record.timings,
        "spec": record.spec,
        "later": record.later or None,
    }
