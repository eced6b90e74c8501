"""Which encryption of guest memory a machine gets: what was asked for, or the best there is; and what rules it out."""

from __future__ import annotations

from collections.abc import Iterable

from tinamou import late
from tinamou.blueprint import Note, Why
from tinamou.errors import Problem
from tinamou.facts import EncryptionFacts, Facts, Firmware
from tinamou.facts.encryption import DEVICE
from tinamou.facts.qemu import numbered
from tinamou.parts.boot import possible
from tinamou.parts.confidential import NAMES, OBJECTS, PINNED, block_policy, lockable, policy_of
from tinamou.parts.passthrough import HOW_TO_LOCK
from tinamou.parts.protocol import Encryption, Resolved, SharedMemory
from tinamou.spec import MachineSpec
from tinamou.units import Size

__all__ = ["choose", "why_not"]

_SETUP = "switch it on in the firmware setup (SMEE, SEV control, SEV-ES ASID space, SNP memory coverage), and start anew"
_RELEASES = {"sev": "2.12", "sev-es": "6.0", "sev-snp": "9.1", "tdx": "10.1"}
"""The first release of QEMU that has each, for saying so; whether this one has it is asked of the binary."""


def choose(resolved: Resolved) -> Resolved:
    """The machine with what was asked for, or with every problem of it; for ``auto`` with the best that has none.

    ``auto`` says loudly why it is not a better one.
    """
    requested, boot = resolved.spec.confidential.type, possible(resolved.spec, resolved.facts, left_out="bios")
    if requested != "auto":
        problems = tuple(_problems(requested, resolved, boot))
        return late.replace(resolved, problems=problems) if problems else _encrypted(requested, resolved, boot)
    failed: dict[str, str] = {}
    for kind in resolved.arch.encryption:
        name = NAMES[kind]
        problems = tuple(_problems(kind, resolved, boot))
        if not problems:
            return _encrypted(kind, resolved, boot, _auto(f"memory is encrypted by {name}", failed))
        failed[name] = problems[0].reason
    failed = failed or {"encrypted": f"no {resolved.arch.name} processor can"}
    said = _auto("memory is NOT encrypted, the host can read it", failed)
    return late.replace(resolved, notes=(*resolved.notes, *said))


def _auto(what: str, failed: dict[str, str]) -> tuple[Note, ...]:
    """One line: what there is, and for what reason nothing better; reasons that several share are said once."""
    shared: dict[str, list[str]] = {}
    for name, reason in failed.items():
        shared.setdefault(reason, []).append(name)
    reasons = "; ".join(f"not {', '.join(names)}: {reason}" for reason, names in shared.items())
    why = Why("spec confidential.type", "auto takes the best this host has")
    return (Note("warning", f"{what} ({reasons})", why),) if failed else ()


def _encrypted(kind: str, resolved: Resolved, boot: str, said: tuple[Note, ...] = ()) -> Resolved:
    found = Encryption(kind, _firmware(kind, resolved, boot)[0])
    notes = (*resolved.notes, *said, *_notes(resolved.spec, resolved.facts))
    return late.replace(resolved, encryption=found, boot=boot, notes=notes)


def _notes(spec: MachineSpec, facts: Facts) -> tuple[Note, ...]:
    """Ways around the encryption that this machine has."""
    why = Why("spec confidential.type", "encryption keeps the host out of memory, not out of what the guest tells it")
    said = []
    if facts.image.agent:
        said.append("its guest agent does what the host says: whoever has the host can run commands in this guest")
    if spec.display.type != "none":
        said.append("its screen is drawn by the host, which sees it")
    if spec.confidential.debug:
        said.append("its policy allows debugging: the host can decrypt its memory")
    return tuple(Note("warning", text, why) for text in said)


def _problems(kind: str, resolved: Resolved, boot: str) -> Iterable[Problem]:
    """``boot`` is ``direct``, ``uefi``, or empty where only ways are left that encrypted memory does not know."""
    path, facts = "confidential.type", resolved.facts
    if kind not in resolved.arch.encryption:
        yield Problem(path, kind, f"no {facts.image.arch} processor has it", "leave it out")
        return
    if resolved.accel.accel != "kvm":
        trial = facts.accel.of("kvm")
        what, fix = "", "use --accel kvm"
        if trial and not trial.works:
            what, fix = f" (KVM: {trial.what})", trial.fix or "see tinamou doctor"
        yield Problem(path, kind, f"it needs KVM, and the machine runs under {resolved.accel.accel}{what}", fix)
    if (found := why_not(kind, facts.encryption)) or (kind != "tdx" and (found := _closed(facts))):
        yield Problem(path, kind, *found)
    if not facts.qemu.has(f"type:{OBJECTS[kind]}"):
        reason = f"{facts.qemu.binary} {numbered(facts.qemu.version)} has no {OBJECTS[kind]}"
        yield Problem(path, kind, reason, f"use QEMU {_RELEASES[kind]} or later (TINAMOU_QEMU names the binary)")
    yield from _boot_problems(kind, resolved, boot)
    yield from _conflicts(kind, resolved)


def why_not(kind: str, known: EncryptionFacts) -> tuple[str, str] | None:
    """Why this host's processor and kernel offer no guest of that kind, and the fix; None where they do."""
    module, flag = "kvm_intel" if kind == "tdx" else "kvm_amd", kind.replace("-", "_")
    parameter = f"{module}.{flag}"
    if kind != "tdx" and known.processor is not None and kind not in known.processor:
        return "this processor does not have it (CPUID 0x8000001F)", "use a host that has it: AMD EPYC"
    if kind not in (known.flags or ()):
        if kind == "tdx":
            return "the kernel found no TDX (no flag tdx_host_platform in /proc/cpuinfo)", _INTEL
        return f"/proc/cpuinfo does not show {flag}: it is switched off", _SETUP
    on = known.parameters.get(kind)
    if on is None:
        return f"the kernel has no parameter {parameter}", f"load {module}, or boot a kernel whose {module} can do it"
    if not on:
        return f"{parameter} is off", f"boot with {parameter}=1" + ("" if kind == "tdx" else f" {_KERNEL[kind]}")
    if kind == "tdx":
        return None
    if kind != "sev" and known.keys and not known.keys_es:
        return f"all {known.keys} keys of the processor are set aside for plain SEV", _SETUP
    if kind == "sev" and known.keys and known.keys <= known.keys_es:
        return f"all {known.keys} keys of the processor are set aside for SEV-ES and SEV-SNP", _SETUP
    return None


_INTEL = "switch TDX on in the firmware setup, boot a kernel with KVM_INTEL_TDX and kvm_intel.tdx=1"
_KERNEL = {
    "sev": "mem_encrypt=on",
    "sev-es": "kvm_amd.sev=1 mem_encrypt=on",
    "sev-snp": "kvm_amd.sev=1 kvm_amd.sev_es=1 iommu=nopt",
}
"""Beside the parameter itself (source: Documentation/virt/kvm/x86/amd-memory-encryption.rst, arch/x86/virt/svm/sev.c)."""


def _closed(facts: Facts) -> tuple[str, str] | None:
    """Why QEMU could not be told of the processor, or not open the device of the secure one, which it does by its path."""
    if facts.encryption.cbit is None:
        return "CPUID 0x8000001F could not be asked", "allow this process memory it can execute"
    if DEVICE not in facts.host.devices:
        return f"there is no {DEVICE}", "load the module ccp, and see what the kernel says of it: dmesg | grep ccp"
    mine = facts.place.uid is None
    if (mine and not facts.encryption.opens) or (not mine and facts.host.device_groups.get(DEVICE) is None):
        reason = f"you may not open {DEVICE}" if mine else f"only its owner may open {DEVICE}, and QEMU never runs as root"
        return reason, 'chgrp kvm /dev/sev; chmod 660 /dev/sev; for good by udev: KERNEL=="sev", GROUP="kvm", MODE="0660"'
    return None


def _firmware(kind: str, resolved: Resolved, boot: str) -> list[Firmware]:
    """Firmware for this kind, best first: for a kernel given directly only what verifies it, for a disk rather not that."""
    facts = resolved.facts
    fits = [
        one
        for one in facts.firmware
        if f"{'intel' if kind == 'tdx' else 'amd'}-{kind}" in one.features
        and not one.features & {"requires-smm"}
        and _whole(one)
        and one.serves(resolved.arch.name, resolved.machine.name)
    ]
    hashing = facts.encryption.hashing
    if boot == "direct" and kind != "tdx":
        return [one for one in fits if one.executable in hashing]
    return sorted(fits, key=lambda one: one.executable in hashing)


def _whole(firmware: Firmware) -> bool:
    """Whether it is one image, which QEMU can load and the processor measure, rather than code and a store of variables."""
    return firmware.device == "memory" or (firmware.device == "flash" and firmware.mode in ("stateless", "combined"))


def _boot_problems(kind: str, resolved: Resolved, boot: str) -> Iterable[Problem]:
    spec, facts, name = resolved.spec, resolved.facts, NAMES[kind]
    if not boot:
        reason = f"a guest under {name} is started by UEFI firmware alone"
        yield Problem("boot.firmware", spec.boot.firmware, reason, "set it to auto, uefi or direct, or use another image")
        return
    if _firmware(kind, resolved, boot):
        return
    feature = "intel-tdx" if kind == "tdx" else f"amd-{kind}"
    able = [one.executable for one in facts.firmware if feature in one.features and _whole(one)]
    if able and boot == "direct" and kind != "tdx":
        reason = f"{', '.join(able)} does not verify a kernel given directly: the host could start another one"
        fix = "install what is built from OvmfPkg/AmdSev (ovmf-amdsev, edk2-ovmf), or boot from the disk: --firmware uefi"
    else:
        apart = next((one.executable for one in facts.firmware if feature in one.features and not _whole(one)), "")
        reason = f"no installed firmware for {resolved.machine.name} has the feature {feature}"
        reason += f" and is one image, which is measured as a whole ({apart} has its variables apart)" if apart else ""
        fix = "install such a one (ovmf-amdsev, edk2-ovmf), or describe your own: docs/guides/encrypted-memory.md"
    yield Problem("boot.firmware", spec.boot.firmware, reason, fix)


def _conflicts(kind: str, resolved: Resolved) -> Iterable[Problem]:
    """What else was asked of the machine and does not go with encrypted memory."""
    spec = resolved.spec
    if spec.memory.forkable:
        reason = "encrypted memory cannot be copied: outside of this guest it is noise"
        yield Problem("memory.forkable", True, reason, "leave it out: no checkpoints, forks, pools, --warm")
    if spec.memory.merge:
        yield Problem("memory.merge", True, "encrypted pages are never equal, and locked", "leave it out")
    if spec.memory.hugepages != "off" and kind not in PINNED:
        reason = "the private memory is made by KVM (guest_memfd), on small pages; the huge ones would lie unused"
        yield Problem("memory.hugepages", spec.memory.hugepages, reason, "leave it out")
    if spec.boot.checked:
        smm = "" if kind == "sev" else f"it needs system management mode, which {NAMES[kind]} does not have; "
        reason = f"{smm}its keys lie in a store nothing measures"
        yield Problem("boot.secure", True, reason, "leave it out: what is started is attested instead")
    if spec.tpm.enabled:
        reason = "it is emulated by the host, which could read and forge whatever it holds"
        yield Problem("tpm", True, reason, "leave it out: keys are released against an attestation")
    if spec.pci:
        reason = "a device of the host reaches only what the guest shares with it, which has not been tried"
        yield Problem("pci", None, reason, "leave it out")
    if spec.share:
        yield Problem("share", None, "its server on the host works in the guest's memory", "copy files, or use the network")
    elif shared := next((need for need in resolved.needs if isinstance(need, SharedMemory)), None):
        yield Problem(
            "net", None, f"another process would work in the guest's memory: {shared.why.reason}", "use tap or passt"
        )
    if kind == "tdx":
        yield from _tdx_conflicts(spec)
    yield from _owners_conflicts(kind, spec)
    wanted, limit = lockable(kind, spec.memory.size), resolved.facts.encryption.lockable
    if wanted and limit is not None and wanted > limit:
        reason = f"all of it is locked: {wanted.mib} MiB with firmware, and QEMU may lock {Size(limit).mib} MiB here"
        yield Problem("memory.size", str(spec.memory.size), reason, HOW_TO_LOCK)


def _owners_conflicts(kind: str, spec: MachineSpec) -> Iterable[Problem]:
    """What its owner has said, where the guest is of another kind or is started under another policy."""
    for name in spec.confidential.owned if kind != "sev-snp" else ():
        yield Problem(
            f"confidential.{name}", None, f"{NAMES[kind]} knows nothing of the kind", "use confidential.type = sev-snp"
        )
    for name in spec.confidential.of_session if kind not in PINNED else ():
        fix = "use confidential.type = sev or sev-es"
        yield Problem(f"confidential.{name}", None, f"{NAMES[kind]} knows nothing of the kind", fix)
    wanted, policy = block_policy(spec.confidential), policy_of("sev-snp", debug=spec.confidential.debug)
    if kind == "sev-snp" and wanted is not None and wanted != policy:
        reason = (
            f"it is for the policy {wanted:#x}, and the guest is started under {policy:#x}: the processor would refuse it"
        )
        yield Problem("confidential.id_block", None, reason, f"make it anew: tinamou attest id-block --policy {policy:#x}")


def _tdx_conflicts(spec: MachineSpec) -> Iterable[Problem]:
    if spec.confidential.debug:
        yield Problem("confidential.debug", True, "QEMU starts no TD that can be debugged", "leave it out")
    if spec.cpu.model.partition(",")[0] not in ("auto", "host"):
        yield Problem("cpu.model", spec.cpu.model, "a TD shows the host's own processor", "leave it out")
