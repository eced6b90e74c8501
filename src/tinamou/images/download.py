"""Downloading a large file so that a cut, a kill or a full disk costs only what has not arrived yet."""

from __future__ import annotations

import errno
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from tinamou.errors import ImageError
from tinamou.images import http as web
from tinamou.images.verify import refuse_page, refuse_wrong_magic
from tinamou.late import asdict, dataclass, replace
from tinamou.system.replaced import replace_text

if TYPE_CHECKING:
    import httpx2

__all__ = ["Downloaded", "Progress", "discard", "download", "progress_bar"]

Progress = Callable[[int, int, float], None]
"""Called with bytes done, bytes in all (0 when unknown) and the rate in bytes per second."""

HEAD = 4096
RESERVE = 64 << 20
CHECK_EVERY = 32 << 20
SLOW_SECONDS, SLOW_BYTES = 300.0, 300 << 10
_DIGITS = 18
"""Of a number of bytes."""


@dataclass(frozen=True)
class Downloaded:
    """A file that arrived whole: ``resumed`` when part of it came from an earlier run."""

    path: Path
    size: int
    resumed: bool


@dataclass(frozen=True)
class _Origin:
    """What the bytes of a partial file are part of; ``total`` is 0 when the server did not say."""

    url: str
    etag: str = ""
    modified: str = ""
    total: int = 0

    @property
    def validator(self) -> str:
        """What If-Range takes: a strong ETag, else Last-Modified, else nothing (RFC 9110, section 13.1.5)."""
        return self.etag if self.etag and not self.etag.startswith("W/") else self.modified


def download(
    url: str, part: Path, *, format: str = "raw", progress: Progress | None = None, policy: web.Policy | None = None
) -> Downloaded:
    """Bring ``url`` into the file ``part``; a run that was cut before is continued where the server allows it.

    The caller holds a lock on ``part``. Beside it lies ``part``.json, which says what the bytes belong to. A page or a file
    of another format is refused at its first bytes and nothing of it is kept. Raises ImageError; after a lost connection
    or a full disk the bytes stay for the next run.
    """
    policy = policy or web.Policy()
    transfer = _Transfer(url, part, format, progress)
    with web.client(policy) as http:
        try:
            web.retried(lambda: transfer.attempt(http), transfer.held, policy)
        except web.TransientError as again:
            total = transfer.origin.total
            raise ImageError(
                f"the download of {web.shown(url)} did not finish",
                why=f"{again} ({transfer.held()} of {total or 'an unknown number of'} bytes are here)",
                fix="try again: it continues where it stopped",
            ) from again
        except ImageError as error:
            if not isinstance(error, KeptError):
                discard(part)
            raise
        except OSError as error:
            if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
                raise
            raise _full(part, 0) from error
    return Downloaded(part, transfer.held(), transfer.resumed)


class KeptError(ImageError):
    """The download ends here, and what has arrived is kept: there is no room for more, or more comes too slowly."""


def discard(part: Path) -> None:
    """Remove a partial file and what is known about it."""
    part.unlink(missing_ok=True)
    _record(part).unlink(missing_ok=True)


def _record(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _full(part: Path, needed: int) -> KeptError:
    free = shutil.disk_usage(part.parent).free
    needs = f"{_mib(needed)} MiB more are needed, " if needed else ""
    return KeptError(
        f"there is not enough room for the image in {part.parent}",
        why=f"{needs}{_mib(free)} MiB are free",
        fix="free some space (`tinamou image rm`), or set TINAMOU_CACHE to a larger disk; the download will continue",
    )


def _mib(number: int) -> int:
    return -(-number >> 20) if number >= 0 else 0


class _Transfer:
    """One file on its way: its partial file, its origin, the attempts to complete it."""

    def __init__(self, url: str, part: Path, format: str, progress: Progress | None) -> None:
        self.url = url
        self.part = part
        self.format = format
        self.meter = _Meter(progress)
        self.origin = self._remembered()
        self.resumed = False

    def held(self) -> int:
        """Bytes in the partial file."""
        return self.part.stat().st_size if self.part.exists() else 0

    def _remembered(self) -> _Origin:
        try:
            known = _Origin(**json.loads(_record(self.part).read_text()))
        except (OSError, ValueError, TypeError, RecursionError):
            return _Origin(self.url)
        return known if known.url == self.url else _Origin(self.url)

    def attempt(self, http: httpx2.Client) -> None:
        """One request, from the first missing byte to the end. Raises TransientError, ImageError."""
        offset = self.held() if self.origin.validator else 0
        headers = {"Range": f"bytes={offset}-", "If-Range": self.origin.validator} if offset else {}
        with web.request(http, self.url, headers) as response:
            if response.status_code == 416:
                self._past_the_end(response, offset)
                return
            start = self._agree(response, offset)
            expected = _number(response.headers.get("content-length", ""))
            self._room(expected)
            with self.part.open("r+b" if start else "wb") as file:
                file.seek(start)
                file.truncate()
                replace_text(_record(self.part), json.dumps(asdict(self.origin)), mode=0o644)
                received = self._copy(response, file, start)
            if expected and received != expected:
                raise web.TransientError(f"the server promised {expected} bytes and sent {received}")
        if self.origin.total and self.held() != self.origin.total:
            raise web.TransientError(f"{self.held()} of {self.origin.total} bytes arrived")

    def _past_the_end(self, response: httpx2.Response, offset: int) -> None:
        total = _number(response.headers.get("content-range", "").rpartition("/")[2])
        if offset and total == offset == (self.origin.total or total):
            self.resumed = True
            return
        discard(self.part)
        self.origin = _Origin(self.url)
        raise web.TransientError("the file on the server has changed")

    def _agree(self, response: httpx2.Response, offset: int) -> int:
        """Where the server starts, after checking that it speaks of the same file."""
        fresh = _Origin(
            self.url, response.headers.get("etag", ""), response.headers.get("last-modified", ""), _total(response)
        )
        if response.status_code == 200:
            self.origin = fresh
            return 0
        start = _number(response.headers.get("content-range", "").removeprefix("bytes ").partition("-")[0])
        pairs = ((self.origin.etag, fresh.etag), (self.origin.total, fresh.total))
        same = all(not known or not told or known == told for known, told in pairs)
        if not offset or start != offset or not same:
            discard(self.part)
            self.origin = _Origin(self.url)
            raise web.TransientError("the server sent another part than the one asked for")
        self.resumed = True
        self.origin = replace(self.origin, total=self.origin.total or fresh.total)
        return start

    def _room(self, needed: int) -> None:
        if needed and needed + RESERVE > shutil.disk_usage(self.part.parent).free:
            raise _full(self.part, needed + RESERVE)

    def _copy(self, response: httpx2.Response, file: BinaryIO, start: int) -> int:
        """Write the body; the first bytes of the file are looked at before any is written. Returns bytes received."""
        received, head, look, unchecked = 0, b"", start == 0, 0
        pace = _Pace(web.shown(self.url))
        for chunk in response.iter_raw():
            received += len(chunk)
            pace.arrived(len(chunk))
            if look:
                head += chunk
                if len(head) < HEAD:
                    continue
                chunk, look = self._looked(response, head), False
            unchecked += len(chunk)
            if unchecked >= CHECK_EVERY:
                unchecked = 0
                self._room(1)
            file.write(chunk)
            self.meter.show(start + received, self.origin.total)
        if look:
            file.write(self._looked(response, head))
        file.flush()
        os.fsync(file.fileno())
        self.meter.show(start + received, self.origin.total, last=True)
        return received

    def _looked(self, response: httpx2.Response, head: bytes) -> bytes:
        refuse_page(head, response.headers.get("content-type", ""), web.shown(self.url))
        refuse_wrong_magic(head, self.format, web.shown(self.url))
        return head


def _number(text: str) -> int:
    return int(text) if text.isdecimal() and len(text) <= _DIGITS else 0


def _total(response: httpx2.Response) -> int:
    if response.status_code == 206:
        return _number(response.headers.get("content-range", "").rpartition("/")[2])
    return _number(response.headers.get("content-length", ""))


class _Pace:
    """Gives up on a server that keeps us waiting without ever being silent."""

    def __init__(self, shown: str) -> None:
        self._shown, self._since, self._count = shown, time.monotonic(), 0

    def arrived(self, count: int) -> None:
        """So many bytes came just now. Raises KeptError."""
        self._count += count
        if time.monotonic() - self._since < SLOW_SECONDS:
            return
        if self._count < SLOW_BYTES:
            why = f"{self._count} bytes came in {SLOW_SECONDS:.0f} seconds"
            fix = "try again later: it continues where it stopped; or name another mirror in your own catalogue file"
            raise KeptError(f"the download of {self._shown} is too slow to end", why=why, fix=fix)
        self._since, self._count = time.monotonic(), 0


class _Meter:
    """The rate over the last seconds, told at most ten times a second."""

    WINDOW = 3.0

    def __init__(self, progress: Progress | None) -> None:
        self.progress = progress
        self.seen: list[tuple[float, int]] = []

    def show(self, done: int, total: int, *, last: bool = False) -> None:
        if self.progress is None:
            return
        now = time.monotonic()
        if self.seen and not last and now - self.seen[-1][0] < 0.1:
            return
        self.seen = [(at, bytes_) for at, bytes_ in self.seen if now - at <= self.WINDOW and bytes_ <= done]
        self.seen.append((now, done))
        spent = now - self.seen[0][0]
        self.progress(done, total, (done - self.seen[0][1]) / spent if spent > 0 else 0.0)


@contextmanager
def progress_bar(title: str) -> Iterator[Progress]:
    """A bar on stderr for a person who watches: bytes, rate, time left; silent where stderr is no terminal."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn, TransferSpeedColumn
    from rich.progress import Progress as Bar

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(), TimeRemainingColumn())
    with Bar(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task(title, total=None)

        def show(done: int, total: int, _rate: float) -> None:
            bar.update(task, completed=done, total=total or None)

        yield show
