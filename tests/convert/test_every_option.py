"""Every option each QEMU here knows: taken apart as QEMU does, and never dropped without a word."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from reading import converted

from tinamou.convert import qemu_line
from tinamou.probe.qemu import find_binary

_LINE = re.compile(r"-+([\w-]+)(?: or -+([\w-]+))?(.*)")
WITH_FILE = {"fda", "fdb", "hda", "hdb", "hdc", "hdd", "dtb", "M"}
"""Their help stands so far to the left that their value seems to be missing, or names another option instead."""


def documented(binary: str) -> dict[str, bool]:
    """Option → whether it has a value, as ``-help`` says."""
    text = subprocess.run([binary, "-help"], capture_output=True, text=True, check=True, stdin=subprocess.DEVNULL).stdout
    found = {}
    for line in text.splitlines():
        if match := _LINE.match(line) if line.startswith("-") else None:
            valued = re.match(r" \S", match[3]) is not None
            found |= {name: valued or name in WITH_FILE for name in match.groups()[:2] if name}
    return found


@pytest.fixture
def every(every_qemu):
    if every_qemu == "installed" and not shutil.which("qemu-system-x86_64"):
        pytest.skip("vm: no qemu-system-x86_64 in PATH (script/setup installs it)")
    return documented(find_binary("x86_64"))


def test_which_have_a_value(every):
    assert len(every) > 80
    told = {name: qemu_line.options([f"-{name}", "value"]) == [(name, "value")] for name in every}
    assert told == every


def test_none_is_silent(every):
    """Each alone: a note names it, or a field of the machine holds what it said."""
    plain = converted(["qemu-system-x86_64"])
    for name, valued in every.items():
        result = converted(["qemu-system-x86_64", f"-{name}", *(["file=7"] if valued else [])])
        more = [note for note in result.notes if note not in plain.notes]
        assert more or result.machine != plain.machine, name
