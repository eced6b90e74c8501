"""Fresh ssh host keys for a fork, made on the host, where that takes milliseconds."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tinamou.system.exec import run
from tinamou.system.loop_thread import in_thread

__all__ = ["Files", "make"]

Files = tuple[tuple[str, int, bytes], ...]
"""Files for the guest: path, mode, content."""

_QUICK = {"ed25519": "ed25519", "ecdsa": "ecdsa"}


async def make(paths: Iterable[str], directory: Path) -> Files:
    """Files for the guest in place of the host keys at ``paths``: path, mode, content.

    Ed25519 and ECDSA keys are made anew; a key of another kind (RSA takes seconds) is emptied, so that no two forks have
    the same one. Raises CommandError.
    """
    files: list[tuple[str, int, bytes]] = []
    for path in paths:
        kind = _QUICK.get(path.rpartition("ssh_host_")[2].removesuffix("_key"), "")
        private, public = await in_thread(_pair, kind, directory / "host_key") if kind else (b"", b"")
        files += [(path, 0o600, private), (f"{path}.pub", 0o644, public)]
    return tuple(files)


def _pair(kind: str, path: Path) -> tuple[bytes, bytes]:
    public = path.with_name(f"{path.name}.pub")
    run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-C", "", "-f", str(path)])
    try:
        return path.read_bytes(), public.read_bytes()
    finally:
        path.unlink()
        public.unlink()
