"""Part tpm: a TPM 2.0 of the machine's own, emulated by a process beside QEMU (swtpm).

Source: QEMU docs/specs/tpm.rst, swtpm(8), swtpm_setup(8).
"""

from __future__ import annotations

from tinamou.blueprint import Contribution, Element, HandOver, SetUpTpm, StartHelper, Why
from tinamou.errors import Problem
from tinamou.facts import identities
from tinamou.fields import option
from tinamou.late import dataclass
from tinamou.parts.protocol import Part, Resolved

__all__ = ["PART", "TpmSpec", "check", "contribute"]

_MEMORY = 512 << 20
"""Bytes of addresses of the emulator, which takes a tenth of that."""


@dataclass(frozen=True)
class TpmSpec:
    """A trusted platform module: measured boot, sealed keys, an identity that can be attested."""

    shorthand = "enabled"

    enabled: bool | None = option(
        None,
        "a TPM 2.0 of the machine's own, emulated by swtpm, with certificates; left out: as the guest's system needs it",
    )


def check(resolved: Resolved) -> list[Problem]:
    """A TPM on a host without the emulator, or for a QEMU or board without the device."""
    if not resolved.spec.tpm.enabled:
        return []
    host, qemu, device = resolved.facts.host, resolved.facts.qemu, resolved.arch.tpm_device
    missing = [name for name in ("swtpm", "swtpm_setup") if not host.has_tool(name)]
    if missing:
        reason = f"{' and '.join(missing)} not found on this host"
        return [Problem("tpm", True, reason, "install swtpm and swtpm-tools, or leave the TPM out")]
    if not device or not qemu.has(f"type:{device}"):
        reason = f"{qemu.binary} has no TPM for this board" + (f" (it lacks {device})" if device else "")
        return [Problem("tpm", True, reason, "use a newer QEMU, or leave the TPM out")]
    return []


def contribute(resolved: Resolved) -> Contribution:
    """The emulator with its state in the machine's folder, and the device QEMU connects to it."""
    if not resolved.spec.tpm.enabled:
        return Contribution()
    why = Why("spec tpm", "a TPM 2.0 of the machine's own, emulated by swtpm under a user id of its own")
    folder = resolved.file("tpm")
    socket = f"{folder}/swtpm.sock"
    owner = None if resolved.owner is None else resolved.owner + identities.TPM
    device = resolved.arch.tpm_device
    elements = (
        Element("chardev", {"id": "tpm-socket", "path": socket}, why, head="socket"),
        Element("tpmdev", {"id": "tpm0", "chardev": "tpm-socket"}, why, head="emulator"),
        Element("device", {"driver": device, "id": "tpm0-dev", "tpmdev": "tpm0"}, why),
    )
    made = Why("part tpm", "keys and certificates are made once: they are what makes this TPM this one")
    steps = (
        SetUpTpm(folder, made, owner),
        StartHelper("swtpm", argv(folder, socket), socket, why, owner, travels=True, memory=_MEMORY),
        HandOver(socket, "connect", Why("confinement", "QEMU is handed the connected socket")),
    )
    return Contribution(elements, steps=steps)


def argv(folder: str, socket: str) -> tuple[str, ...]:
    """swtpm's command line. ``--terminate``: it ends with its QEMU, however that ends."""
    state, control = f"dir={folder},mode=0600", f"type=unixio,path={socket},mode=0600"
    return ("swtpm", "socket", "--tpm2", "--tpmstate", state, "--ctrl", control, "--terminate")


PART = Part(contribute, check=check)
