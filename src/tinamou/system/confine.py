"""How a process is deprived of everything it does not need before its first instruction runs."""

from __future__ import annotations

import resource
from collections.abc import Sequence

__all__ = ["ENVIRONMENT", "prefix"]

ENVIRONMENT = {"PATH": "/usr/bin:/bin", "LC_ALL": "C.UTF-8", "HOME": "/nonexistent", "TMPDIR": "/tmp"}  # noqa: S108
"""All a confined process sees of tinamou's own environment."""


def prefix(
    uid: int | None,
    groups: Sequence[int] = (),
    *,
    dies_with_parent: bool = False,
    locked: int | None = None,
    files: int | None = None,
    keeps: Sequence[str] = (),
) -> list[str]:
    """The words in front of a command: no core dumps, no new privileges; with ``uid`` that identity and no capabilities.

    ``locked`` is how many bytes it may lock in memory, where it needs any; ``files`` how many it may have open, no more
    than this process may; ``keeps`` are capabilities it has all the same.

    ``setpriv`` and not QEMU's ``-run-with user=``, which dies of SIGSYS under ``-sandbox elevateprivileges=deny``.
    """
    most = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    open_files = min(files, most) if files and most != resource.RLIM_INFINITY else files
    limits = [f"--{name}={most}" for name, most in (("memlock", locked), ("nofile", open_files)) if most]
    words = ["prlimit", "--core=0", *limits, "--", "setpriv", "--no-new-privs"]
    if dies_with_parent:
        words += ["--pdeathsig", "KILL"]
    if uid is not None:
        words += ["--reuid", str(uid), "--regid", str(uid)]
        words += ["--groups", ",".join(str(group) for group in groups)] if groups else ["--clear-groups"]
        kept = "".join(f",+{name}" for name in keeps)
        words += [f"--{kind}=-all{kept}" for kind in ("inh-caps", "ambient-caps", "bounding-set")]
    return [*words, "--"]
