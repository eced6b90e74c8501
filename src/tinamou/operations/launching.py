"""A SEV guest held for its owner: what was measured of it, judged; then its secret goes in, and it runs.

The secret is encrypted for the measurement that was judged, so that the secure processor takes it into no other guest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping

from tinamou.attest import Known, MalformedError, Verdict, sev, verify
from tinamou.control.commands import cont
from tinamou.control.launching import inject, measured
from tinamou.errors import SpecError, StateError
from tinamou.late import replace
from tinamou.machine import encrypted, life
from tinamou.machine.connected import Connected
from tinamou.state.record import Record

__all__ = ["give", "held", "let_run", "measurement_of", "packet_in"]


def held(name: str) -> Record:
    """The running machine of that name, which was started with a session of SEV. Raises StateError."""
    record = life.running(name)
    if not encrypted.held_for_owner(record):
        why = "nobody judges its start: it has no session of SEV (confidential.session)"
        raise StateError(f"{name} is not held for its owner", why=why, fix="tinamou attest session makes one")
    return record


async def measurement_of(name: str) -> sev.SevMeasurement:
    """What was measured of a guest that has not run yet. Raises StateError, ControlError."""
    async with Connected.visiting(held(name)) as machine:
        found = await measured(await machine.session())
    return sev.SevMeasurement(found.firmware, found.policy, found.data[:32], found.data[32:])


async def give(name: str, secret: bytes, tek: bytes, known: Known) -> Verdict:
    """The verdict on a held guest; where all of it is yes, the guest has the secret and runs.

    Its measurement is asked for now, and the processor takes the secret for that alone: so it is fresh, whatever the
    number in it. Raises StateError, ControlError, ValueError for keys that are none.
    """
    found = await measurement_of(name)
    verdict = verify(found.written(), replace(known, nonce=found.nonce))
    if verdict.proven:
        await let_run(name, sev.secret_packet(tek, known.tik, found.measure, secret).plain())
    return verdict


async def let_run(name: str, packet: Mapping[str, str] | None = None) -> None:
    """Hand the owner's packet to a held guest's processor, and let the guest run. Raises StateError, ControlError."""
    async with Connected.visiting(held(name)) as machine:
        session = await machine.session()
        if packet is not None:
            await inject(session, packet)
        await cont(session)


def packet_in(data: bytes) -> dict[str, str]:
    """The packet in a file that attest secret wrote. Raises SpecError."""
    try:
        told = json.loads(data)
        if not isinstance(told, dict) or set(told) != {"packet-header", "secret"}:
            raise MalformedError("it has not the fields packet-header and secret")
        return {name: str(value) for name, value in told.items()}
    except (ValueError, RecursionError) as error:
        raise SpecError("this is no packet with a secret", why=str(error), fix="tinamou attest secret makes it") from None
