"""What is demanded of a guest and its host: a policy, read from a TOML file; without one the strictest that is of use."""

from __future__ import annotations

import tomllib
from typing import Literal

from tinamou.errors import Problem, SpecError
from tinamou.fields import load, option
from tinamou.late import dataclass

__all__ = ["Policy", "SnpFloor", "read_policy"]


@dataclass(frozen=True)
class SnpFloor:
    """The least security version of each part of an AMD host that is enough."""

    bootloader: int = option(0, "AMD's boot loader", minimum=0, maximum=255)
    tee: int = option(0, "the secure processor's operating system", minimum=0, maximum=255)
    snp: int = option(0, "SEV-SNP firmware", minimum=0, maximum=255)
    microcode: int = option(0, "microcode", minimum=0, maximum=255)
    fmc: int = option(0, "the first mutable code, of Turin and later", minimum=0, maximum=255)
    build: int = option(0, "the build of the secure processor's firmware (SEV and SEV-ES)", minimum=0, maximum=255)


@dataclass(frozen=True)
class Policy:
    """Demands on guest and host."""

    debug: bool = option(False, "the host may debug the guest, which lets it read all memory")
    migration_agent: bool = option(False, "an agent beside the guest may move it to another host (AMD)")
    smt: bool = option(True, "the guest may share a core with another (AMD); false demands a host without threads")
    single_socket: bool = option(False, "demand that the guest's policy allows one socket alone (AMD)")
    vmpl: tuple[int, ...] = option((0,), "privilege levels a report may come from (AMD)")
    secure_boot: bool = option(False, "demand that the firmware checked what it started (a machine's TPM)")
    host_trusted: bool = option(False, "the host is trusted: a machine's TPM is a program of its")
    floor: SnpFloor = option(SnpFloor, "the least versions of an AMD host")
    statuses: tuple[str, ...] = option(("UpToDate",), "what Intel may say of the host's level")
    accepted: tuple[Literal["rtmr0", "rtmr1", "rtmr2", "tables", "boot_variables", "keys"], ...] = option(
        (), "registers of TDX that may be whatever their log gives, or events that are not computed (attest expect says why)"
    )
    advisories: tuple[str, ...] = option((), "Intel's advisories that are accepted, such as INTEL-SA-00615")


def read_policy(text: bytes) -> Policy:
    """The policy in a TOML file. Raises SpecError with every problem of it."""
    try:
        data = tomllib.loads(text.decode())
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SpecError(
            "the policy cannot be read", problems=[Problem("policy", None, str(error), "write it as TOML")]
        ) from None
    policy, problems = load(Policy, data, "policy")
    if policy is None or problems:
        raise SpecError("this policy cannot hold", problems=problems)
    return policy
