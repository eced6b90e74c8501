"""A host becomes known: which keys it shows, which of them somebody confirmed, and whether tinamou is there."""

from __future__ import annotations

from collections.abc import Sequence

from tinamou.errors import LaunchError, Problem, SpecError
from tinamou.fleet import hosts
from tinamou.fleet.hosts import fingerprint
from tinamou.fleet.ssh import SilentHostError
from tinamou.system import exec_async
from tinamou.system.exec import find_tool

__all__ = ["chosen", "keys_shown"]

_KINDS = ("ssh-ed25519", "ecdsa-sha2-nistp256", "ecdsa-sha2-nistp384", "ecdsa-sha2-nistp521", "ssh-rsa")
"""What ssh-keyscan is asked for, the best first."""


async def keys_shown(address: str, port: int, *, timeout: float = 10.0) -> list[str]:
    """The public keys ("ssh-ed25519 AAAA…") that a host shows, the best first. Nothing vouches for them yet.

    Raises SilentHostError, SpecError for what is no address.
    """
    hosts.check_place(address, port)
    if (scan := find_tool("ssh-keyscan")) is None:
        raise LaunchError("there is no ssh-keyscan here", fix="install openssh-client")
    argv = [scan, "-p", str(port), "-T", str(max(1, int(timeout))), "-t", "ed25519,ecdsa,rsa", address]
    try:
        _, said, why = await exec_async.communicate(argv, timeout=timeout + 1)
    except TimeoutError:
        said, why = b"", b""
    found = [" ".join(line.split()[1:3]) for line in said.decode(errors="replace").splitlines() if line[:1] != "#"]
    known = [key for key in found if hosts.is_key(key)]
    if not known:
        reason = why.decode(errors="replace").strip().rpartition("\n")[2] or f"no key within {timeout:g} s"
        raise SilentHostError(f"no ssh server answers at {address}, port {port}", why=reason)
    return sorted(known, key=lambda key: _KINDS.index(key.partition(" ")[0]))


def chosen(keys: Sequence[str], said: str) -> str:
    """The key whose fingerprint was said. Raises SpecError where the host shows none of it."""
    for key in keys:
        if fingerprint(key) == said.strip():
            return key
    shown = ", ".join(f"{key.partition(' ')[0]} {fingerprint(key)}" for key in keys)
    fix = "ask whoever runs the host, on another way, for: ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub"
    raise SpecError(
        "the host's key is not confirmed", problems=[Problem("--fingerprint", said or None, f"the host shows {shown}", fix)]
    )
