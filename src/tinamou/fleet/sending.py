"""A checkpoint to another host: of disks that rest on an image it has, by content, only what differs goes over."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tinamou.errors import StateError
from tinamou.fleet import hosts, remote
from tinamou.fleet.frames import Frames
from tinamou.images import store
from tinamou.images.progress import Progress, silent
from tinamou.late import dataclass
from tinamou.machine import checkpoints
from tinamou.snapshots import travel
from tinamou.snapshots.checkpoint import check
from tinamou.snapshots.travel import Base
from tinamou.system.loop_thread import in_thread
from tinamou.system.paths import state_dir

__all__ = ["SentThere", "send", "take"]

_PIECE = 8 << 20
_SECONDS = 600.0


@dataclass(frozen=True)
class SentThere:
    """A checkpoint on another host, by its name there: bytes that went over, disks that rest on an image there, seconds."""

    name: str
    host: str
    size: int
    resting: tuple[str, ...]
    seconds: float
    problems: tuple[str, ...] = ()


async def send(name: str, host: str, new: str = "", *, progress: Progress = silent) -> SentThere:
    """Make the same checkpoint on another host, as ``new`` or by its own name. Raises TinamouError; there is none then."""
    there, checkpoint, began = hosts.find(host), checkpoints.find(name), time.monotonic()
    found = await in_thread(travel.bases, checkpoint)
    with tempfile.TemporaryDirectory(prefix="send-", dir=state_dir()) as folder:
        file = Path(folder) / "checkpoint"
        async with remote.stream(there, [*there.command, "receive", "--checkpoint"]) as pipe:
            frames = Frames(pipe.reader, pipe.writer)
            async with frames.beating():
                files = [[Path(one.path).stat().st_size, one.sum] for one in found.values()]  # noqa: ASYNC240
                await frames.say("checkpoint", name=new, files=files)
                has = (await frames.hear("has", _SECONDS))[0]["sums"]
                resting = {disk: base for disk, base in found.items() if base.sum in has}
                await travel.export(checkpoint, file, resting=resting, progress=progress)
                size = file.stat().st_size
                for piece in _pieces(file):
                    await frames.say("piece", piece)
                    progress("sending", None)
                await frames.say("whole")
                told, _ = await frames.hear("taken", _SECONDS)
    problems = tuple(map(str, told["problems"]))
    return SentThere(str(told["name"]), host, size, tuple(resting), time.monotonic() - began, problems)


def _pieces(file: Path) -> Iterator[bytes]:
    with file.open("rb") as packed:
        while piece := packed.read(_PIECE):
            yield piece


async def take(frames: Frames) -> None:
    """The other side: take one in. Raises StateError; there is no checkpoint then."""
    said, _ = await frames.hear("checkpoint")
    try:
        wanted = {(int(size), str(sum)) for size, sum in said["files"]}
    except (KeyError, TypeError, ValueError) as error:
        raise StateError("the other host says what is no checkpoint", why=str(error)[:200]) from error
    images = await in_thread(_images, wanted)
    await frames.say("has", sums=list(images))
    state_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="send-", dir=state_dir()) as folder:
        file = Path(folder) / "checkpoint"
        with file.open("wb") as packed:
            while True:
                data, piece = await frames.hear_any(("piece", "whole"), _SECONDS)
                if data["what"] == "whole":
                    break
                packed.write(piece)
        taken = await travel.take_in(file, str(said.get("name", "")), images=images)
    problems: list[str] = []
    try:
        await in_thread(check, taken)
    except StateError as error:
        problems = list(map(str, error.problems))
    await frames.say("taken", name=taken.name, problems=problems)


def _images(wanted: set[tuple[int, str]]) -> dict[str, Base]:
    """The disks of images here that are among these, by SHA-256."""
    found = store.by_content(wanted)
    return {sum: Base(facts.disk, facts.format, sum) for sum, (path, facts) in found.items() if str(path) == facts.disk}
