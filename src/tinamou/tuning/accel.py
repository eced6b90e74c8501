"""Which accelerator runs the guest: the one that was asked for, or the best that was proven to work."""

from __future__ import annotations

from tinamou.arch import Arch
from tinamou.blueprint import Flag, Note, Why
from tinamou.errors import PlanError
from tinamou.facts import AccelFacts, HostFacts, Trial
from tinamou.units import Size

_NAMES = {"kvm": "KVM", "hvf": "HVF", "whpx": "WHPX", "nvmm": "NVMM", "mshv": "MSHV", "tcg": "TCG emulation"}
STRONGLY_ORDERED_HOSTS = frozenset({"x86_64", "i386", "s390x"})


def choose(wish: str, facts: AccelFacts) -> tuple[Trial, Why, tuple[Note, ...]]:
    """The trial to rely on, why, and what the user must hear. Raises PlanError when the wish cannot be had."""
    if wish != "auto":
        return _named(wish, facts), Why("spec accel", f"{_NAMES.get(wish, wish)} was asked for, and ran code in a trial"), ()
    best = facts.best()
    if best is None:
        tried = "; ".join(f"{t.accel}: {t.what}" for t in facts.trials) or "none is built into this QEMU"
        raise PlanError(
            f"no accelerator works for {facts.arch}", why=tried, fix="install another QEMU, or see tinamou doctor"
        )
    why = Why("accelerator trial", f"the best accelerator that ran code here ({best.what}, {best.milliseconds:.0f} ms)")
    failed = [trial for trial in facts.trials if not trial.works]
    if best.accel != "tcg" or not failed:
        return best, why, ()
    reasons = "; ".join(f"{_NAMES.get(t.accel, t.accel)}: {t.what}" for t in failed)
    return best, why, (Note("warning", f"running under TCG emulation, much slower than hardware: {reasons}", why),)


def _named(wish: str, facts: AccelFacts) -> Trial:
    trial = facts.of(wish)
    if trial is None:
        known = ", ".join(t.accel for t in facts.trials)
        raise PlanError(
            f"accelerator {wish} is not available", why=f"this QEMU and host offer: {known}", fix="use --accel auto"
        )
    if not trial.works:
        fix = f"{trial.fix}; or use --accel auto" if trial.fix else "use --accel auto, or tcg"
        raise PlanError(f"accelerator {wish} does not work here: {trial.what}", why=trial.why, fix=fix)
    return trial


def translation_cache(trial: Trial, memory: Size) -> Size:
    """How much TCG may keep of translated code; nothing with any other accelerator."""
    return Size(max(64, min(512, memory.mib // 2)) << 20 if trial.accel == "tcg" else 0)


def flag(trial: Trial, why: Why, arch: Arch, cpus: int, memory: Size, host: HostFacts) -> Flag:
    """``-accel``; TCG with parallel vCPU threads where the memory model allows it and a translation cache that fits."""
    if trial.accel != "tcg":
        return Flag("accel", why, trial.accel)
    parallel = cpus > 1 and (not arch.strong_memory_order or host.arch in STRONGLY_ORDERED_HOSTS)
    cache = translation_cache(trial, memory).mib
    threads = "one thread per vCPU" if parallel else "one thread"
    reason = f"{why.reason}; {threads}, and {cache} MiB for translated code"
    return Flag("accel", Why(why.asked_by, reason), "tcg", {"thread": "multi" if parallel else "single", "tb-size": cache})
