"""The verb ``dump``: a guest's memory and registers in a file."""

from __future__ import annotations

from pathlib import Path

from tinamou.cli import output
from tinamou.cli.grammar import Switch
from tinamou.cli.loop import run_until_done
from tinamou.operations import by_hand
from tinamou.operations.by_hand import Format


def command(name: str, file: Path, /, *, format: Format = "elf", json: Switch = False) -> None:
    """Write a guest's memory and registers into a file; it stands still meanwhile. Ctrl-C ends it, and leaves no file.

    Parameters
    ----------
    file
        The file to write; an older one of that name is replaced when all is written.
    format
        elf: for gdb, with holes where memory is empty; kdump-…: compressed, for crash and drgn, as this QEMU offers them.
    """
    size = run_until_done(by_hand.dump(name, file, format=format, progress=output.progress))
    if json:
        output.print_json({"machine": name, "file": str(file), "format": format, "size": size})
    else:
        output.say(f"{size >> 20} MiB")
