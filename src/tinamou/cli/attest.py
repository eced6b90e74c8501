"""The verbs below ``attest``: what a processor's report proves, judged offline; what it must say; the log beside it."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

from tinamou import late
from tinamou.cli import output
from tinamou.cli.grammar import Group, Parameter, Switch
from tinamou.cli.loop import run_until_done
from tinamou.errors import Problem, SpecError

if TYPE_CHECKING:
    from tinamou.attest import Known, Launch, Verdict

T = TypeVar("T")
app: Group = Group()

_REPORT, _LOG, _TEXT = 24 << 20, 16 << 20, 1 << 22
_STATUS = {"genuine": 20, "fresh": 21, "expected": 22, "policy": 23, "tcb": 24}
_NOT_JUDGED = 25


@app.command
def verify(
    report: Path,
    /,
    *,
    nonce: str = "",
    expect: str = "",
    machine: str = "",
    cpu: str = "",
    key: str = "",
    reference: Path | None = None,
    certs: Path | None = None,
    collateral: Path | None = None,
    log: Path | None = None,
    policy: Path | None = None,
    at: str = "",
    json: Switch = False,
) -> None:
    """Judge a report of SEV-SNP, or a quote of TDX or a TPM: genuine, fresh, expected, policy, tcb.

    0 only where all five are yes. Nothing is fetched, and nothing is believed because the host says so. Else the status is
    that of the first no: 20 genuine, 21 fresh, 22 expected, 23 policy, 24 tcb; 25 where nothing is wrong, but something was
    not judged.

    Parameters
    ----------
    report
        The file with the report, as the guest's kernel gives it (/sys/kernel/config/tsm/report).
    nonce
        The number the guest was asked to have in its report, in hexadecimal, up to 64 bytes.
    expect
        What must have been measured: SEV-SNP's measurement in hexadecimal, or a TOML file with measurement, or with mrtd
        and rtmr0 to rtmr3.
    machine
        The machine that must have been measured; its plan says from what it is started. With --cpu.
    cpu
        The processor its vCPUs are, by QEMU's name: EPYC-Milan.
    key
        The name of the key that signs for the machine's TPM, as attest quote printed it when you trusted it.
    reference
        A quote of the machine's TPM from a start you trust.
    certs
        A folder with the maker's certificates and lists of revoked ones.
    collateral
        Intel's word on the host of a TDX guest, as JSON.
    log
        The guest's log of events (/sys/firmware/acpi/tables/data/CCEL), which must be that of the quote.
    policy
        A TOML file with what is demanded; without one: no debugging, no migration.
    at
        Judge certificates by this time, such as 2026-01-31T12:00; now, when left out.
    """
    from tinamou import attest

    known = _known(nonce, expect, machine, cpu, key, reference, certs, collateral, log, policy, at)
    try:
        verdict = attest.verify(attest.bounded(report, _REPORT, "report"), known)
    except attest.MalformedError as error:
        raise SpecError("this is no report", problems=[Problem("report", str(report), str(error))]) from None
    if json:
        output.print_json(verdict.plain())
    else:
        _print(verdict)
    wrong = [_STATUS[one.question] for one in verdict.answers if one.answer == "no"]
    sys.exit(wrong[0] if wrong else 0 if verdict.proven else _NOT_JUDGED)


@app.command
def quote(
    name: str,
    /,
    *,
    nonce: str = "",
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    json: Switch = False,
) -> None:
    """Have the TPM of a running machine quote what was measured while it started, with the log of it.

    The key that signs is one the TPM makes for this, the same at each start; that it is in this machine's TPM the TPM proves
    by a challenge to its endorsement key, and this host's authority by the certificate of that.

    Parameters
    ----------
    name
        The machine; its guest is Linux.
    nonce
        A number of yours the quote is to have, in hexadecimal, up to 32 bytes; one is drawn, when left out.
    out
        Where the quote goes; NAME.quote, when left out.
    """
    import os

    from tinamou.operations.attesting import quote_of

    number = _hexed(nonce, 1, 64) if nonce else os.urandom(32)
    found = run_until_done(quote_of(name, number))
    path = out or Path(f"{name}.quote")
    path.write_bytes(found.quote.written())
    told = {"file": str(path), "nonce": number.hex(), "key": found.key.hex(), "certified": found.certified}
    told["made_for"] = found.made_for
    if json:
        output.print_json(told)
        return
    print(f"quote   {path}\nnonce   {number.hex()}\nkey     {found.key.hex()}")
    whose = f"made for {found.made_for}, certified by {found.certified}" if found.certified else "that nobody certified"
    print(f"        in a TPM {whose}")
    if found.made_for not in (name, "unknown"):
        output.warn(
            f"the TPM that answered was not made for {name}: it is a fork's or a renamed machine's, or another machine's"
        )


@app.command
def expect(
    machine: str = "",
    /,
    *,
    cpu: str,
    firmware: Path | None = None,
    cpus: int = 1,
    kernel: Path | None = None,
    initrd: Path | None = None,
    append: str = "",
    json: Switch = False,
) -> None:
    """Compute what SEV-SNP must measure of a machine, from the files it is started from.

    Parameters
    ----------
    machine
        A machine; or leave it out and name the files.
    cpu
        The processor its vCPUs are, by QEMU's name: EPYC-Milan.
    firmware
        The image the firmware is in.
    cpus
        How many vCPUs.
    kernel
        A kernel handed to the machine.
    initrd
        Its first root file system.
    append
        Its arguments.
    """
    from tinamou.attest import expected

    if bool(machine) == bool(firmware):
        raise SpecError("what is to be computed?", why="name a machine, or its files by --firmware", fix="one of them")
    launch = _launch(machine) if firmware is None else expected.Launch(firmware, cpus, kernel, initrd, append)
    digest = expected.snp_measurement(launch, cpu).hex()
    if json:
        output.print_json({"measurement": digest, "cpu": cpu, "launch": late.asdict(launch)})
    else:
        print(digest)


@app.command
def log(file: Path, /, *, json: Switch = False) -> None:
    """Print the events of a guest's log (CCEL, or a TPM's), and what registers hold after them.

    Parameters
    ----------
    file
        The log: /sys/firmware/acpi/tables/data/CCEL, or /sys/kernel/security/tpm0/binary_bios_measurements; or the quote of
        a machine's TPM.
    """
    from tinamou.attest import MalformedError, bounded, eventlog, tpm

    try:
        data = bounded(file, _REPORT, "log")
        events = tpm.parse(data).events() if tpm.is_one(data) else eventlog.parse(data)
        functions = [name for name in ("sha256", "sha384", "sha1") if any(name in one.digests for one in events)]
        registers = {name: eventlog.replay(events, name) for name in functions}
    except MalformedError as error:
        raise SpecError("this is no log", problems=[Problem("log", str(file), str(error))]) from None
    hexed = {
        name: {str(number): value.hex() for number, value in sorted(found.items())} for name, found in registers.items()
    }
    if json:
        rows = [{"register": one.register, "type": one.name, "covered": one.covered, "text": one.text,
                 "digests": {name: value.hex() for name, value in one.digests.items()}} for one in events]  # fmt: skip
        output.print_json({"events": rows, "registers": hexed})
        return
    output.table(
        [{"register": one.register, "type": one.name, "says": one.text} for one in events], ("register", "type", "says")
    )
    for name, found in hexed.items():
        print(f"\nregisters, by {name}")
        for number, value in found.items():
            print(f"  {number:>2} {value}")


def _known(
    nonce: str,
    expect: str,
    machine: str,
    cpu: str,
    key: str,
    reference: Path | None,
    certs: Path | None,
    collateral: Path | None,
    log: Path | None,
    policy: Path | None,
    at: str,
) -> Known:
    """What was given, or every problem of it."""
    from tinamou import attest

    problems: list[Problem] = []

    def told(name: str, value: object, read: Callable[[], T], otherwise: T) -> T:
        try:
            return read() if value else otherwise
        except ValueError as error:
            problems.append(Problem(name, str(value), str(error)))
        except SpecError as error:
            problems.extend(error.problems or [Problem(name, str(value), error.why)])
        return otherwise

    none: tuple[tuple[bytes, ...], tuple[bytes, ...]] = ((), ())
    certificates, revoked = told("certs", certs, lambda: attest.certificates_in(certs or Path()), none)
    if machine and expect:
        problems.append(Problem("machine", machine, "--expect says what must have been measured already", "leave one out"))
    measured: Mapping[str, bytes] = told("expect", expect, lambda: _measured(expect), {})
    if machine and not expect:
        measured = told("machine", machine, lambda: {"measurement": attest.snp_measurement(_launch(machine), cpu)}, {})
    known = attest.Known(
        nonce=told("nonce", nonce, lambda: _hexed(nonce, 1, 64), b""),
        measured=measured,
        source=f"the plan of {machine}" if machine else "--expect",
        certificates=certificates,
        revoked=revoked,
        collateral=told(
            "collateral", collateral, lambda: attest.bounded(collateral or Path(), _TEXT, "collateral").decode(), ""
        ),
        log=told("log", log, lambda: attest.bounded(log or Path(), _LOG, "log"), b""),
        key=told("key", key, lambda: _hexed(key, 34, 34), b""),
        reference=told("reference", reference, lambda: attest.bounded(reference or Path(), _REPORT, "reference"), b""),
        policy=told(
            "policy", policy, lambda: attest.read_policy(attest.bounded(policy or Path(), _TEXT, "policy")), attest.Policy()
        ),
        at=told("at", at, lambda: _moment(at), None),
    )
    if problems:
        raise SpecError(f"{len(problems)} of what was given cannot be used", problems=problems)
    return known


def _hexed(text: str, least: int, most: int) -> bytes:
    try:
        found = bytes.fromhex(text)
    except ValueError:
        raise ValueError("no hexadecimal number") from None
    if not least <= len(found) <= most:
        room = str(most) if least == most else f"{least} to {most}"
        raise ValueError(f"{len(found)} bytes; it has {room}")
    return found


def _moment(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _measured(text: str) -> dict[str, bytes]:
    """From hexadecimal digits, or a TOML file. Raises ValueError, SpecError."""
    import tomllib

    from tinamou.attest import bounded, told_measured

    if len(text) == 96 and not Path(text).exists():
        return told_measured({"measurement": text})
    return told_measured(tomllib.loads(bounded(Path(text), _TEXT, "expect").decode()))


def _launch(machine: str) -> Launch:
    from tinamou.attest import expected
    from tinamou.launch.argv import argv
    from tinamou.machine.starting import plan_again

    plan = plan_again(machine)
    if plan is None:
        raise SpecError("no such machine", problems=[Problem("machine", machine, "there is none of this name")])
    return expected.launch_of(argv(plan))


def _print(verdict: Verdict) -> None:
    from tinamou.attest import QUESTIONS

    print(f"a report of {verdict.kind}")
    for name, value in verdict.says.items():
        print(f"  {name:<16} {value}")
    for one in verdict.answers:
        print(f"\n{one.question}: {one.answer.upper()}" + (f", {one.why}" if one.why else f": {QUESTIONS[one.question]}"))
        for line in one.evidence:
            print(f"  {line}")
        if one.fix:
            print(f"  fix: {one.fix}")
