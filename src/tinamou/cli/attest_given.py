"""What is known beside a report, as the verbs below ``attest`` are told it: files read, or every problem at once."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from tinamou import attest
from tinamou.attest import Known, Launch, bounded, expected, idblock, told_events, told_measured
from tinamou.attest.rtmr import Expected
from tinamou.errors import Problem, SpecError
from tinamou.late import dataclass

T = TypeVar("T")
__all__ = ["LOG", "REPORT", "TEXT", "Given", "hexed", "known", "launch_named"]

REPORT: int = 24 << 20
"""Bytes of a report's file that are looked at."""
LOG: int = 16 << 20
"""Of a log's."""
TEXT: int = 1 << 22
"""Of any other's."""


@dataclass(frozen=True)
class Given:
    """What can be said about a report on the command line.

    Parameters
    ----------
    nonce
        The number the guest was asked to have in its report, in hexadecimal, up to 64 bytes.
    expect
        What must have been measured: the digest of SEV or SEV-SNP in hexadecimal, or a TOML file with measurement, or with
        mrtd and rtmr0 to rtmr2 or the events in them, as attest expect prints it.
    machine
        The machine that must have been measured; its plan says from what it is started. Or the file with that plan, as
        tinamou plan --json prints it, on another machine: the files it names are read there. With --cpu.
    cpu
        The processor its vCPUs are, by QEMU's name: EPYC-Milan.
    id_block
        The id block it must have been started with, as attest id-block wrote it (SEV-SNP).
    tik
        The file with the key by which its session signs, 16 bytes (SEV, SEV-ES).
    key
        The name of the key that signs for the machine's TPM, as attest quote printed it when you trusted it.
    reference
        A quote of the machine's TPM from a start you trust.
    certs
        A folder with the maker's certificates and lists of revoked ones; those attest certificates got, when left out.
    collateral
        Intel's word on the host of a TDX guest, as JSON; what attest certificates got, when left out.
    log
        The guest's log of events (/sys/firmware/acpi/tables/data/CCEL), which must be that of the quote.
    policy
        A TOML file with what is demanded; without one: no debugging, no migration.
    at
        Judge certificates by this time, such as 2026-01-31T12:00; now, when left out.
    """

    nonce: str = ""
    expect: str = ""
    machine: str = ""
    cpu: str = ""
    id_block: Path | None = None
    tik: Path | None = None
    key: str = ""
    reference: Path | None = None
    certs: Path | None = None
    collateral: Path | None = None
    log: Path | None = None
    policy: Path | None = None
    at: str = ""


class _Reader:
    """Reads what was given, and gathers every problem of it."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def told(self, name: str, value: object, read: Callable[[], T], otherwise: T) -> T:
        """What ``read`` finds where something was given; the other value where nothing was, or where it cannot be used."""
        try:
            return read() if value else otherwise
        except SpecError as error:
            self.problems.extend(error.problems or [Problem(name, str(value), error.why)])
        except ValueError as error:
            self.problems.append(Problem(name, str(value), str(error)))
        return otherwise

    def bytes(self, name: str, path: Path | None, most: int) -> bytes:
        """What is in a file; empty where none was given."""
        return self.told(name, path, lambda: bounded(path or Path(), most, name), b"")


def known(given: Given) -> Known:
    """What was given. Raises SpecError with every problem of it."""
    reader = _Reader()
    told, nothing = reader.told, (tuple[bytes, ...](), tuple[bytes, ...]())
    certificates, revoked = told("certs", given.certs, lambda: attest.certificates_in(given.certs or Path()), nothing)
    block, policy = reader.bytes("id_block", given.id_block, TEXT), reader.bytes("policy", given.policy, TEXT)
    measured, events = _measured_of(given, reader)
    tik, collateral = reader.bytes("tik", given.tik, TEXT), reader.bytes("collateral", given.collateral, TEXT)
    found = attest.Known(
        nonce=told("nonce", given.nonce, lambda: hexed(given.nonce, 1, 64), b""),
        measured=measured,
        events=events,
        source=f"the plan of {given.machine}" if given.machine else "--expect",
        certificates=certificates,
        revoked=revoked,
        collateral=told("collateral", collateral, collateral.decode, ""),
        log=reader.bytes("log", given.log, LOG),
        id_block=told("id_block", block, lambda: idblock.parse(block), None),
        tik=told("tik", given.tik, lambda: _key(tik), b""),
        key=told("key", given.key, lambda: hexed(given.key, 34, 34), b""),
        reference=reader.bytes("reference", given.reference, REPORT),
        policy=told("policy", policy, lambda: attest.read_policy(policy), attest.Policy()),
        at=told("at", given.at, lambda: _moment(given.at), None),
    )
    if reader.problems:
        raise SpecError(f"{len(reader.problems)} of what was given cannot be used", problems=reader.problems)
    return found


def _measured_of(given: Given, reader: _Reader) -> tuple[Mapping[str, bytes], tuple[Expected, ...]]:
    """What must have been measured, and the events of a TDX guest's log, where those are known."""
    if given.machine and given.expect:
        reason = "--expect says what must have been measured already"
        reader.problems.append(Problem("machine", given.machine, reason, "leave one out"))
    nothing: tuple[Mapping[str, bytes], tuple[Expected, ...]] = {}, ()
    if given.expect:
        return reader.told("expect", given.expect, lambda: _measured(given.expect), nothing)

    def planned() -> tuple[Mapping[str, bytes], tuple[Expected, ...]]:
        launch = launch_named(given.machine)
        return attest.measured_by(launch, given.cpu), tuple(attest.events_of(launch))

    return reader.told("machine", given.machine, planned, nothing)


def hexed(text: str, least: int, most: int) -> bytes:
    """A number of so many bytes in hexadecimal. Raises ValueError."""
    try:
        found = bytes.fromhex(text)
    except ValueError:
        raise ValueError("no hexadecimal number") from None
    if not least <= len(found) <= most:
        room = str(most) if least == most else f"{least} to {most}"
        raise ValueError(f"{len(found)} bytes; it has {room}")
    return found


def _key(data: bytes) -> bytes:
    if len(data) != 16:
        raise ValueError(f"{len(data)} bytes; a key of a session has 16")
    return data


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _measured(text: str) -> tuple[Mapping[str, bytes], tuple[Expected, ...]]:
    """From hexadecimal digits, or a TOML file. Raises ValueError, SpecError."""
    if len(text) in (64, 96) and not Path(text).exists():
        return told_measured({"measurement": text}), ()
    told = tomllib.loads(bounded(Path(text), TEXT, "expect").decode())
    events = told_events(told.pop("event", []))
    return told_measured(told), events


def launch_named(machine: str) -> Launch:
    """What is measured of a machine of this name, or of the plan in a file. Raises SpecError, PlanError."""
    from tinamou.launch.argv import argv
    from tinamou.machine.starting import plan_again

    if Path(machine).is_file():
        return expected.launch_of(_planned(Path(machine)))
    plan = plan_again(machine)
    if plan is None:
        raise SpecError("no such machine", problems=[Problem("machine", machine, "there is none of this name")])
    return expected.launch_of(argv(plan))


def _planned(file: Path) -> list[str]:
    """The command line in a plan that was printed as JSON. Raises SpecError."""
    try:
        told = json.loads(bounded(file, TEXT, "machine"))
        words = told.get("argv") if isinstance(told, dict) else None
    except (ValueError, RecursionError):
        words = None
    if not isinstance(words, list) or not all(isinstance(one, str) for one in words):
        raise SpecError(
            "no measurement can be expected", problems=[Problem("machine", str(file), "it is no plan: tinamou plan --json")]
        )
    return words
