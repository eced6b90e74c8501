"""Small files of /proc: read in four system calls, where Python's own way takes nine, as there is one for every process."""

from __future__ import annotations

import os
import re

from tinamou.system.closing import Closing

__all__ = ["descendants", "numbers", "read", "stat", "user_ids", "users"]

_PIECE = 16384
_UIDS = re.compile(rb"^Uid:\s+(.*)$", re.MULTILINE)


def read(pid: int | str, name: str, most: int = 65536) -> bytes:
    """A file of a process, or ``"self"``; at most so many bytes of it. Raises OSError."""
    with Closing(os.open(f"/proc/{pid}/{name}", os.O_RDONLY | os.O_CLOEXEC)) as descriptor:
        found = b""
        while len(found) < most and (more := os.read(descriptor, min(_PIECE, most - len(found)))):
            found += more
        return found


def numbers() -> list[int]:
    """The processes there are."""
    return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208


def stat(pid: int) -> list[str] | None:
    """The fields of /proc/PID/stat from the state on (source: proc_pid_stat(5); index 0 is field 3)."""
    try:
        return read(pid, "stat").rpartition(b")")[2].decode().split()
    except (FileNotFoundError, ProcessLookupError):
        return None


def descendants(pid: int) -> set[int]:
    """The processes it has started, and those they have, as far as who started each is still there (proc_pid_stat(5))."""
    children: dict[int, list[int]] = {}
    for one in numbers():
        if fields := stat(one):  # else it ended just now
            children.setdefault(int(fields[1]), []).append(one)
    found, left = set[int](), [pid]
    while left:
        new = set(children.get(left.pop(), ())) - found
        found |= new
        left += new
    return found


def users(pid: int) -> set[int]:
    """The same, sooner where it is one that is not root, or runs no program. Raises OSError.

    The folder belongs to the effective user, whatever else of it is hidden (source: fs/proc/base.c, ``task_dump_owner``).
    """
    user = os.stat(f"/proc/{pid}").st_uid  # noqa: PTH116
    if user == 0 and not _runs_a_program(pid):
        return {0}
    return {user, *user_ids(pid)}


def _runs_a_program(pid: int) -> bool:
    """A thread of the kernel runs none, nor does what has ended."""
    try:
        os.readlink(f"/proc/{pid}/exe")  # noqa: PTH115
    except FileNotFoundError:
        return False
    except PermissionError:
        pass
    return True


def user_ids(pid: int) -> set[int]:
    """Its user ids: real, effective, saved, of the file system (source: proc_pid_status(5)). Raises OSError."""
    found = _UIDS.search(read(pid, "status", 4096))
    return {int(uid) for uid in found[1].split()} if found else set()
