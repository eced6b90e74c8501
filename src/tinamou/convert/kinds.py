"""Which format a source is in, told by its content, and the reader that goes with it."""

from __future__ import annotations

import re

from tinamou.convert.result import Draft
from tinamou.errors import SpecError

__all__ = ["KINDS", "kind_of", "read"]

KINDS = {
    "qemu": "a QEMU command line, or a shell script with one",
    "libvirt": "a libvirt domain (virsh dumpxml)",
    "vmx": "a VMware machine (.vmx)",
    "ovf": "an OVF descriptor (.ovf)",
    "vbox": "a VirtualBox machine (.vbox)",
    "quickemu": "a quickemu configuration (.conf)",
}
"""Kind → what it is."""

_DOMAIN = re.compile(r"<(?:[\w.-]{1,64}:)?domain[\s>]")
_ROOTS = {"domain": "libvirt", "domainCapabilities": "", "Envelope": "ovf", "VirtualBox": "vbox"}
"""Root of a document → kind; one of another name is libvirt's where a domain is in it: a status, a snapshot."""
_VMX = re.compile(
    r'^[ \t]*(?:config\.version|virtualHW\.version|displayName|memsize)[ \t]*=[ \t]*"', re.MULTILINE | re.IGNORECASE
)
_QUICKEMU = re.compile(r"^[ \t]*(?:guest_os|disk_img)=", re.MULTILINE)


def kind_of(text: str) -> str:
    """The kind of a text; empty where it is none of them."""
    if text.lstrip("\ufeff \t\r\n").startswith("<"):
        from tinamou.convert.xml import root_of

        root = root_of(text)
        return _ROOTS[root] if root in _ROOTS else "libvirt" if root and _DOMAIN.search(text) else ""
    if _VMX.search(text):
        return "vmx"
    from tinamou.convert import qemu

    if qemu.is_script(text):
        return "qemu"
    return "quickemu" if _QUICKEMU.search(text) else ""


def read(text: str, name: str = "the source") -> Draft:
    """The draft of a text of any kind. Raises SpecError for what is none of them."""
    match kind_of(text):
        case "qemu":
            from tinamou.convert.qemu import read as reader
        case "libvirt":
            from tinamou.convert.libvirt import read as reader
        case "vmx":
            from tinamou.convert.vmx import read as reader
        case "ovf":
            from tinamou.convert.ovf import read as reader
        case "vbox":
            from tinamou.convert.vbox import read as reader
        case "quickemu":
            from tinamou.convert.quickemu import read as reader
        case _:
            known = "; ".join(KINDS.values())
            raise SpecError(
                f"{name} is nothing tinamou converts", why=f"it converts {known}; an OVA", fix="see tinamou convert --help"
            )
    return reader(text)
