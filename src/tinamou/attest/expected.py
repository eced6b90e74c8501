"""What a machine must have measured, computed from what it is started from: SEV's, SEV-ES's and SEV-SNP's digest, MRTD.

AMD's digests are computed by sev-snp-measure, which knows what QEMU and OVMF put into the guest's first pages; MRTD and the
events of RTMR0 to RTMR2 here (`tdvf`, `rtmr`), but for those that depend on more than firmware and plan.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path

from tinamou.attest import rtmr, tdvf
from tinamou.attest.binary import MalformedError
from tinamou.errors import PlanError, Problem, SpecError
from tinamou.late import dataclass
from tinamou.units import Size

__all__ = ["Launch", "events_of", "launch_of", "measured_by", "snp_measurement", "trusted_of"]

_MOST_FILE = 256 << 20
_MODES = {"sev": "SEV", "sev-es": "SEV_ES", "sev-snp": "SEV_SNP"}
_OBJECTS = {"sev-guest": "sev", "sev-snp-guest": "sev-snp", "tdx-guest": "tdx"}
_ES = 2
"""Of a SEV guest's policy: registers are encrypted too."""
_NOT_COMPUTED = {
    "rtmr0": "where memory is depends on how much the machine has (--memory); trusted instead: the firmware in MRTD, which "
    "measured what it was told before it used it",
    "rtmr1": "what the firmware started from a disk; trusted instead: the firmware in MRTD, and the log, which must give "
    "this register",
    "rtmr2": "kernel arguments and initrd, as the boot loader or the kernel measured them; trusted instead: whoever started "
    "those, in RTMR1",
}
"""Registers of TDX of which no event is computed: why not, and what is trusted in their place."""


@dataclass(frozen=True)
class Launch:
    """What is measured of a machine: its firmware, a kernel handed to it with initrd and arguments, its vCPUs.

    ``kind`` is what encrypts its memory: sev, sev-es, sev-snp, tdx; ``memory`` in bytes, 0 where it is not known.
    """

    firmware: Path
    cpus: int
    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""
    kind: str = "sev-snp"
    memory: int = 0


def launch_of(words: Sequence[str]) -> Launch:
    """What is measured of a machine with this QEMU command line. Raises PlanError where its memory is not encrypted."""
    said = dict(itertools.pairwise(words))
    kind = next((found for one, two in itertools.pairwise(words) if one == "-object" and (found := _kind_of(two))), "")
    if not kind:
        raise PlanError("no measurement can be expected", why="its memory is not encrypted")
    if "-bios" not in said:
        raise PlanError("no measurement can be expected", why="it is not started from one firmware image")
    cpus = said.get("-smp", "1").split(",")[0].removeprefix("cpus=")
    kernel, initrd = said.get("-kernel"), said.get("-initrd")
    return Launch(
        Path(said["-bios"]),
        int(cpus),
        Path(kernel) if kernel else None,
        Path(initrd) if initrd else None,
        said.get("-append", ""),
        kind,
        int(Size.parse(said.get("-m", "0").split(",")[0].removeprefix("size="))),
    )


def _kind_of(text: str) -> str:
    """The kind of encryption an object of QEMU's stands for, empty for none."""
    if text.startswith("{"):
        props = json.loads(text)
    else:
        first, *rest = text.split(",")
        props = {"qom-type": first, **dict(one.split("=", 1) for one in rest if "=" in one)}
    kind = _OBJECTS.get(str(props.get("qom-type")), "")
    return "sev-es" if kind == "sev" and int(str(props.get("policy", "0")), 0) >> _ES & 1 else kind


def measured_by(launch: Launch, cpu: str = "") -> dict[str, bytes]:
    """By register, what is measured: ``measurement`` of AMD's, ``mrtd`` of TDX. Raises SpecError.

    ``cpu`` is the type of its vCPUs by QEMU's name, such as ``EPYC-Milan``: SEV and TDX do not measure it.
    """
    if launch.kind != "tdx":
        return {"measurement": snp_measurement(launch, cpu)}
    try:
        return {"mrtd": tdvf.mrtd(_read(launch.firmware))}
    except (OSError, MalformedError) as error:
        problem = Problem("file", str(launch.firmware), str(error), "firmware built for TDX, as one image")
        raise SpecError("no measurement can be computed", problems=[problem]) from None


def events_of(launch: Launch) -> list[rtmr.Expected]:
    """The events of RTMR0, and with a kernel handed over of RTMR1 and RTMR2, of a TDX machine. Raises SpecError."""
    if launch.kind != "tdx" or not launch.memory:
        return []
    try:
        found = rtmr.of_firmware(_read(launch.firmware), launch.memory)
        if launch.kernel is not None:
            initrd = _read(launch.initrd) if launch.initrd else b""
            found += rtmr.kernel_events(_read(launch.kernel), initrd, launch.append, launch.memory)
    except (OSError, MalformedError) as error:
        problem = Problem("file", None, str(error), "a Linux kernel that UEFI can start, firmware built for TDX")
        raise SpecError("no events can be computed", problems=[problem]) from None
    return found


def trusted_of(launch: Launch) -> dict[str, str]:
    """What of a TDX machine is not computed, by the name a policy accepts it under: why not, and what is trusted instead."""
    if launch.kind != "tdx":
        return {}
    if not launch.memory:
        return dict(_NOT_COMPUTED)
    rest = {} if launch.kernel else {name: _NOT_COMPUTED[name] for name in ("rtmr1", "rtmr2")}
    return {name: why for name, (_, _, why) in rtmr.TRUSTED.items()} | rest


def _read(path: Path) -> bytes:
    with path.open("rb") as file:
        data = file.read(_MOST_FILE + 1)
    if len(data) > _MOST_FILE:
        raise MalformedError(f"{path} has more than {_MOST_FILE} bytes")
    return data


def snp_measurement(launch: Launch, cpu: str, features: int = 1) -> bytes:
    """The 48 bytes SEV-SNP measures of it on a processor of this type (QEMU's name, such as ``EPYC-Milan``); 32 for SEV.

    ``features`` are SEV_FEATURES of the vCPUs, as QEMU sets them: 1 is SNP alone. Raises SpecError.
    """
    try:
        from sevsnpmeasure import guest, vcpu_types
        from sevsnpmeasure.sev_mode import SevMode
    except ImportError:
        raise SpecError(
            "no measurement can be computed", why="sev-snp-measure is missing", fix="install tinamou[attest]"
        ) from None
    if cpu not in vcpu_types.CPU_SIGS and launch.kind != "sev":
        known = ", ".join(vcpu_types.CPU_SIGS)
        problem = Problem("cpu", cpu, "the first registers of its vCPUs are not known", f"one of {known}")
        raise SpecError("no measurement can be computed", problems=[problem])
    missing = [
        one
        for one in (launch.firmware, launch.kernel, launch.initrd)
        if one is not None and (not one.exists() or one.is_dir())
    ]
    if missing:
        problems = [Problem("file", str(one), "it is not here, and what it holds is measured") for one in missing]
        raise SpecError("no measurement can be computed", problems=problems)
    kernel, initrd = (str(one) if one else None for one in (launch.kernel, launch.initrd))
    try:
        digest: bytes = guest.calc_launch_digest(
            SevMode[_MODES[launch.kind]],
            launch.cpus,
            vcpu_types.CPU_SIGS.get(cpu),
            str(launch.firmware),
            kernel,
            initrd or ("/dev/null" if kernel else None),
            launch.append,
            features,
        )
    except Exception as error:  # the library raises whatever its parser of the firmware meets
        why = f"{launch.firmware}: {error}"
        raise SpecError(
            "no measurement can be computed", why=why, fix="firmware built from edk2's OvmfPkg/AmdSev"
        ) from error
    return digest
