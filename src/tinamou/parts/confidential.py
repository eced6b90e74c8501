"""Part confidential: memory that the host cannot read, by SEV, SEV-ES, SEV-SNP or TDX of the processor.

Source: QEMU docs/system/confidential-guest-support.rst, docs/system/i386/amd-memory-encryption.rst and tdx.rst,
qapi/qom.json (SevGuestProperties, SevSnpGuestProperties, TdxGuestProperties). Which of them a machine gets is decided in
tuning/confidential.py.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from tinamou import late
from tinamou.blueprint import Contribution, Element, Flag, Value, Why
from tinamou.errors import Problem
from tinamou.fields import option
from tinamou.late import dataclass
from tinamou.parts.protocol import Part, Resolved
from tinamou.units import Size

__all__ = ["NAMES", "OBJECTS", "PART", "PINNED", "ConfidentialSpec", "encrypted_by", "lockable", "on_shared_memory"]

NAMES = {"sev-snp": "SEV-SNP", "tdx": "TDX", "sev-es": "SEV-ES", "sev": "SEV"}
"""The kinds under the names their makers give them."""

PINNED = ("sev", "sev-es")
"""Kinds whose memory is locked as a whole while the guest starts."""

OBJECTS = {"sev": "sev-guest", "sev-es": "sev-guest", "sev-snp": "sev-snp-guest", "tdx": "tdx-guest"}
"""The QEMU object that is the guest's side of each kind."""

_BESIDE_RAM = Size(256 << 20)
"""What is locked beside guest RAM: firmware and video memory (source: libvirt's kbase/launch_security_sev, *hard_limit*)."""

_REDUCED = 1
"""Bits of physical addresses the guest loses; CPUID tells what the host loses (source: QEMU qemu-options.hx)."""


@dataclass(frozen=True)
class ConfidentialSpec:
    """Encrypted memory: the host runs the machine and cannot read what is in it."""

    shorthand = "type"

    type: Literal["off", "auto", "sev", "sev-es", "sev-snp", "tdx"] = option(
        "off",
        "what keeps the host out: sev (AMD: memory is encrypted), sev-es (registers too), sev-snp (and no page replaced), "
        "tdx (Intel: all of that); auto takes the best this host has, and says loudly where it has none",
    )
    debug: bool = option(
        False,
        "the guest's policy lets the host decrypt it, to look for a mistake; an attestation shows that",
    )

    def problems(self) -> list[Problem]:
        """A policy of memory that is not encrypted."""
        if not self.debug or self.type != "off":
            return []
        return [Problem("debug", True, "nothing is encrypted", "leave it out, or set confidential.type")]


def contribute(resolved: Resolved) -> Contribution:
    """The guest's side of the encryption, the board's link to it, and an end where a guest would start again."""
    found = resolved.encryption
    if found is None:
        return Contribution()
    kind, name = found.kind, "tdx0" if found.kind == "tdx" else "sev0"
    asked = "spec confidential.type"
    link = Why(asked, f"the board starts this guest under {NAMES[kind]}")
    chip, reason = _IRQCHIP.get(kind, ("", ""))
    irqchip = (Flag("machine", Why(asked, reason), options={"kernel-irqchip": chip}),) if chip else ()
    again = Why(asked, "what was measured at its launch cannot be launched again: a guest that restarts itself ends")
    return Contribution(
        elements=(Element("object", _guest(name, kind, resolved), Why(asked, _reason(kind, resolved))),),
        flags=(
            Flag("machine", link, options={"confidential-guest-support": name}),
            *irqchip,
            Flag("action", again, options={"reboot": "shutdown"}),
        ),
    )


_IRQCHIP = {
    "sev-es": ("on", "the kernel's interrupt controller starts the other CPUs, whose registers QEMU cannot set"),
    "sev-snp": ("on", "the kernel's interrupt controller starts the other CPUs, whose registers QEMU cannot set"),
    "tdx": ("split", "a TD allows the kernel's local interrupt controllers only"),
}
"""``kernel-irqchip`` and why (source: *Restrictions* of both pages of the QEMU documentation)."""


def _guest(name: str, kind: str, resolved: Resolved) -> dict[str, Value]:
    props: dict[str, Value] = {"qom-type": OBJECTS[kind], "id": name}
    if kind == "tdx":
        return props
    bit = resolved.facts.encryption.cbit
    assert bit is not None, "tuning/confidential.py comes before contribute()"
    props |= {"cbitpos": bit, "reduced-phys-bits": _REDUCED, "policy": _policy(kind, debug=resolved.spec.confidential.debug)}
    return {**props, "kernel-hashes": True} if resolved.boot == "direct" else props


def _policy(kind: str, *, debug: bool) -> int:
    """What the secure processor shall refuse the host.

    SEV and SEV-ES: bit 0 no debugging, 1 no other guest shares the key, 2 registers are encrypted, 3 it is sent to no other
    host (source: AMD SEV API 55766, chapter 3, table 2). SEV-SNP: bit 16 the host may have SMT, 17 always one, 19 debugging
    (source: AMD SEV-SNP firmware ABI 56860, section 4.3).
    """
    if kind == "sev-snp":
        return 0x30000 | debug << 19
    return 0b1010 | (not debug) | (kind == "sev-es") << 2


def _reason(kind: str, resolved: Resolved) -> str:
    debug = resolved.spec.confidential.debug
    if kind == "tdx":
        return "memory and registers of this guest are the processor's own: the host can neither read nor change them"
    parts = [
        {
            "sev": "memory is encrypted with a key only the secure processor has",
            "sev-es": "memory and registers are encrypted with a key only the secure processor has",
            "sev-snp": "memory and registers are encrypted, and the host can neither replace, move nor replay a page",
        }[kind],
        "cbitpos is what CPUID 0x8000001F says of this processor",
        "its policy allows debugging: the host can decrypt it" if debug else "its policy forbids debugging",
    ]
    if resolved.boot == "direct":
        parts.append("kernel-hashes: the firmware starts no kernel, initrd or arguments but those that were measured")
    return "; ".join(parts)


def on_shared_memory(part: Contribution, resolved: Resolved) -> Contribution:
    """The devices as a guest with encrypted memory can use them: over memory it shares with the host, without boot ROMs."""
    if resolved.encryption is None:
        return part
    return late.replace(part, elements=tuple(_shared(one) if one.kind == "device" else one for one in part.elements))


def _shared(element: Element) -> Element:
    driver = str(element.props["driver"])
    props, reasons = dict(element.props), [element.why.reason]
    if driver.startswith("virtio-") and driver.endswith(("-pci", "-vga")):
        props |= {"iommu_platform": True, "disable-legacy": "on"}
        reasons.append("iommu_platform: the guest passes data through memory it shares; disable-legacy: only virtio 1 can")
    if driver.endswith("vga"):
        props["romfile"] = ""
        reasons.append("no boot ROM, whose code nothing measures")
    return late.replace(element, props=props, why=Why(element.why.asked_by, "; ".join(reasons)))


def lockable(kind: str, memory: Size) -> Size | None:
    """What QEMU must be allowed to lock, None for nothing (source: sev_pin_memory() in arch/x86/kvm/svm/sev.c of Linux)."""
    return Size(memory + _BESIDE_RAM) if kind in PINNED else None


def encrypted_by(elements: Iterable[Element]) -> str:
    """What encrypts the memory of a machine with these elements: empty for nothing, ``SEV``, ``SEV-SNP``, ``TDX``."""
    names = {"sev-guest": "SEV", "sev-snp-guest": "SEV-SNP", "tdx-guest": "TDX"}
    return next((names[found] for one in elements if (found := str(one.props.get("qom-type"))) in names), "")


PART = Part(contribute)
