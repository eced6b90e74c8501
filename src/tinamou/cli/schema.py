"""The verb ``schema``: JSON Schema of machine files, for editors."""

from __future__ import annotations

from tinamou.cli import output
from tinamou.spec import spec_schema


def command() -> None:
    """Print the JSON Schema of machine files."""
    output.print_json(spec_schema())
