"""How a tool that reads foreign files is deprived of what it does not need before its first instruction runs."""

from __future__ import annotations

__all__ = ["ENVIRONMENT", "prefix"]

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent", "TMPDIR": "/tmp"}  # noqa: S108
"""All a confined process sees of tinamou's own environment."""


def prefix(uid: int | None) -> list[str]:
    """The words in front of a command: no core dumps, no new privileges; with ``uid`` that identity and no capabilities.

    QEMU and its helpers have more around them: `tinamou.system.jail`.
    """
    words = ["prlimit", "--core=0", "--", "setpriv", "--no-new-privs"]
    if uid is not None:
        words += ["--reuid", str(uid), "--regid", str(uid), "--clear-groups"]
        words += [f"--{kind}=-all" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
    return [*words, "--"]
