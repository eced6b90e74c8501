"""TOML that others wrote, read in a time that grows with its length: keys of few parts, texts of few escapes.

The reader of the standard library takes time that grows with the square of both: seconds for 100 KB, or for a mebibyte.
"""

from __future__ import annotations

import re
from typing import Any

from tinamou.errors import SpecError
from tinamou.system.plain_file import read_given

__all__ = ["toml_file", "toml_of"]

_LARGEST = 1 << 20

_PARTS = 32
_ESCAPES = 100_000
_PART = r"""(?:[\w-]+|"[^"\n]*"|'[^'\n]*')[ \t]*\.[ \t]*"""
_LONG_KEY = re.compile(rf"^[ \t]*(?:\[{{1,2}}[ \t]*)?(?:{_PART}){{{_PARTS}}}", re.MULTILINE)


def toml_of(text: str) -> dict[str, Any]:
    """The tables of a text. Raises ValueError, RecursionError."""
    import tomllib

    if found := _LONG_KEY.search(text):
        line = text.count("\n", 0, found.start()) + 1
        raise ValueError(f"a key of more than {_PARTS} parts (at line {line})")
    if text.count("\\") > _ESCAPES:
        raise ValueError(f"more than {_ESCAPES} escapes")
    return tomllib.loads(text)


def toml_file(path: str, said: str, *, see: str) -> dict[str, Any]:
    """The tables of a file of the user's; ``said`` is what one is not that is too large. Raises SpecError."""
    data = read_given(path, _LARGEST)
    if len(data) > _LARGEST:
        raise SpecError(f"{path} {said}", why=f"it is larger than {_LARGEST >> 20} MiB")
    try:
        return toml_of(data.decode())
    except (ValueError, RecursionError) as error:
        raise SpecError(f"{path} is not TOML", why=str(error), fix=f"see {see}") from error
