"""The sockets of a machine's QEMU while another takes over: those of the first are put aside, and put back if it goes on.

A socket stays what it is under another name. Whoever finds them after a crash is told by the name whose they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tinamou.state.record import Record

__all__ = ["forget", "left", "put_aside", "settle"]

_ASIDE = ".sock.of-"


def put_aside(record: Record, sockets: Iterable[str]) -> None:
    """The sockets of the QEMU that runs make way for those of the next one."""
    for socket in map(Path, sockets):
        if socket.is_socket():
            socket.rename(socket.with_name(f"{socket.stem}{_ASIDE}{record.pid}"))


def left(directory: Path) -> list[Path]:
    """What is put aside."""
    return sorted(directory.glob(f"*{_ASIDE}*"))


def settle(record: Record) -> None:
    """The machine's QEMU is the one in its record: what is its own is put back, what is another's goes."""
    for aside in left(record.path):
        stem, _, owner = aside.name.partition(_ASIDE)
        if owner == str(record.pid):
            aside.replace(aside.with_name(f"{stem}.sock"))
        else:
            aside.unlink()


def forget(directory: Path) -> None:
    """None of them is needed any more."""
    for aside in left(directory):
        aside.unlink()
