"""A folder of certificates and lists of revoked ones, as whoever asks has gathered them."""

from __future__ import annotations

from pathlib import Path

from tinamou.attest.binary import MalformedError
from tinamou.attest.certificates import load, load_lists
from tinamou.errors import Problem, SpecError
from tinamou.system.plain_file import read_given

__all__ = ["bounded", "certificates_in"]

_FILES = 64
_MOST = 1 << 20


def bounded(path: Path, most: int, what: str) -> bytes:
    """The bytes of a file, so many at most. Raises SpecError naming it."""
    data = read_given(path, most)
    if len(data) > most:
        raise SpecError(f"{what} is too long", problems=[Problem(what, str(path), f"{most} bytes are looked at")])
    return data


def certificates_in(folder: Path) -> tuple[tuple[bytes, ...], tuple[bytes, ...]]:
    """The certificates, and the lists of revoked ones, in the files of a folder (PEM or DER). Raises SpecError.

    A file that is neither is a problem: it would be missed.
    """
    if not folder.is_dir():
        raise SpecError("no certificates", problems=[Problem("certs", str(folder), "there is no such folder")])
    files = sorted(path for path in folder.iterdir() if path.is_file())
    if len(files) > _FILES:
        raise SpecError("too many certificates", problems=[Problem("certs", str(folder), f"more than {_FILES} files")])
    certificates, lists, problems = list[bytes](), list[bytes](), []
    for path in files:
        data = bounded(path, _MOST, "certs")
        for known, read in ((certificates, load), (lists, load_lists)):
            try:
                read(data)
            except MalformedError:
                continue
            known.append(data)
        if data not in certificates and data not in lists:
            reason = "neither a certificate nor a list of revoked ones"
            problems.append(Problem("certs", str(path), reason, "PEM or DER; take other files out of the folder"))
    if problems:
        raise SpecError("some certificates cannot be read", problems=problems)
    return tuple(certificates), tuple(lists)
