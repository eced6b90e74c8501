"""Do steps in order, and undo what was taken outside the machine's directory when one fails.

Files in the machine's directory need no journal: they go with the directory. A file that is there already is kept, so that
a machine that starts again finds its disks.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import assert_never

from tinamou.blueprint import (
    BuildIso,
    ClaimSocket,
    CopyFile,
    CreateImage,
    CreateOverlay,
    EnrollKeys,
    HandOver,
    HostStep,
    JoinBridge,
    JoinNetwork,
    JoinOvs,
    LeaseCpus,
    LendFile,
    LoadProfiles,
    MakeCgroup,
    MakeDir,
    MakeMacvtap,
    MakeSharedFile,
    MakeSshKey,
    MakeTap,
    NetStep,
    OpenTap,
    ReachSocket,
    ReserveHugepages,
    ReservePort,
    SetKernelValue,
    SetRules,
    SetUpTpm,
    SetVirtualFunction,
    StartHelper,
    Step,
    TakePart,
    TakePciGroup,
    TakeUsbDevice,
    WriteText,
)
from tinamou.errors import PrepareError, if_full
from tinamou.prepare import groups, helper_processes, profiles
from tinamou.prepare.journal import Entry, Journal
from tinamou.system.exec import CommandError, run
from tinamou.system.replaced import replace_text

__all__ = ["apply", "run_timed_hash", "undo"]


def apply(steps: Iterable[Step], directory: Path) -> None:
    """Do every step. Raises PrepareError after undoing what these steps did outside ``directory``."""
    journal = Journal(directory)
    before = set(journal.open_entries())

    def ours(entry: Entry) -> bool:
        return entry["took"] not in before

    for step in steps:
        try:
            _do(step, journal)
        except PrepareError:
            journal.give_back(undo, ours)
            raise
        except (OSError, CommandError) as error:
            journal.give_back(undo, ours)
            fix = if_full(str(error), "start it again; or put TINAMOU_STATE on a larger file system")
            raise PrepareError(f"{_described(step)} failed", why=str(error), fix=fix) from error


def undo(entry: Entry) -> None:
    """Give one thing back. Raises PrepareError for a kind that nothing takes."""
    match entry["kind"]:
        case "helper":
            from tinamou.prepare.helper_processes import stop as give
        case "cpus" | "hugepages" as kind:
            from tinamou.prepare import borrow

            give = borrow.give_cpus if kind == "cpus" else borrow.give_pages
        case "value":
            from tinamou.prepare.borrow import give_value as give
        case "cgroup":
            from tinamou.prepare.groups import remove_group as give
        case "pci":
            from tinamou.prepare.passthrough import give_group as give
        case "usb" | "mdev" | "frames" | "lent" as kind:
            from tinamou.prepare import frames, lent_files, mediated, usb

            ways = {"usb": usb.give_device, "mdev": mediated.give, "frames": frames.remove, "lent": lent_files.take_back}
            give = ways[str(kind)]
        case "vf":
            from tinamou.prepare.virtual_functions import set_back as give
        case "profiles":
            from tinamou.prepare.profiles import remove as give
        case "link" | "rules" | "socket" as kind:
            from tinamou.prepare import wires

            give = {"link": wires.remove_link, "rules": wires.remove_rules, "socket": wires.remove_socket}[str(kind)]
        case "ovs-port":
            from tinamou.prepare.wires import leave_ovs as give
        case "network":
            from tinamou.prepare.networks import leave as give
        case kind:
            raise PrepareError(f"how to give back a {kind} is not known", fix="use the version of tinamou that took it")
    give(entry)


def _described(step: Step) -> str:
    target = getattr(step, "path", getattr(step, "name", ""))
    return f"{type(step).__name__} {target} ({step.why.reason})"


def _hand_to(path: Path, owner: int | None) -> None:
    if owner is not None:
        os.chown(path, owner, owner)


def _make_dir(step: MakeDir) -> None:
    path = Path(step.path)
    path.mkdir(mode=step.mode, exist_ok=True)
    _hand_to(path, step.owner)


def _copy_file(step: CopyFile) -> None:
    path = Path(step.path)
    if step.anew or not path.exists():
        import shutil

        part = path.with_name(path.name + ".part")
        part.unlink(missing_ok=True)
        part.touch(0o600)
        shutil.copyfile(step.source, part)
        part.chmod(step.mode)
        part.rename(path)
        _hand_to(path, step.owner)


def _create_overlay(step: CreateOverlay) -> None:
    from tinamou.system.qcow2 import write_overlay

    path = Path(step.path)
    if not path.exists():
        write_overlay(path, step.size, step.backing, step.backing_format)
        path.chmod(0o600)
        _hand_to(path, step.owner)


def _create_image(step: CreateImage) -> None:
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


def _write_seed(step: WriteText | BuildIso) -> None:
    """A disc stays as the first start wrote it, a text is that of the description at every start."""
    path = Path(step.path)
    if isinstance(step, BuildIso) and path.exists():
        return
    public = path.with_name("id_ed25519.pub")
    told = {"@MACHINE_KEY@": public.read_text().strip() if public.exists() else ""}
    if isinstance(step, WriteText):
        replace_text(path, _told(step.text, told))
    else:
        from tinamou.system.iso import build_iso

        told |= {"@PASSWORD@": _password(step.password)} if step.password else {}
        build_iso(path, step.label, {name: _told(text, told) for name, text in step.files.items()})
        path.chmod(0o600)
        _hand_to(path, step.owner)


def _told(text: str, told: Mapping[str, str]) -> str:
    for mark, value in told.items():
        text = text.replace(mark, value)
    return text


def _password(path: str) -> str:
    """The first line of a file, as answer files of Windows have passwords."""
    from tinamou.parts.answers import hidden

    return hidden(Path(path).read_text().partition("\n")[0].rstrip("\r"))


def _make_ssh_key(step: MakeSshKey) -> None:
    if not Path(step.path).exists():
        run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "tinamou", "-f", step.path])


def _do(step: Step, journal: Journal) -> None:
    """What most machines do not need is imported with the first step that needs it."""
    match step:
        case MakeDir():
            _make_dir(step)
        case CopyFile():
            _copy_file(step)
        case CreateOverlay():
            _create_overlay(step)
        case CreateImage():
            _create_image(step)
        case WriteText() | BuildIso():
            _write_seed(step)
        case MakeSshKey():
            _make_ssh_key(step)
        case HandOver():  # opened by launch/ when QEMU starts
            profiles.admit(step, journal)
        case StartHelper():
            helper_processes.start(step, journal)
        case EnrollKeys():
            from tinamou.prepare import secure_boot

            secure_boot.enroll(step)
        case SetUpTpm():
            from tinamou.prepare import tpm

            tpm.set_up(step)
        case (
            LeaseCpus()
            | LendFile()
            | LoadProfiles()
            | MakeCgroup()
            | MakeSharedFile()
            | ReserveHugepages()
            | SetKernelValue()
            | SetVirtualFunction()
            | TakePart()
            | TakePciGroup()
            | TakeUsbDevice()
        ):
            _borrow(step, journal)
        case _:
            _wire(step, journal)


def _borrow(step: HostStep, journal: Journal) -> None:
    if isinstance(step, MakeCgroup):
        groups.make_group(step, journal)
        return
    from tinamou.prepare import borrow

    match step:
        case LeaseCpus():
            borrow.lease_cpus(step, journal)
        case ReserveHugepages():
            borrow.reserve_pages(step, journal)
        case SetKernelValue():
            borrow.set_value(step, journal)
        case TakePciGroup():
            from tinamou.prepare import passthrough

            passthrough.take_group(step, journal)
        case TakeUsbDevice():
            from tinamou.prepare import usb

            usb.take_device(step, journal)
        case MakeSharedFile():
            from tinamou.prepare import frames

            frames.make(step, journal)
        case LendFile():
            from tinamou.prepare import lent_files

            lent_files.lend(step, journal)
        case TakePart():
            from tinamou.prepare import mediated

            mediated.take(step, journal)
        case SetVirtualFunction():
            from tinamou.prepare import virtual_functions

            virtual_functions.set_for_guest(step, journal)
        case LoadProfiles():
            profiles.load(step, journal)
        case _:
            assert_never(step)


def _wire(step: NetStep, journal: Journal) -> None:
    if isinstance(step, JoinNetwork):
        from tinamou.prepare import networks

        networks.join(step, journal)
        return
    from tinamou.prepare import wires

    match step:
        case ReachSocket():
            wires.reach_socket(step)
        case ClaimSocket():
            wires.claim_socket(step, journal)
        case ReservePort():
            wires.reserve_port(step)
        case MakeTap():
            wires.make_tap(step, journal)
        case MakeMacvtap():
            wires.make_macvtap(step, journal)
        case JoinBridge():
            wires.join_bridge(step)
        case JoinOvs():
            wires.join_ovs(step, journal)
        case SetRules():
            wires.set_rules(step, journal)
        case OpenTap():
            pass  # like HandOver
        case _:
            assert_never(step)
