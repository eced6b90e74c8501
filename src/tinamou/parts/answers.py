"""Answers to the setup of Windows: autounattend.xml, and the script that is run when the first user is there.

Source: Microsoft, *Unattended Windows Setup Reference* (components, the passes each is read in, settings).
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

from tinamou.parts.windows_spec import WindowsSpec

__all__ = ["MACHINE_KEY", "PASSWORD", "SCRIPT", "Target", "computer_name", "documents", "hidden"]

PASSWORD = "@PASSWORD@"  # noqa: S105 - it stands for one
"""Stands for the user's password, which is put in its place, in the form of `hidden`, when the disc is written."""
MACHINE_KEY = "@MACHINE_KEY@"
"""Stands for the machine's own public key."""

SCRIPT = "tinamou/setup.ps1"
"""The script's place on the disc."""

_LETTERS = "DEFGHIJ"
"""Where Windows may find a disc: which letter it gets depends on the others."""
_FOLDERS = {"windows-10": "w10", "windows-11": "w11"}
_DRIVERS = ("viostor", "vioscsi", "NetKVM", "vioserial", "Balloon", "viorng", "pvpanic")
"""Folders of virtio-win.iso: disks and cards, the agent's channel, the small devices."""
_COMPONENT = 'processorArchitecture="amd64" publicKeyToken="31bf3856ad364e35" language="neutral" versionScope="nonSxS"'
_MARK = "\ufeff"
_ZONE = "HKLM:\\SYSTEM\\CurrentControlSet\\Control\\TimeZoneInformation"
"""Where it says that the machine's clock has UTC, and goes on to have it when somebody changes the zone."""
_LONGEST = 15
"""Characters of a computer's name (NetBIOS)."""

Tree = Sequence["Node"]


class Node(NamedTuple):
    """One setting: its name, its value or what is in it; with ``add`` it is one of a list, with ``key`` by that key."""

    name: str
    value: str | Tree = ""
    add: bool = False
    key: str = ""


class Target(NamedTuple):
    """What is installed: the system (``windows-11``), the machine's name, UEFI or BIOS, drivers from a disc."""

    os: str
    name: str
    uefi: bool
    drivers: bool


def hidden(password: str) -> str:
    """A password as answer files have it: no protection, but nothing that is read in passing."""
    return base64.b64encode(f"{password}Password".encode("utf-16-le")).decode()


def computer_name(name: str) -> str:
    """The machine's name as Windows takes it: 15 characters, no digit alone."""
    short = name[:_LONGEST].strip("-")
    return f"W-{short}"[:_LONGEST].strip("-") if short.isdecimal() else short


def documents(spec: WindowsSpec, target: Target) -> dict[str, str]:
    """The files of the disc by their names. Disks that come later are online on servers, too (SanPolicy 1)."""
    passes = {
        "windowsPE": [
            *_language_of_setup(spec),
            *_driver_paths("Microsoft-Windows-PnpCustomizationsWinPE", target),
            _setup(spec, target),
        ],
        "offlineServicing": [
            Node("Microsoft-Windows-PartitionManager", [Node("SanPolicy", "1")]),
            *_driver_paths("Microsoft-Windows-PnpCustomizationsNonWinPE", target),
        ],
        "specialize": [*_specialize(spec, target)],
        "oobeSystem": [*_oobe(spec)],
    }
    return {"autounattend.xml": "".join(_written(passes)), SCRIPT: _script(spec, target)}


def _written(passes: dict[str, list[Node]]) -> Iterator[str]:
    yield '<?xml version="1.0" encoding="utf-8"?>\n'
    yield '<unattend xmlns="urn:schemas-microsoft-com:unattend" xmlns:wcm="http://schemas.microsoft.com/WMIConfig/2002/State">\n'
    for name, components in passes.items():
        if components:
            yield f'  <settings pass="{name}">\n'
            for one in components:
                yield f'    <component name="{one.name}" {_COMPONENT}>\n'
                yield from (line for node in one.value if isinstance(node, Node) for line in _lines(node, "      "))
                yield "    </component>\n"
            yield "  </settings>\n"
    yield "</unattend>\n"


def _lines(node: Node, indent: str) -> Iterator[str]:
    attributes = (' wcm:action="add"' if node.add else "") + (f' wcm:keyValue="{node.key}"' if node.key else "")
    if isinstance(node.value, str):
        yield f"{indent}<{node.name}{attributes}>{escape(node.value, quote=False)}</{node.name}>\n"
        return
    yield f"{indent}<{node.name}{attributes}>\n"
    for inner in node.value:
        yield from _lines(inner, indent + "  ")
    yield f"{indent}</{node.name}>\n"


def _languages(spec: WindowsSpec) -> list[Node]:
    keyboard = spec.keyboard or spec.locale
    others = ("SystemLocale", "UILanguage", "UserLocale")
    return [Node("InputLocale", keyboard), *(Node(name, spec.locale) for name in others)]


def _language_of_setup(spec: WindowsSpec) -> Iterator[Node]:
    first = Node("SetupUILanguage", [Node("UILanguage", spec.locale)])
    yield Node("Microsoft-Windows-International-Core-WinPE", [first, *_languages(spec)])


def _driver_paths(component: str, target: Target) -> Iterator[Node]:
    """Each folder of drivers on each disc there may be: those that are not there are passed over."""
    if not target.drivers:
        return
    release = _FOLDERS.get(target.os, f"2k{target.os[-2:]}")
    places = [f"{letter}:\\{driver}\\{release}\\amd64" for letter in _LETTERS for driver in _DRIVERS]
    paths = [Node("PathAndCredentials", [Node("Path", path)], add=True, key=str(n)) for n, path in enumerate(places, 1)]
    yield Node(component, [Node("DriverPaths", paths)])


def _setup(spec: WindowsSpec, target: Target) -> Node:
    disk = [
        Node("CreatePartitions", list(_partitions(target))),
        Node("DiskID", "0"),
        Node("ModifyPartitions", list(_formats(target))),
    ]
    disks = [Node("Disk", [*disk, Node("WillWipeDisk", "true")], add=True), Node("WillShowUI", "OnError")]
    into = Node("InstallTo", [Node("DiskID", "0"), Node("PartitionID", "3" if target.uefi else "2")])
    image = [*_edition(spec), into, Node("WillShowUI", "OnError")]
    key = [Node("Key", spec.product_key)] if spec.product_key else []
    user = [
        Node("AcceptEula", "true"),
        Node("FullName", spec.user),
        Node("ProductKey", [*key, Node("WillShowUI", "OnError")]),
    ]
    parts = [Node("DiskConfiguration", disks), Node("ImageInstall", [Node("OSImage", image)]), Node("UserData", user)]
    return Node("Microsoft-Windows-Setup", parts)


def _edition(spec: WindowsSpec) -> Iterator[Node]:
    if spec.edition:
        key = "/IMAGE/INDEX" if spec.edition.isdecimal() else "/IMAGE/NAME"
        data = Node("MetaData", [Node("Key", key), Node("Value", spec.edition)], add=True)
        yield Node("InstallFrom", [data])


def _partitions(target: Target) -> Iterator[Node]:
    """UEFI: one for the firmware, Microsoft's reserved one, the rest; BIOS: one that is started from, the rest."""
    kinds = [("EFI", "300"), ("MSR", "16"), ("Primary", "")] if target.uefi else [("Primary", "500"), ("Primary", "")]
    for order, (kind, size) in enumerate(kinds, 1):
        room = Node("Size", size) if size else Node("Extend", "true")
        yield Node("CreatePartition", sorted([Node("Order", str(order)), room, Node("Type", kind)]), add=True)


def _formats(target: Target) -> Iterator[Node]:
    kinds = (
        [(1, "FAT32", "System"), (3, "NTFS", "Windows")] if target.uefi else [(1, "NTFS", "System"), (2, "NTFS", "Windows")]
    )
    for order, (number, kind, label) in enumerate(kinds, 1):
        active = [Node("Active", "true")] if not target.uefi and number == 1 else []
        letter = [Node("Letter", "C")] if label == "Windows" else []
        settings = [*active, Node("Format", kind), Node("Label", label), *letter, Node("Order", str(order))]
        yield Node("ModifyPartition", [*settings, Node("PartitionID", str(number))], add=True)


def _specialize(spec: WindowsSpec, target: Target) -> Iterator[Node]:
    """The machine's name, and its time zone."""
    named = [Node("ComputerName", computer_name(target.name)), Node("TimeZone", spec.timezone)]
    yield Node("Microsoft-Windows-Shell-Setup", named)


def _oobe(spec: WindowsSpec) -> Iterator[Node]:
    password = Node("Password", [Node("PlainText", "false"), Node("Value", PASSWORD)])
    logon = [Node("Enabled", "true"), Node("LogonCount", "1"), password, Node("Username", spec.user)]
    account = [Node("Group", "Administrators"), Node("Name", spec.user), password]
    letters = " ".join(_LETTERS)
    script = SCRIPT.replace("/", "\\")
    start = f"powershell.exe -NoProfile -ExecutionPolicy Bypass -File %d:\\{script}"
    line = f"cmd.exe /d /c for %d in ({letters}) do @if exist %d:\\{script} {start}"
    command = [Node("CommandLine", line), Node("Description", "tinamou"), Node("Order", "1")]
    skipped = ("HideEULAPage", "HideOEMRegistrationScreen", "HideOnlineAccountScreens", "HideWirelessSetupInOOBE")
    oobe = [*(Node(name, "true") for name in skipped), Node("ProtectYourPC", "3")]
    yield Node("Microsoft-Windows-International-Core", _languages(spec))
    yield Node(
        "Microsoft-Windows-Shell-Setup",
        [
            Node("AutoLogon", logon),
            Node("FirstLogonCommands", [Node("SynchronousCommand", command, add=True)]),
            Node("OOBE", oobe),
            Node("UserAccounts", [Node("LocalAccounts", [Node("LocalAccount", account, add=True)])]),
        ],
    )


def _script(spec: WindowsSpec, target: Target) -> str:
    """What is done once, by the first user; every step is tried, whatever became of the one before; lines end as there.

    It begins with a byte order mark: without one PowerShell 5.1 takes it for the code page of the system, in which a letter
    of UTF-8 may hold a quote (source: Microsoft, *about_Character_Encoding*).
    """
    lines = ["$ErrorActionPreference = 'Continue'", "Start-Transcript -Path C:\\tinamou-setup.log"]
    if spec.timezone == "UTC":
        lines.append(f"Set-ItemProperty -Path '{_ZONE}' -Name RealTimeIsUniversal -Type DWord -Value 1")
    if target.drivers and spec.agent:
        lines += [
            f"foreach ($drive in {', '.join(repr(letter) for letter in _LETTERS)}) {{",
            "  foreach ($msi in 'virtio-win-gt-x64.msi', 'guest-agent\\qemu-ga-x86_64.msi') {",
            '    $path = "${drive}:\\$msi"',
            "    $how = '/i', \"`\"$path`\"\", '/qn', '/norestart'",
            "    if (Test-Path $path) { Start-Process msiexec.exe -Wait -ArgumentList $how }",
            "  }",
            "}",
        ]
    if spec.ssh:
        lines += _ssh(spec)
    lines += [*spec.firstboot, "Stop-Transcript"]
    return _MARK + "".join(f"{line}\r\n" for line in lines)


def _ssh(spec: WindowsSpec) -> list[str]:
    """The server, its door in the firewall, and who may come in (source: Microsoft, *Get started with OpenSSH*)."""
    file = "C:\\ProgramData\\ssh\\administrators_authorized_keys"
    keys = ", ".join(quoted(key) for key in (MACHINE_KEY, *(one.strip() for one in spec.ssh_keys)))
    return [
        "Add-WindowsCapability -Online -Name OpenSSH.Server~~~~0.0.1.0",
        "Set-Service -Name sshd -StartupType Automatic",
        "Start-Service sshd",
        "New-NetFirewallRule -Name tinamou-ssh -DisplayName OpenSSH -Protocol TCP -LocalPort 22 -Action Allow",
        f"Set-Content -Path {file} -Encoding ascii -Value {keys}",
        f"icacls.exe {file} /inheritance:r /grant '*S-1-5-32-544:F' /grant '*S-1-5-18:F'",
    ]


def quoted(text: str) -> str:
    """A literal of PowerShell: in single quotes nothing is looked at but the quote, of which it knows five."""
    return "'" + "".join(one * 2 if one in "'\u2018\u2019\u201a\u201b" else one for one in text) + "'"
