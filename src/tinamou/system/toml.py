"""TOML that others wrote, read in a time that grows with its length: keys of few parts, texts of few escapes.

The reader of the standard library takes time that grows with the square of both: seconds for 100 KB, or for a mebibyte.
"""

from __future__ import annotations

import re
from typing import Any

__all__ = ["toml_of"]

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
