"""Which format a source is in, told by its content, and the reader that goes with it."""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable

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
    "virt-install": "a virt-install command line",
    "proxmox": "a Proxmox machine (NNN.conf)",
    "kubevirt": "a KubeVirt machine (YAML)",
    "incus": "an Incus or LXD machine (YAML)",
    "lima": "a Lima instance (lima.yaml)",
    "xl": "a Xen machine (xl.cfg)",
    "readconfig": "a file for QEMU's -readconfig",
    "podman": "a Podman machine (JSON)",
    "cloud-hypervisor": "a cloud-hypervisor machine (JSON)",
    "firecracker": "a Firecracker machine (JSON)",
    "gns3": "a GNS3 appliance (.gns3a)",
    "utm": "a UTM machine (config.plist)",
    "hyperv": "a Hyper-V machine (.vmcx, .xml)",
    "parallels": "a Parallels machine (config.pvs)",
}
"""Kind → what it is."""

_READERS = {"virt-install": "virt_install", "cloud-hypervisor": "microvm", "firecracker": "microvm"}
"""Kind → the module whose `read` takes it, where that has another name."""
_WITH_COMPANION = ("proxmox", "parallels")

_DOMAIN = re.compile(r"<(?:[\w.-]{1,64}:)?domain\s[^>]{0,512}?\btype\s*=")
_ROOTS = {
    **dict.fromkeys(("domainCapabilities", "capabilities", "hostcapabilities", "cpu", "network", "pool"), ""),
    **{"domain": "libvirt", "Envelope": "ovf", "VirtualBox": "vbox", "plist": "utm", "configuration": "hyperv"},
    "ParallelsVirtualMachine": "parallels",
}
"""Root of a document → kind; one of another name is libvirt's where a domain is in it: a status, a snapshot."""
_UTM = re.compile(r"<key>(?:Backend|ConfigurationVersion)</key>")
_VMX = re.compile(
    r'^[ \t]*(?:config\.version|virtualHW\.version|displayName|memsize)[ \t]*=[ \t]*"', re.MULTILINE | re.IGNORECASE
)
_INSTALL = re.compile(r"^[ \t]*(?:sudo[ \t]+)?(?:[\w/.-]*/)?virt-install[ \t]+(?:-|\\$)", re.MULTILINE)
_QUICKEMU = re.compile(r"^[ \t]*(?:guest_os|disk_img)=", re.MULTILINE)


_LINES = (
    (r"^kind:[ \t]*[\"']?(?:VirtualMachine|VirtualMachineInstance)\b", r"^apiVersion:[ \t]*[\"']?kubevirt\.io/", "kubevirt"),
    (r"^type:[ \t]*(?:virtual-machine|container)\b", "", "incus"),
    (r"^(?:expanded_)?devices:", r"^[ ]+type:[ \t]*(?:disk|nic)\b", "incus"),
    (r"^[ ]+(?:instance|container):", r"^[ ]+(?:expanded_)?config:", "incus"),
    (r"^(?:vmType|minimumLimaVersion|mountType):", r"\A(?!(?s:.*^runtime:))", "lima"),
    (r"^images:", r"^[ \t]*-[ \t]+[\"']?(?:location|arch)\b", "lima"),
    (r"^(?:scsi|virtio|ide|sata|net)\d+: |^(?:scsihw|vmgenid|ostype|bootdisk|smbios1|efidisk0|amd-sev): ", "", "proxmox"),
    (r"^(?:disk|vif)[ \t]*=[ \t]*\[|^builder[ \t]*=|^type[ \t]*=[ \t]*[\"'](?:pv|pvh|hvm)[\"']", "", "xl"),
    (r'^\[(?:machine|device|drive|netdev|chardev|memory|object|smp-opts)(?: "[^"]*")?\]', "", "readconfig"),
)
"""A line that is in a text of a kind, another that is too, and the kind; the surest first."""
_JSON_KEYS = (
    ({"machine-config"}, "firecracker"),
    ({"boot-source"}, "firecracker"),
    ({"payload"}, "cloud-hypervisor"),
    ({"config", "state"}, "cloud-hypervisor"),
    ({"CmdLine"}, "podman"),
    ({"Resources", "SSH"}, "podman"),
    ({"kind"}, "kubevirt"),
    ({"registry_version"}, "gns3"),
    ({"architecture", "devices"}, "incus"),
    ({"images", "vmType"}, "lima"),
)


def kind_of(text: str) -> str:
    """The kind of a text; empty where it is none of them."""
    if text.lstrip("\ufeff \t\r\n").startswith("<"):
        from tinamou.convert.xml import root_of

        root = root_of(text)
        if root == "plist" and not _UTM.search(text):
            return ""
        return _ROOTS[root] if root in _ROOTS else "libvirt" if root and _DOMAIN.search(text) else ""
    if text.lstrip("\ufeff \t\r\n").startswith("{"):
        return _of_json(text)
    if _VMX.search(text):
        return "vmx"
    from tinamou.convert import qemu

    if _INSTALL.search(text) and "qemu-system-" not in text:
        return "virt-install"
    if qemu.is_script(text):
        return "qemu"
    if text.startswith("#!"):
        return ""  # whatever it writes into files of its own
    kind = next((name for *lines, name in _LINES if all(re.search(one, text, re.MULTILINE) for one in lines)), "")
    return kind or ("quickemu" if _QUICKEMU.search(text) else "")


def _of_json(text: str) -> str:
    from tinamou.convert.tree import of_json

    try:
        keys = {key for key, _ in of_json(text, "the source").pairs()}
    except SpecError:
        return ""
    return next((kind for wanted, kind in _JSON_KEYS if wanted <= keys), "")


def read(text: str, name: str = "the source", companion: Callable[[str], str] = lambda _: "") -> Draft:
    """The draft of a text of any kind; ``companion`` is the text of a file that belongs to it. Raises SpecError."""
    kind = kind_of(text)
    if kind:
        return _reader(kind)(text, companion) if kind in _WITH_COMPANION else _reader(kind)(text)
    known = "; ".join(KINDS.values())
    why = f"it converts {known}; an OVA, a Vagrant box, a Proxmox backup"
    raise SpecError(f"{name} is nothing tinamou converts", why=why, fix="see tinamou convert --help")


def _reader(kind: str) -> Callable[..., Draft]:
    found: Callable[..., Draft] = importlib.import_module(f"tinamou.convert.{_READERS.get(kind, kind)}").read
    return found
