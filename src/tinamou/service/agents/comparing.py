"""Which files differ between two guests, and how: what a fork did that its brother did not."""

from __future__ import annotations

import asyncio
import difflib
import stat
from collections.abc import Sequence
from typing import TypedDict

from tinamou.errors import GuestError
from tinamou.service.agents.listing import Found, Run, walk

__all__ = ["FOLDERS", "Difference", "compare"]

FOLDERS = ("/root", "/home", "/etc", "/opt", "/srv", "/tmp", "/usr/local", "/var")  # noqa: S108 (the guest's)
"""Where files are looked at, where nobody says otherwise: what users and programs write to."""

_DEEPEST, _TEXT_BYTES, _AT_ONCE = 64, 64 << 10, 200
_SUMS = """
for f; do
    if [ -L "$f" ]; then readlink "$f" | sha256sum; else sha256sum <"$f" 2>/dev/null || echo -; fi
done
"""
_THERE = 'for f; do [ -d "$f" ] && printf "%s\\0" "$f"; done; :'


class Difference(TypedDict):
    """One path that is not the same: ``how`` is ``only in first``, ``only in second``, ``kind``, ``mode`` or ``content``;
    ``diff`` the unified diff of a text, empty where there is none."""

    path: str
    how: str
    diff: str


async def compare(first: Run, second: Run, folders: Sequence[str] = FOLDERS, *, diffs: int = 20) -> list[Difference]:
    """What is not the same below those folders of two guests, by path; ``diffs`` of them at most with the texts compared.

    Files of the same size that were last changed at the same moment count as equal where both are the same inode: so are
    those of forks. All others are read. Raises GuestError.
    """
    here, there = await asyncio.gather(_tree(first, folders), _tree(second, folders))
    found = {path: _how(here.get(path), there.get(path)) for path in sorted({*here, *there})}
    doubtful = [path for path, how in found.items() if how == "?"]
    sums, others = await asyncio.gather(_sums(first, doubtful), _sums(second, doubtful))
    found |= {path: "" if sums[path] == others[path] else "content" for path in doubtful}
    differences = [Difference(path=path, how=how, diff="") for path, how in found.items() if how]
    for one in [one for one in differences if one["how"] == "content"][:diffs]:
        one["diff"] = await _diff(first, second, one["path"])
    return differences


async def _tree(run: Run, folders: Sequence[str]) -> dict[str, Found]:
    """Everything below those folders that are there, by path; other file systems left out."""
    there = (await run(["sh", "-c", _THERE, "sh", *folders])).stdout.decode(errors="surrogateescape").split("\0")[:-1]
    found = [one for folder in there for one in await walk(run, folder, _DEEPEST, "-xdev")]
    return {one.path: one for one in found}


def _how(one: Found | None, other: Found | None) -> str:
    """What is not the same; ``?`` where the contents must be read for that."""
    if one is None or other is None:
        return "only in second" if one is None else "only in first"
    if stat.S_IFMT(one.mode) != stat.S_IFMT(other.mode):
        return "kind"
    if stat.S_ISREG(one.mode) and one.size != other.size:
        return "content"
    if (one.mode, one.owner, one.group) != (other.mode, other.owner, other.group):
        return "mode"
    same = (one.changed, one.modified, one.inode) == (other.changed, other.modified, other.inode)
    return "?" if (stat.S_ISREG(one.mode) or stat.S_ISLNK(one.mode)) and not same else ""


async def _sums(run: Run, paths: Sequence[str]) -> dict[str, str]:
    sums: list[str] = []
    for start in range(0, len(paths), _AT_ONCE):
        done = await run(["sh", "-c", _SUMS, "sh", *paths[start : start + _AT_ONCE]])
        sums += [line.split()[0] for line in done.stdout.decode(errors="replace").splitlines()]
    if len(sums) != len(paths):
        raise GuestError("The files of the guest cannot be compared", why="its sha256sum said something else than sums")
    return dict(zip(paths, sums, strict=True))


async def _diff(first: Run, second: Run, path: str) -> str:
    """The unified diff of a text; empty for what is none, or too long."""
    one, other = await asyncio.gather(*(run(["head", "-c", str(_TEXT_BYTES + 1), path]) for run in (first, second)))
    if max(len(one.stdout), len(other.stdout)) > _TEXT_BYTES:
        return ""
    try:
        before, after = (side.stdout.decode().splitlines(keepends=True) for side in (one, other))
    except UnicodeDecodeError:
        return ""
    return "".join(difflib.unified_diff(before, after, f"first{path}", f"second{path}"))
