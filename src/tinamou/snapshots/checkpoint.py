"""A checkpoint as it lies on disk: what it holds, what it was taken of, and whether it is still whole.

::

    STATE/checkpoints/NAME/checkpoint.json   the entry, written last: a folder without it is a checkpoint cut short
    STATE/checkpoints/NAME/state             the state of all devices, as QEMU wrote it
    STATE/checkpoints/NAME/state.zst         portable: the same with the memory, compressed
    STATE/checkpoints/NAME/disk0.qcow2 …     the disks as they were, hard links that nobody writes to any more
    STATE/checkpoints/NAME/vars.fd           UEFI variables
    STATE/checkpoints/NAME/lock              held while the checkpoint is being taken
    STATE/checkpoints/NAME/memory.log        what the process complained about that keeps an instant one's memory
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from tinamou import late
from tinamou.digest import file_digest
from tinamou.errors import ProbeError, Problem, StateError
from tinamou.facts.qemu import numbered
from tinamou.late import dataclass
from tinamou.probe.qemu import find_binary, probe_qemu
from tinamou.snapshots.history import Frozen
from tinamou.snapshots.ram import Held
from tinamou.state.entries import being_read
from tinamou.system.paths import state_dir
from tinamou.system.plain_file import read_own

if TYPE_CHECKING:
    from tinamou.blueprint import Plan

__all__ = [
    "Checkpoint",
    "File",
    "Kind",
    "OutdatedError",
    "check",
    "checkpoints_dir",
    "host_cpu",
    "identity_of",
    "intact",
    "read",
    "verify",
    "write",
]

FORMAT = 2
"""From 2 on the memory of an instant checkpoint is sealed and has no name; before it lay in /dev/shm, open to everybody."""
Kind = Literal["instant", "portable"]

_MOST = 64 << 20


@dataclass(frozen=True)
class File:
    """A file and how it looked when it was whole: size, time of the last change in ns, inode."""

    path: str
    size: int
    changed: int
    inode: int

    @classmethod
    def of(cls, path: str | Path) -> File:
        """The file as it is now. Raises OSError."""
        stat = os.stat(path)  # noqa: PTH116 (the path is kept as it was given)
        return cls(str(path), stat.st_size, stat.st_mtime_ns, stat.st_ino)


def identity_of(binary: str) -> File:
    """The program a checkpoint can be loaded by, links followed."""
    return File.of(os.path.realpath(binary))


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint. ``pause`` is how long the machine stood still, ``took`` how long it took in all, in seconds.

    ``plan`` and ``record`` are those of the machine it was taken of, as plain data; ``digest`` is of all arguments that
    shape the guest's hardware. ``ram`` says where an instant one's memory is, ``changes`` what is written over that in each
    fork, ``read_only`` whether its forks open that for reading alone, ``resident`` whether the guest can be given a new
    identity; ``guest`` what was found in it. ``parent`` is the checkpoint the machine was forked from, ``owner`` the process
    (number, start time) it is gone with, None for one that stays. ``disks`` are the frozen disks, ``files`` the names of the
    machine's other files kept with it. ``memory`` is the guest's, in bytes; ``why`` says why it is of this kind; ``cpu`` is
    the host's where the guest sees it (not under TCG); ``package`` the distribution's version of the QEMU, which patches it
    (``Debian 1:10.0.13+ds-0+deb13u1``).
    """

    name: str
    directory: str
    kind: Kind
    machine: str
    created: float
    plan: dict[str, Any]
    record: dict[str, Any]
    digest: str
    binary: File
    version: str
    state: File
    state_sha256: str
    ram: Held | None = None
    changes: Held | None = None
    disks: dict[str, Frozen] = late.field(default_factory=dict)
    files: list[str] = late.field(default_factory=list)
    parent: str = ""
    owner: tuple[int, int] | None = None
    resident: bool = False
    read_only: bool = True
    guest: dict[str, Any] = late.field(default_factory=dict)
    pause: float = 0.0
    took: float = 0.0
    memory: int = 0
    why: str = ""
    cpu: str = ""
    package: str = ""
    format: int = FORMAT

    def file(self, name: str) -> Path:
        """One of its files."""
        return Path(self.directory) / name

    def loaded_plan(self) -> Plan:
        """The plan of the machine it was taken of. Raises StateError when the entry is damaged."""
        from tinamou.blueprint.stored import plan_from

        try:
            return plan_from(self.plan)
        except (KeyError, TypeError) as error:
            raise StateError(
                f"the entry of checkpoint {self.name} is damaged", why=repr(error), fix=_remove(self)
            ) from error


def _remove(checkpoint: Checkpoint) -> str:
    if Path(checkpoint.directory).parent != checkpoints_dir():
        return f"put a copy back, or give the saved state up: tinamou kill {checkpoint.machine}"
    return f"tinamou checkpoints rm {checkpoint.name}, and take it again"


def checkpoints_dir() -> Path:
    """Where the checkpoints' folders are."""
    path = state_dir() / "checkpoints"
    if not path.is_dir():
        path.mkdir(parents=True, exist_ok=True)
        path.chmod(0o700)
    return path


def write(checkpoint: Checkpoint) -> None:
    """Write the entry as a whole; from then on there is such a checkpoint."""
    part = checkpoint.file("checkpoint.part")
    part.write_text(json.dumps(late.asdict(checkpoint)))
    part.replace(checkpoint.file("checkpoint.json"))


class OutdatedError(StateError):
    """An instant checkpoint of an older version: anybody could write to its memory."""


def read(directory: Path) -> Checkpoint | None:
    """The checkpoint in that folder, None where there is none (any more). Raises StateError for a damaged entry."""
    name = directory.name
    with being_read(f"the entry of checkpoint {name}", fix=f"tinamou checkpoints rm {name}"):
        data: dict[str, Any] = dict(json.loads(read_own(directory / "checkpoint.json", most=_MOST)))
        if data.get("format") == 1 and data["ram"]:
            why = "an older tinamou took it, and its memory lay open to every user of this host"
            raise OutdatedError(f"checkpoint {name} is not used any more", why=why, fix="take it again")
        files = {name: File(**data[name]) for name in ("binary", "state")}
        memories = {name: Held(**data[name]) if data.get(name) else None for name in ("ram", "changes")}
        owner = tuple(data["owner"]) if data["owner"] else None
        disks = {name: Frozen(**disk) for name, disk in data["disks"].items()}
        return Checkpoint(**{**data, **files, **memories, "owner": owner, "disks": disks})
    return None


def check(checkpoint: Checkpoint, environment: Mapping[str, str] = os.environ) -> None:
    """Whether it can be loaded here and now. Raises StateError with everything that differs."""
    portable = checkpoint.kind == "portable"
    asked = {} if checkpoint.owner else environment  # a fork of a running machine runs on the QEMU that has
    other = _version_problems(checkpoint) if portable else _binary_problems(checkpoint, asked)
    problems = [*other, *_file_problems(checkpoint)]
    if problems:
        raise StateError(f"{_called(checkpoint)} cannot be loaded", problems=problems)


def verify(checkpoint: Checkpoint) -> None:
    """Whether a portable one can be loaded here, its state examined byte by byte. Raises StateError."""
    check(checkpoint)
    intact(checkpoint)


def intact(checkpoint: Checkpoint) -> None:
    """Whether all of a portable one is there, and its state what was saved, byte by byte. Raises StateError."""
    if problems := _file_problems(checkpoint):
        raise StateError(f"{_called(checkpoint)} is not whole", problems=problems)
    found = file_digest(Path(checkpoint.state.path))
    if found != checkpoint.state_sha256:
        reason = f"is damaged: its SHA-256 is {found}, and was {checkpoint.state_sha256}"
        problem = Problem("state", checkpoint.state.path, reason, _remove(checkpoint))
        raise StateError(f"{_called(checkpoint)} cannot be loaded", problems=[problem])


def host_cpu() -> str:
    """The model and features of this host's CPU, in few words."""
    lines = Path("/proc/cpuinfo").read_text().partition("\n\n")[0].splitlines()
    told = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)}
    features = told.get("flags", told.get("Features", told.get("isa", "")))
    model = told.get("model name", told.get("CPU part", told.get("uarch", "CPU")))
    return f"{model}, features {hashlib.sha256(' '.join(sorted(features.split())).encode()).hexdigest()[:12]}"


def _called(checkpoint: Checkpoint) -> str:
    suspended = Path(checkpoint.directory).parent != checkpoints_dir()
    return f"the suspended state of {checkpoint.machine}" if suspended else f"checkpoint {checkpoint.name}"


def _version_problems(checkpoint: Checkpoint) -> list[Problem]:
    """A whole state may be loaded by any QEMU that has its board; whether it is, is seen when it is tried."""
    arch = str(checkpoint.plan["arch"])
    try:
        now = probe_qemu(find_binary(arch), arch)
    except ProbeError as error:
        return [Problem("QEMU", None, f"cannot be asked: {error.what}", error.fix)]
    problems = []
    kind, fix = str(checkpoint.plan["machine_type"]), f"point TINAMOU_QEMU at a QEMU {checkpoint.version}"
    if now.machine(kind) is None:
        problems.append(Problem("machine type", kind, f"is not known to {now.binary}", fix))
    elif not now.same_board(kind, checkpoint.version):
        here = numbered(now.version)
        reason = (
            f"has no version: in QEMU {here} it may be another board than in {checkpoint.version}, which saved the state"
        )
        problems.append(Problem("machine type", kind, reason, fix))
    if checkpoint.cpu and checkpoint.cpu != host_cpu():
        reason = f"is not this host's ({host_cpu()}), and its guest uses what that CPU could do"
        problems.append(Problem("CPU", checkpoint.cpu, reason, "load it on such a host"))
    return problems


def _binary_problems(checkpoint: Checkpoint, environment: Mapping[str, str]) -> list[Problem]:
    saved = checkpoint.binary
    request = environment.get("TINAMOU_QEMU", "").replace("{arch}", str(checkpoint.plan.get("arch", "")))
    request = request if "/" in request else ""
    try:
        now = identity_of(request or saved.path)
    except OSError as error:
        return [Problem("QEMU", saved.path, f"is gone: {error.strerror}", "install that version again")]
    if late.astuple(now) == late.astuple(saved):
        return []
    fix = f"use {saved.path}, or take the checkpoint again with {now.path}"
    reason = f"saved by {checkpoint.version} in {saved.path}, which is another binary: a state is only safe in its own"
    return [Problem("QEMU", now.path, reason, fix)]


def _file_problems(checkpoint: Checkpoint) -> list[Problem]:
    problems = _memory_problems(checkpoint)
    state = checkpoint.state
    try:
        now = File.of(state.path)
    except OSError as error:
        problems.append(Problem("device state", state.path, f"is gone ({error.strerror})", _remove(checkpoint)))
    else:
        if now != state:
            changed = f"{state.size} bytes then, {now.size} now" if now.size != state.size else "its content was written to"
            problems.append(Problem("device state", state.path, f"is not what was saved: {changed}", _remove(checkpoint)))
    for name, frozen in checkpoint.disks.items():
        if not checkpoint.file(frozen.file).exists():
            problems.append(Problem(name, frozen.file, "is gone", _remove(checkpoint)))
    return problems


def _memory_problems(checkpoint: Checkpoint) -> list[Problem]:
    """Sealed memory is there as it was saved, or not at all."""
    if checkpoint.kind == "portable":
        return []
    try:
        if checkpoint.ram is None:
            raise ProcessLookupError("nobody keeps it")
        for one in (checkpoint.ram, *([checkpoint.changes] if checkpoint.changes else [])):
            os.close(one.open())
    except OSError as error:
        reason = f"is gone ({error}): it does not outlive a restart of the host, nor the process that keeps it"
        return [Problem("memory", None, reason, _remove(checkpoint))]
    return []
