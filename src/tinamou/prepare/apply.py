"""Do steps in order, and undo what was taken outside the machine's directory when one fails.

Files in the machine's directory need no journal: they go with the directory. A file that is there already is kept, so that
a machine that starts again finds its disks.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from pathlib import Path

from tinamou.blueprint import (
    BuildIso,
    ClaimSocket,
    CopyFile,
    CreateImage,
    CreateOverlay,
    HandOver,
    JoinBridge,
    JoinNetwork,
    JoinOvs,
    LendCpus,
    MakeCgroup,
    MakeDir,
    MakeMacvtap,
    MakeSshKey,
    MakeTap,
    OpenTap,
    ReachSocket,
    ReserveHugepages,
    ReservePort,
    SetKernelValue,
    SetRules,
    SetUpTpm,
    StartHelper,
    Step,
    TakePciGroup,
    WriteFile,
)
from tinamou.errors import PrepareError
from tinamou.prepare.journal import Entry, Journal
from tinamou.system.exec import CommandError, run

__all__ = ["apply", "run_timed_hash", "undo"]


def apply(steps: Iterable[Step], directory: Path) -> None:
    """Do every step. Raises PrepareError after undoing what these steps did outside ``directory``."""
    journal = Journal(directory)
    before = set(journal.open_entries())

    def ours(entry: Entry) -> bool:
        return entry["took"] not in before

    for step in steps:
        try:
            _EXECUTORS[type(step)](step, journal)
        except PrepareError:
            journal.give_back(undo, ours)
            raise
        except (OSError, CommandError) as error:
            journal.give_back(undo, ours)
            fix = "free some space, or put TINAMOU_STATE on a larger file system" if getattr(error, "errno", 0) == 28 else ""
            raise PrepareError(f"{_described(step)} failed", why=str(error), fix=fix or "see the reason above") from error


def undo(entry: Entry) -> None:
    """Give one thing back; the undoer is found by the kind that was written down."""
    _UNDOERS[str(entry["kind"])](entry)


def _described(step: Step) -> str:
    target = getattr(step, "path", getattr(step, "name", ""))
    return f"{type(step).__name__} {target} ({step.why.reason})"


def _hand_to(path: Path, owner: int | None) -> None:
    if owner is not None:
        os.chown(path, owner, owner)


def _make_dir(step: MakeDir, _: Journal) -> None:
    path = Path(step.path)
    path.mkdir(mode=step.mode, exist_ok=True)
    _hand_to(path, step.owner)


def _write_file(step: WriteFile, _: Journal) -> None:
    path = Path(step.path)
    if not path.exists():
        path.write_text(step.content)
        path.chmod(step.mode)
        _hand_to(path, step.owner)


def _copy_file(step: CopyFile, _: Journal) -> None:
    path = Path(step.path)
    if not path.exists():
        import shutil

        part = path.with_name(path.name + ".part")
        shutil.copyfile(step.source, part)
        part.chmod(step.mode)
        part.rename(path)
        _hand_to(path, step.owner)


def _create_overlay(step: CreateOverlay, _: Journal) -> None:
    from tinamou.system.qcow2 import write_overlay

    path = Path(step.path)
    if not path.exists():
        write_overlay(path, step.size, step.backing, step.backing_format)
        path.chmod(0o600)
        _hand_to(path, step.owner)


def _create_image(step: CreateImage, _: Journal) -> None:
    path = Path(step.path)
    if not path.exists():
        luks = "encrypt.format=luks,encrypt.key-secret=key,encrypt.iter-time=500"
        locked = ["--object", f"secret,id=key,file={step.key}", "-o", luks]
        argv = ["qemu-img", "create", "-q", "-f", step.format, *(locked if step.key else []), str(path), str(int(step.size))]
        run_timed_hash(argv) if step.key else run(argv)
        path.chmod(0o600)
        _hand_to(path, step.owner)


def run_timed_hash(argv: list[str], attempts: int = 20) -> None:
    """Run a qemu-img that times how fast this host derives a key: where the kernel counts processor time in ticks, the
    first trial can take none of it, and qemu-img gives up."""
    for left in reversed(range(attempts)):
        try:
            run(argv)
            return
        except CommandError as error:
            if not left or "accurate CPU usage" not in error.stderr:
                raise


def _build_iso(step: BuildIso, _: Journal) -> None:
    from tinamou.system.iso import build_iso

    path = Path(step.path)
    if not path.exists():
        public = path.with_name("id_ed25519.pub")
        key = public.read_text().strip() if public.exists() else ""
        build_iso(path, step.label, {name: text.replace("@MACHINE_KEY@", key) for name, text in step.files.items()})
        path.chmod(0o600)
        _hand_to(path, step.owner)


def _make_ssh_key(step: MakeSshKey, _: Journal) -> None:
    if not Path(step.path).exists():
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tinamou", "-f", step.path])


def _hand_over(step: HandOver, _: Journal) -> None:
    """Opened by launch/ when QEMU starts."""


def lazily(module: str, name: str) -> Callable[..., None]:
    """An executor that is imported when it is first needed: most machines need few of them."""

    def do(*arguments: object) -> None:
        import importlib

        getattr(importlib.import_module(f"tinamou.prepare.{module}"), name)(*arguments)

    return do


_EXECUTORS: dict[type, Callable[..., None]] = {
    MakeDir: _make_dir,
    WriteFile: _write_file,
    CopyFile: _copy_file,
    CreateOverlay: _create_overlay,
    CreateImage: _create_image,
    BuildIso: _build_iso,
    MakeSshKey: _make_ssh_key,
    HandOver: _hand_over,
    StartHelper: lazily("companions", "start"),
    LendCpus: lazily("borrow", "lend_cpus"),
    ReserveHugepages: lazily("borrow", "reserve_pages"),
    SetKernelValue: lazily("borrow", "set_value"),
    MakeCgroup: lazily("borrow", "make_group"),
    TakePciGroup: lazily("passthrough", "take_group"),
    ReachSocket: lazily("wires", "reach_socket"),
    ClaimSocket: lazily("wires", "claim_socket"),
    ReservePort: lazily("wires", "reserve_port"),
    MakeTap: lazily("wires", "make_tap"),
    MakeMacvtap: lazily("wires", "make_macvtap"),
    OpenTap: lazily("wires", "opened_later"),
    JoinBridge: lazily("wires", "join_bridge"),
    JoinOvs: lazily("wires", "join_ovs"),
    SetRules: lazily("wires", "set_rules"),
    JoinNetwork: lazily("networks", "join"),
    SetUpTpm: lazily("tpm", "set_up"),
}

_UNDOERS: dict[str, Callable[[Entry], None]] = {
    "helper": lazily("companions", "stop"),
    "cpus": lazily("borrow", "give_cpus"),
    "hugepages": lazily("borrow", "give_pages"),
    "value": lazily("borrow", "give_value"),
    "cgroup": lazily("borrow", "remove_group"),
    "pci": lazily("passthrough", "give_group"),
    "link": lazily("wires", "remove_link"),
    "rules": lazily("wires", "remove_rules"),
    "socket": lazily("wires", "remove_socket"),
    "ovs-port": lazily("wires", "leave_ovs"),
    "network": lazily("networks", "leave"),
}
