"""What the guest reads about its maker in SMBIOS (source: qemu(1), ``-smbios``; DMTF DSP0134)."""

from __future__ import annotations

from tinamou.blueprint import Contribution, Flag, HandOver, Step, Value, Why, WriteText
from tinamou.errors import Problem
from tinamou.facts.files import OEM
from tinamou.fields import option
from tinamou.late import dataclass, fields
from tinamou.parts.protocol import Part, Resolved

__all__ = ["PART", "SmbiosSpec"]

_WORDS = r"[ -~]{0,64}"
_LONG = 32 << 10
"""Bytes of strings from which on they may not fit into the tables of SMBIOS 2.1, which have 65,535 bytes in all."""
_HIDDEN = Why(
    "spec smbios.oem", "a string may be a secret: it is in a file, and not on a command line, which everybody reads"
)
_HAND = Why("confinement", "QEMU is handed a copy in memory")
_HINT = "at most 64 letters, digits and signs of ASCII"


@dataclass(frozen=True)
class SmbiosSpec:
    """Maker, model and numbers of the machine, as its firmware tells them."""

    manufacturer: str = option("", "the maker", pattern=_WORDS, hint=_HINT)
    product: str = option("", "the model", pattern=_WORDS, hint=_HINT)
    version: str = option("", "its version", pattern=_WORDS, hint=_HINT)
    serial: str = option("", "its serial number", pattern=_WORDS, hint=_HINT)
    sku: str = option("", "its order number", pattern=_WORDS, hint=_HINT)
    family: str = option("", "the family it belongs to", pattern=_WORDS, hint=_HINT)
    uuid: str = option(
        "",
        "the number that tells it from all others; a fork has the same",
        pattern=r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}",
        hint="write for example 123e4567-e89b-42d3-a456-426614174000",
    )
    oem: tuple[str, ...] = option((), "strings for programs in the guest (type 11), such as credentials of systemd")

    def problems(self) -> list[Problem]:
        """Strings that no table can hold."""
        bad = [text for text in self.oem if not text or not text.isprintable() or len(text) > 1024]
        if len(self.oem) > len(OEM):
            return [Problem("oem", len(self.oem), f"SMBIOS counts at most {len(OEM)} strings", "leave some out")]
        reason = "not a line of 1 to 1024 characters"
        return [Problem("oem", len(text), reason, "shorten it, or leave it out") for text in bad]


def check(resolved: Resolved) -> list[Problem]:
    """A board that has no such tables."""
    if resolved.spec.smbios == SmbiosSpec() or resolved.facts.qemu.has("option:smbios"):
        return []
    reason = f"{resolved.facts.qemu.binary} has no SMBIOS for {resolved.arch.name}"
    return [Problem("smbios", None, reason, "leave it out")]


def contribute(resolved: Resolved) -> Contribution:
    """Tables of type 1 and 11."""
    spec = resolved.spec.smbios
    why = Why("spec smbios", "what the guest reads about its maker")
    options: dict[str, Value] = {"type": 1}
    options |= {one.name: getattr(spec, one.name) for one in fields(spec) if one.name != "oem" and getattr(spec, one.name)}
    flags = [Flag("smbios", why, options=options)] if len(options) > 1 else []
    steps: list[Step] = []
    for name, text in zip(OEM, spec.oem, strict=False):
        path = resolved.file(name)
        flags.append(Flag("smbios", _HIDDEN, options={"type": 11, "path": path}))
        steps += [WriteText(path, text, _HIDDEN), HandOver(path, "secret", _HAND)]
    if sum(len(text.encode()) + 1 for text in spec.oem) > _LONG and resolved.arch.name == "x86_64":
        room = Why("spec smbios.oem", "these strings need the tables of SMBIOS 3, which may be longer than 65,535 bytes")
        flags.append(Flag("machine", room, options={"smbios-entry-point-type": "64"}))
    return Contribution(flags=tuple(flags), steps=tuple(steps))


PART = Part(contribute, check=check)
