"""A machine of another tool as a description of tinamou's: read, its files looked at, planned here; nothing is started."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tinamou.convert import assemble, files, kinds
from tinamou.convert.assemble import Converted
from tinamou.convert.result import RANKS, Draft, Note
from tinamou.errors import TinamouError
from tinamou.spec import load_spec

if TYPE_CHECKING:
    from tinamou.machine.gather import Once

__all__ = ["of_file", "of_words", "tried"]


def of_file(source: Path, *, name: str = "", trust: Sequence[Path] = (), later: bool = False) -> Converted:
    """The machine a file describes, whose format is told by its content; or a machine's folder (.utm, .pvm, .vmwarevm).

    ``later``: what an archive vouches for is compared by whoever imports its disks, and by nobody else. Raises SpecError,
    ImageError.
    """
    source = files.description(source)
    text, draft = files.read_source(source, later=later)
    folder = Path(os.path.realpath(source)).parent
    if folder.name == "Virtual Machines":  # Hyper-V's export has its disks beside that
        folder = folder.parent
    return _made(draft or kinds.read(text, str(source), files.companion(folder)), folder, name, trust)


def of_words(words: Sequence[str], *, name: str = "", trust: Sequence[Path] = ()) -> Converted:
    """The machine of a line of QEMU's or virt-install's; its files are relative to the cwd. Raises SpecError, ImageError."""
    from tinamou.convert import qemu, virt_install

    installs = any(word.rpartition("/")[2] == "virt-install" for word in words[:3])
    read = virt_install.read_words if installs else qemu.read_words
    return _made(read(words), Path.cwd(), name, trust)


def _made(draft: Draft, folder: Path, name: str, trust: Sequence[Path]) -> Converted:
    if name:
        load_spec({"name": name}, source="--name")
        draft.put("name", name)
    files.absolute(draft, folder)
    return assemble.assemble(draft, files.look(draft, folder, trust))


def tried(converted: Converted, once: Once | None = None) -> Converted:
    """The same, planned on this host: what is missing here for it becomes notes. ``once``: for many in a row."""
    if not all(placed.here for placed in converted.disks):
        return converted
    from tinamou.machine.planning import check_only

    try:
        check_only(converted.spec or load_spec(converted.machine), once)
    except TinamouError as error:
        found = [
            Note("check", one.path, str(one.value or ""), f"on this host: {one.reason}", one.fix) for one in error.problems
        ]
        whole = Note("check", "plan", "", f"on this host: {error.what}{': ' if error.why else ''}{error.why}", error.fix)
        converted.notes += found or [whole]
        converted.notes.sort(key=lambda note: RANKS.index(note.rank))
    return converted
