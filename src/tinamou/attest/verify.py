"""One report and what is known beside it, to the five answers."""

from __future__ import annotations

import functools
import hmac
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tinamou import late
from tinamou.attest import eventlog, idblock, rtmr, sev, snp, tdx, tpm
from tinamou.attest.answers import Answer, Verdict, no, not_judged, yes
from tinamou.attest.binary import MalformedError
from tinamou.attest.certificates import load, load_lists
from tinamou.attest.policy import Policy
from tinamou.late import dataclass, field

if TYPE_CHECKING:
    from cryptography.x509 import CertificateRevocationList

__all__ = ["Known", "verify"]

_LENGTHS = {"measurement": (48, 32), **dict.fromkeys(("mrtd", "rtmr0", "rtmr1", "rtmr2", "rtmr3"), (48,))}


@dataclass(frozen=True)
class Known:
    """What is known beside a report: nothing of it comes from the host, or it is checked.

    ``nonce``: up to 64 bytes the guest was asked to have in its report. ``measured``: what must have been measured, by
    register (``measurement`` of SEV-SNP; ``mrtd``, ``rtmr0`` to ``rtmr3`` of TDX), each of 48 bytes, or of 32 for SEV and
    SEV-ES; ``source`` says where that is from. ``id_block``: the one a SEV-SNP guest was started with. ``certificates`` and
    ``revoked``: PEM or DER, each what one file holds. ``collateral``: Intel's, as JSON. ``log``: the guest's log of events.
    ``events``: what must be in the log of a TDX guest. ``tik``: the key that signs for a session of SEV, 16 bytes.
    ``key``: the name of the key that signs for a machine's TPM; ``reference``: a quote of that machine, or the log in it,
    from a start that is trusted. ``at``: the time by which certificates are judged; now, when left out.
    """

    nonce: bytes = b""
    measured: Mapping[str, bytes] = field(default_factory=dict)
    source: str = "what was given"
    certificates: tuple[bytes, ...] = ()
    revoked: tuple[bytes, ...] = ()
    collateral: str = ""
    log: bytes = b""
    events: tuple[rtmr.Expected, ...] = ()
    id_block: idblock.IdBlock | None = None
    tik: bytes = b""
    key: bytes = b""
    reference: bytes = b""
    policy: Policy = field(default_factory=Policy)
    at: datetime | None = None


def verify(report: bytes, known: Known) -> Verdict:
    """The five answers about a report of SEV-SNP, a quote of TDX or of a machine's TPM, or a measurement of SEV.

    Raises MalformedError where it is neither, or what is known beside it cannot be read; never anything else. Takes some
    milliseconds, whatever the report is.
    """
    at = known.at or datetime.now(UTC)
    fresh, expected = functools.partial(_fresh, known), functools.partial(_expected, known)
    lists = [one for data in known.revoked for one in load_lists(data)]
    verdict = _judged(report, known, at, lists, fresh, expected)
    return late.replace(verdict, answers=tuple(_heeding(one, verdict.kind, known) for one in verdict.answers))


_USELESS: Mapping[str, Mapping[str, tuple[str, ...]]] = {
    "sev": {"genuine": ("key",), "expected": ("reference", "log", "events", "id_block"), "tcb": ("collateral",)},
    "sev-es": {"genuine": ("key",), "expected": ("reference", "log", "events", "id_block"), "tcb": ("collateral",)},
    "sev-snp": {"genuine": ("key", "tik"), "expected": ("reference", "events"), "tcb": ("collateral",)},
    "tdx": {"genuine": ("key", "tik"), "expected": ("reference", "id_block")},
    "tpm": {"genuine": ("tik",), "expected": ("measured", "log", "events", "id_block"), "tcb": ("collateral",)},
}
"""What a kind of report cannot be compared with, by the question it would have been for."""


def _heeding(answer: Answer, kind: str, known: Known) -> Answer:
    """The answer, or no where something was demanded that this kind of report does not speak of."""
    given = [name for name in _USELESS[kind].get(answer.question, ()) if getattr(known, name)]
    if not given:
        return answer
    return no(
        answer.question, f"{', '.join(given)} was given, with which no report of {kind} can be compared", "leave it out"
    )


def _judged(
    report: bytes,
    known: Known,
    at: datetime,
    lists: list[CertificateRevocationList],
    fresh: Callable[[bytes], Answer],
    expected: Callable[[dict[str, bytes]], Answer],
) -> Verdict:
    if snp.is_one(report):
        found = snp.parse(report)
        certificates = [one for data in known.certificates for one in load(data)]
        return snp.judge(found, certificates, lists, at, known.policy, fresh, expected, known.id_block)
    if tdx.is_one(report):
        quote = tdx.parse(report)
        return tdx.judge(quote, lists, known.collateral, at, known.policy, fresh, expected)
    if tpm.is_one(report):
        return tpm.judge(tpm.parse(report), known.key, known.policy, fresh, known.reference)
    if sev.is_one(report):
        return sev.judge(sev.parse(report), known.tik, known.policy, fresh, known.measured)
    raise MalformedError(
        f"{len(report)} bytes that are neither a report of SEV-SNP nor a quote of TDX (version 4 or 5) or of a TPM, "
        "nor a measurement of SEV"
    )


def _fresh(known: Known, data: bytes) -> Answer:
    nonce = known.nonce
    if not nonce:
        fix = "ask the guest for a report with a number of yours in it, and give that by --nonce"
        return not_judged("fresh", "no nonce was given: the report may be an old one of this guest, or of another", fix)
    if len(nonce) > len(data):
        return no("fresh", f"a report has room for {len(data)} bytes, the nonce has {len(nonce)}")
    if hmac.compare_digest(nonce.ljust(len(data), b"\0"), data):
        return yes("fresh", [f"the report has the nonce {nonce.hex()}"])
    return no("fresh", f"the report has {data.hex()} in place of the nonce", "ask the guest for a report with it")


def _expected(known: Known, measured: dict[str, bytes]) -> Answer:
    wanted, seen = known.measured, list[str]()
    if unknown := [name for name in wanted if name not in measured]:
        return no("expected", f"such a report has no {', '.join(unknown)}")
    wrong = [name for name, value in wanted.items() if not hmac.compare_digest(value, measured[name])]
    if wrong:
        shown = "; ".join(f"{name} is {measured[name].hex()}, not {wanted[name].hex()}" for name in wrong)
        return no("expected", shown, f"something else was started than {known.source} says")
    if known.log:
        try:
            seen += _log_holds(known.log, measured)
        except MalformedError as error:
            return no("expected", f"the log of events: {error}", "take it from the guest anew", seen)
    if not wanted:
        fix = "say what must have been measured: --machine, or --expect with a file"
        return not_judged("expected", "nothing was said to compare it with", fix, seen)
    seen = [f"{name} is {value.hex()}, as {known.source} says" for name, value in wanted.items()] + seen
    missing = [name for name in ("mrtd", "rtmr0", "rtmr1", "rtmr2") if name in measured and name not in wanted]
    spoken = {one.register for one in known.events} & set(missing)
    if spoken and (answer := _by_events(known, seen)):
        return answer
    return _rest(known, [name for name in missing if name not in spoken], seen)


def _by_events(known: Known, seen: list[str]) -> Answer | None:
    """Why a log, which gives the registers, is not what must have happened; None where it is, and ``seen`` says so."""
    if not known.log:
        why = "which events its registers are made of is known, and no log says it"
        return not_judged("expected", why, "give the guest's log by --log", seen)
    told = rtmr.compared(eventlog.parse(known.log), known.events)
    seen += [f"as it was computed, {one}" for one in told.found]
    if told.wrong:
        return no("expected", "; ".join(told.wrong), f"something else was started than {known.source} says", seen)
    seen += [f"accepted by the policy, {one}: {rtmr.TRUSTED[one][2]}" for one in told.trusted]
    if unheard := [one for one in told.trusted if one not in known.policy.accepted]:
        named = ", ".join(f'"{one}"' for one in unheard)
        why = f"not computed, and not accepted: {'; '.join(f'{one}: {rtmr.TRUSTED[one][2]}' for one in unheard)}"
        return not_judged(
            "expected", why, f"look at them (attest log), and write accepted = [{named}] into the policy", seen
        )
    return None


def _rest(known: Known, missing: list[str], seen: list[str]) -> Answer:
    """The answer where registers are left of which nothing was said, or none."""
    accepted = [name for name in missing if name in known.policy.accepted]
    if accepted and not known.log:
        why = f"{', '.join(accepted)} may be whatever the log gives, and no log was given"
        return not_judged("expected", why, "give the guest's log by --log", seen)
    seen += [f"{name} is what the log gives, which the policy accepts" for name in accepted]
    missing = [name for name in missing if name not in accepted]
    if missing:
        fix = "give them too, or look at each event of the log and accept them in the policy (accepted)"
        return not_judged("expected", f"nothing was said of {', '.join(missing)}", fix, seen)
    return yes("expected", seen)


def _log_holds(log: bytes, measured: Mapping[str, bytes]) -> Iterable[str]:
    """The log is that of this report: its registers, replayed, are those measured. Raises MalformedError."""
    if "rtmr0" not in measured:
        raise MalformedError("a report of SEV-SNP says nothing of one")
    events = eventlog.parse(log)
    registers = eventlog.replay(events, "sha384")
    for number in range(4):
        if registers.get(number + 1, bytes(48)) != measured[f"rtmr{number}"]:
            raise MalformedError(f"its events give another rtmr{number} than the quote has")
    yield f"{len(events)} events of the log give exactly the registers of the quote"


def told_events(data: object) -> tuple[rtmr.Expected, ...]:
    """Events from tables with register, name, digests, as attest expect writes them. Raises ValueError."""
    if not isinstance(data, list):
        raise ValueError("event is no array of tables")
    found = []
    for one in data:
        digests = one.get("digests") if isinstance(one, dict) and set(one) == {"register", "name", "digests"} else None
        if not isinstance(digests, list) or one["register"] not in ("rtmr0", "rtmr1", "rtmr2"):
            raise ValueError("an event has register (rtmr0, rtmr1 or rtmr2), name and digests")
        values = tuple(bytes.fromhex(str(digest)) for digest in digests)
        if not values or any(len(value) != 48 for value in values):
            raise ValueError(f"the digests of {one['name']} have 48 bytes each")
        found.append(rtmr.Expected(one["register"], str(one["name"]), values))
    return tuple(found)


def told_measured(data: Mapping[str, object]) -> dict[str, bytes]:
    """Registers from a table of hex numbers. Raises ValueError naming each that is wrong."""
    wrong, found = [], {}
    for name, value in data.items():
        if name not in _LENGTHS:
            wrong.append(f"{name} is no register ({', '.join(_LENGTHS)})")
            continue
        try:
            found[name] = bytes.fromhex(str(value))
        except ValueError:
            wrong.append(f"{name} is no hexadecimal number")
            continue
        if len(found[name]) not in _LENGTHS[name]:
            wrong.append(f"{name} has {len(found[name])} bytes, not {_LENGTHS[name][0]}")
    if wrong:
        raise ValueError("; ".join(wrong))
    return found
