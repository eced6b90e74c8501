"""What ``--json`` prints of one machine, verb by verb, as keys and kinds of values.

After a wanted change: ``PYTHONPATH=src:tests:tests/cli python tests/cli/json_shapes.py``, then read the difference.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from typed import call, tinamou

FILE = Path(__file__).parent / "json_shapes.json"
_KINDS = {str: "text", bool: "yes or no", int: "whole number", float: "number", type(None): "nothing"}

LINES = (
    "run -d --name web --net user --memory 256M --disk size=8M --display vnc",
    "ls",
    "show web",
    "plan web",
    "display web",
    "trace web --list virtio_blk_*",
    "disk ls web",
    "net ls",
    "stats web",
    "confine web",
    "allow web",
    "set web memory=300M --dry-run",
    "snapshot create web first",
    "snapshot ls web",
    "snapshot show web first",
    "clone web two",
    "rename two three",
    "image ls",
    "pool ls",
    "checkpoints ls",
    "token ls",
    "host ls",
    "autostart",
)
"""Each after the other, on the same machine."""
_OF_THE_HOST = {"plan web": ("elements", "flags", "steps", "notes", "confinement", "pinning")}
"""What differs from host to host in what it holds."""


def shape(value: Any) -> Any:
    """Its keys, and the kind of each value; one of a list is like all of them."""
    if isinstance(value, dict):
        return {key: shape(inner) for key, inner in sorted(value.items())}
    if isinstance(value, list):
        return [_joined([shape(one) for one in value])] if value else []
    return _KINDS[type(value)]


def _joined(shapes: list[Any]) -> Any:
    if all(isinstance(one, dict) for one in shapes):
        keys = sorted({key for one in shapes for key in one})
        return {key: _joined([one[key] for one in shapes if key in one]) for key in keys}
    kinds = sorted({json.dumps(one) for one in shapes})
    return json.loads(kinds[0]) if len(kinds) == 1 else " or ".join(kinds)


def told() -> Iterator[tuple[str, Any]]:
    """What each line prints, as a shape."""
    try:
        for line in LINES:
            found = json.loads(tinamou(*line.split(), "--json"))
            if line in _OF_THE_HOST:
                found = {key: type(value).__name__ if key in _OF_THE_HOST[line] else value for key, value in found.items()}
            yield line, shape(found)
    finally:
        for name in ("web", "two", "three"):
            call("rm", "-f", name)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory(prefix="tm-", dir="/tmp") as place:
        os.environ |= {"TINAMOU_STATE": f"{place}/s", "TINAMOU_RUN": f"{place}/r", "TINAMOU_UNITS": f"{place}/u"}
        FILE.write_text(json.dumps(dict(told()), indent=1) + "\n")
