"""How the guest starts: firmware from a disk, or a kernel given directly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

from tinamou.blueprint import Contribution, CopyFile, Element, Flag, HandOver, Why
from tinamou.errors import Problem
from tinamou.facts import Firmware
from tinamou.fields import option
from tinamou.late import dataclass
from tinamou.parts.settled import Encryption, Settled


@dataclass(frozen=True)
class BootSpec:
    """Firmware, or a kernel of the user's own."""

    shorthand = "firmware"

    firmware: Literal["auto", "bios", "uefi", "direct"] = option(
        "auto",
        "bios (SeaBIOS), uefi (OVMF, AAVMF, edk2), direct (no boot loader); auto: direct where thrown away",
    )
    secure: bool = option(
        False,
        "Secure Boot with Microsoft's keys enrolled: only signed boot loaders and kernels start; firmware is uefi then",
    )
    kernel: str = option("", "kernel file for direct boot")
    initrd: str = option("", "initial RAM disk for direct boot")
    cmdline: str = option("", "kernel arguments, added to those the image and the architecture need")
    order: str = option("", "which disks to try, in order, by their names: disk0,disk1")
    menu: bool = option(False, "show the firmware's boot menu")

    def problems(self) -> list[Problem]:
        """Kernel settings beside a firmware that ignores them."""
        if self.secure and (self.kernel or self.firmware not in ("auto", "uefi")):
            how = "a kernel given directly" if self.kernel else f"firmware {self.firmware}"
            return [
                Problem("secure", True, f"{how} checks no signatures", "leave it out: Secure Boot is for firmware = uefi")
            ]
        if self.kernel and self.firmware not in ("auto", "direct"):
            return [Problem("kernel", self.kernel, f"firmware {self.firmware} boots from the disk", "set firmware = direct")]
        if self.initrd and not self.kernel:
            return [Problem("initrd", self.initrd, "an initrd needs its kernel", "give boot.kernel too")]
        return []


def wish(spec: BootSpec) -> str:
    """The way of booting that was asked for; Secure Boot means UEFI."""
    return "uefi" if spec.secure else spec.firmware


def ways(spec: BootSpec, image_boots: tuple[str, ...]) -> tuple[str, ...]:
    """The ways this machine could start, best first."""
    return ("direct",) if spec.kernel else image_boots


def disks_in_order(spec: BootSpec) -> tuple[str, ...]:
    """The names in ``order``."""
    return tuple(name.strip() for name in spec.order.split(",") if name.strip())


def check_order(spec: BootSpec, disks: Sequence[str]) -> list[Problem]:
    """Names in ``order`` that are no disk of this machine."""
    unknown = [name for name in disks_in_order(spec) if name not in disks]
    fix = f"its disks are: {', '.join(disks) or 'none'}"
    return [Problem("boot.order", name, "the machine has no disk of that name", fix) for name in unknown]


def contribute(spec: BootSpec, settled: Settled, hostname: str, more: Mapping[str, str]) -> Contribution:
    """Kernel flags, or firmware and its variable store; for encrypted memory firmware that keeps nothing, and the kernel."""
    if settled.encryption:
        measured = _measured_firmware(settled.encryption)
        return (
            Contribution.merge([measured, _direct(spec, settled, hostname, more)]) if settled.boot == "direct" else measured
        )
    if settled.boot == "direct":
        return _direct(spec, settled, hostname, more)
    if settled.boot == "uefi":
        return _uefi(spec, settled)
    return Contribution(flags=_menu(spec))


def _menu(spec: BootSpec) -> tuple[Flag, ...]:
    return (Flag("boot", Why("spec boot.menu", "the boot menu was asked for"), options={"menu": "on"}),) if spec.menu else ()


def _direct(spec: BootSpec, settled: Settled, hostname: str, more: Mapping[str, str]) -> Contribution:
    image = settled.facts.image
    fast = bool(image.fast_kernel) and not spec.kernel and settled.pvh
    kernel = spec.kernel or (image.fast_kernel if fast else "") or image.kernel
    reason = (
        "the same kernel uncompressed, entered through PVH: no boot loader and no decompressor runs in the guest"
        if fast
        else "the kernel is loaded by QEMU itself: no boot loader runs"
    )
    if settled.encryption:
        reason = "QEMU hands the kernel to the firmware, which puts it into encrypted memory: no boot loader runs"
    asked = "spec boot.kernel" if spec.kernel else "image"
    flags = [Flag("kernel", Why(asked, reason), kernel)]
    steps = [HandOver(kernel, "read", Why("confinement", "QEMU is handed the open kernel"))]
    initrd = spec.initrd if spec.kernel else image.initrd
    if initrd:
        flags.append(Flag("initrd", Why(asked, "the initial RAM disk that belongs to the kernel"), initrd))
        steps.append(HandOver(initrd, "read", Why("confinement", "QEMU is handed the open initial RAM disk")))
    flags.append(_append(spec, settled, hostname, more))
    return Contribution(flags=tuple(flags), steps=tuple(steps))


def _append(spec: BootSpec, settled: Settled, hostname: str, more: Mapping[str, str]) -> Flag:
    arch, image = settled.arch, settled.facts.image
    words = {f"console={arch.console}": "the serial port is the console"}
    words |= arch.cmdline
    if settled.accel.accel == "tcg":
        words |= arch.tcg_cmdline
    if not spec.kernel:
        words |= dict.fromkeys(image.cmdline.split(), "the image needs it")
        words[f"tinamou.hostname={hostname}"] = "the guest is named like its machine"
        words |= more
        if settled.facts.place.throwaway:
            words["tinamou.exit=poweroff"] = "a throw-away machine ends with the shell on its console"
    words |= dict.fromkeys(spec.cmdline.split(), "asked for in boot.cmdline")
    reason = "; ".join(f"{word}: {why}" for word, why in words.items())
    return Flag("append", Why("kernel arguments", reason), " ".join(words))


def find_firmware(settled: Settled, machine_type: str, *, secure: bool = False) -> Firmware | None:
    """The first UEFI firmware that serves this machine: without Secure Boot, or with it and with the keys enrolled."""
    special = {"secure-boot", "enrolled-keys", "requires-smm"}
    for firmware in settled.facts.firmware:
        fits = {"secure-boot", "enrolled-keys"} <= firmware.features if secure else not firmware.features & special
        if fits and "uefi" in firmware.interfaces and firmware.serves(settled.arch.name, machine_type):
            return firmware
    return None


def _uefi(spec: BootSpec, settled: Settled) -> Contribution:
    machine = settled.facts.qemu.machine(settled.arch.machine)
    firmware = find_firmware(settled, machine.name if machine else settled.arch.machine, secure=spec.secure)
    assert firmware is not None, "check() comes before contribute()"
    parts = [_pflash(firmware, settled) if firmware.device == "flash" else _memory_firmware(firmware)]
    if "requires-smm" in firmware.features:
        parts.append(_guarded())
    return Contribution.merge(parts)


def _guarded() -> Contribution:
    """Keys only the firmware itself can change (source: edk2 OvmfPkg/README, QEMU docs/system/i386/pc)."""
    mode = Why("spec boot.secure", "the firmware guards its keys from system management mode, where the guest cannot look")
    flash = Why("spec boot.secure", "only code in system management mode may write to the variable store")
    sleep = Why("spec boot.secure", "waking from S3 would be a way around the guard: the machine cannot suspend to RAM")
    return Contribution(
        flags=(
            Flag("machine", mode, options={"smm": "on"}),
            Flag("global", flash, options={"driver": "cfi.pflash01", "property": "secure", "value": "on"}),
            Flag("global", sleep, options={"driver": "ICH9-LPC", "property": "disable_s3", "value": 1}),
        )
    )


def _memory_firmware(firmware: Firmware) -> Contribution:
    why = Why("spec boot.firmware", f"{firmware.description}, loaded as one read-only image")
    return Contribution(flags=(Flag("bios", why, firmware.executable),))


def _measured_firmware(encryption: Encryption) -> Contribution:
    """As one image (source: QEMU docs/system/i386/amd-memory-encryption.rst, *Calculating expected …*, and tdx.rst)."""
    what = encryption.firmware.description or encryption.firmware.executable
    reason = (
        f"{what}: measured as a whole; it has no store of variables, which the host could change and nothing would measure"
    )
    return Contribution(flags=(Flag("bios", Why("spec confidential.type", reason), encryption.firmware.executable),))


def _pflash(firmware: Firmware, settled: Settled) -> Contribution:
    why = Why("spec boot.firmware", f"{settled.arch.uefi_reason}: {firmware.description}")
    stores = Why("part boot", "boot entries and keys are this machine's own and survive a restart")
    store = settled.file("vars.fd")
    code = _flash("flash0", firmware.executable, firmware.format, why, read_only=True)
    variables = _flash("flash1", store, firmware.format, stores, read_only=False)
    return Contribution(
        elements=(code, variables),
        flags=(Flag("machine", why, options={"pflash0": "flash0", "pflash1": "flash1"}),),
        steps=(
            CopyFile(store, firmware.template, stores, owner=settled.owner),
            HandOver(store, "write", Why("confinement", "QEMU is handed the open variable store")),
        ),
    )


def _flash(name: str, path: str, driver: str, why: Why, *, read_only: bool) -> Element:
    file = {"driver": "file", "filename": path}
    return Element("blockdev", {"node-name": name, "driver": driver, "read-only": read_only, "file": dict(file)}, why)


def check(spec: BootSpec, settled: Settled, machine_type: str) -> list[Problem]:
    """UEFI, or Secure Boot, asked for where no firmware serves this machine."""
    if settled.boot != "uefi" or settled.encryption or find_firmware(settled, machine_type, secure=spec.secure):
        return []
    if spec.secure:
        reason = f"no installed firmware with Secure Boot and enrolled keys serves {settled.arch.name} {machine_type}"
        return [Problem("boot.secure", True, reason, "install ovmf or qemu-efi-aarch64, or boot without it")]
    reason = f"no installed firmware serves {settled.arch.name} {machine_type}"
    return [
        Problem("boot.firmware", "uefi", reason, "install ovmf, qemu-efi-aarch64 or qemu-efi-riscv64, or boot another way")
    ]
