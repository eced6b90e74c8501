"""The verbs below ``attest`` that ask a running machine's guest: quote, fetch."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated

from tinamou.cli import output
from tinamou.cli.attest_given import hexed
from tinamou.cli.grammar import Parameter, Switch
from tinamou.cli.loop import run_until_done
from tinamou.errors import Problem, SpecError

__all__ = ["fetch", "quote"]


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
    from tinamou.operations.attesting import quote_of

    number = hexed(nonce, 1, 64) if nonce else os.urandom(32)
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


def fetch(
    name: str,
    /,
    *,
    nonce: str = "",
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    json: Switch = False,
) -> None:
    """Have a running machine's guest ask its processor for a report (SEV-SNP, TDX), by its kernel's configfs-tsm.

    Of a SEV guest that is held for its owner it is what the secure processor measured, which has a number of its own.
    What else it gives for a report to be judged is put beside it: certificates in NAME.certs, the log of events as NAME.log.
    Nothing of it is believed: attest verify judges it.

    Parameters
    ----------
    name
        The machine; its guest is Linux 6.7 or later.
    nonce
        A number of yours the report is to have, in hexadecimal, up to 64 bytes; one is drawn, when left out.
    out
        Where the report goes; NAME.report, when left out.
    """
    from tinamou.machine import life
    from tinamou.machine.encrypted import held_for_owner
    from tinamou.operations.fetching import report_of

    path = out or Path(f"{name}.report")
    if held_for_owner(life.running(name)):
        return _measured(name, path, nonce, json)
    number = hexed(nonce, 1, 64) if nonce else os.urandom(64)
    found = run_until_done(report_of(name, number))
    path.write_bytes(found.report)
    told: dict[str, object] = {"file": str(path), "nonce": number.hex(), "provider": found.provider}
    if found.certificates:
        folder = path.with_suffix(".certs")
        folder.mkdir(exist_ok=True)
        for kind, data in found.certificates.items():
            (folder / f"{kind}.der").write_bytes(data)
        told["certificates"] = str(folder)
    if found.log:
        path.with_suffix(".log").write_bytes(found.log)
        told["log"] = str(path.with_suffix(".log"))
    if json:
        output.print_json(told)
        return None
    print("\n".join(f"{key:<13} {value}" for key, value in told.items()))
    return None


def _measured(name: str, path: Path, nonce: str, json: bool) -> None:
    """What was measured of a guest that is held, as a file."""
    from tinamou.operations.launching import measurement_of

    if nonce:
        why = "the secure processor draws the number in a measurement of SEV itself"
        raise SpecError("the nonce cannot be heeded", problems=[Problem("nonce", nonce, why, "leave it out")])
    found = run_until_done(measurement_of(name))
    path.write_bytes(found.written())
    told = {"file": str(path), "nonce": found.nonce.hex(), "provider": "sev"}
    output.result(told, "\n".join(f"{key:<13} {value}" for key, value in told.items()), json=json)
