"""What cannot be done to a machine whose memory the host cannot read, refused before anything is done."""

from __future__ import annotations

from tinamou.errors import StateError
from tinamou.state.record import Record

__all__ = ["refuse", "refuse_reset"]


def refuse(record: Record, what: str) -> None:
    """Raises StateError for a machine with encrypted memory: it cannot be ``what`` (``suspended``, …)."""
    if record.encrypted:
        why = f"its memory is encrypted by {record.encrypted}: whatever of it is saved would be noise, here and anywhere"
        fix = "its disks can be: tinamou snapshot, tinamou backup; or leave confidential out of its description"
        raise StateError(f"{record.name} cannot be {what}", why=why, fix=fix)


def refuse_reset(record: Record) -> None:
    """Raises StateError for a machine with encrypted memory."""
    if record.encrypted:
        why = f"under {record.encrypted} a guest is measured and launched once: neither registers nor memory can be set back"
        fix = f"tinamou stop {record.name}, tinamou start {record.name}"
        raise StateError(f"{record.name} cannot be reset", why=why, fix=fix)
