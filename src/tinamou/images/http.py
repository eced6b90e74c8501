"""Asking a web server for a file: redirects, proxies, failures worth another try and failures that are final."""

from __future__ import annotations

import email.utils
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit, urlunsplit

from tinamou.errors import ImageError
from tinamou.late import dataclass
from tinamou.version import __version__

if TYPE_CHECKING:
    import httpx2

__all__ = ["Policy", "TransientError", "client", "fetch_bytes", "request", "retried", "shown"]

REDIRECTS = 10
TRANSIENT = frozenset({408, 425, 429, 500, 502, 503, 504})
SMALL = 8 << 20
_WHOLE = 10
"""So many times as long as a silence may be, a small file may take to be there whole."""
T = TypeVar("T")


class TransientError(Exception):
    """This attempt failed in a way another one may not; ``after`` is the least wait in seconds."""

    def __init__(self, reason: str, after: float = 0.0) -> None:
        super().__init__(reason)
        self.after = after


@dataclass(frozen=True)
class Policy:
    """How patient to be: ``attempts`` in a row without a new byte, ``timeout`` seconds of silence; ``pause`` sleeps."""

    attempts: int = 5
    timeout: float = 30.0
    pause: Callable[[float], None] = time.sleep


def shown(url: str) -> str:
    """The URL without a user name and password in it, fit for a message."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "the URL"
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


@contextmanager
def client(policy: Policy) -> Iterator[httpx2.Client]:
    """A client that honours ``http_proxy``, ``https_proxy``, ``no_proxy`` and follows no redirect by itself."""
    import httpx2

    headers = {"User-Agent": f"tinamou/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}
    with httpx2.Client(headers=headers, timeout=policy.timeout, follow_redirects=False) as made:
        yield made


@contextmanager
def request(http: httpx2.Client, url: str, headers: Mapping[str, str] | None = None) -> Iterator[httpx2.Response]:
    """GET ``url`` through its redirects; the response has status 200, 206 or 416 and its body is not read yet.

    Raises TransientError for what may pass, ImageError for what will not.
    """
    import httpx2

    try:
        for _ in range(REDIRECTS + 1):
            with http.stream("GET", url, headers=dict(headers or {})) as response:
                if response.status_code not in (301, 302, 303, 307, 308):
                    _judge(response, url)
                    yield response
                    return
                url = _redirected(url, response)
    except httpx2.TransportError as error:
        raise _transport(url, error) from error
    except httpx2.InvalidURL as error:
        raise ImageError(f"{shown(url)} is not a URL", why=str(error), fix="correct the catalogue") from error
    raise ImageError(
        f"{shown(url)} redirects in circles", why=f"more than {REDIRECTS} redirects", fix="correct the URL in the catalogue"
    )


def _redirected(url: str, response: httpx2.Response) -> str:
    try:
        target = str(response.url.join(response.headers.get("location", "")))
        scheme = urlsplit(target).scheme
    except ValueError as error:
        raise ImageError(f"{shown(url)} redirects to what is no URL", why=str(error), fix="try again later") from error
    if scheme not in ("http", "https"):
        raise ImageError(f"{shown(url)} redirects to {scheme}:", why="only http and https are followed")
    if urlsplit(url).scheme == "https" and scheme == "http":
        raise ImageError(
            f"{shown(url)} redirects to {shown(target)}",
            why="a redirect from https to plain http would let anyone on the way change the image",
            fix="name a mirror that serves https in your own catalogue file",
        )
    return target


def _judge(response: httpx2.Response, url: str) -> None:
    status = response.status_code
    if status in (200, 206, 416):
        encoding = response.headers.get("content-encoding", "identity").lower()
        if encoding != "identity":
            raise ImageError(f"{shown(url)} is sent with Content-Encoding: {encoding}", why="the file itself was asked for")
        return
    said = f"the server answered {status} {response.reason_phrase}".rstrip()
    if status in TRANSIENT:
        raise TransientError(said, _retry_after(response.headers.get("retry-after", "")))
    fixes = {
        404: "the vendor may have moved it: choose another release (`tinamou image ls --all`), or use your own catalogue",
        410: "the vendor removed it: choose another release",
        401: "put user:password@ into the URL of your own catalogue file",
        407: "set http_proxy and https_proxy with a user and a password",
    }
    raise ImageError(
        f"{shown(url)} cannot be downloaded", why=said, fix=fixes.get(status, "correct the URL in the catalogue")
    )


def _retry_after(value: str) -> float:
    try:
        wait = float(value) if value.isdecimal() else email.utils.parsedate_to_datetime(value).timestamp() - time.time()
    except (ValueError, TypeError, OverflowError):
        return 0.0
    return min(max(wait, 0.0), 60.0)


def _transport(url: str, error: httpx2.TransportError) -> Exception:
    import httpx2

    reason = str(error) or type(error).__name__
    if isinstance(error, httpx2.UnsupportedProtocol):
        return ImageError(f"{shown(url)} cannot be downloaded", why=reason, fix="use an http or https URL")
    if "CERTIFICATE_VERIFY_FAILED" in reason:
        return ImageError(
            f"{urlsplit(url).hostname} does not prove who it is",
            why=reason,
            fix="check the clock and the ca-certificates package; a company proxy's authority goes into SSL_CERT_FILE",
        )
    return TransientError(reason)


def retried(step: Callable[[], T], grown: Callable[[], int], policy: Policy) -> T:
    """Repeat ``step`` while it raises TransientError, with growing pauses; gives up after ``attempts`` without growth.

    ``grown`` tells how far the work has come; more than ever before means that the server is worth its patience.
    """
    failures, best = 0, grown()
    while True:
        try:
            return step()
        except TransientError as again:
            far = grown()
            failures = 1 if far > best else failures + 1
            best = max(best, far)
            if failures >= policy.attempts:
                raise
            policy.pause(max(again.after, min(2.0 ** (failures - 1), 30.0)))


def fetch_bytes(http: httpx2.Client, url: str, policy: Policy, *, fresh: bool = False) -> bytes:
    """A small file (a checksum file, a signature) as it is now; ``fresh`` asks caches on the way to look again.

    Raises ImageError when it cannot be had, is larger than 8 MiB, or is a web page.
    """
    headers = {"Cache-Control": "no-cache"} if fresh else {}

    def once() -> bytes:
        body, began = bytearray(), time.monotonic()
        with request(http, url, headers) as response:
            for chunk in response.iter_raw():
                body += chunk
                if time.monotonic() - began > policy.timeout * _WHOLE:
                    raise TransientError(f"it did not arrive within {policy.timeout * _WHOLE:.0f} seconds")
                if len(body) > SMALL:
                    raise ImageError(f"{shown(url)} is no checksum file or signature", why="it is larger than 8 MiB")
        return bytes(body)

    try:
        body = retried(once, lambda: 0, policy)
    except TransientError as again:
        raise ImageError(
            f"{shown(url)} cannot be downloaded", why=str(again), fix="check the network and try again"
        ) from again
    if body.lstrip()[:15].lower().startswith((b"<!doctype", b"<html")):
        raise ImageError(f"{shown(url)} is a web page", why="a login page or an error page came instead of the file")
    return body
