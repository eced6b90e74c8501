"""A machine that is off copied to another host: exported here, imported there."""

from __future__ import annotations

import json
import os
import tempfile
from pathlib import Path
from typing import IO

from tinamou.errors import HostError, StateError, error_from
from tinamou.fleet import hosts, remote
from tinamou.fleet.remote import Pipe
from tinamou.images.progress import Progress, silent
from tinamou.late import dataclass
from tinamou.machine.exporting import export
from tinamou.state import machines, moves
from tinamou.system.paths import state_dir

__all__ = ["Copied", "copy"]

_PIECE = 1 << 20


@dataclass(frozen=True)
class Copied:
    """The machine as it is called there, off; ``size`` are the bytes that went over."""

    name: str
    host: str
    size: int
    notes: tuple[str, ...] = ()


async def copy(name: str, host: str, new: str = "", *, trust: bool = False, progress: Progress = silent) -> Copied:
    """Make the same machine on another host, off, as ``new`` or by its own name; the one here stays as it is.

    Without ``trust`` what its description says of this host is left out there, and told. Raises StateError for one that
    runs, HostError, and what the other host says; there is no machine there then.
    """
    there, record = hosts.find(host), machines.find(name)
    moves.refuse_elsewhere(record, "copied")
    if record.running:
        fix = f"tinamou move {name} {host} takes it there as it runs; tinamou stop {name} first, to copy it"
        raise StateError(f"machine {name} is running", fix=fix)
    words = [*there.command, "import", "-", "--json", *(["--name", new] if new else []), *(["--trust"] if trust else [])]
    with tempfile.TemporaryDirectory(prefix="copy-", dir=state_dir()) as folder:
        file = Path(folder) / "machine"
        size = await export(name, file, progress=progress)
        async with remote.stream(there, words) as pipe:
            with file.open("rb") as source:
                said = await _through(pipe, source, size, progress)
    try:
        told = json.loads(said)
        if "error" in told:
            raise error_from(told)
        return Copied(str(told["name"]), host, size, tuple(map(str, told["notes"])))
    except (ValueError, KeyError, TypeError) as error:
        why = pipe.errors.decode(errors="replace").strip()[-500:]
        raise HostError(f"{host} did not take {name} in", why=why or str(error)) from error


async def _through(pipe: Pipe, source: IO[bytes], size: int, progress: Progress) -> bytes:
    """Send the file; what the other side says when it has it, or no more wants it."""
    sent = 0
    try:
        while piece := os.read(source.fileno(), _PIECE):
            pipe.writer.write(piece)
            await pipe.writer.drain()
            sent += len(piece)
            progress("sending", sent / size)
        pipe.writer.close()
    except ConnectionError:
        progress("it is not taken", None)  # why is what it says
    return await pipe.reader.read()
