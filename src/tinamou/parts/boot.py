"""How the guest starts: firmware from a disk, or a kernel given directly."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from tinamou.arch import ARCHES
from tinamou.blueprint import Contribution, CopyFile, Element, EnrollKeys, Flag, HandOver, Note, Why
from tinamou.errors import PlanError, Problem
from tinamou.facts import Facts, Firmware, ImageFacts, files
from tinamou.fields import option
from tinamou.late import dataclass, replace
from tinamou.parts import net, seed_disk
from tinamou.parts.protocol import Encryption, Part, Resolved

if TYPE_CHECKING:
    from tinamou.spec import MachineSpec


@dataclass(frozen=True)
class BootSpec:
    """Firmware, or a kernel of the user's own."""

    shorthand = "firmware"

    firmware: Literal["auto", "bios", "uefi", "direct"] = option(
        "auto",
        "bios (SeaBIOS), uefi (OVMF, AAVMF, edk2), direct (no boot loader); auto: direct where thrown away",
    )
    secure: bool | None = option(
        None,
        "Secure Boot with Microsoft's keys enrolled: only signed boot loaders and kernels start; firmware is uefi then; "
        "left out: as the system in the guest needs it",
    )
    secure_keys: str = option(
        "",
        "folder with certificates to enrol in place of Microsoft's: PK.pem, KEK*.pem, db*.pem; Secure Boot is on then",
    )
    kernel: str = option(
        "", "kernel file for direct boot, in place of the image's; with firmware = uefi that is what starts it"
    )
    initrd: str = option("", "initial RAM disk for direct boot; with a kernel of your own the image's, when left out")
    cmdline: str = option(
        "", "kernel arguments, added to those the image and the architecture need; the boot is direct then"
    )
    order: str = option("", "which disks to try, in order, by their names: disk0,disk1")
    menu: bool = option(False, "show the firmware's boot menu")

    @property
    def requested(self) -> str:
        """The way of booting that was asked for; Secure Boot means UEFI."""
        return "uefi" if self.checked else self.firmware

    @property
    def checked(self) -> bool:
        """Whether Secure Boot is on: with keys of the user's own it is."""
        return bool(self.secure or self.secure_keys)

    @property
    def disks(self) -> tuple[str, ...]:
        """The names in ``order``."""
        return tuple(name.strip() for name in self.order.split(",") if name.strip())

    def problems(self) -> list[Problem]:
        """Kernel settings beside a firmware that ignores them, and what only a firmware does beside a direct boot."""
        if self.checked and (self.kernel or self.firmware not in ("auto", "uefi")):
            how = "a kernel given directly" if self.kernel else f"firmware {self.firmware}"
            return [
                Problem(self._asked, True, f"{how} checks no signatures", "leave it out: Secure Boot is for firmware = uefi")
            ]
        if self.kernel and self.firmware == "bios":
            return [Problem("kernel", self.kernel, "firmware bios boots from the disk", "set firmware = direct, or uefi")]
        if self.initrd and not self.kernel:
            return [Problem("initrd", self.initrd, "an initrd needs its kernel", "give boot.kernel too")]
        return self._of_another_way()

    @property
    def _asked(self) -> str:
        return "secure_keys" if self.secure_keys else "secure"

    def _of_another_way(self) -> list[Problem]:
        """What the way of booting that was asked for has no use for."""
        if self.cmdline and not self.kernel and self.requested in ("bios", "uefi"):
            reason = "the boot loader on the disk has kernel arguments of its own"
            return [Problem("cmdline", self.cmdline, reason, "set firmware = direct, or change them in the guest")]
        if self.kernel or self.cmdline or self.requested == "direct":
            reason = "the kernel is loaded directly: no firmware looks at disks"
            return [Problem(name, getattr(self, name), reason, "leave it out") for name in self._for_firmware]
        return []

    @property
    def _for_firmware(self) -> list[str]:
        """What was asked for that only a firmware does."""
        return [name for name in ("order", "menu") if getattr(self, name)]

    @property
    def decisive(self) -> str:
        """The setting that decides between a firmware and a direct boot where neither is named; empty where none does."""
        return next(iter([*self._for_firmware, *["cmdline"] * bool(self.cmdline)]), "")


def way(spec: MachineSpec, facts: Facts) -> str:
    """The way of booting. Raises PlanError where there is none."""
    if found := possible(spec, facts):
        return found
    path, value = ("boot.secure", "true") if spec.boot.secure else ("boot.firmware", spec.boot.requested)
    path, value = ("boot.secure_keys", spec.boot.secure_keys) if spec.boot.secure_keys else (path, value)
    if spec.boot.requested == "auto" and (decisive := spec.boot.decisive):
        path, value = f"boot.{decisive}", str(getattr(spec.boot, decisive))
    there = _ways(spec, facts)
    reason = f"{facts.image.name} on {facts.image.arch} boots by: {', '.join(there)}"
    problem = Problem(path, value, reason, "choose one of these, or another image")
    if not there:
        reason = f"nothing that {facts.image.arch} boots was found in {facts.image.name}: no boot loader of any firmware"
        problem = Problem("image", spec.image, reason, "use another image or --arch, or boot with --kernel")
    raise PlanError("the machine cannot start this way", problems=[problem])


def possible(spec: MachineSpec, facts: Facts, left_out: str = "") -> str:
    """As asked, or the image's first that the architecture knows; empty where there is none.

    A throw-away machine is started directly where that is possible: it is faster, and what a boot loader is there for, the
    guest's own choice of kernel at a later start, never comes.
    """
    there = [one for one in _ways(spec, facts) if one != left_out]
    if spec.boot.requested != "auto":
        return spec.boot.requested if spec.boot.requested in there else ""
    if spec.boot.decisive:
        there = [one for one in there if (one == "direct") == bool(spec.boot.cmdline)]
    return "direct" if facts.place.throwaway and "direct" in there else next(iter(there), "")


def _ways(spec: MachineSpec, facts: Facts) -> list[str]:
    """The ways this machine could start, best first."""
    known = ARCHES[facts.image.arch].boots
    return [one for one in guest_of(spec, facts.image).boots if one in known]


def guest_of(spec: MachineSpec, image: ImageFacts) -> ImageFacts:
    """The image as it starts: a kernel of the user's own takes the place of the image's, an initrd that of the other.

    Nothing is left of a guest that lives in its initrd where that is the user's own. UEFI takes a kernel from QEMU too: one
    that is to know its variables, as an installer does, is started so.
    """
    boot = spec.boot
    if boot.initrd and not image.disk:
        image = replace(image, cmdline="", agent=False, resident=False, seed="", ssh=False)
    if spec.seed.agent == "none":
        image = replace(image, agent=False, resident=False)
    if not boot.kernel:
        return image
    initrd = boot.initrd or image.initrd
    return replace(image, kernel=boot.kernel, fast_kernel="", initrd=initrd, boots=("direct", "uefi"))


def contribute(resolved: Resolved) -> Contribution:
    """Kernel flags, or firmware and its variable store; for encrypted memory firmware that keeps nothing, and the kernel.

    The menu as the firmware of QEMU's boards reads its request (source: SeaBIOS docs/Runtime_config.md, edk2
    QemuBootOrderLib).
    """
    menu = Flag("boot", Why("spec boot.menu", "the boot menu was asked for"), options={"menu": "on"})
    asked = (menu,) if resolved.spec.boot.menu else ()
    return Contribution.merge([_started(resolved), Contribution(flags=asked)])


def _started(resolved: Resolved) -> Contribution:
    if resolved.encryption:
        measured = _measured_firmware(resolved.encryption)
        return Contribution.merge([measured, _direct(resolved)]) if resolved.hands_kernel else measured
    parts = [_uefi(resolved)] if resolved.boot == "uefi" else []
    return Contribution.merge([*parts, _direct(resolved)] if resolved.hands_kernel else parts)


def _may_use_pvh(resolved: Resolved) -> bool:
    """Whether a kernel may be entered through PVH: not where it is reset often, nor where its initrd would hit ACPI tables.

    docs/reference/boot-speed.md has both stories.
    """
    return resolved.facts.place.throwaway and not resolved.spec.tpm.enabled and not resolved.encryption


def _direct(resolved: Resolved) -> Contribution:
    spec, image = resolved.spec.boot, resolved.facts.image
    fast = bool(image.fast_kernel) and _may_use_pvh(resolved)
    kernel = image.fast_kernel if fast else image.kernel
    reason = (
        "the same kernel uncompressed, entered through PVH: no boot loader and no decompressor runs in the guest"
        if fast
        else "the kernel is loaded by QEMU itself: no boot loader runs"
    )
    if resolved.boot == "uefi":
        reason = "QEMU hands the kernel to the firmware, which starts it with its services: no boot loader runs"
    if resolved.encryption:
        reason = "QEMU hands the kernel to the firmware, which puts it into encrypted memory: no boot loader runs"
    asked = "spec boot.kernel" if spec.kernel else "image"
    flags = [Flag("kernel", Why(asked, reason), kernel)]
    steps = [HandOver(kernel, "read", Why("confinement", "QEMU is handed the open kernel"))]
    if image.initrd:
        asked = "spec boot.initrd" if spec.initrd else "image"
        flags.append(Flag("initrd", Why(asked, "the initial RAM disk that belongs to the kernel"), image.initrd))
        steps.append(HandOver(image.initrd, "read", Why("confinement", "QEMU is handed the open initial RAM disk")))
    flags.append(_append(resolved))
    notes = (_anothers(image.initrd),) if spec.kernel and image.initrd and not spec.initrd else ()
    return Contribution(flags=tuple(flags), steps=tuple(steps), notes=notes)


def _anothers(initrd: str) -> Note:
    text = f"the image's initial RAM disk is started with your kernel: its modules are those of another ({initrd})"
    return Note("info", text, Why("spec boot.kernel", "no boot.initrd was given"))


def _append(resolved: Resolved) -> Flag:
    spec, arch, image, place = resolved.spec.boot, resolved.arch, resolved.facts.image, resolved.facts.place
    words = {f"console={arch.console}": "the serial port is the console"}
    words |= arch.cmdline
    if resolved.accel.accel == "tcg":
        words |= arch.tcg_cmdline
    words |= dict.fromkeys(image.cmdline.split(), "the image needs it")
    words |= {} if seed_disk.wanted(resolved) else net.kernel_words(resolved)
    if image.cmdline:
        words[f"tinamou.hostname={place.name}"] = "the guest is named like its machine"
        if resolved.disks and image.resident:
            words[f"tinamou.disks={len(resolved.disks)}"] = "the guest answers when it has its disks"
        if place.throwaway:
            words["tinamou.exit=poweroff"] = "a throw-away machine ends with the shell on its console"
    words |= dict.fromkeys(spec.cmdline.split(), "asked for in boot.cmdline")
    reason = "; ".join(f"{word}: {why}" for word, why in words.items())
    return Flag("append", Why("kernel arguments", reason), " ".join(words))


def firmware_of(resolved: Resolved) -> Firmware | None:
    """The first UEFI firmware that serves this machine: without Secure Boot, or with it and with the keys enrolled.

    For keys of the user's own one whose store has none. Keys need a store that stays: firmware loaded as one image into
    memory has none, whatever its descriptor claims (Debian's ovmf 2026.08 does for TDX).
    """
    special, boot = {"secure-boot", "enrolled-keys", "requires-smm"}, resolved.spec.boot
    wanted = {"secure-boot", "enrolled-keys"} if boot.secure else set()
    wanted = {"secure-boot"} if boot.secure_keys else wanted
    for firmware in resolved.facts.firmware:
        fits = firmware.features & (special - {"requires-smm"} if wanted else special) == wanted
        fits = fits and (not wanted or (firmware.device == "flash" and bool(firmware.template)))
        if fits and "uefi" in firmware.interfaces and firmware.serves(resolved.arch.name, resolved.machine.name):
            return firmware
    return None


def _uefi(resolved: Resolved) -> Contribution:
    firmware = firmware_of(resolved)
    assert firmware is not None, "check() comes before contribute()"
    parts = [_pflash(firmware, resolved) if firmware.device == "flash" else _memory_firmware(firmware)]
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
    path = encryption.firmware.executable
    hand = HandOver(path, "read", Why("confinement", "QEMU is handed the open firmware, wherever it is"))
    return Contribution(flags=(Flag("bios", Why("spec confidential.type", reason), path),), steps=(hand,))


def _pflash(firmware: Firmware, resolved: Resolved) -> Contribution:
    why = Why("spec boot.firmware", f"{resolved.arch.uefi_reason}: {firmware.description}")
    store = resolved.file(files.UEFI_VARS)
    made = _store(firmware, resolved, store)
    stores = made.why
    code = _flash("flash0", firmware.executable, firmware.format, why, read_only=True)
    variables = _flash("flash1", store, firmware.format, stores, read_only=False)
    return Contribution(
        elements=(code, variables),
        flags=(Flag("machine", why, options={"pflash0": "flash0", "pflash1": "flash1"}),),
        steps=(
            made,
            HandOver(store, "write", Why("confinement", "QEMU is handed the open variable store")),
        ),
    )


def _store(firmware: Firmware, resolved: Resolved, path: str) -> CopyFile | EnrollKeys:
    """The machine's variable store: the firmware's own, or one with the user's keys."""
    keys, boot = resolved.facts.keys, resolved.spec.boot
    enrolled = keys.own if boot.secure_keys else keys.templates.get(firmware.template, ()) if boot.secure else ()
    said = "boot entries and keys are this machine's own and survive a restart"
    said += f"; it trusts {'; '.join(map(str, enrolled))}" if enrolled else ""
    if not boot.secure_keys:
        return CopyFile(path, firmware.template, Why("part boot", said), owner=resolved.owner)
    pairs = tuple((one.variable, one.file) for one in enrolled)
    return EnrollKeys(path, firmware.template, pairs, Why("spec boot.secure_keys", said), resolved.owner)


def _flash(name: str, path: str, driver: str, why: Why, *, read_only: bool) -> Element:
    file = {"driver": "file", "filename": path}
    return Element("blockdev", {"node-name": name, "driver": driver, "read-only": read_only, "file": dict(file)}, why)


def check(resolved: Resolved) -> list[Problem]:
    """UEFI, or Secure Boot, asked for where no firmware serves this machine; an order of disks that are not there."""
    return [*_check_firmware(resolved), *_check_order(resolved)]


def _check_order(resolved: Resolved) -> list[Problem]:
    """Names in ``order`` that are no disk of this machine."""
    disks = [one.node for one in resolved.disks]
    unknown = [name for name in resolved.spec.boot.disks if name not in disks]
    fix = f"its disks are: {', '.join(disks) or 'none'}"
    return [Problem("boot.order", name, "the machine has no disk of that name", fix) for name in unknown]


def _check_firmware(resolved: Resolved) -> list[Problem]:
    if resolved.boot != "uefi" or resolved.encryption:
        return []
    if (firmware := firmware_of(resolved)) is not None:
        return _check_keys(resolved, firmware)
    board = f"{resolved.arch.name} {resolved.machine.name}"
    if resolved.spec.boot.secure_keys:
        reason = f"no installed firmware with Secure Boot and an empty store of keys serves {board}"
        return [Problem("boot.secure_keys", resolved.spec.boot.secure_keys, reason, "install ovmf or qemu-efi-aarch64")]
    if resolved.spec.boot.secure:
        reason = f"no installed firmware with Secure Boot and enrolled keys serves {board}"
        return [Problem("boot.secure", True, reason, "install ovmf or qemu-efi-aarch64, or boot without it")]
    fix = "install ovmf, qemu-efi-aarch64 or qemu-efi-riscv64, or boot another way"
    return [Problem("boot.firmware", "uefi", f"no installed firmware serves {board}", fix)]


def _check_keys(resolved: Resolved, firmware: Firmware) -> list[Problem]:
    """Keys of the user's own that cannot be enrolled."""
    folder, keys = resolved.spec.boot.secure_keys, resolved.facts.keys
    if not folder:
        return []
    if keys.fault:
        fix = "tinamou host secure-boot-keys FOLDER makes such keys"
        return [Problem("boot.secure_keys", folder, keys.fault, fix)]
    if not resolved.facts.host.has_tool("virt-fw-vars"):
        fix = "pip install virt-firmware (Debian 13: apt-get install python3-virt-firmware), so that it is found on PATH"
        return [Problem("boot.secure_keys", folder, "virt-fw-vars, which writes keys into variable stores, is missing", fix)]
    if firmware.format != "raw" or not firmware.template:
        reason = f"the variable store of {firmware.executable} is not of a form that keys can be written into"
        return [Problem("boot.secure_keys", folder, reason, "install the distribution's ovmf in raw form")]
    return []


PART = Part(contribute, check=check)
