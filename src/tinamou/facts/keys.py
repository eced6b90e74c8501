"""The certificates a guest's firmware trusts for Secure Boot, as far as planning and people need to know them."""

from __future__ import annotations

from collections.abc import Mapping

from tinamou.late import dataclass, field

__all__ = ["MICROSOFT", "Certificate", "KeyFacts"]

MICROSOFT = {
    "a1117f516a32cefcba3f2d1ace10a87972fd6bbe8fe0d0b996e09e65d802a503": ("Microsoft Corporation KEK CA 2011", "2026-06-24"),
    "3cd3f0309edae228767a976dd40d9f4affc4fbd5218f2e8cc3c9dd97e8ac6f9d": ("Microsoft KEK 2K CA 2023", "2038-03-02"),
    "48e99b991f57fc52f76149599bff0a58c47154229b9f8d603ac40d3500248507": ("Microsoft UEFI CA 2011", "2026-06-27"),
    "f6124e34125bee3fe6d79a574eaa7b91c0e7bd9d929c1a321178efd611dad901": ("Microsoft UEFI CA 2023", "2038-06-13"),
    "e5be3e64c6e66a281457ecdece0d6d0787577aad2a3a0144262c10c14ba8d8f1": ("Microsoft Option ROM CA 2023", "2038-10-26"),
    "e8e95f0733a55e8bad7be0a1413ee23c51fcea64b3c8fa6a786935fddcc71961": ("Microsoft Windows PCA 2011", "2026-10-19"),
    "076f1fea90ac29155ebf77c17682f75f1fdd1be196da302dc8461e350a9ae330": ("Windows UEFI CA 2023", "2035-06-13"),
}
"""SHA-256 of a certificate → what Microsoft calls it, and the day it ends; a name alone anybody can give theirs."""


@dataclass(frozen=True)
class Certificate:
    """One certificate: the variable that holds it (``PK``, ``KEK``, ``db``), its name, the day it ends, SHA-256, its file.

    ``ends`` is empty where nothing here can read it.
    """

    variable: str
    name: str
    ends: str
    fingerprint: str
    file: str = ""

    def __str__(self) -> str:
        known = "" if self.fingerprint in MICROSOFT else f" (sha256 {self.fingerprint[:16]}…)"
        return f"{self.variable} {self.name}{known}" + (f", ends {self.ends}" if self.ends else "")


@dataclass(frozen=True)
class KeyFacts:
    """``templates``: what each pristine variable store has enrolled; ``own``: the certificates in the user's folder, and
    ``fault`` what is wrong with that. Asked only for machines with Secure Boot.
    """

    templates: Mapping[str, tuple[Certificate, ...]] = field(default_factory=dict)
    own: tuple[Certificate, ...] = ()
    fault: str = ""
