"""The verbs below ``attest``: what a processor's report proves, judged offline; what it must say; the log beside it."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

from tinamou.attest import MalformedError, bounded, eventlog, tpm
from tinamou.cli import attest_guest, attest_made, attest_release, attest_session, output
from tinamou.cli.attest_given import REPORT, Given, known
from tinamou.cli.attest_shown import judged_by, show, status_of, with_collected
from tinamou.cli.grammar import Group, Parameter, Switch
from tinamou.errors import Problem, SpecError

app: Group = Group()


@app.command
def verify(
    report: Path,
    /,
    *,
    given: Annotated[Given | None, Parameter(name="*", negative="")] = None,
    json: Switch = False,
) -> None:
    """Judge a report of SEV-SNP, a quote of TDX or a TPM, or a measurement of SEV: genuine, fresh, expected, policy, tcb.

    0 only where all five are yes. Nothing is fetched, and nothing is believed because the host says so. Else the status is
    that of the first no: 20 genuine, 21 fresh, 22 expected, 23 policy, 24 tcb; 25 where nothing is wrong, but something was
    not judged.

    Parameters
    ----------
    report
        The file with the report, as the guest's kernel gives it (/sys/kernel/config/tsm/report).
    """
    data = bounded(report, REPORT, "report")
    verdict = judged_by(data, known(with_collected(given or Given(), data)))
    if json:
        output.print_json(verdict.plain())
    else:
        show(verdict)
    sys.exit(status_of(verdict))


@app.command
def log(file: Path, /, *, json: Switch = False) -> None:
    """Print the events of a guest's log (CCEL, or a TPM's), and what registers hold after them.

    Parameters
    ----------
    file
        The log: /sys/firmware/acpi/tables/data/CCEL, or /sys/kernel/security/tpm0/binary_bios_measurements; or the quote of
        a machine's TPM.
    """
    try:
        data = bounded(file, REPORT, "log")
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


for _verb in (
    *(attest_guest.quote, attest_guest.fetch, attest_made.expect, attest_made.id_block),
    *(attest_session.session, attest_session.launch),
    *(attest_release.certificates, attest_release.secret, attest_release.serve),
):
    app.command(_verb)
