"""AppArmor profiles of a machine: loaded, widened by what is plugged in, entered by its helpers, removed.

The kernel keeps a profile until it is removed or the host restarts; which ones a machine has is in its journal. Source:
apparmor_parser(8), Documentation/admin-guide/LSM/apparmor.rst.
"""

from __future__ import annotations

import os
from pathlib import Path

from tinamou.blueprint import HandOver, LoadProfiles
from tinamou.errors import PrepareError
from tinamou.prepare.journal import Entry, Journal
from tinamou.system import apparmor
from tinamou.system.apparmor import APPARMOR, PARSER
from tinamou.system.exec import CommandError, find_tool, run
from tinamou.system.replaced import replace_text
from tinamou.tuning.apparmor import HELPERS, of_network, rule

__all__ = ["admit", "entering", "load", "remove", "serving"]

_TEXT = "apparmor"
"""The file in a machine's folder that has its profiles."""


def load(step: LoadProfiles, journal: Journal) -> None:
    """Load them in place of those of an earlier start. Raises PrepareError."""
    if not _held(journal):
        journal.take("profiles", name=step.name)
    _load(journal.path.parent / _TEXT, step.text)


def _load(path: Path, text: str) -> None:
    replace_text(path, text)
    try:
        run([*PARSER, str(path)], timeout=60)
    except CommandError as error:
        fix = f"apparmor_parser --debug {path} tells what it does not understand"
        raise PrepareError("the machine's AppArmor profiles cannot be loaded", why=error.stderr.strip(), fix=fix) from error


def admit(step: HandOver, journal: Journal) -> None:
    """Let QEMU use one more file that it is handed. Raises PrepareError."""
    name, path = _held(journal), journal.path.parent / _TEXT
    if not name or step.access not in ("read", "write", "secret"):
        return
    line = rule(step.path, "rwk" if step.access == "write" else "r")
    text = path.read_text()
    if line not in text and not step.path.startswith(f"{journal.path.parent}/"):
        head, frame, rest = text.partition(f'profile "{name}" ')
        opened, brace, rules = rest.partition("{\n")
        _load(path, f"{head}{frame}{opened}{brace}{line}{rules}")


def entering(helper: str, journal: Journal) -> str:
    """The profile a helper of the machine starts under; empty where the machine has no profiles."""
    name = _held(journal)
    mine = next((one for one in HELPERS if helper.startswith(one)), None)
    return f"{name}-{mine}" if name and mine else ""


def _held(journal: Journal) -> str:
    """The name of the machine's profiles, empty where it has none."""
    return next((str(one["name"]) for one in journal.open_entries().values() if one["kind"] == "profiles"), "")


def serving(name: str, folder: Path) -> str:
    """The same profile, which a network's dnsmasq starts under and is loaded here; empty without AppArmor."""
    if os.geteuid() or not (APPARMOR / ".remove").exists() or not find_tool(PARSER[0]):
        return ""
    _load(folder / _TEXT, of_network(name, str(folder)))
    return name


def remove(entry: Entry) -> None:
    """Remove what a machine had. Raises OSError."""
    for suffix in ("", *(f"-{helper}" for helper in HELPERS)):
        apparmor.remove(f"{entry['name']}{suffix}")
