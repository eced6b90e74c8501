"""What cannot be done to a machine whose memory the host cannot read, refused before anything is done."""

from __future__ import annotations

from tinamou.errors import StateError
from tinamou.state.record import Record

__all__ = ["held_for_owner", "refuse", "refuse_held", "refuse_reset"]


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


def held_for_owner(record: Record) -> bool:
    """Whether a machine's guest waits at each start until its owner has judged it (confidential.session)."""
    if not record.encrypted:
        return False
    from tinamou.spec import load_spec

    return bool(load_spec(record.spec).confidential.of_session)


def refuse_held(record: Record, what: str) -> None:
    """Raises StateError for a machine whose guest waits for its owner: it is not ``what`` (``waited for``, …)."""
    if held_for_owner(record):
        why = "it has a session of SEV (confidential.session): it does not run before its owner has judged its start"
        fix = f"start it with -d (wait=False in Python), then tinamou attest secret {record.name} FILE, or attest launch"
        raise StateError(f"the guest of {record.name} is not {what}", why=why, fix=fix)
