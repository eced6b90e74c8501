"""Reader of the files QEMU takes with ``-readconfig``: sections that stand for options, keys that stand for their settings.

Source: QEMU docs/config, and util/qemu-config.c for the form of a line.
"""

from __future__ import annotations

import re

from tinamou.convert import qemu
from tinamou.convert.result import Draft
from tinamou.errors import SpecError

__all__ = ["SECTION", "read"]

SECTION = re.compile(r'\[([\w-]+)(?: "([^"]*)")?\]')
_SETTING = re.compile(r'([\w.-]+)\s*=\s*"([^"]*)"')
_OPTIONS = {"memory": "m", "smp-opts": "smp", "boot-opts": "boot", "rtc": "rtc"}
"""Section → option, where they are called differently."""


def read(text: str) -> Draft:
    """The machine. Raises SpecError for a line that is none of such a file."""
    words: list[str] = []
    settings: list[str] = []
    name = ""

    def close() -> None:
        if name:
            words.extend([f"-{_OPTIONS.get(name, name)}", ",".join(settings)])

    for number, raw in enumerate(text.splitlines(), 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        if section := SECTION.fullmatch(line):
            close()
            name, settings = section[1], [f"id={_value(section[2])}"] if section[2] else []
        elif (setting := _SETTING.fullmatch(line)) and name:
            settings.append(f"{setting[1]}={_value(setting[2])}")
        else:
            raise SpecError("this is no file for -readconfig", why=f"line {number} is neither a section nor a setting")
    close()
    draft = qemu.read_words(words)
    draft.source = "a file for QEMU's -readconfig"
    draft.whole = True
    return draft


def _value(text: str) -> str:
    return text.replace(",", ",,")
