"""SHA-256 of short texts: the interpreter's own, as loading OpenSSL for it takes longer than planning a machine. Files'."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

__all__ = ["file_digest", "sha256"]

if TYPE_CHECKING:
    from hashlib import sha256
else:
    try:
        from _sha256 import sha256  # Python 3.11
    except ImportError:
        try:
            from _sha2 import sha256
        except ImportError:
            from hashlib import sha256


def file_digest(path: Path, algorithm: str = "sha256") -> str:
    """The digest of a file in lower-case hexadecimal. Raises OSError."""
    import hashlib

    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()
