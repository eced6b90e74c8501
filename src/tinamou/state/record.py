"""One machine's record, ``machine.json``, and the lock under which it and its neighbours are changed.

Whoever changes a record says what changes: `update` reads the newest one, changes it and replaces it under the machine's
lock, so that what another command wrote meanwhile stays.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tinamou import late
from tinamou.errors import StateError
from tinamou.facts import files
from tinamou.late import dataclass
from tinamou.state.entries import being_read
from tinamou.system.lock import take
from tinamou.system.plain_file import read_own
from tinamou.system.replaced import replace_text
from tinamou.system.spawn import Process, alive

__all__ = ["Record", "change", "create", "forget", "locked", "newest", "read", "update", "written_anew"]

FORMAT = 1
_MOST = 16 << 20


@dataclass(frozen=True)
class Record:
    """A machine's record. ``pid`` is 0 while it does not run.

    ``pinning`` are the CPUs of each vCPU, ``timings`` seconds by stage, ``encrypted`` what encrypts its memory (``SEV-SNP``,
    empty for nothing), ``package`` the distribution's version of QEMU; all are of the last start. ``parent`` is the
    checkpoint it was forked from. ``resident`` tells that the image brings the program that answers first. ``log_from`` is
    the byte of ``serial.log`` with which the last start began, ``ended`` why QEMU is gone, where nobody asked it to go.
    ``later`` is the description from the next start on, empty where that is ``spec``: a machine that runs, or is suspended,
    is what it was started as. ``former`` are the names it had before, the first one first; that is one of its own making,
    ``NAME~2``, where another machine was called NAME before. ``base`` is the machine it is a clone of, empty for none; a
    ``template`` is cloned and nothing else. ``generation`` counts the hosts it has had, ``move`` says where its last move is
    (`tinamou.state.moves`), ``replicated`` the ``host`` that has its newest replica, and ``at`` what second it was as that.
    ``notes`` are what must be said of a fork, until it is started anew: addresses its guest did not get.
    ``directory`` is where the record was read from, and not written down.
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
    package: str = ""
    image: str = ""
    ssh_port: int | None = None
    ssh_user: str = ""
    agent: bool = True
    resident: bool = False
    pid: int = 0
    started: int = 0
    owner_pid: int = 0
    owner_started: int = 0
    pinning: list[str] = late.field(default_factory=list)
    encrypted: str = ""
    parent: str = ""
    timings: dict[str, float] = late.field(default_factory=dict)
    log_from: int = 0
    ended: str = ""
    later: dict[str, Any] = late.field(default_factory=dict)
    former: list[str] = late.field(default_factory=list)
    base: str = ""
    template: bool = False
    generation: int = 0
    move: dict[str, Any] = late.field(default_factory=dict)
    replicated: dict[str, Any] = late.field(default_factory=dict)
    notes: list[str] = late.field(default_factory=list)
    format: int = FORMAT

    @property
    def identity(self) -> str:
        """The name that its addresses and its guest's identity are made of: the first one it had, no other machine's."""
        return self.former[0] if self.former else self.name

    @property
    def next_spec(self) -> dict[str, Any]:
        """Its description from the next start on."""
        return self.later or self.spec

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
        """Whether the process that starts or owns it is alive."""
        return bool(self.owner_pid) and alive(Process(self.owner_pid, self.owner_started))

    @property
    def path(self) -> Path:
        """Its folder."""
        return Path(self.directory)

    def file(self, name: str) -> Path:
        """One of the machine's files."""
        return Path(self.directory) / name

    @property
    def screen(self) -> str:
        """Where a viewer reaches its screen, ``vnc+unix://PATH``; empty where it has none."""
        kind = self.spec.get("display", {}).get("type", "none")
        return "" if kind == "none" else f"{kind}+unix://{self.file(f'run/{kind}.sock')}"

    def has(self, name: str) -> bool:
        """Whether the machine's description says something of this field."""
        return name in self.spec


def create(record: Record) -> Record:
    """Write the record of a machine that is being made, whose folder nobody else writes to."""
    _write(record)
    return record


def update(directory: Path, changed: Callable[[Record], Record]) -> Record:
    """Change a machine's record under its lock; the record as it is now.

    ``changed`` is given the newest one. Raises StateError for a machine that is gone; nothing is written then.
    """
    with locked(directory):
        newest = read(directory)
        if newest is None:
            raise _gone(directory)
        now = changed(newest)
        if now != newest:
            _write(now)
        return now


def change(record: Record, **fields: Any) -> Record:
    """Set these fields of a machine's record and leave all others as they are now. Raises as `update` does."""
    return update(record.path, lambda newest: late.replace(newest, **fields))


def written_anew(directory: Path) -> Record:
    """Have the file say what the record is, which its folder's name is part of. Raises as `update` does."""
    with locked(directory):
        found = read(directory)
        if found is None:
            raise _gone(directory)
        _write(found)
        return found


def newest(record: Record) -> Record:
    """The record as it is now. Raises StateError for a machine that is gone."""
    found = read(record.path)
    if found is None:
        raise _gone(record.path)
    return found


def forget(directory: Path) -> None:
    """Remove the record: from now on the folder is no machine, and whoever comes to change it is told so."""
    with contextlib.suppress(StateError), locked(directory):
        (directory / files.RECORD).unlink(missing_ok=True)


@contextlib.contextmanager
def locked(directory: Path) -> Iterator[None]:
    """The machine's JSON files are nobody else's to change until the block ends, which it does at once.

    Raises StateError for a machine that is gone.
    """
    try:
        descriptor = os.open(directory / files.LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    except FileNotFoundError:
        raise _gone(directory) from None
    try:
        take(descriptor, directory / files.LOCK)
        yield
    finally:
        os.close(descriptor)


def _gone(directory: Path) -> StateError:
    return StateError(f"machine {directory.name} is gone", why="another command removed it", fix="tinamou ls")


def _write(record: Record) -> None:
    plain = late.asdict(record)
    del plain["directory"]
    replace_text(record.file(files.RECORD), json.dumps(plain, indent=1))


def read(directory: Path, *, owner: int | None = None) -> Record | None:
    """The machine in that folder; None where there is none (any more). Raises StateError for a record that is damaged.

    It is this user's own, or ``owner``'s.
    """
    fix = f"remove the machine with tinamou rm -f {directory.name}"
    with being_read(f"the record of machine {directory.name}", fix=fix):
        data = json.loads(read_own(directory / files.RECORD, most=_MOST, owner=owner))
        known = {key: value for key, value in data.items() if key in _KINDS}
        odd = [key for key, value in known.items() if not _KINDS[key](value)]
        if odd:
            raise ValueError(f"{odd[0]} is {known[odd[0]]!r:.60}")
        return _of_folder(Record(**{**known, "directory": str(directory)}))
    return None


def _of_folder(found: Record) -> Record:
    """The record under the name of its folder: that is what a machine is called, and it had another one before."""
    name = found.path.name
    if found.name == name:
        return found
    spec, later = ({**one, "name": name} if one else one for one in (found.spec, found.later))
    return late.replace(found, name=name, former=[*found.former, found.name], spec=spec, later=later)


def _is(*kinds: type) -> Callable[[object], bool]:
    return lambda value: type(value) in kinds


def _listed(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(one, str) for one in value)


def _timed(value: object) -> bool:
    return isinstance(value, dict) and all(type(one) in (int, float) for one in value.values())


_BY_TYPE: dict[str, Callable[[object], bool]] = {
    "str": _is(str),
    "bool": _is(bool),
    "int": _is(int),
    "float": _is(int, float),
    "int | None": _is(int, type(None)),
    "dict[str, Any]": _is(dict),
    "list[str]": _listed,
    "dict[str, float]": _timed,
}
_KINDS = {field.name: _BY_TYPE[str(field.type)] for field in late.fields(Record)}
"""Field → whether a value is one it can have."""
