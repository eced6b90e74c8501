"""How a tool that reads foreign files is deprived of what it does not need before its first instruction runs."""

from __future__ import annotations

from collections.abc import Sequence

__all__ = ["ENVIRONMENT", "prefix"]

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent", "TMPDIR": "/tmp"}  # noqa: S108
"""All a confined process sees of tinamou's own environment."""


def prefix(uid: int | None, *, dies_with_parent: bool = False, keeps: Sequence[str] = ()) -> list[str]:
    """The words in front of a command: no core dumps, no new privileges; with ``uid`` that identity and no capabilities.

    ``keeps`` are capabilities it has all the same. QEMU and its helpers have more around them: `tinamou.system.jail`.
    """
    words = ["prlimit", "--core=0", "--", "setpriv", "--no-new-privs"]
    if dies_with_parent:
        words += ["--pdeathsig", "KILL"]
    if uid is not None:
        words += ["--reuid", str(uid), "--regid", str(uid), "--clear-groups"]
        kept = "".join(f",+{name}" for name in keeps)
        words += [f"--{kind}=-all{kept}" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
    return [*words, "--"]
