"""Which accelerators work, found out by running a guest of a few instructions in each of them."""

from __future__ import annotations

import re
import time

from tinamou.facts.accel import AccelFacts, Trial
from tinamou.facts.qemu import QemuFacts
from tinamou.facts.stored import accel_from, to_plain
from tinamou.probe import cache
from tinamou.probe.accel_host import AccelHost, look
from tinamou.system import kvm
from tinamou.system.kvm import KvmOutcome
from tinamou.system.rooted import Rooted

__all__ = ["probe_accel"]

_PATIENCE = 20.0
_SECOND_CHANCE = 0.4
_CPU = {"kvm": ("host",), "mshv": ("host",), "hvf": ("host",), "nvmm": ("host", "max"), "whpx": ("max",), "tcg": ("max",)}
_DROPPED = {"0x10a": "-arch-capabilities"}
"""CPU features that set an MSR some hosts refuse (0x10a: IA32_ARCH_CAPABILITIES)."""

_KIN = {"x86_64": ("x86_64", "i386"), "aarch64": ("aarch64", "arm")}
"""Guest architectures the processor of a host can run besides its own."""

_KNOWN_WORDS = (
    (
        "HV_DENIED|entitlement",
        "macOS lets only signed programs use its hypervisor",
        "sign QEMU with the entitlement com.apple.security.hypervisor",
    ),
    ("HV_UNSUPPORTED", "this Mac, or the virtual machine it is, has no hypervisor", "use tcg"),
    (
        "WHPX: No accelerator found",
        "the Windows Hypervisor Platform is off",
        "turn on that Windows feature, then restart",
    ),
    ("/dev/mshv: No such file", "this host does not run on Microsoft's hypervisor", "use kvm or tcg"),
    ("Permission denied", "this user may not use it", "check the rights of the accelerator's device"),
    (
        "[Ii]nvalid accelerator|only modules|not built",
        "this QEMU lacks the accelerator, or its module is of another build",
        "install all of QEMU's packages in one version",
    ),
)


def probe_accel(qemu: QemuFacts, *, files: Rooted | None = None, cached: bool = True) -> AccelFacts:
    """Try every accelerator this binary and host could offer, best first; an earlier trial counts while neither changed.

    ``files`` is where the host's hints are read, for tests. What failed for a passing reason is tried again next time.
    """
    host = look(files or Rooted())
    try:
        identity = [*cache.binary_identity(qemu.binary), host.identity]
    except OSError:
        identity, cached = [qemu.binary, host.identity], False
    stored = cache.load("accel", qemu.binary, identity, accel_from) if cached else None
    if stored is not None:
        return stored
    tried = [_try(qemu, accel, host) for accel in _candidates(qemu, host)]
    facts = AccelFacts(qemu.arch, tuple(trial for trial, _ in tried))
    if all(settled for _, settled in tried):
        cache.store("accel", qemu.binary, identity, to_plain(facts))
    return facts


def _candidates(qemu: QemuFacts, host: AccelHost) -> list[str]:
    """What the binary offers; on Linux also KVM where it does not, for the report to say why."""
    offered = list(qemu.accels)
    return offered if "kvm" in offered or host.system != "Linux" else ["kvm", *offered]


def _try(qemu: QemuFacts, accel: str, host: AccelHost) -> tuple[Trial, bool]:
    begin = time.perf_counter()
    trial, settled = _not_possible(qemu, accel, host), True
    if trial is None and accel == "kvm":
        trial, settled = _kvm_alone(host)
    if trial is None:
        trial, settled = _in_qemu(qemu, accel)
    elapsed = round((time.perf_counter() - begin) * 1000, 1)
    return Trial(accel, trial.works, elapsed, trial.what, trial.why, trial.fix, trial.needs), settled


def _failed(accel: str, what: str, why: str, fix: str) -> Trial:
    return Trial(accel, False, 0.0, what, why, fix)


def _not_possible(qemu: QemuFacts, accel: str, host: AccelHost) -> Trial | None:
    if accel == "tcg":
        return None
    if qemu.arch not in _KIN.get(host.machine, (host.machine,)):
        why = f"the guest architecture differs from the host's: {qemu.arch} on {host.machine}"
        return _failed(accel, "not tried", why, f"use a guest for {host.machine}, or live with emulation")
    if accel not in qemu.accels:
        return _failed(accel, "not tried", f"{qemu.binary} was built without it", "use another QEMU (TINAMOU_QEMU)")
    return None


def _kvm_alone(host: AccelHost) -> tuple[Trial | None, bool]:
    """KVM without QEMU: cheap, and it names the instruction that fails. No trial is no objection."""
    from tinamou.probe.kvm_reasons import explain, missing

    failure = explain(_outcome(), host) if host.device else missing(host)
    if failure is None:
        return None, True
    return _failed("kvm", failure.what, failure.why, failure.fix), failure.settled


def _outcome() -> KvmOutcome:
    """One trial; where a busy host may have made the guest late, a second one with more time."""
    outcome = kvm.try_kvm()
    return kvm.try_kvm(seconds=_SECOND_CHANCE) if outcome.late and outcome.stage == "run" else outcome


def _in_qemu(qemu: QemuFacts, accel: str) -> tuple[Trial, bool]:
    from tinamou.probe.microguest import GuestRun, known, run_guest

    if not known(qemu):
        return _untested(qemu, accel), True
    model = next((name for name in _CPU[accel] if qemu.has(f"cpu:{name}")), "")
    needs: tuple[str, ...] = ()
    run: GuestRun = run_guest(qemu, accel, model, _PATIENCE)
    if model and (dropped := _dropped(run.stderr)):
        needs = (dropped,)
        run = run_guest(qemu, accel, f"{model},{dropped}", _PATIENCE)
    if run.answered:
        what = f"a guest of a few instructions answered in QEMU{f' with -cpu {model},{needs[0]}' if needs else ''}"
        return Trial(accel, True, run.milliseconds, what, needs=needs), True
    passing = accel == "tcg" or (run.late and "internal error" not in run.stderr)
    return _explained(accel, run.status, run.stderr, run.late), not passing


def _dropped(stderr: str) -> str:
    found = re.search(r"failed to set MSR (0x[0-9a-f]+)", stderr)
    return _DROPPED.get(found[1], "") if found else ""


def _untested(qemu: QemuFacts, accel: str) -> Trial:
    """Without a micro guest for the architecture only emulation may be taken on trust."""
    what = f"not tried: there is no trial guest for {qemu.arch}"
    return Trial(accel, accel == "tcg", 0.0, what, "" if accel == "tcg" else "untested", "" if accel == "tcg" else "use tcg")


def _explained(accel: str, status: int, stderr: str, late: bool) -> Trial:
    words = " ".join(stderr.split())
    if late:
        what = f"the guest in QEMU did not answer in time{f': {words}' if words else ''}"
    elif status < 0:
        what = f"QEMU died of signal {-status}: {words or 'it said nothing'}"
    else:
        what = f"QEMU ended with status {status}: {words or 'it said nothing'}"
    for pattern, why, fix in _KNOWN_WORDS:
        if re.search(pattern, stderr):
            return _failed(accel, what, why, fix)
    fix = "reinstall QEMU, or name another binary with TINAMOU_QEMU" if accel == "tcg" else "use tcg here"
    return _failed(accel, what, f"{accel} cannot run a guest on this host with this binary", fix)
