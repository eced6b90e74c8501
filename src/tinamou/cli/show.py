"""The verb ``show``: everything known about one machine."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator, Mapping
from typing import Any

from tinamou.cli import output
from tinamou.cli.grammar import Switch
from tinamou.cli.loop import run_until_done
from tinamou.facts import files
from tinamou.monitor.states import at_once, at_rest, state_of
from tinamou.state import machines
from tinamou.state.record import Record


def command(name: str, /, *, json: Switch = False) -> None:
    """Show one machine.

    Parameters
    ----------
    name
        The machine.
    """
    record = machines.find_usable(name)
    data = described(record)
    [seen] = at_once([record]) or [run_until_done(state_of(record))]
    data |= {"state": seen.state, "why": seen.why or None}
    if json:
        output.print_json(data)
        return
    data["created"] = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(data["created"]))
    rows = list(_flat(data))
    width = max(len(key) for key, _ in rows)
    for key, value in rows:
        print(f"{key:>{width}}  {value}")


def _flat(data: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """The rows of a nested table, ``spec.cpu.count``; what is empty is left out."""
    for key, value in data.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{above}{key}.")
        elif value not in (None, "", []):
            yield f"{above}{key}", value


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
