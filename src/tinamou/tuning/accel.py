"""Which accelerator runs the guest: the one that was asked for, or the best that was proven to work."""

from __future__ import annotations

from tinamou.blueprint import Contribution, Flag, Note, Value, Why
from tinamou.errors import PlanError
from tinamou.facts import AccelFacts, Trial
from tinamou.parts.protocol import Part, Resolved
from tinamou.units import Size

_NAMES = {"kvm": "KVM", "hvf": "HVF", "whpx": "WHPX", "nvmm": "NVMM", "mshv": "MSHV", "tcg": "TCG emulation"}
STRONGLY_ORDERED_HOSTS = frozenset({"x86_64", "i386", "s390x"})


def choose(requested: str, facts: AccelFacts) -> tuple[Trial, Why, tuple[Note, ...]]:
    """The trial to rely on, why, and what the user must hear. Raises PlanError when what was requested cannot be had."""
    if requested != "auto":
        why = Why("spec accel", f"{_NAMES.get(requested, requested)} was asked for, and ran code in a trial")
        return _named(requested, facts), why, ()
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
    text = f"running under TCG emulation, much slower than hardware: {reasons}"
    return best, why, (Note("warning", text, why, of_host=True),)


def _named(requested: str, facts: AccelFacts) -> Trial:
    trial = facts.of(requested)
    if trial is None:
        known = ", ".join(t.accel for t in facts.trials)
        raise PlanError(
            f"accelerator {requested} is not available", why=f"this QEMU and host offer: {known}", fix="use --accel auto"
        )
    if not trial.works:
        fix = f"{trial.fix}; or use --accel auto" if trial.fix else "use --accel auto, or tcg"
        raise PlanError(f"accelerator {requested} does not work here: {trial.what}", why=trial.why, fix=fix)
    return trial


def translation_cache(trial: Trial, memory: Size) -> Size:
    """How much TCG may keep of translated code; nothing with any other accelerator."""
    return Size(max(64, min(512, memory.mib // 2)) << 20 if trial.accel == "tcg" else 0)


def contribute(resolved: Resolved) -> Contribution:
    """``-accel``; TCG with parallel vCPU threads where the memory model allows it and a translation cache that fits."""
    trial, why, spec = resolved.accel, resolved.accel_why, resolved.spec
    if trial.accel != "tcg":
        return Contribution(flags=(Flag("accel", why, trial.accel),))
    ordered = not resolved.arch.strong_memory_order or resolved.facts.host.arch in STRONGLY_ORDERED_HOSTS
    parallel = spec.cpu.room > 1 and ordered
    cache = translation_cache(trial, spec.memory.size).mib
    threads = "one thread per vCPU" if parallel else "one thread"
    reason = f"{why.reason}; {threads}, and {cache} MiB for translated code"
    options: dict[str, Value] = {"thread": "multi" if parallel else "single", "tb-size": cache}
    return Contribution(flags=(Flag("accel", Why(why.asked_by, reason), "tcg", options),))


PART = Part(contribute)
