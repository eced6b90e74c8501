"""What lies in a folder of a guest, told by its own find(1) and stat(1): a busybox suffices."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterator, Sequence

from tinamou.errors import GuestError
from tinamou.guest.command import Completed
from tinamou.late import dataclass

__all__ = ["Found", "Run", "links", "look", "parsed", "walk"]

Run = Callable[[Sequence[str]], Awaitable[Completed]]
"""Runs a command in the guest; its status is looked at by who asked."""

_FORMAT = "%f %s %u %g %U %G %Y %Z %i"
_EACH = r"""
s=$(stat -c "$0" -- "$@" 2>/dev/null)
if [ "$(printf '%s\n' "$s" | wc -l)" = $# ]; then
    printf '%s\0' "$@"; printf '\0%s\0' "$s"
else
    for f; do s=$(stat -c "$0" -- "$f" 2>/dev/null) || continue; printf '%s\0\0%s\0' "$f" "$s"; done
fi
"""
_WALK = f"""
path=$1; depth=$2; shift 2
find -H "$path" -mindepth 1 -maxdepth "$depth" "$@" -exec sh -c "$0" '{_FORMAT}' {{}} +
"""
"""For each batch the names, each ended by NUL, a NUL, and a line for each of them, ended by NUL: a name can hold all but
NUL."""

_LOOK = f"""[ -e "$1" ] || [ -L "$1" ] || exit 44; stat $2 -c '{_FORMAT}' -- "$1\""""
_LINKS = r"""for f; do printf '%s\0' "$(readlink "$f"; echo .)"; done"""


@dataclass(frozen=True)
class Found:
    """A file, folder or link: its whole path, ``mode`` with the kind in it (stat(2)), times in seconds since 1970."""

    path: str
    mode: int
    size: int
    owner: str
    group: str
    modified: int
    changed: int
    inode: int


async def walk(run: Run, path: str, depth: int = 1, *words: str) -> list[Found]:
    """What is below a folder of the guest, ``depth`` levels deep, in find's order. Raises GuestError.

    ``words`` are find's own, as ``-xdev``. What vanishes meanwhile is left out.
    """
    done = await run(["sh", "-c", _WALK, _EACH, path, str(depth), *words])
    if done.truncated:
        raise GuestError(f"The folder {path} holds more than can be listed", fix="list a smaller part of it, or less deep")
    if done.status and not done.stdout:
        raise GuestError(f"The folder {path} cannot be listed", why=done.stderr.decode(errors="replace").strip())
    return list(parsed(done.stdout))


async def look(run: Run, path: str, *, follow: bool = False) -> Found | None:
    """What is at a path, None where nothing is; with ``follow`` what a link leads to. Raises GuestError."""
    done = await run(["sh", "-c", _LOOK, "sh", path, "-L" if follow else ""])
    if done.status == 44:
        return None
    if done.status:
        raise GuestError(f"{path} cannot be looked at", why=done.stderr.decode(errors="replace").strip())
    return _found(path, done.stdout.decode(errors="replace").split())


def parsed(text: bytes) -> Iterator[Found]:
    """What `walk`'s script printed. Raises GuestError where it is something else."""
    names: list[bytes] = []
    fields = iter(text.split(b"\0")[:-1])
    for field in fields:
        if field:
            names.append(field)
            continue
        lines = next(fields, b"").splitlines()
        if len(lines) != len(names):
            raise GuestError("The guest's list of files cannot be read", why="names and lines do not match")
        for name, line in zip(names, lines, strict=True):
            yield _found(name.decode(errors="surrogateescape"), line.decode(errors="replace").split())
        names = []


def _found(path: str, words: Sequence[str]) -> Found:
    try:
        mode, size, uid, gid, user, group, modified, changed, inode = words
        numbers = (int(mode, 16), int(size), int(modified), int(changed), int(inode))
        if not 0 <= numbers[0] < 1 << 32 or any(abs(one) >> 64 for one in numbers):
            raise ValueError("no stat(2) says that")
    except ValueError:
        raise GuestError("The guest's list of files cannot be read", why=f"its stat said {' '.join(words)!r:.80}") from None
    kind, bytes_, when, status, number = numbers
    return Found(path, kind, bytes_, _name(user, uid), _name(group, gid), when, status, number)


def _name(name: str, number: str) -> str:
    """A busybox without the C library's name service knows no names: root's number is enough to know it."""
    return name if name != "UNKNOWN" else "root" if number == "0" else number


async def links(run: Run, paths: Sequence[str]) -> dict[str, str]:
    """Where those symbolic links lead, as written in them. Raises GuestError."""
    if not paths:
        return {}
    said = (await run(["sh", "-c", _LINKS, "sh", *paths])).stdout.split(b"\0")[:-1]
    return {path: target[:-2].decode(errors="surrogateescape") for path, target in zip(paths, said, strict=False)}
