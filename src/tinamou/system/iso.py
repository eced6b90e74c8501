"""Small ISO 9660 images made from texts in memory, as cloud-init and other first-boot readers expect them."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Mapping
from pathlib import Path

__all__ = ["build_iso"]

_LABEL = re.compile(r"[A-Z0-9_]{1,16}")
_NAME = re.compile(r"[^/\0]{1,64}")


def build_iso(path: str | Path, label: str, files: Mapping[str, str | bytes]) -> None:
    """Write an ISO 9660 image with Rock Ridge and Joliet names, in one rename.

    ``label`` is the volume label, ``CIDATA`` for a NoCloud seed: 1 to 16 of A-Z, 0-9 and _ (what ISO 9660 and Joliet both
    take). ``files`` maps names to content; a ``/`` in a name makes folders. Texts are written as UTF-8. Source: cloud-init's
    documentation of the NoCloud datasource. Raises ValueError for a label or a name that does not fit, OSError.
    """
    import pycdlib

    if not _LABEL.fullmatch(label):
        raise ValueError(f"the volume label {label!r} is not 1 to 16 of A-Z, 0-9 and _")
    iso = pycdlib.PyCdlib()
    iso.new(interchange_level=3, joliet=3, rock_ridge="1.09", vol_ident=label)
    with contextlib.closing(iso):
        _fill(iso, files)
        target = Path(path)
        fresh = target.with_name(f".{target.name}.{os.getpid()}.new")
        try:
            with fresh.open("wb") as out:
                iso.write_fp(out)
            fresh.replace(target)
        finally:
            fresh.unlink(missing_ok=True)


def _fill(iso: object, files: Mapping[str, str | bytes]) -> None:
    """Add folders and files; the ISO 9660 names are numbers, since nobody reads them where Rock Ridge or Joliet exist."""
    folders = {"": ""}
    for number, name in enumerate(sorted(files)):
        parts = name.split("/")
        if not all(_NAME.fullmatch(part) and part not in (".", "..") for part in parts):
            raise ValueError(f"{name!r} is not a name for a file in an ISO image: parts of 1 to 64 characters")
        for depth in range(1, len(parts)):
            folder = "/".join(parts[:depth])
            if folder in files:
                raise ValueError(f"{folder!r} is a file and a folder at once")
            if folder not in folders:
                parent = folders["/".join(parts[: depth - 1])]
                folders[folder] = f"{parent}/D{len(folders)}"
                iso.add_directory(folders[folder], rr_name=parts[depth - 1], joliet_path=f"/{folder}")  # type: ignore[attr-defined]
        content = files[name]
        data = content.encode() if isinstance(content, str) else content
        place = f"{folders['/'.join(parts[:-1])]}/F{number}.;1"
        iso.add_fp(io.BytesIO(data), len(data), place, rr_name=parts[-1], joliet_path=f"/{name}")  # type: ignore[attr-defined]
