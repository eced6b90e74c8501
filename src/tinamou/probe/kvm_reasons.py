"""Why KVM cannot be used, and what to do about it: the outcome of a trial put into words, pure."""

from __future__ import annotations

import errno
import os

from tinamou.late import dataclass
from tinamou.probe.accel_host import AccelHost
from tinamou.system.kvm import DEVICE, KvmOutcome

__all__ = ["Failure", "explain", "missing"]

_API_VERSION = 12
_NEXT = {"": "its first instruction", "a": "POPCNT", "ab": "PXOR", "abc": "a loop of a million rounds"}
_EXITS = {
    0: "KVM_EXIT_UNKNOWN",
    1: "KVM_EXIT_EXCEPTION",
    6: "KVM_EXIT_MMIO",
    8: "KVM_EXIT_SHUTDOWN",
    9: "KVM_EXIT_FAIL_ENTRY",
    17: "KVM_EXIT_INTERNAL_ERROR",
}
_SUBERRORS = {1: "emulation failure", 2: "simultaneous exceptions", 3: "delivery event", 4: "unexpected exit reason"}
_ELSEWHERE = "use tcg here, or a host whose processor virtualizes (in a virtual machine: nested virtualization turned on)"


@dataclass(frozen=True)
class Failure:
    """What happened, why, what to do; ``settled`` when trying again on the same host will end the same way."""

    what: str
    why: str
    fix: str
    settled: bool = True


def missing(host: AccelHost) -> Failure:
    """Why there is no /dev/kvm."""
    what = f"{DEVICE} does not exist"
    capable = host.flags & {"vmx", "svm"}
    module = "kvm_amd" if "svm" in host.flags else "kvm_intel"
    if host.modules & {"kvm_intel", "kvm_amd"}:
        return Failure(
            what, "the module is loaded, but this container or chroot has no device node", "pass /dev/kvm into it"
        )
    if capable:
        why = f"the processor virtualizes ({', '.join(capable)}), but the kernel module {module} is not loaded"
        return Failure(
            what, why, f"modprobe {module}; when it refuses, turn on virtualization (VT-x, AMD-V) in the firmware"
        )
    if "hypervisor" in host.flags:
        why = "this host is itself a virtual machine, and its hypervisor does not hand virtualization on"
        return Failure(what, why, "turn on nested virtualization for this virtual machine, or run on the hypervisor's host")
    why, fix = _FIRMWARE.get(host.machine, _OTHER_FIRMWARE)
    return Failure(what, why, fix)


_FIRMWARE = {
    "x86_64": (
        "the processor shows neither vmx nor svm: virtualization is turned off in the firmware, or it has none",
        "turn on virtualization (Intel VT-x, AMD-V or SVM) in the firmware setup",
    ),
}
_OTHER_FIRMWARE = (
    "this kernel has no KVM, or the firmware started it without the right to virtualize",
    "use a kernel with CONFIG_KVM that was started in the hypervisor's mode (aarch64: EL2, riscv64: HS)",
)


def explain(outcome: KvmOutcome, host: AccelHost) -> Failure | None:
    """Why this trial failed; None when it did not."""
    if outcome.stage == "done" and outcome.steps == "abcd":
        return None
    if outcome.stage == "created" and outcome.version == _API_VERSION:
        return None
    if outcome.stage == "child":
        why = "the process that tried it hung" if outcome.late else "the process that tried it died"
        return Failure(f"the trial did not end: {outcome.message}", why, _ELSEWHERE, settled=False)
    if outcome.stage == "open":
        return _open(outcome, host)
    if outcome.version != _API_VERSION:
        return Failure(f"{DEVICE} speaks version {outcome.version}", f"KVM's is {_API_VERSION}", "use a newer kernel")
    return _refused(outcome) if outcome.errno else _code(outcome, host)


def _open(outcome: KvmOutcome, host: AccelHost) -> Failure:
    what = f"{DEVICE} could not be opened: {os.strerror(outcome.errno)}"
    if outcome.errno == errno.ENOENT:
        return missing(host)
    if outcome.errno in (errno.EACCES, errno.EPERM):
        if host.group_may and host.group:
            fix = f"usermod -aG {_group(host.group)} USER (as root), then log in again"
        else:
            fix = (
                'a udev rule: KERNEL=="kvm", GROUP="kvm", MODE="0660" (packages qemu-system-* bring it), then join group kvm'
            )
        return Failure(what, "this user may not read and write it", fix)
    if outcome.errno in (errno.ENODEV, errno.ENXIO):
        return Failure(what, "the node is there, but no module answers for it", missing(host).fix)
    return Failure(what, "the kernel refused", "look at the end of dmesg", settled=False)


def _group(number: int) -> str:
    try:
        from grp import getgrgid

        return getgrgid(number).gr_name
    except (ImportError, KeyError):
        return str(number)


def _refused(outcome: KvmOutcome) -> Failure:
    stage = {"vm": "make a virtual machine", "vcpu": "make a virtual CPU", "run": "run a virtual CPU"}.get(
        outcome.stage, "try"
    )
    what = f"{DEVICE} opens, but refused to {stage}: {os.strerror(outcome.errno)}"
    if outcome.errno == errno.EBUSY:
        why = "another hypervisor (VirtualBox, VMware) holds the processor's virtualization"
        return Failure(what, why, "stop its machines, or unload its module", settled=False)
    if outcome.errno in (errno.ENOMEM, errno.EINTR, errno.EAGAIN, errno.EMFILE, errno.ENFILE):
        return Failure(what, "the host is short of something at the moment", "try again", settled=False)
    return Failure(what, "the kernel's KVM does not work on this host", f"look at the end of dmesg; {_ELSEWHERE}")


def _code(outcome: KvmOutcome, host: AccelHost) -> Failure:
    at = _NEXT.get(outcome.steps.rstrip("!d"), "the end")
    if outcome.late:
        what = f"the guest was still at {at} when its time was up ({outcome.milliseconds:.0f} ms)"
        return Failure(what, _interpreted(host), _ELSEWHERE, settled=False)
    if "!" in outcome.steps:
        return Failure(f"{at} gave a wrong result", "this KVM does not run code faithfully", _ELSEWHERE)
    how = _EXITS.get(outcome.exit, f"exit reason {outcome.exit}")
    if outcome.exit == 17:
        how += f" ({_SUBERRORS.get(outcome.suberror, f'suberror {outcome.suberror}')})"
    bytes_ = f" ({outcome.instruction})" if outcome.instruction else ""
    before = "a guest started, but " if outcome.steps else ""
    return Failure(f"{before}{at}{bytes_} ended in {how}", _interpreted(host), _ELSEWHERE)


def _interpreted(host: AccelHost) -> str:
    why = "this KVM interprets guest code instead of running it on the processor"
    if "kvm_pvm" in host.modules:
        return f"{why} (the module kvm_pvm is loaded: a para-virtual KVM)"
    if "hypervisor" in host.flags:
        return f"{why} (this host is itself a virtual machine)"
    return why
