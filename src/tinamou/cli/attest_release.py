"""The verbs below ``attest`` that fetch what a report is judged by, and release secrets: certificates, secret, serve."""

from __future__ import annotations

import hashlib
import sys
import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, get_type_hints

from tinamou import late
from tinamou.attest import Known, MalformedError, Verdict, bounded, jwe, sev, snp, tdx, tpm
from tinamou.cli import output
from tinamou.cli.attest_given import REPORT, TEXT, Given, known
from tinamou.cli.attest_shown import judged_by, show, status_of, with_collected
from tinamou.cli.grammar import Parameter, Switch
from tinamou.cli.loop import run_until_done, run_until_told
from tinamou.errors import Problem, SpecError, TinamouError

if TYPE_CHECKING:
    from tinamou.attest.broker import Demanded

__all__ = ["certificates", "secret", "serve"]


def certificates(
    report: Path,
    /,
    *,
    product: str = "",
    amd: str = "",
    intel: str = "",
    json: Switch = False,
) -> None:
    """Fetch what the maker of a report's processor says of it, once: certificates of AMD's, collateral of Intel's.

    All of it must lead to a root known here, else nothing is kept. attest verify finds it by itself from then on.

    Parameters
    ----------
    report
        The file with the report.
    product
        The processor, for a report of version 2, which does not say it: Milan or Genoa.
    amd
        Where AMD's are got, in place of https://kdsintf.amd.com.
    intel
        Where Intel's is got, such as a PCCS of your own, in place of https://api.trustedservices.intel.com.
    """
    from tinamou.operations import collecting

    try:
        data = bounded(report, REPORT, "report")
        found = collecting.collect(data, product, amd=amd or collecting.AMD, intel=intel or collecting.INTEL)
    except MalformedError as error:
        raise SpecError("this is no report", problems=[Problem("report", str(report), str(error))]) from None
    path = found.certificates or found.collateral
    output.result({"path": str(path), "fetched": list(found.fetched)}, path, json=json)


def secret(
    target: str,
    file: Path,
    /,
    *,
    to: str = "",
    guest_key: Path | None = None,
    tek: Path | None = None,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    given: Annotated[Given | None, Parameter(name="*", negative="")] = None,
    json: Switch = False,
) -> None:
    """Release a secret to a guest, only where all five answers about it are yes; else the exit status is attest verify's.

    To a running machine with a TPM it goes at once, in pieces that only the TPM opens which quoted. A SEV guest that is held
    for its owner gets it from its secure processor, by the keys of its session, and runs from then on. To a guest whose
    report is in a file it is written encrypted: by the key that its report is bound to (SEV-SNP, TDX), by its session
    (SEV), or for its TPM.

    Parameters
    ----------
    target
        A running machine with a TPM or with a session of SEV; or the file with a report.
    file
        The file with the secret; for a TPM up to 1024 bytes.
    to
        Where it goes in the guest of a running machine.
    guest_key
        The public key a SEV-SNP or TDX guest made, in PEM: its report must have SHA-512 of --nonce and of the key in DER.
    tek
        The file with the key by which the session of a SEV guest encrypts, 16 bytes.
    out
        Where the encrypted secret goes; TARGET.secret, when left out.
    """
    told = given or Given()
    data = bounded(file, TEXT, "secret")
    if not Path(target).is_file():
        return _held(target, data, tek, told, json) if _is_held(target) else _into(target, data, to, told, json)
    report = bounded(Path(target), REPORT, "report")
    verdict, sealed = _sealed(report, data, known(with_collected(told, report)), guest_key, tek)
    path = out or Path(f"{target}.secret")
    if verdict.proven:
        path.write_text(f"{dumps(sealed)}\n")
    _end(verdict, {"released": verdict.proven, "file": str(path) if verdict.proven else ""}, json)
    return None


def _is_held(name: str) -> bool:
    from tinamou.machine import encrypted, life

    return encrypted.held_for_owner(life.running(name))


def _held(name: str, data: bytes, tek: Path | None, given: Given, json: bool) -> None:
    from tinamou.operations.launching import give

    if tek is None or given.tik is None or given.nonce:
        why = "the session's keys encrypt it and judge what was measured, whose number the processor draws"
        raise SpecError("the secret is not released", why=why, fix="give --tek and --tik, and leave out --nonce")
    try:
        verdict = run_until_done(give(name, data, bounded(tek, TEXT, "tek"), known(given)))
    except ValueError as error:
        raise SpecError("the secret is not released", why=str(error)) from None
    _end(verdict, {"released": verdict.proven, "runs": name if verdict.proven else ""}, json)


def _into(name: str, data: bytes, to: str, given: Given, json: bool) -> None:
    from tinamou.operations.releasing import release

    if not to or given.nonce:
        why = "--to says where it goes in the guest; the nonce is drawn for each quote"
        raise SpecError("the secret is not released", why=why, fix="give --to, and leave out --nonce")
    verdict, digest = run_until_done(release(name, data, to, known(given)))
    _end(verdict, {"released": bool(digest), "to": to if digest else "", "sha256": digest}, json)


def _end(verdict: Verdict, told: Mapping[str, object], json: bool) -> None:
    if json:
        output.print_json({**told, "verdict": verdict.plain()})
    elif verdict.proven:
        print("\n".join(f"{key:<9} {value}" for key, value in told.items() if value is not True))
    else:
        show(verdict)
        output.warn("the secret was not released")
    sys.exit(status_of(verdict))


def _sealed(report: bytes, data: bytes, demanded: Known, guest_key: Path | None, tek: Path | None) -> tuple[Verdict, object]:
    """The verdict on a report, and the secret for whoever it is of, encrypted."""
    from tinamou.operations.releasing import credentials

    try:
        if snp.is_one(report) or tdx.is_one(report):
            if guest_key is None or not demanded.nonce:
                why = "a key that is not in the report could be anybody's"
                raise SpecError("the secret is not released", why=why, fix="give --guest-key, and the --nonce you chose")
            key = jwe.from_pem(bounded(guest_key, TEXT, "guest_key"))
            bound = hashlib.sha512(demanded.nonce + jwe.spki(key)).digest()
            return judged_by(report, late.replace(demanded, nonce=bound)), jwe.sealed(data, key)
        verdict = judged_by(report, demanded)
        if tpm.is_one(report):
            pieces = credentials(tpm.parse(report), data)
            return verdict, {"pieces": [{"credential": one.hex(), "secret": two.hex()} for one, two in pieces]}
        if tek is None:
            raise SpecError("the secret is not released", why="a SEV guest's is encrypted by TEK", fix="give --tek")
        found = sev.parse(report)
        packet = sev.secret_packet(bounded(tek, TEXT, "tek"), demanded.tik, found.measure, data)
        return verdict, packet.plain()
    except (MalformedError, ValueError) as error:
        raise SpecError("the secret is not released", why=str(error)) from None


def serve(
    config: Path,
    /,
    *,
    listen: str = "127.0.0.1:8080",
    tls_cert: Path | None = None,
    tls_key: Path | None = None,
    rate: Annotated[int, Parameter(least=1)] = 30,
) -> int:
    """Serve secrets to guests that prove themselves, by the KBS protocol of confidential-containers.

    Each decision is a line of JSON on the output. A guest gets a secret only where all five answers are yes, encrypted to a
    key that its report is bound to; what was wrong it is not told.

    Parameters
    ----------
    config
        A TOML file with a table resource."repository/type/tag" for each secret: file, and what attest verify is given.
    listen
        Serve HOST:PORT.
    tls_cert
        The certificate for that, with its chain, in PEM; without one guests cannot tell this broker from another.
    tls_key
        Its key.
    rate
        How many sessions one client may begin in a minute.
    """
    try:
        from tinamou.service.broker import serve as serving
    except ImportError as error:
        fix = "install them: pip install 'tinamou[service]'"
        raise TinamouError("the libraries of the service are not installed", why=str(error), fix=fix) from None
    from tinamou.attest.broker import Broker
    from tinamou.cli.serve import address

    where = address(listen)
    if bool(tls_cert) != bool(tls_key) or where is None:
        raise SpecError("nothing can be served", why="--tls-cert and --tls-key go together, and --listen is HOST:PORT")
    if tls_cert is None:
        output.warn("without --tls-cert no guest can tell this broker from another, which would give it secrets of its own")
    broker = Broker(_demanded(config), _noted, rate=rate)
    return run_until_told(serving(broker, where, tls_cert, tls_key, lambda url: _noted({"event": "serving", "url": url})))


def _noted(line: Mapping[str, object]) -> None:
    import json

    print(json.dumps({"at": f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}", **line}), flush=True)


def _demanded(config: Path) -> dict[str, Demanded]:
    """The secrets and what each demands. Raises SpecError with every problem."""
    from tinamou.attest.broker import Demanded

    try:
        told = tomllib.loads(bounded(config, TEXT, "config").decode())
    except ValueError as error:
        raise SpecError("this broker cannot be", problems=[Problem("config", str(config), str(error))]) from None
    problems, found = list[Problem](), dict[str, Demanded]()
    names = set(get_type_hints(Given)) - {"nonce", "log"}
    tables = told.pop("resource", {})
    if told or not isinstance(tables, dict) or not tables:
        raise SpecError("this broker cannot be", why=f'{config} has tables resource."repository/type/tag", and nothing else')
    for path, table in tables.items():
        try:
            if len(path.split("/")) != 3 or not isinstance(table, dict) or not isinstance(table.get("file"), str):
                raise SpecError("no resource", why="its name is repository/type/tag, and it has a file")
            if unknown := set(table) - names - {"file"}:
                raise SpecError("no resource", why=f"{', '.join(sorted(unknown))} is nothing attest verify is given")
            given = Given(**{name: _placed(name, value, config) for name, value in table.items() if name != "file"})
            data = bounded(config.parent / table["file"], TEXT, "file")
            found[path] = Demanded(data, known(given))
        except SpecError as error:
            problems += error.problems or [Problem(f"resource.{path}", None, error.why)]
    if problems:
        raise SpecError("this broker cannot be", problems=problems)
    return found


def _placed(name: str, value: object, config: Path) -> Any:
    """A value of a table as the command line would have it; files are named from where the table is."""
    if not isinstance(value, str):
        raise SpecError("no resource", why=f"{name} is no text")
    path = config.parent / value
    if name in ("certs", "collateral", "id_block", "policy", "reference", "tik"):
        return path
    return str(path) if name == "expect" and path.is_file() else value
