"""User ids leased to QEMU processes and their helpers: each to one machine of this host, whatever state directory it is in.

``uids.json`` (`tinamou.state.shared`) says which machine's folder has which; the folder's own ``uid`` file says so too, and
outlives a reboot. One is free again when its machine is gone and nothing of that user is left on the host, and is not
leased again soon: numbers are counted on, and begin anew only at the end.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

from tinamou.errors import StateError
from tinamou.facts import files
from tinamou.facts.identities import COUNT
from tinamou.state import shared
from tinamou.system import proc
from tinamou.system.closing import Closing
from tinamou.system.plain_file import folder_fault, read_own
from tinamou.system.replaced import replace_text

__all__ = ["FIRST", "kept_or_new", "lend", "moved", "of"]

FIRST = 1_900_000_000
"""The first of them: beyond every range distributions and systemd use (docs/decisions)."""
_KINDS = 3
_FILE = "uids.json"
_OPEN_TO_ALL = ("/tmp", "/var/tmp", "/dev/shm", "/dev/mqueue", "/run/lock")  # noqa: S108
_MOST_LOOKED_AT = 100_000


def lend(directories: Sequence[Path], *, taken: Collection[int] = (), known: Mapping[str, int] | None = None) -> list[int]:
    """One for each machine's folder, written into it; none of ``taken``. Raises StateError when there are not enough.

    ``known`` is what folders say that have been looked into just now.
    """
    with shared.held():
        return _lend(directories, taken, known or {})


def _lend(directories: Sequence[Path], taken: Collection[int], known: Mapping[str, int]) -> list[int]:
    leases, last = _leases(known)
    used = {*taken, *leases, *_alive_on_host()}
    after = (FIRST + number % COUNT for number in range(last + 1 - FIRST, last + 1 - FIRST + COUNT))
    free = list(itertools.islice((uid for uid in after if uid not in used), len(directories)))
    if len(free) < len(directories):
        why, fix = f"all {COUNT} are leased or have left something behind", "remove machines, or what is left in /tmp"
        raise StateError("no user id is free for another machine", why=why, fix=fix)
    leases.update((uid, str(directory)) for uid, directory in zip(free, directories, strict=True))
    _write(leases, free[-1] if free else last)
    for uid, directory in zip(free, directories, strict=True):
        replace_text(directory / files.UID, str(uid))
    return free


def moved(old: Path, new: Path) -> None:
    """A machine's folder has another name, and its user id still."""
    with shared.held():
        said = shared.read(_FILE).get("uids")
        lent = [int(uid) for uid, place in said.items() if place == str(old)] if isinstance(said, dict) else []
        leases, last = _leases()
        if lent:
            _write({**leases, **dict.fromkeys(lent, str(new))}, last)


def of(directory: Path) -> int | None:
    """The one a machine's folder says it has; None where it has none, or the file is not to be believed."""
    with contextlib.suppress(OSError, ValueError):
        return int(read_own(directory / files.UID, most=32))
    return None


def kept_or_new(directory: Path, uid: int, *, taken: Callable[[], Collection[int]] = frozenset) -> int:
    """The one a machine at rest starts with: its own, or a new one, to which its files are given, where it was leased on.

    That happens after a reboot, which forgets who has which, and where a folder came from elsewhere; only then it is asked
    which ones are ``taken``.
    """
    with shared.held():
        leases, last = _leases()
        if leases.get(uid) == str(directory):
            return uid
        said = of(directory)
        if said is not None and leases.get(said) == str(directory):  # a start was cut short that had got it a new one
            new = said
        elif uid not in leases and uid not in taken() and uid not in _of_processes():
            _write({**leases, uid: str(directory)}, last)
            return uid
        else:
            (new,) = _lend([directory], {*taken(), uid}, {})
    give_files(directory, uid, new)
    return new


def _leases(known: Mapping[str, int] = MappingProxyType({})) -> tuple[dict[int, str], int]:
    """Who has which, without those that have ended; and the last one leased."""
    data = shared.read(_FILE)
    said = data.get("uids")
    leases: dict[int, str] = {}
    for uid, directory in said.items() if isinstance(said, dict) else ():
        number = int(uid) if str(uid).isdecimal() else 0
        ours = FIRST <= number < FIRST + COUNT and isinstance(directory, str)
        if ours and (known.get(directory) == number or _has_still(Path(directory), number)):
            leases[number] = directory
    last = data.get("last")
    return leases, last if isinstance(last, int) and FIRST <= last < FIRST + COUNT else FIRST - 1


def _has_still(directory: Path, uid: int) -> bool:
    """Whether a folder has its id still; also where that cannot be told, as in one that is not ours any more."""
    if not os.path.lexists(directory):
        return False
    return bool(folder_fault(directory)) or (of(directory) in (uid, None) and os.path.lexists(directory / files.UID))


def _write(leases: dict[int, str], last: int) -> None:
    shared.write(_FILE, {"uids": {str(uid): directory for uid, directory in leases.items()}, "last": last})


def _alive_on_host() -> set[int]:
    """Ids of which anything is left: processes, files where everybody may make some, System V and POSIX objects."""
    return _of_processes() | {_first_of(uid) for uid in (*_of_files(), *_of_ipc())}


def _first_of(uid: int) -> int:
    """The machine's own id, of one that may be its helper's."""
    return FIRST + (uid - FIRST) % COUNT if FIRST <= uid < FIRST + _KINDS * COUNT else 0


def _of_processes() -> set[int]:
    found = set()
    for pid in proc.numbers():
        with contextlib.suppress(OSError):
            found |= {_first_of(uid) for uid in proc.users(pid)}
    return found


def _of_files() -> Iterator[int]:
    """Owners of what lies in the folders everybody may write to, and in such folders below them."""
    left = _MOST_LOOKED_AT
    folders = list(_OPEN_TO_ALL)
    while folders and left > 0:
        with contextlib.suppress(OSError), os.scandir(folders.pop()) as entries:
            for entry in entries:
                left -= 1
                try:
                    status = entry.stat(follow_symlinks=False)
                except OSError:
                    continue
                yield status.st_uid
                if stat.S_ISDIR(status.st_mode) and status.st_mode & 0o002:
                    folders.append(entry.path)


def _of_ipc() -> Iterator[int]:
    for kind in ("shm", "sem", "msg"):
        with contextlib.suppress(OSError):
            head, *rows = Path(f"/proc/sysvipc/{kind}").read_text().splitlines()
            columns = [number for number, name in enumerate(head.split()) if name in ("uid", "cuid")]
            for row in rows:
                words = row.split()
                yield from (int(words[number]) for number in columns)


def give_files(directory: Path, old: int, new: int) -> None:
    """Give a machine's files, and its helpers', from one id to another; no link is followed, no file of others touched."""
    for _, folders, names, descriptor in os.fwalk(directory, follow_symlinks=False):
        trusted = os.fstat(descriptor).st_uid == os.geteuid()
        for name in (*folders, *names):
            with contextlib.suppress(FileNotFoundError):
                _give(descriptor, name, old, new, trusted)


def _give(folder: int, name: str, old: int, new: int, trusted: bool) -> None:
    """In a folder that is not ours a file with two names may be somebody else's, who has the old id now."""
    with Closing(os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)) as file:
        status = os.fstat(file)
        shift = status.st_uid - old
        one = stat.S_ISDIR(status.st_mode) or (stat.S_ISREG(status.st_mode) and (trusted or status.st_nlink == 1))
        if shift in range(0, _KINDS * COUNT, COUNT) and one:
            os.chown(f"/proc/self/fd/{file}", new + shift, new + shift)
