"""The folder of machines: create, find, list, remove; names, user ids and ports are leased here."""

from __future__ import annotations

import contextlib
import itertools
import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from tinamou import late
from tinamou.errors import StateError
from tinamou.facts import files
from tinamou.state import uids
from tinamou.state.allowed import of_root, refusal
from tinamou.state.index import Look, look, machines_dir
from tinamou.state.record import Record, create, forget, read
from tinamou.system.lock import at_once, take
from tinamou.system.paths import state_dir
from tinamou.system.plain_file import folder_fault
from tinamou.system.remove import remove_tree

__all__ = [
    "awake",
    "entered",
    "find",
    "find_usable",
    "folders",
    "free_port",
    "held",
    "lease_uid",
    "lease_uids",
    "machines",
    "machines_dir",
    "making",
    "move",
    "remove",
    "throwaway_name",
    "uid_again",
]


@contextlib.contextmanager
def making(name: str) -> Iterator[Path]:
    """A fresh folder for a machine, whose entry is written in the block; gone again when the block raises.

    It is held meanwhile: a folder without an entry that nobody holds was left by a crash. Raises StateError for a name that
    is taken already.
    """
    while True:
        path = _made(name)
        with held(path) as there:
            if not there:  # it was taken for a leftover before it was held
                continue
            try:
                yield path
            except BaseException:
                remove(path)
                raise
            return


def _made(name: str) -> Path:
    """The folder. One that somebody removes, as it was left by a crash, is waited for."""
    path = machines_dir() / name
    while True:
        try:
            path.mkdir(mode=0o711)
        except FileExistsError:
            if not path.joinpath(files.CLEARED).exists():
                raise _taken(name, path) from None
            with held(path) as there:
                if there:  # whoever removed it was killed
                    raise _taken(name, path) from None
            continue
        return path


def _taken(name: str, path: Path) -> StateError:
    record = read(path)
    state = "runs" if record and record.running else "exists"
    verb = f"tinamou stop {name}" if state == "runs" else f"tinamou start {name}, or tinamou rm {name}"
    return StateError(f"a machine named {name} {state} already", fix=f"choose another --name, or: {verb}")


def entered(*made: Record, found: Look | None = None) -> list[Record]:
    """Write the records of machines that are being made, whose folders nobody else writes to; the records as they are.

    One whose name, or former one, was the first of another machine gets a first name of its own. ``found`` is what was seen
    of all machines just now.
    """
    found = found or look()
    folders = {one.path for one in made}
    others = [record for record in found.awake if record.path not in folders]
    taken = found.identities() | {record.identity for record in others}
    told = []
    for record in made:
        if record.identity in taken:
            stem = record.identity.partition("~")[0]
            own = next(name for number in itertools.count(2) if (name := f"{stem}~{number}") not in taken)
            record = late.replace(record, former=[own, *record.former])
        taken.add(record.identity)
        told.append(create(record))
    return told


def move(directory: Path, name: str) -> Path:
    """Give a machine's folder another name, which nobody has, in one moment; the caller holds it.

    Its record is that of the new name from then on (`tinamou.state.record.read`). Raises StateError for one that is taken.
    """
    while True:
        path = _made(name)
        with held(path) as there:
            if not there:
                continue
            try:
                directory.rename(path)
            except BaseException:
                with contextlib.suppress(OSError):
                    path.rmdir()
                raise
            return path


@contextlib.contextmanager
def held(directory: Path, *, wait: bool = True) -> Iterator[bool]:
    """One process at a time makes or ends a machine; whether its folder is still there once it is our turn.

    Without ``wait``, False where it is another's turn.
    """
    try:
        descriptor = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except FileNotFoundError:
        yield False
        return
    try:
        if wait:
            take(descriptor, directory)
        yield (wait or at_once(descriptor)) and os.fstat(descriptor).st_nlink > 0
    finally:
        os.close(descriptor)


def throwaway_name(image: str) -> str:
    """A name nobody has yet: the image's, and four random hexadecimal digits."""
    stem = "".join(c if c.isalnum() else "-" for c in Path(image).stem.lower()).strip("-")[:30] or "machine"
    return f"{stem}-{os.urandom(2).hex()}"


def find(name: str) -> Record:
    """The machine of that name. Raises StateError with a near name when there is none."""
    record = read(machines_dir() / name) if name and "/" not in name else None
    if record is None and (others := of_root(name)) is not None:
        raise refusal(others)
    if record is None:
        names = [entry.name for entry in machines_dir().iterdir()]
        import difflib

        near = difflib.get_close_matches(name, names, 1)
        raise StateError(
            f"there is no machine named {name}", fix=f"did you mean {near[0]}?" if near else "tinamou ls shows all machines"
        )
    return record


def find_usable(name: str) -> Record:
    """The same, or a machine of root that this user is allowed to use."""
    here = read(machines_dir() / name) if name and "/" not in name else None
    return here or of_root(name) or find(name)


def folders() -> list[Path]:
    """The folders of machines, by name; what else lies beside them (`index.Look.odd`) is left out."""
    return sorted(path for path in machines_dir().iterdir() if not folder_fault(path))


def machines() -> list[Record]:
    """Every machine, by name; folders without an entry (a start that was cut short), or with a damaged one, are left out."""
    return _records(folders())


def _records(paths: Sequence[Path]) -> list[Record]:
    records = []
    for path in paths:
        with contextlib.suppress(StateError):  # said by whoever tidies up
            if (record := read(path)) is not None:
                records.append(record)
    return records


def awake(found: Look | None = None) -> list[Record]:
    """The same of those that are not known to be at rest, of which one that runs is."""
    return _records(found.others) if found else look().awake


def remove(directory: Path) -> None:
    """Remove a machine's folder; the entry goes first, so that a half-removed machine is none. Its addresses are free."""
    forget(directory)
    remove_tree(directory)
    if (state_dir() / "networks").is_dir():
        from tinamou.state import networks

        networks.forget_machine(directory.name)


def lease_uid(directory: Path, found: Look | None = None) -> int | None:
    """A user id no other machine of this host has, None when tinamou does not run as root and so cannot change identity.

    The folder's ``uid`` file holds it. ``found`` as in `entered`. Raises StateError.
    """
    return lease_uids([directory], found)[0]


def lease_uids(directories: Sequence[Path], found: Look | None = None) -> list[int | None]:
    """The same for several machines at once."""
    if os.geteuid() != 0:
        return [None] * len(directories)
    here = _uids_here(found or look())
    return [*uids.lend(directories, taken=here.values(), known=here)]


def uid_again(directory: Path, uid: int | None) -> int | None:
    """The user id a machine at rest starts with: a new one where another machine got its own after a reboot."""
    if os.geteuid() != 0 or uid is None:
        return uid
    return uids.kept_or_new(directory, uid, taken=lambda: _uids_here(look(), exclude=directory).values())


def _uids_here(found: Look, exclude: Path | None = None) -> dict[str, int]:
    """By folder those of machines in this state directory, also of such as have not been started since the last reboot."""
    others = {str(path): uid for path in found.others if (uid := uids.of(path)) is not None}
    return {folder: uid for folder, uid in (found.uids() | others).items() if folder != str(exclude)}


def free_port() -> int:
    """A TCP port on 127.0.0.1 that is free now."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
