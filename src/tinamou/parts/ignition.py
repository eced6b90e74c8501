"""First-boot configurations that firmware hands on: Ignition (Fedora CoreOS, Flatcar) and Combustion (openSUSE MicroOS).

Sources: Ignition's docs/supported-platforms.md (QEMU), its configuration specifications; combustion's README.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tinamou.errors import Problem

__all__ = ["COMBUSTION", "IGNITION", "combustion_problems", "ignition_problems", "with_key"]

IGNITION, COMBUSTION = "opt/com.coreos/config", "opt/org.opensuse.combustion/script"
"""Names of the files in QEMU's fw_cfg that a guest looks for."""

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
