"""The verbs below ``attest`` that compute what must be measured of a machine, and sign it: expect, id-block."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from tinamou import late
from tinamou.attest import MalformedError, bounded, expected, idblock
from tinamou.cli import output
from tinamou.cli.attest_given import TEXT, hexed, launch_named
from tinamou.cli.grammar import Parameter, Switch
from tinamou.errors import Problem, SpecError
from tinamou.units import Size

__all__ = ["expect", "id_block"]


def expect(
    machine: str = "",
    /,
    *,
    cpu: str = "",
    kind: str = "sev-snp",
    firmware: Path | None = None,
    cpus: int = 1,
    kernel: Path | None = None,
    initrd: Path | None = None,
    append: str = "",
    memory: str = "",
    json: Switch = False,
) -> None:
    """Compute what SEV, SEV-ES, SEV-SNP or TDX must measure of a machine, from the files it is started from.

    Of TDX it is MRTD, of the firmware, and the events of RTMR0 to RTMR2; what is not computed is named, with what is trusted
    in its place.

    Parameters
    ----------
    machine
        A machine; or leave it out and name the files.
    cpu
        The processor its vCPUs are, by QEMU's name: EPYC-Milan (SEV-SNP, SEV-ES).
    kind
        What encrypts its memory: sev, sev-es, sev-snp, tdx; a machine's plan says so itself.
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
    memory
        How much memory the machine has, such as 2G (TDX).
    """
    if bool(machine) == bool(firmware):
        raise SpecError("what is to be computed?", why="name a machine, or its files by --firmware", fix="one of them")
    if kind not in ("sev", "sev-es", "sev-snp", "tdx"):
        raise SpecError("what is to be computed?", problems=[Problem("kind", kind, "sev, sev-es, sev-snp or tdx")])
    given = firmware and expected.Launch(firmware, cpus, kernel, initrd, append, kind, _bytes(memory))
    launch = given or launch_named(machine)
    found = {name: value.hex() for name, value in expected.measured_by(launch, cpu).items()}
    events, trusted = expected.events_of(launch), expected.trusted_of(launch)
    if json:
        told = [{**late.asdict(one), "digests": [digest.hex() for digest in one.digests]} for one in events]
        more = {"not_computed": trusted, "events": told} if trusted else {}
        output.print_json({**found, "cpu": cpu, "launch": late.asdict(launch), **more})
        return
    for name, value in found.items():
        print(value if name == "measurement" else f'{name} = "{value}"')
    for name, why in trusted.items():
        print(f"# {name}: {why}")
    for one in events:
        digests = ", ".join(f'"{digest.hex()}"' for digest in one.digests)
        print(f'\n[[event]]\nregister = "{one.register}"\nname = "{one.name}"\ndigests = [{digests}]')


def _bytes(text: str) -> int:
    try:
        return int(Size.parse(text)) if text else 0
    except ValueError as error:
        raise SpecError("what is to be computed?", problems=[Problem("memory", text, str(error), "2G")]) from None


def id_block(
    measurement: str,
    /,
    *,
    key: Path,
    author: Path | None = None,
    family: str = "",
    image: str = "",
    svn: Annotated[int, Parameter(least=0)] = 0,
    policy: str = "0x30000",
    out: Annotated[Path, Parameter(name=["--out", "-o"])] = Path("id-block.json"),
    json: Switch = False,
) -> None:
    """Sign what a SEV-SNP guest must measure: its processor starts no other then, and each report names your keys.

    The file has both blocks by QEMU's names (id-block, id-auth), and is what attest verify is given by --id-block.

    Parameters
    ----------
    measurement
        What must be measured, in hexadecimal, as attest expect prints it.
    key
        The private key that signs, on P-384, in PEM: openssl ecparam -name secp384r1 -genkey -noout.
    author
        The private key that signs the other, where one of yours stands for several.
    family
        A number of yours for a family of guests, up to 16 bytes in hexadecimal.
    image
        Likewise for an image.
    svn
        Its version, which each report has.
    policy
        The policy it must be started under.
    out
        Where the blocks go.
    """
    try:
        measured = hexed(measurement, 48, 48)
        numbers = [hexed(one, 0, 16) for one in (family, image)]
        keys = [idblock.load_key(bounded(one, TEXT, "key")) for one in (key, *([author] if author else ()))]
        made = idblock.make(measured, *keys, family=numbers[0], image=numbers[1], svn=svn, policy=int(policy, 0))
    except SpecError:
        raise
    except (ValueError, OverflowError, MalformedError) as error:
        raise SpecError("no id block can be made", problems=[Problem("id-block", None, str(error))]) from None
    out.write_bytes(made.written())
    told = {"file": str(out), "id_key": made.id_key.hex(), "author_key": made.author_key.hex() if author else ""}
    output.result(
        told, f"{out}\nkey     {made.id_key.hex()}" + (f"\nauthor  {made.author_key.hex()}" if author else ""), json=json
    )
