"""First-boot configurations that firmware hands on: Ignition (Fedora CoreOS, Flatcar) and Combustion (openSUSE MicroOS).

Sources: Ignition's docs/supported-platforms.md (QEMU), docs/specs.md and its configuration specifications; Flatcar's
"Ignition Specification"; combustion's README.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

from tinamou.errors import Problem

__all__ = ["COMBUSTION", "IGNITION", "combustion_problems", "ignition_problems", "unsure", "with_key"]

IGNITION, COMBUSTION = "opt/com.coreos/config", "opt/org.opensuse.combustion/script"
"""Names of the files in QEMU's fw_cfg that a guest looks for."""

_VERSION = re.compile(r"([23])\.([0-9]{1,6})\.([0-9]{1,6})((?:[-+][0-9A-Za-z.+-]+)?)")
"""How Ignition has a version written: three numbers, and behind a dash what is not final yet (source: coreos/go-semver)."""
_LATEST = {"2": 4, "3": 6}
"""Of each major version of the format the latest minor one that was final when this was written."""

_LOGIN = "core"
"""The user of the images that read Ignition."""


def ignition_problems(text: str, path: str) -> Iterator[Problem]:
    """Why Ignition would stop the boot at a configuration, as far as its frame tells."""
    try:
        found = json.loads(text)
    except json.JSONDecodeError as error:
        if text.lstrip().startswith("variant:") or "\nvariant:" in text:
            yield Problem(path, None, "this is Butane, which is translated first", "butane --strict FILE > config.ign")
            return
        yield Problem(path, None, f"line {error.lineno}, column {error.colno}: {error.msg}", "correct that line; it is JSON")
        return
    except (ValueError, RecursionError) as error:
        yield Problem(path, None, f"not JSON: {error}", "make one with butane")
        return
    version = found.get("ignition", {}).get("version") if _tables(found) else None
    if not isinstance(version, str) or version.partition(".")[0] not in ("2", "3"):
        fix = 'begin with {"ignition": {"version": "3.3.0"}}'
        yield Problem(path, None, "no Ignition configuration: it names no version 2 or 3 of the format", fix)
    elif not _VERSION.fullmatch(version):
        yield Problem(f"{path}: ignition.version", version[:40], "Ignition reads no such version", "write it as in 3.3.0")


def unsure(text: str) -> str:
    """What is not known of a configuration's version, for who reads the plan; empty where it is final, known and 3.x.

    The program Ignition, from its release 2 on, reads format 3.x alone; Flatcar's translates 2.x too. Each does up to the
    version it was built with, and ends the boot at any other before there is anything to look into. Which of them an image
    has, nothing tells.
    """
    match = _VERSION.fullmatch(json.loads(text)["ignition"]["version"])
    assert match is not None, "problems() come before the plan"
    form, major, minor, patch, rest = f"Ignition's format {match[0][:40]}", match[1], int(match[2]), int(match[3]), match[4]
    if rest.startswith("-"):
        return f"{form} is not final: only the Ignition of its time reads it, and stops the boot otherwise"
    if minor > _LATEST[major] or patch or rest:
        known = f"2.0.0 to 2.{_LATEST['2']}.0 and 3.0.0 to 3.{_LATEST['3']}.0"
        return f"{form} is not known here ({known} are): an Ignition that does not know it stops the boot"
    if major == "2":
        others = "Fedora CoreOS and all others that read 3.x alone; which of them this image has is not known"
        return f"{form} is read by Flatcar, but stops the boot of {others}"
    return ""


def _tables(found: object) -> bool:
    return isinstance(found, dict) and isinstance(found.get("ignition", {}), dict)


def combustion_problems(text: str, path: str) -> Iterator[Problem]:
    """Why Combustion would not run a script."""
    if not text.startswith("#!"):
        shown = text.strip().splitlines()[0][:40] if text.strip() else ""
        yield Problem(path, shown, "not a script: Combustion runs it as a program", "begin it with #!/bin/bash")


def with_key(text: str, user: str, key: str) -> str:
    """The configuration with one more public key for a user, ``core`` where none is named; all else as it was."""
    config: dict[str, Any] = json.loads(text)
    users = config.setdefault("passwd", {}).setdefault("users", [])
    name = user or _LOGIN
    mine = next((one for one in users if isinstance(one, dict) and one.get("name") == name), None)
    if mine is None:
        mine = {"name": name}
        users.append(mine)
    mine["sshAuthorizedKeys"] = [*mine.get("sshAuthorizedKeys", []), key]
    return json.dumps(config, indent=1) + "\n"
