"""Part confidential: memory that the host cannot read, by SEV, SEV-ES, SEV-SNP or TDX of the processor.

Source: QEMU docs/system/confidential-guest-support.rst, docs/system/i386/amd-memory-encryption.rst and tdx.rst,
qapi/qom.json (SevGuestProperties, SevSnpGuestProperties, TdxGuestProperties). Which of them a machine gets is decided in
tuning/confidential.py.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Literal

from tinamou import late
from tinamou.blueprint import Contribution, Element, Flag, HandOver, Note, Step, Value, Why, WriteText
from tinamou.errors import Problem
from tinamou.fields import option
from tinamou.late import dataclass
from tinamou.parts.protocol import Part, Resolved
from tinamou.units import Size

__all__ = [
    "NAMES", "OBJECTS", "PART", "PINNED", "ConfidentialSpec", "block_policy", "encrypted_by", "lockable",
    "on_shared_memory", "policy_of",
]  # fmt: skip

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

    id_block: str = option(
        "",
        "what a SEV-SNP guest must measure, signed by its owner, in base64 (id-block of tinamou attest id-block): its "
        "processor starts nothing else",
    )
    id_auth: str = option("", "the signatures of id_block, in base64 (id-auth of the same file)")
    host_data: str = option("", "up to 32 bytes of yours that each report of a SEV-SNP guest has, in hexadecimal")
    dh_cert: str = option(
        "",
        "a SEV or SEV-ES guest's owner's certificate for key agreement, in base64 (dh_cert of tinamou attest session): the "
        "guest is held until tinamou attest secret or attest launch lets it run",
    )
    session: str = option("", "the session that goes with dh_cert, in base64, made for one platform and one start")

    def problems(self) -> list[Problem]:
        """A policy of memory that is not encrypted; blocks that are none."""
        found = list[Problem]()
        for name in (self.owned or self.of_session)[:1] if self.type == "off" else ():
            found.append(Problem(name, None, "nothing is encrypted", "leave it out, or set confidential.type"))
        if self.debug and self.type == "off":
            found.append(Problem("debug", True, "nothing is encrypted", "leave it out, or set confidential.type"))
        for name, (size, maker) in _SIZES.items():
            text = getattr(self, name)
            if text and len(_decoded(text)) != size:
                found.append(Problem(name, text[:40], f"it is not {size} bytes in base64", f"{maker} makes it"))
        if bool(self.id_block) != bool(self.id_auth):
            found.append(Problem("id_block", None, "a block and its signatures go together", "set id_block and id_auth"))
        if bool(self.dh_cert) != bool(self.session):
            found.append(Problem("session", None, "a session and its certificate go together", "set dh_cert and session"))
        if self.host_data and not _HEXED.fullmatch(self.host_data):
            found.append(Problem("host_data", self.host_data, "it is not up to 32 bytes in hexadecimal"))
        return found

    @property
    def owned(self) -> tuple[str, ...]:
        """What is said that SEV-SNP alone knows."""
        return tuple(name for name in ("id_block", "id_auth", "host_data") if getattr(self, name))

    @property
    def of_session(self) -> tuple[str, ...]:
        """What is said that SEV and SEV-ES alone know: with it the guest is held until its owner lets it run."""
        return tuple(name for name in ("dh_cert", "session") if getattr(self, name))


_BLOCKS, _SESSIONS = "tinamou attest id-block", "tinamou attest session"
_SIZES = {
    "id_block": (96, _BLOCKS), "id_auth": (4096, _BLOCKS), "dh_cert": (2084, _SESSIONS), "session": (128, _SESSIONS),
}  # fmt: skip
"""What is written in base64: how many bytes it has, and what makes it."""

_HEXED = re.compile(r"([0-9a-fA-F]{2}){1,32}")
_AUTHOR = 0x680
"""Where in the signatures of a block those of its key's author are (source: AMD 56860, table of ID_AUTH_INFO)."""


def _decoded(text: str) -> bytes:
    import base64

    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        return b""


def block_policy(spec: ConfidentialSpec) -> int | None:
    """The policy an id block is for, None where there is none."""
    return int.from_bytes(_decoded(spec.id_block)[88:96], "little") if spec.id_block else None


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
    held = _held(resolved)
    again = Why(asked, "what was measured at its launch cannot be launched again: a guest that restarts itself ends")
    return Contribution(
        elements=(Element("object", _guest(name, kind, resolved), Why(asked, _reason(kind, resolved))),),
        flags=(
            Flag("machine", link, options={"confidential-guest-support": name}),
            *irqchip,
            Flag("action", again, options={"reboot": "shutdown"}),
            *held.flags,
        ),
        steps=held.steps,
        notes=held.notes,
    )


_FILES = {"dh_cert": "sev-dh-cert", "session": "sev-session"}


def _held(resolved: Resolved) -> Contribution:
    """The owner's session as files QEMU reads, and a guest that waits for its owner."""
    spec = resolved.spec.confidential
    if not spec.of_session:
        return Contribution()
    why = Why("spec confidential.session", "the keys of its owner's session, which the secure processor alone unwraps")
    hand = Why("confinement", "QEMU is handed a copy in memory")
    steps = list[Step]()
    for name, file in _FILES.items():
        path = resolved.file(file)
        steps += [WriteText(path, getattr(spec, name), why), HandOver(path, "secret", hand)]
    waits = Why("spec confidential.session", "the guest runs when its owner has judged what was measured, not before")
    told = f"the guest is held until tinamou attest secret {resolved.facts.place.name} FILE, or attest launch, lets it run"
    return Contribution(flags=(Flag("S", waits),), steps=tuple(steps), notes=(Note("info", told, waits),))


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
    props |= {
        "cbitpos": bit,
        "reduced-phys-bits": _REDUCED,
        "policy": policy_of(kind, debug=resolved.spec.confidential.debug),
    }
    if kind == "sev-snp":
        props |= _of_its_owner(resolved.spec.confidential)
    elif resolved.spec.confidential.of_session:
        props |= {"dh-cert-file": resolved.file(_FILES["dh_cert"]), "session-file": resolved.file(_FILES["session"])}
    return {**props, "kernel-hashes": True} if resolved.hands_kernel else props


def _of_its_owner(spec: ConfidentialSpec) -> dict[str, Value]:
    """What a guest's owner has signed, as QEMU hands it to the secure processor."""
    props: dict[str, Value] = {}
    if spec.id_block:
        props |= {"id-block": spec.id_block, "id-auth": spec.id_auth}
        if any(_decoded(spec.id_auth)[_AUTHOR:]):
            props["author-key-enabled"] = True
    if spec.host_data:
        import base64

        props["host-data"] = base64.b64encode(bytes.fromhex(spec.host_data).ljust(32, b"\0")).decode()
    return props


def policy_of(kind: str, *, debug: bool) -> int:
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
    if resolved.spec.confidential.id_block:
        parts.append("id-block: the secure processor starts nothing but what its owner signed")
    if resolved.spec.confidential.of_session:
        parts.append("dh-cert-file, session-file: its owner's session, by whose key the processor signs what it measured")
    if resolved.spec.confidential.host_data:
        parts.append("host-data: bytes of yours that each report has")
    if resolved.hands_kernel:
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
