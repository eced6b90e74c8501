"""What a machine must have measured, computed from what it is started from: SEV-SNP's launch digest.

The digest is computed by sev-snp-measure, which knows what QEMU and OVMF put into the guest's first pages. What TDX
measures beside its firmware depends on tables each version of QEMU makes in its own way: for that nothing is computed here.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path

from tinamou.errors import PlanError, Problem, SpecError
from tinamou.late import dataclass

__all__ = ["Launch", "cpu_types", "launch_of", "snp_measurement"]


@dataclass(frozen=True)
class Launch:
    """What is measured of a machine: its firmware, a kernel handed to it with initrd and arguments, its vCPUs."""

    firmware: Path
    cpus: int
    kernel: Path | None = None
    initrd: Path | None = None
    append: str = ""


def cpu_types() -> list[str]:
    """The processors whose first registers are known, by QEMU's names."""
    from sevsnpmeasure import vcpu_types

    return list(vcpu_types.CPU_SIGS)


def launch_of(words: Sequence[str]) -> Launch:
    """What is measured of a machine with this QEMU command line. Raises PlanError where its memory is not so encrypted."""
    said = dict(itertools.pairwise(words))
    if not any(
        word.startswith(("sev-snp-guest", '{"qom-type":"sev-snp-guest"', '{"qom-type": "sev-snp-guest"')) for word in words
    ):
        raise PlanError("no measurement can be expected", why="its memory is not encrypted by SEV-SNP")
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
    )


def snp_measurement(launch: Launch, cpu: str, features: int = 1) -> bytes:
    """The 48 bytes SEV-SNP measures of it on a processor of this type (QEMU's name, such as ``EPYC-Milan``).

    ``features`` are SEV_FEATURES of the vCPUs, as QEMU sets them: 1 is SNP alone. Raises SpecError.
    """
    try:
        from sevsnpmeasure import guest, vcpu_types
        from sevsnpmeasure.sev_mode import SevMode
    except ImportError:
        raise SpecError(
            "no measurement can be computed", why="sev-snp-measure is missing", fix="install tinamou[attest]"
        ) from None
    if cpu not in vcpu_types.CPU_SIGS:
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
            SevMode.SEV_SNP,
            launch.cpus,
            vcpu_types.CPU_SIGS[cpu],
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
