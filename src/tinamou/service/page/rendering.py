"""How a page is made: its template, the rules a browser holds it to, and the mark that a form is one of ours.

A form is sent back with a mark that is the keyed digest of a cookie only this origin has; the key is in the state directory.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import jinja2
from starlette.requests import Request
from starlette.responses import Response

from tinamou.service.auth import Caller, NotAllowedError, caller_of
from tinamou.service.shared import Service
from tinamou.service.table import MARK
from tinamou.system.plain_file import read_own
from tinamou.units import Size

__all__ = ["STATIC", "check_mark", "page"]

STATIC = Path(__file__).parent / "static"
_HEADERS = {
    "cache-control": "no-store",
    "referrer-policy": "same-origin",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "cross-origin-opener-policy": "same-origin",
}
_POLICY = (
    "default-src 'none'; script-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; style-src 'self'"
)
_SECURE = "; Secure"


def _size(value: int | None) -> str:
    return "" if value is None else str(Size(value)) if value % (1 << 20) == 0 else f"{value / (1 << 20):.0f}M"


def _when(seconds: float | None) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds)) if seconds else ""


def _spark(values: Sequence[float]) -> str:
    """The points of a line of 60 × 16 through these per cents, the newest at the right."""
    step = 60 / max(len(values) - 1, 1)
    return " ".join(f"{step * at:.0f},{15 - 14 * min(max(value, 0), 100) / 100:.0f}" for at, value in enumerate(values))


@functools.cache
def _templates() -> jinja2.Environment:
    loader = jinja2.FileSystemLoader(Path(__file__).parent / "templates")
    found = jinja2.Environment(loader=loader, autoescape=True, undefined=jinja2.StrictUndefined, trim_blocks=True)
    found.filters |= {"size": _size, "when": _when, "spark": _spark}
    return found


def page(
    request: Request, service: Service, name: str, status: int = 200, *, terminal: bool = False, **values: Any
) -> Response:
    """The response. With ``terminal`` styles and pictures that scripts make are let through: the libraries of the
    terminal and of the screen make such."""
    caller: Caller | None = request.scope["state"].get("caller")
    cookie = request.cookies.get(MARK, "")
    fresh = "" if len(cookie) == 64 else secrets.token_hex(32)
    text = _templates().get_template(name).render(caller=caller, mark=_mark(service, fresh or cookie), **values)
    policy = _POLICY.replace("img-src 'self'", "img-src 'self' data:") + " 'unsafe-inline'" if terminal else _POLICY
    answer = Response(text, status, {**_HEADERS, "content-security-policy": policy}, media_type="text/html")
    if fresh:
        secure = _SECURE if request.url.scheme == "https" else ""
        answer.headers.append("set-cookie", f"{MARK}={fresh}; Path=/; HttpOnly; SameSite=Strict{secure}")
    return answer


def check_mark(request: Request, service: Service, mark: object) -> None:
    """Raises NotAllowedError for a form that this page has not made for this browser."""
    cookie = request.cookies.get(MARK, "")
    if (
        len(cookie) != 64
        or not isinstance(mark, str)
        or not hmac.compare_digest(mark.encode(), _mark(service, cookie).encode())
    ):
        name = caller_of(request.scope).name if request.scope["state"].get("caller") else "who is not known"
        raise NotAllowedError(
            f"{name} has not sent this form", why="it bears no mark of this page", fix="load the page anew"
        )


def _mark(service: Service, cookie: str) -> str:
    return hmac.new(_key(service.state / "service/key"), cookie.encode(), hashlib.sha256).hexdigest()


@functools.cache
def _key(path: Path) -> bytes:
    """The key of the state directory, made with the first page."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(secrets.token_bytes(32))
    except FileExistsError:
        pass
    key = read_own(path, most=32)
    if len(key) == 32:
        return key
    path.unlink()  # cut short by a kill: no form of it was ever sent
    return _key.__wrapped__(path)
