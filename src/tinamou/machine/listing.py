"""What is told of machines to whoever asks: one row of each, or everything about one, as plain data."""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from typing import Any

from tinamou.facts import files
from tinamou.monitor.states import State, at_rest
from tinamou.state.index import Look
from tinamou.state.record import Record

__all__ = ["COLUMNS", "described", "lines", "rows"]

COLUMNS = ("name", "state", "image", "arch", "accel", "pid", "age")


def lines(found: Look, records: Sequence[Record], states: Sequence[State]) -> list[list[str]]:
    """The columns of each machine, by name: those at rest as they were found, the others as they are."""
    now = time.time()
    told = [
        [name, "stopped", image, arch, accel, "", _age(now - created)]
        for name, image, arch, accel, created, _ in found.rows()
    ]
    for one, seen in zip(records, states, strict=True):
        told.append([one.name, seen.state, one.image, one.arch, one.accel, str(one.pid or ""), _age(now - one.created)])
    return sorted(told) if records else told


def rows(found: Look, records: Sequence[Record], states: Sequence[State]) -> list[dict[str, Any]]:
    """The same as tables; ``why`` says what keeps a machine's state from being known."""
    why = {record.name: seen.why for record, seen in zip(records, states, strict=True)}
    tables = [dict(zip(COLUMNS, line, strict=True)) for line in lines(found, records, states)]
    return [{**row, "pid": int(row["pid"] or 0) or None, "why": why.get(row["name"]) or None} for row in tables]


def _age(seconds: float) -> str:
    for unit, length in (("d", 86400), ("h", 3600), ("m", 60)):
        if seconds >= length:
            return f"{int(seconds // length)}{unit}"
    return f"{int(seconds)}s"


def _display(record: Record) -> str | None:
    """Where the guest's screen is, as viewers name it."""
    kind = record.spec.get("display", {}).get("type", "none")
    return None if kind == "none" else f"{kind}+unix://{record.file(f'run/{kind}.sock')}"


def _trusts(record: Record) -> list[str] | None:
    """The certificates its firmware trusts for Secure Boot, of a machine that has it."""
    boot = record.spec.get("boot", {})
    if not (boot.get("secure") or boot.get("secure_keys")):
        return None
    from tinamou.errors import ProbeError
    from tinamou.probe.keys import of_store

    try:
        owners = {os.geteuid(), *([record.uid] if record.uid is not None else [])}
        return [str(one) for one in of_store(record.file(files.UEFI_VARS), owners)]
    except ProbeError as error:
        return [f"unknown: {error.why}"]


def described(record: Record) -> dict[str, Any]:
    """The machine as plain data; ``state`` is only running, suspended or stopped here."""
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
        "qmp": str(record.file("qmp2.sock")),
        "ssh": f"{record.ssh_user or 'root'}@127.0.0.1:{record.ssh_port}" if record.ssh_port else None,
        "display": _display(record),
        "directory": record.directory,
        "uid": record.uid,
        "ephemeral": record.ephemeral,
        "template": record.template or None,
        "base": record.base or None,
        "former": record.former or None,
        "created": record.created,
        "timings": record.timings,
        "spec": record.spec,
        "later": record.later or None,
    }
