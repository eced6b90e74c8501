"""The verbs below ``attest`` for SEV and SEV-ES, whose guests are judged before they run: session, launch."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tinamou.attest import MalformedError, bounded, make_session, sev_chain
from tinamou.attest.certificates import UntrustedError
from tinamou.cli import output
from tinamou.cli.attest_given import TEXT
from tinamou.cli.grammar import Parameter, Switch
from tinamou.cli.loop import run_until_done
from tinamou.errors import Problem, SpecError

__all__ = ["launch", "session"]


def session(
    chain: Path,
    /,
    *,
    kind: str = "sev-es",
    debug: Switch = False,
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("session"),
    json: Switch = False,
) -> None:
    """Make a session of SEV or SEV-ES, as a guest's owner, for one start on one platform: on a machine you trust.

    OUT.toml goes into the machine's description; OUT.tek and OUT.tik are your keys, which the host must not see. The
    platform's chain must lead to AMD's root.

    Parameters
    ----------
    chain
        The platform's certificates, PDH to ARK, in one file: sevctl export --full.
    kind
        What encrypts the guest's memory: sev or sev-es.
    debug
        For a machine with confidential.debug: its policy lets the host decrypt it.
    out
        What the three files are called.
    """
    from tinamou.parts.confidential import policy_of

    if kind not in ("sev", "sev-es"):
        raise SpecError("no session can be made", problems=[Problem("kind", kind, "sev or sev-es")])
    try:
        platform = sev_chain.parse_platform(bounded(chain, TEXT, "chain"))
        seen = sev_chain.check_platform(platform)
    except (MalformedError, UntrustedError) as error:
        raise SpecError("no session can be made", problems=[Problem("chain", str(chain), str(error))]) from None
    policy = policy_of(kind, debug=debug)
    made = make_session(platform, policy)
    files = {name: Path(f"{out}.{name}") for name in ("toml", "tek", "tik")}
    lines = ["[confidential]", f'type = "{kind}"', *(["debug = true"] if debug else [])]
    lines += [f'{name} = "{value}"' for name, value in made.plain().items()]
    _written(files["toml"], "\n".join([*lines, ""]).encode())
    _written(files["tek"], made.tek)
    _written(files["tik"], made.tik)
    told = {name: str(path) for name, path in files.items()}
    if json:
        output.print_json({**told, "policy": policy, "evidence": seen})
        return
    print("\n".join([*seen, *(f"{name:<5} {path}" for name, path in told.items())]))


def _written(path: Path, data: bytes) -> None:
    """A new file that only its owner reads: the keys of a session that a machine may have are not written over."""
    try:
        path.touch(0o600, exist_ok=False)
        path.write_bytes(data)
    except OSError as error:
        raise SpecError("no session can be made", problems=[Problem("out", str(path), str(error.strerror))]) from None


def launch(name: str, packet: Path | None = None, /) -> None:
    """Let a SEV guest run that is held for its owner, on the host, which judges nothing: its owner has.

    Parameters
    ----------
    name
        The machine, which was started with a session of SEV.
    packet
        The secret its owner made for this start, as attest secret wrote it.
    """
    from tinamou.operations.launching import let_run, packet_in

    run_until_done(let_run(name, packet_in(bounded(packet, TEXT, "packet")) if packet else None))
