"""What a guest's serial log tells: how far the boot came, and what stopped it. Pure: text in, findings out."""

from __future__ import annotations

import re
from collections.abc import Sequence
from enum import IntEnum

from tinamou.late import dataclass, replace

__all__ = ["BootFinding", "Stage", "cause_of", "clean", "diagnose", "reached"]


class Stage(IntEnum):
    """How far a machine came. Each stage includes the ones before it."""

    QEMU = 1
    FIRMWARE = 2
    KERNEL = 3
    USERSPACE = 4
    AGENT = 5
    READY = 6


@dataclass(frozen=True)
class BootFinding:
    """Something recognised in the log.

    ``fatal``: this guest will not answer any more. ``until`` is the stage that proves it harmless (a boot entry that failed
    before another one worked). ``grace``: seconds to let the log complete, or the firmware go on, before believing it.
    """

    kind: str
    line: str
    meaning: str
    fix: str = ""
    fatal: bool = True
    until: Stage = Stage.READY
    grace: float = 0.3


_Sign = tuple[re.Pattern[str], BootFinding]


def _sign(
    kind: str,
    pattern: str,
    meaning: str,
    fix: str = "",
    *,
    fatal: bool = True,
    until: Stage = Stage.READY,
    grace: float = 0.3,
) -> _Sign:
    return re.compile(pattern, re.MULTILINE), BootFinding(kind, "", meaning, fix, fatal, until, grace)


_NO_DISK = "check that the image is bootable with this firmware (--firmware bios|uefi), and complete"
_UNSIGNED = "use a signed boot chain, enrol your own keys, or turn Secure Boot off"

_SIGNS = (
    _sign(
        "no-root",
        r"VFS: (?:Unable to mount root fs|Cannot open root device).*",
        "the kernel has no root filesystem",
        "name it (root=…), and give the initrd that belongs to this kernel",
    ),
    _sign(
        "no-rdinit",
        r"check access for rdinit=\S+ failed.*",
        "the initrd has no program of the name that rdinit= gives, or there is no initrd",
        "check rdinit= and the initrd",
        fatal=False,
    ),
    _sign(
        "no-init",
        r"No working init found.*|Requested init \S+ failed.*",
        "the kernel found no program to start as process 1",
        "check init= and rdinit=, and that the initrd is complete and of the guest's architecture",
    ),
    _sign(
        "init-died",
        r"Attempted to kill init!.*",
        "process 1 of the guest ended",
        "look at what it printed before; see the serial log",
    ),
    _sign(
        "no-root-device",
        r"Gave up waiting for root.*|ALERT!\s+\S+ does not exist.*|dracut-initqueue.*: Warning: /dev/\S+ does not exist",
        "the initramfs did not find the root disk",
        "check root= and that the initramfs has the disk's driver (virtio_blk, virtio_scsi)",
        grace=1.0,
    ),
    _sign(
        "initramfs-shell",
        r"^\(initramfs\)|Dropping to a shell!|^:/# |Entering emergency mode\. Exit the shell|You are in emergency mode.*",
        "the guest stopped in an emergency shell",
        "the lines before it say what is missing; attach with: tinamou console NAME",
        grace=1.0,
    ),
    _sign(
        "grub-rescue",
        r"^grub rescue>|Entering rescue mode\.\.\.",
        "GRUB did not find its files",
        "the disk is incomplete, or was partitioned again after GRUB was installed",
        until=Stage.KERNEL,
        grace=1.0,
    ),
    _sign(
        "grub-shell",
        r"^grub> ",
        "GRUB found no configuration and waits at its prompt",
        "the disk has no grub.cfg where GRUB looks for it",
        until=Stage.KERNEL,
        grace=3.0,
    ),
    _sign(
        "secure-boot",
        r"(?:BdsDxe: failed to (?:load|start) .*: )?(?:Access Denied|Security Violation|bad shim signature)\b",
        "Secure Boot refused what should be booted: it is not signed by a key the firmware trusts",
        _UNSIGNED,
        until=Stage.KERNEL,
        grace=8.0,
    ),
    _sign(
        "uefi-shell",
        r"UEFI Interactive Shell v.*|^Shell> ",
        "UEFI found nothing to boot and started its shell",
        _NO_DISK,
        until=Stage.KERNEL,
        grace=8.0,
    ),
    _sign(
        "no-boot-device",
        r"No bootable device.*|BdsDxe: No bootable option or device was found.*|No bootable option or device.*",
        "the firmware found nothing to boot",
        _NO_DISK,
        until=Stage.KERNEL,
        grace=1.0,
    ),
    _sign(
        "bad-disk",
        r"Boot failed: (?:not a bootable disk|could not read the boot disk).*|^Missing operating system",
        "the disk has no boot loader for this firmware",
        _NO_DISK,
        fatal=False,
        until=Stage.KERNEL,
    ),
    _sign(
        "oom",
        r"Out of memory: Killed process.*|invoked oom-killer.*|Out of memory and no killable processes.*",
        "the guest ran out of memory",
        "give it more: --memory",
        fatal=False,
    ),
    _sign(
        "initrd-unpack",
        r"Initramfs unpacking failed.*|rootfs image is not initramfs.*|RAMDISK: .*image too big.*",
        "the kernel could not unpack the initrd",
        "the initrd is damaged, of an unknown compression, or larger than the guest's memory",
        fatal=False,
    ),
    _sign(
        "oops",
        r"BUG: (?:unable to handle|kernel NULL).*|(?:Internal error: )?Oops: .*|^\[[^\]]*\] general protection fault.*",
        "the guest's kernel hit a bug",
        fatal=False,
    ),
    _sign(
        "no-timer",
        r"IO-APIC \+ timer doesn't work!.*",
        "the guest's kernel did not see timer interrupts in time (the host is loaded)",
        "boot with no_timer_check",
        fatal=False,
    ),
    _sign(
        "lockup", r"(?:soft lockup|hard LOCKUP|rcu_(?:sched|preempt).* stall).*", "a guest CPU made no progress", fatal=False
    ),
    _sign(
        "panic",
        r"Kernel panic - not syncing.*|end Kernel panic.*",
        "the guest's kernel panicked",
        "the lines before it in the serial log say why",
    ),
    _sign(
        "login",
        r"^\S+ login: ?$",
        "the guest reached its login prompt, but no guest agent answered",
        "install qemu-guest-agent in the image (or let the seed do it), or use ssh",
        fatal=False,
    ),
)

_KERNEL = re.compile(r"^(?:\[ *\d+\.\d+\] |Linux version |Booting Linux on physical CPU|EFI stub: Booting)", re.MULTILINE)
_FAILED_INIT = r"\[[^\]]*\] (?:Run |Starting init|Failed to execute|Kernel panic)"
_USERSPACE = re.compile(
    rf"Run \S+ as init process[^\n]*\n(?!{_FAILED_INIT})[^\n]|systemd\[1\]|Welcome to (?!GRUB).{{3,60}}!|^INIT: version|"
    r"OpenRC \d|Loading, please wait|^\S+ login:|^BusyBox v",
    re.MULTILINE,
)
_ESCAPE = re.compile(
    r"\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)|[PX^_][^\x1b]*\x1b\\|[@-Z\\-_]|[ -/]+[0-~])|\x1b"
)
_CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f]")
_LINE_END = re.compile(r"(?<!\r)\r+\n\r*|\n\r*")
_MOVE = re.compile(r"\x1b\[\d+;\d+H")


def clean(raw: bytes) -> str:
    """A serial log as readable text: no escape sequences or control characters, one line per line the guest drew."""
    text = _LINE_END.sub("\n", raw.decode(errors="replace"))
    text = _MOVE.sub("\n", text)
    text = _ESCAPE.sub("", text).replace("\r", "\n")
    text = _CONTROL.sub("", text).replace("\ufffd", "")
    return re.sub(r"\n[ \t]*\n(?:[ \t]*\n)+", "\n\n", text)


def reached(text: str) -> Stage:
    """The furthest stage that a clean log proves; an empty log proves only that QEMU runs."""
    if _USERSPACE.search(text):
        return Stage.USERSPACE
    if _KERNEL.search(text):
        return Stage.KERNEL
    return Stage.FIRMWARE if text.strip() else Stage.QEMU


def cause_of(findings: Sequence[BootFinding]) -> BootFinding | None:
    """The finding that best explains why a guest does not answer: fatal ones first, a panic only for want of better."""
    telling = [finding for finding in findings if finding.kind != "panic"] or findings
    return next((finding for finding in telling if finding.fatal), None) or next(iter(telling), None)


def diagnose(text: str, stage: Stage = Stage.QEMU) -> tuple[BootFinding, ...]:
    """Everything recognised in a clean log, causes before effects, fatal or not; what ``stage`` disproves is left out."""
    stage = max(stage, reached(text))
    findings = []
    for pattern, finding in _SIGNS:
        if stage < finding.until and (match := pattern.search(text)):
            line = next(line for line in match[0].splitlines() if line.strip())
            findings.append(replace(finding, line=line.strip()))
    return tuple(findings)
