"""A guest of SEV that waits for its owner: what its secure processor measured, and the secret it is given before it runs.

Source: QEMU qapi/misc-i386.json (query-sev, query-sev-launch-measure, sev-inject-launch-secret).
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping

from tinamou.control.answers import number, record, shown, text
from tinamou.control.session import Session
from tinamou.errors import ControlError
from tinamou.late import dataclass

__all__ = ["Measured", "inject", "measured"]


@dataclass(frozen=True)
class Measured:
    """``firmware`` is its API's two numbers and its build, ``data`` the HMAC and the number it is over, 48 bytes."""

    firmware: tuple[int, int, int]
    policy: int
    data: bytes


async def measured(session: Session) -> Measured:
    """What the processor says of a guest that has not run yet. Raises ControlError, also for one that runs."""
    about = record(await session.execute("query-sev"))
    if (state := text(about, "state")) != "launch-secret":
        why = f"its launch is in the state {shown(state)}: nothing is measured, and no secret taken, once it runs"
        raise ControlError("the guest's launch cannot be judged", why=why)
    said = text(record(await session.execute("query-sev-launch-measure")), "data")
    try:
        data = base64.b64decode(said, validate=True)
    except (ValueError, binascii.Error):
        data = b""
    if len(data) != 48:
        raise ControlError("QEMU answered what is no measurement of a launch", why=f"the answer: {shown(said)}")
    major, minor, build = (number(about, name, least=0) for name in ("api-major", "api-minor", "build-id"))
    if max(major, minor, build) > 0xFF or number(about, "policy", least=0) > 0xFFFFFFFF:
        raise ControlError("QEMU answered what is no measurement of a launch", why=f"the answer: {shown(about)}")
    return Measured((major, minor, build), number(about, "policy", least=0), data)


async def inject(session: Session, packet: Mapping[str, str]) -> None:
    """Hand a secret to the processor: ``packet-header`` and ``secret`` in base64. It refuses one for another start.

    Raises ControlError.
    """
    await session.execute("sev-inject-launch-secret", dict(packet))
