"""What changed between two versions of a Debian package, as its changelog has it (source: deb-changelog(5))."""

from __future__ import annotations

import gzip
import re
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path

__all__ = ["CHANGELOGS", "CVE", "security_fixes"]

CHANGELOGS = Path("/usr/share/doc")
_NAME = "qemu-system-*/changelog.Debian.gz"
_HEAD = re.compile(r"^\S+ \((?P<version>[^)]+)\) ")
CVE = re.compile(r"CVE-\d{4}-\d{4,}")
_MOST = 16 << 20


def security_fixes(before: str, now: str, folder: Path = CHANGELOGS) -> tuple[str, ...] | None:
    """The lines with a CVE of what came after version ``before`` and up to ``now``, newest first, as QEMU has packages.

    ``Debian 1:7.2+dfsg-7+deb12u18+b3`` is one. None where no changelog here knows both.
    """
    wanted = _version(before), _version(now)
    for path in sorted(folder.glob(_NAME)):
        try:
            with gzip.open(path) as file:
                entries = list(_entries(file.read(_MOST).decode(errors="replace").splitlines()))
        except (OSError, EOFError, zlib.error):
            continue
        versions = [version for version, _ in entries]
        if wanted[0] in versions and wanted[1] in versions:
            newer = entries[versions.index(wanted[1]) : versions.index(wanted[0])]
            return tuple(dict.fromkeys(line for _, lines in newer for line in lines if CVE.search(line)))
    return None


def _version(package: str) -> str:
    """Without the distribution's name, and without the number of a mere rebuild."""
    return re.sub(r"\+b\d+$", "", package.rpartition(" ")[2])


def _entries(lines: Iterable[str]) -> Iterator[tuple[str, list[str]]]:
    """Each version, and its items, lines of one joined."""
    version, items = "", list[str]()
    for line in lines:
        if head := _HEAD.match(line):
            if version:
                yield version, items
            version, items = head["version"], []
        elif not line.startswith(" -- ") and (text := line.strip()):
            if text[0] in "*-+[" or not items:
                items.append(text.lstrip("*-+ "))
            else:
                items[-1] += f" {text}"
    if version:
        yield version, items
