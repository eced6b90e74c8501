"""An image from another host: by content, so that only blocks which no image of that name here has go over.

The other host pulls it from its vendor first where it lacks it: one host of many downloads. What came is checked here as a
download is, by the vendor's checksum and signature, which are asked of the vendor itself.
"""

from __future__ import annotations

import functools
import hashlib
import os
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinamou.errors import ImageError, StateError, if_full
from tinamou.facts.image import ImageFacts
from tinamou.fleet import hosts, remote
from tinamou.fleet.frames import Frames
from tinamou.fleet.hosts import Host
from tinamou.images import catalog, pull, store
from tinamou.images.importing import import_image, imported
from tinamou.images.progress import Progress, silent
from tinamou.late import dataclass
from tinamou.system.closing import Closing
from tinamou.system.loop_thread import in_thread, wait_for
from tinamou.system.paths import image_dir

__all__ = ["BLOCK", "Came", "Offer", "bring", "fetch", "give", "pull_from"]

BLOCK = 1 << 20
_AT_ONCE = 16
"""Blocks asked for in one turn: 16 MiB."""
_LARGEST = 1 << 44
_SECONDS = 3600.0
"""The other host may have to download the image first; it says that it is there meanwhile."""
_SUM = 32


@dataclass(frozen=True)
class Offer:
    """An image of another host: its file's size in bytes and SHA-256, those of its blocks, what is known of its guest."""

    size: int
    sum: str
    blocks: bytes
    like: Mapping[str, Any]

    @staticmethod
    def of(data: Mapping[str, Any], blocks: bytes) -> Offer:
        """Raises StateError for what no tinamou says."""
        try:
            said = data["like"]
            like = {"agent": bool(said["agent"]), "ssh": bool(said["ssh"]), "user": str(said["user"])[:32]}
            like["seed"] = "nocloud" if said["seed"] else ""
            offer = Offer(int(data["size"]), str(data["sum"]), blocks, like)
            count = -(-offer.size // BLOCK)
            if not 0 < offer.size <= _LARGEST or len(blocks) != count * _SUM:
                raise ValueError(f"{offer.size} bytes in {len(blocks) // _SUM} blocks")
            return offer
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StateError("the other host says what is no image", why=str(error)[:200]) from error


@dataclass(frozen=True)
class Came:
    """What went over the line, and what was here already (holes among it), in bytes."""

    sent: int
    here: int


async def give(frames: Frames) -> None:
    """The other side: an image of this host, pulled first where its vendor's name is known. Raises TinamouError."""
    said, _ = await frames.hear("image")
    name, arch = str(said.get("name", "")), str(said.get("arch", ""))
    facts = await in_thread(_found, name, arch, str(said.get("published", "")))
    path = Path(facts.disk)
    blocks, data = await in_thread(_offered, facts, path)
    await frames.say("has", blocks, **data)
    with Closing(os.open(path, os.O_RDONLY | os.O_CLOEXEC)) as file:
        while True:
            asked, _ = await frames.hear_any(("blocks", "whole"), _SECONDS)
            if asked["what"] == "whole":
                return
            numbers, end = asked.get("numbers"), len(blocks) // _SUM
            if not isinstance(numbers, list) or not all(isinstance(one, int) and 0 <= one < end for one in numbers):
                raise StateError("the other host asks for what is no block", why=str(numbers)[:200])
            await frames.say("blocks", b"".join(os.pread(file, BLOCK, one * BLOCK) for one in numbers[:_AT_ONCE]))


def _found(name: str, arch: str, published: str) -> ImageFacts:
    """The image as it is here, pulled anew where its vendor's digest is not that. Raises ImageError for one that each host
    makes for itself, and for none."""
    if _is_vendors(name):
        here = pull.pull(name, arch)
        return here if pull.origin(here).digest == published else pull.pull(name, arch, refresh=True)
    facts = imported(name, arch)
    if facts is None or not facts.disk:
        why = f"there is no image {name} for {arch} of its own, and the catalogue has none"
        raise ImageError(f"{name} cannot be given to another host", why=why, fix="tinamou image ls shows what is here")
    return facts


def _offered(facts: ImageFacts, path: Path) -> tuple[bytes, dict[str, Any]]:
    """What is said of an image, as `Offer.of` reads it."""
    like = {key: getattr(facts, key) for key in ("agent", "ssh", "seed", "user")}
    said = {"size": path.stat().st_size, "sum": store.digest_of(path), "like": like}
    return b"".join(_sums(path)), said


def _is_vendors(name: str) -> bool:
    return bool(catalog.named(name, catalog.catalog_entries()))


def _sums(path: Path) -> Iterator[bytes]:
    """The SHA-256 of each block of a file."""
    with path.open("rb") as file:
        while piece := file.read(BLOCK):
            yield hashlib.sha256(piece).digest()


def _known(name: str, arch: str) -> dict[bytes, tuple[Path, int]]:
    """The blocks of every build of that name here: where each lies."""
    found: dict[bytes, tuple[Path, int]] = {}
    for path in store.builds_of(name, arch).glob("*/disk.*"):
        if not path.parent.is_symlink():
            found |= {sum: (path, number * BLOCK) for number, sum in enumerate(_sums(path))}
    return found


async def bring(
    host: Host, name: str, arch: str, target: Path, published: str = "", progress: Progress = silent
) -> tuple[Offer, Came]:
    """Make ``target`` the file of the image that another host has, whole and compared with what that host says of it.

    ``published`` is the vendor's digest of the build that is wanted. Raises HostError, StateError, ImageError where there is
    no room, and what the other side says; ``target`` is then no whole file.
    """
    async with remote.stream(host, [*host.command, "receive", "--image"]) as pipe:
        frames = Frames(pipe.reader, pipe.writer)
        async with frames.beating():
            await frames.say("image", name=name, arch=arch, published=published)
            data, blocks = await frames.hear("has", _SECONDS)
            offer = Offer.of(data, blocks)
            here = await in_thread(_known, name, arch)
            try:
                came = await _assembled(frames, offer, here, target, progress)
            except OSError as error:
                fix = if_full(str(error), "do it again")
                raise ImageError(f"the image from {host.name} cannot be written", why=str(error), fix=fix) from error
            await frames.say("whole")
    return offer, came


async def _assembled(
    frames: Frames, offer: Offer, here: Mapping[bytes, tuple[Path, int]], target: Path, progress: Progress
) -> Came:
    sums = [offer.blocks[at : at + _SUM] for at in range(0, len(offer.blocks), _SUM)]
    sent = 0
    whole = hashlib.sha256()
    with target.open("wb") as file:
        file.truncate(offer.size)
        for start in range(0, len(sums), _AT_ONCE):
            turn = range(start, min(start + _AT_ONCE, len(sums)))
            pieces = {number: _own(sums[number], _length(offer, number), here) for number in turn}
            lacking = [number for number, piece in pieces.items() if piece is None]
            if lacking:
                await frames.say("blocks", numbers=lacking)
                pieces |= _parted(offer, sums, lacking, (await frames.hear("blocks", _SECONDS))[1])
            for number in turn:
                piece = pieces[number] or b""
                sent += len(piece) if number in lacking else 0
                await in_thread(whole.update, piece)
                if piece.strip(b"\0"):
                    file.seek(number * BLOCK)
                    file.write(piece)
            progress("fetching the image", (turn[-1] + 1) / len(sums))
    if whole.hexdigest() != offer.sum:
        raise StateError("what came is not the image that was offered", why=f"its SHA-256 is {whole.hexdigest()}")
    return Came(sent, offer.size - sent)


def _length(offer: Offer, number: int) -> int:
    return min(BLOCK, offer.size - number * BLOCK)


def _own(sum: bytes, length: int, here: Mapping[bytes, tuple[Path, int]]) -> bytes | None:
    """A block that need not be sent: one of zeros, or one of an image here, which is read anew; None for another."""
    if sum == _nothing(length):
        return bytes(length)
    if sum in here:
        path, at = here[sum]
        with path.open("rb") as file:
            file.seek(at)
            piece = file.read(length)
        return piece if hashlib.sha256(piece).digest() == sum else None
    return None


@functools.cache
def _nothing(length: int) -> bytes:
    return hashlib.sha256(bytes(length)).digest()


def _parted(offer: Offer, sums: Sequence[bytes], numbers: Sequence[int], payload: bytes) -> dict[int, bytes | None]:
    """The blocks one after the other, each compared. Raises StateError."""
    found: dict[int, bytes | None] = {}
    at = 0
    for number in numbers:
        piece = payload[at : at + _length(offer, number)]
        at += len(piece)
        if hashlib.sha256(piece).digest() != sums[number]:
            raise StateError("what came is not the image that was offered", why=f"block {number} is another")
        found[number] = piece
    return found


def pull_from(
    host: str,
    name: str,
    arch: str,
    *,
    notice: Callable[[str], None],
    progress: Progress = silent,
    refresh: bool = False,
    require_signature: bool = False,
    keyrings: Sequence[Path] = (),
) -> ImageFacts:
    """An image from another host: a vendor's, which is checked as `pull` checks it, or one of that host's own.

    ``notice`` is told how much went over. Raises TinamouError; nothing is left then.
    """
    there = hosts.find(host)

    def told(came: Came) -> None:
        notice(f"{_mib(came.sent)} MiB came from {host}, {_mib(came.here)} MiB were here or hold nothing")

    def take(target: Path, published: str) -> None:
        told(wait_for(bring(there, name, arch, target, published, progress))[1])

    if _is_vendors(name):
        name = catalog.find(name, arch).name
        checks: dict[str, Any] = {"refresh": refresh, "require_signature": require_signature, "keyrings": keyrings}
        return pull.pull(name, arch, notice=notice, bring=take, **checks)
    facts, came = wait_for(fetch(there, name, arch, progress=progress))
    told(came)
    return facts


def _mib(size: int) -> str:
    return f"{size / (1 << 20):.1f}"


async def fetch(host: Host, name: str, arch: str, *, progress: Progress = silent) -> tuple[ImageFacts, Came]:
    """An image of the other host's own, imported here under its name. Raises TinamouError; nothing is left then."""
    image_dir().mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".fetched-", dir=image_dir()) as folder:
        file = Path(folder) / "disk.qcow2"
        offer, came = await bring(host, name, arch, file, progress=progress)
        like = ImageFacts(name, arch, **offer.like)
        return await import_image(file, name, arch=arch, like=like, progress=progress), came
