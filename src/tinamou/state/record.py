"""One machine as the state directory holds it: ``machine.json``, replaced whole, never edited in place."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

from tinamou.errors import StateError
from tinamou.late import dataclass
from tinamou.system.spawn import Process, alive

__all__ = ["Record", "read", "write"]

FORMAT = 1


@dataclass(frozen=True)
class Record:
    """A machine's entry. ``pid`` is 0 while it does not run.

    ``pinning`` are the CPUs of each vCPU, ``timings`` seconds by stage, ``encrypted`` what encrypts its memory (``SEV-SNP``,
    empty for nothing); all are of the last start. ``parent`` is the checkpoint it was
    forked from. ``resident`` tells that the image brings the program that answers first. ``log_from`` is the byte of
    ``serial.log`` with which the last start began, ``ended`` why QEMU is gone, where nobody asked it to go.
    """

    name: str
    directory: str
    spec: dict[str, Any]
    ephemeral: bool = False
    uid: int | None = None
    created: float = 0.0
    arch: str = ""
    accel: str = ""
    machine_type: str = ""
    binary: str = ""
    image: str = ""
    ssh_port: int | None = None
    ssh_user: str = ""
    agent: bool = True
    resident: bool = False
    pid: int = 0
    started: int = 0
    owner_pid: int = 0
    owner_started: int = 0
    pinning: list[str] = dataclasses.field(default_factory=list)
    encrypted: str = ""
    parent: str = ""
    timings: dict[str, float] = dataclasses.field(default_factory=dict)
    log_from: int = 0
    ended: str = ""
    format: int = FORMAT

    @property
    def process(self) -> Process | None:
        """Its QEMU, None while it does not run."""
        return Process(self.pid, self.started) if self.pid else None

    @property
    def running(self) -> bool:
        """Whether its QEMU is alive."""
        return self.process is not None and alive(self.process)

    @property
    def owned(self) -> bool:
        """Whether the command that is starting or attending it is alive."""
        return bool(self.owner_pid) and alive(Process(self.owner_pid, self.owner_started))

    def file(self, name: str) -> Path:
        """One of the machine's files."""
        return Path(self.directory) / name


def write(record: Record) -> None:
    """Replace the machine's entry as a whole."""
    path = record.file("machine.json")
    part = path.with_suffix(".part")
    descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        json.dump(dataclasses.asdict(record), file, indent=1)
    part.replace(path)


def read(directory: Path) -> Record | None:
    """The machine in that folder; None where there is none (any more). Raises StateError for an entry that is damaged."""
    path = directory / "machine.json"
    try:
        data = json.loads(path.read_text())
        return Record(**{key: value for key, value in data.items() if key in _FIELDS})
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (ValueError, TypeError) as error:
        fix = f"remove the machine with tinamou rm -f {directory.name}"
        raise StateError(f"the entry of machine {directory.name} is damaged", why=f"{path}: {error}", fix=fix) from error


_FIELDS = frozenset(field.name for field in dataclasses.fields(Record))
