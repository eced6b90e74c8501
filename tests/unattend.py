"""What an answer file of Windows may hold: components, the passes they are read in, their settings.

Source: Microsoft, *Unattended Windows Setup Reference*: the pages of each component and setting (windows-driver-docs,
customize/desktop/unattend), values and valid configuration passes. Only what tinamou writes is here: anything else is wrong.
"""

from __future__ import annotations

import base64
import re
from collections.abc import Iterator
from xml.etree.ElementTree import Element, fromstring

SPACE = "{urn:schemas-microsoft-com:unattend}"
CONFIG = "{http://schemas.microsoft.com/WMIConfig/2002/State}"
PASSES = ("windowsPE", "offlineServicing", "generalize", "specialize", "auditSystem", "auditUser", "oobeSystem")

TEXT, TRUTH, NUMBER = r"[^\r\n]*", "true|false", r"\d+"
_LANGUAGE = r"[a-z]{2,3}(-[A-Za-z]{4})?(-[A-Z]{2})?"
_LANGUAGES = {
    "InputLocale": rf"{_LANGUAGE}|[0-9a-fA-F]{{4}}:[0-9a-fA-F]{{8}}",
    **dict.fromkeys(("SystemLocale", "UILanguage", "UserLocale"), _LANGUAGE),
}
_SHOWN = "Always|Never|OnError"
_PASSWORD = {"PlainText": TRUTH, "Value": r"[A-Za-z0-9+/]+=*"}
_PATHS = {"DriverPaths": {"+PathAndCredentials": {"Path": r".{1,259}"}}}
_PARTITION = {"Order": NUMBER, "Type": "Primary|EFI|Extended|Logical|MSR", "Size": NUMBER, "Extend": TRUTH}
_MODIFIED = {
    **{"Active": TRUTH, "Extend": TRUTH, "Format": "NTFS|FAT32", "Label": r".{1,32}", "Letter": "[C-Z]"},
    **{"Order": NUMBER, "PartitionID": NUMBER, "TypeID": TEXT},
}

COMPONENTS = {
    "Microsoft-Windows-International-Core-WinPE": (
        ("windowsPE",),
        {**_LANGUAGES, "SetupUILanguage": {"UILanguage": _LANGUAGE}},
    ),
    "Microsoft-Windows-PnpCustomizationsWinPE": (("windowsPE",), _PATHS),
    "Microsoft-Windows-PnpCustomizationsNonWinPE": (("offlineServicing", "auditSystem"), _PATHS),
    "Microsoft-Windows-Setup": (
        ("windowsPE",),
        {
            "DiskConfiguration": {
                "+Disk": {
                    "CreatePartitions": {"+CreatePartition": _PARTITION},
                    "DiskID": NUMBER,
                    "ModifyPartitions": {"+ModifyPartition": _MODIFIED},
                    "WillWipeDisk": TRUTH,
                },
                "WillShowUI": _SHOWN,
            },
            "ImageInstall": {
                "OSImage": {
                    "InstallFrom": {"+MetaData": {"Key": "/IMAGE/(INDEX|NAME|DESCRIPTION)", "Value": r".+"}},
                    "InstallTo": {"DiskID": NUMBER, "PartitionID": NUMBER},
                    "WillShowUI": _SHOWN,
                }
            },
            "UserData": {
                "AcceptEula": TRUTH,
                "FullName": r".{1,63}",
                "Organization": r".{1,63}",
                "ProductKey": {"Key": r"([0-9A-Z]{5}-){4}[0-9A-Z]{5}", "WillShowUI": _SHOWN},
            },
        },
    ),
    "Microsoft-Windows-PartitionManager": (("offlineServicing",), {"SanPolicy": "[1-3]"}),
    "Microsoft-Windows-International-Core": (("specialize", "oobeSystem"), _LANGUAGES),
    "Microsoft-Windows-Shell-Setup": (
        ("specialize", "oobeSystem"),
        {
            "ComputerName": r"(?!\d+$)[^\s{|}~\[\]':;<=>?@!\"#$%^`()+/.,*&\\]{1,15}",
            "TimeZone": r".{1,255}",
            "AutoLogon": {"Enabled": TRUTH, "LogonCount": NUMBER, "Password": _PASSWORD, "Username": r".{1,256}"},
            "FirstLogonCommands": {
                "+SynchronousCommand": {"CommandLine": r".{1,1024}", "Description": r".{0,256}", "Order": NUMBER}
            },
            "OOBE": {
                **dict.fromkeys(
                    ("HideEULAPage", "HideOEMRegistrationScreen", "HideOnlineAccountScreens", "HideWirelessSetupInOOBE"),
                    TRUTH,
                ),
                "ProtectYourPC": "[123]",
            },
            "UserAccounts": {"LocalAccounts": {"+LocalAccount": {"Group": TEXT, "Name": r".{1,20}", "Password": _PASSWORD}}},
        },
    ),
}
"""Component → passes, and settings: patterns, tables of settings; ``+`` is one of a list (``wcm:action="add"``)."""

_IN_ONE_PASS = {"ComputerName": "specialize", "AutoLogon": "oobeSystem", "FirstLogonCommands": "oobeSystem"}
_ATTRIBUTES = {
    "processorArchitecture": "amd64",
    "publicKeyToken": "31bf3856ad364e35",
    "language": "neutral",
    "versionScope": "nonSxS",
}


def faults(text: str) -> list[str]:
    """Everything an answer file says that Windows does not know, or not there."""
    return list(_faults(fromstring(text)))


def _faults(root: Element) -> Iterator[str]:
    if root.tag != f"{SPACE}unattend":
        yield f"the root is {root.tag}"
    seen = [one.get("pass", "") for one in root]
    if seen != [one for one in PASSES if one in seen]:
        yield f"passes {seen}: unknown, twice, or out of order"
    for settings in root:
        names = [one.get("name", "") for one in settings]
        if len(names) != len(set(names)):
            yield f"a component twice in {settings.get('pass')}"
        for component in settings:
            yield from _of_component(settings.get("pass", ""), component)


def _of_component(where: str, component: Element) -> Iterator[str]:
    name = component.get("name", "")
    passes, settings = COMPONENTS.get(name, ((), {}))
    if where not in passes:
        yield f"{name} is not read in {where}"
    if {key: value for key, value in component.attrib.items() if key != "name"} != _ATTRIBUTES:
        yield f"{name} has attributes {component.attrib}"
    for one in component:
        tag = one.tag.removeprefix(SPACE)
        if _IN_ONE_PASS.get(tag, where) != where:
            yield f"{tag} is not read in {where}"
    yield from _of_table(name, component, settings)


def _of_table(path: str, node: Element, known: dict) -> Iterator[str]:
    tags = [one.tag.removeprefix(SPACE) for one in node]
    for tag in tags:
        if tags.count(tag) > 1 and f"+{tag}" not in known:
            yield f"{path}/{tag} is there twice"
    orders = [one.findtext(f"{SPACE}Order") for one in node]
    if any(orders) and orders != [str(n) for n in range(1, len(orders) + 1)]:
        yield f"{path}: orders {orders}"
    for one in node:
        tag = one.tag.removeprefix(SPACE)
        listed = f"+{tag}" in known
        rule = known.get(f"+{tag}" if listed else tag)
        if rule is None:
            yield f"{path}/{tag} is unknown"
        elif listed is not (one.get(f"{CONFIG}action") == "add"):
            yield f"{path}/{tag}: one of a list has wcm:action=add, and nothing else has"
        elif isinstance(rule, dict):
            yield from _of_table(f"{path}/{tag}", one, rule)
        elif len(one) or not re.fullmatch(rule, one.text or ""):
            yield f"{path}/{tag} = {one.text!r}"


def password(value: str) -> str:
    """What a hidden password stands for (source: the page of ``Password/PlainText``)."""
    return base64.b64decode(value).decode("utf-16-le").removesuffix("Password")
