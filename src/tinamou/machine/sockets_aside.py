"""The sockets of a machine's QEMU while another takes over: those of the first are put aside, and put back if it goes on.

A socket stays what it is under another name, and so does the lock of a helper, which its second one is not to meet. Whoever
finds them after a crash is told by the name whose they are.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tinamou.state.record import Record

__all__ = ["forget", "left", "put_aside", "settle"]

_OF = ".of-"
LOCK = ".lock"
"""By which a TPM's emulator has its folder for itself (source: swtpm_nvstore_dir.c of swtpm)."""


def put_aside(record: Record, names: Iterable[str]) -> None:
    """The sockets and locks of the QEMU that runs make way for those of the next one."""
    for path in map(Path, names):
        if path.is_socket() or (path.name == LOCK and path.is_file()):
            path.rename(path.with_name(f"{path.name}{_OF}{record.pid}"))


def left(directory: Path) -> list[Path]:
    """What is put aside, in the machine's folder and in those of its helpers."""
    kinds = (f"*.sock{_OF}*", f"*/*.sock{_OF}*", f"*/{LOCK}{_OF}*")
    return sorted(path for kind in kinds for path in directory.glob(kind))


def settle(record: Record) -> None:
    """The machine's QEMU is the one in its record: what is its own is put back, what is another's goes."""
    for aside in left(record.path):
        name, _, owner = aside.name.rpartition(_OF)
        if owner == str(record.pid):
            aside.replace(aside.with_name(name))
        else:
            aside.unlink()


def forget(directory: Path) -> None:
    """None of them is needed any more."""
    for aside in left(directory):
        aside.unlink()
