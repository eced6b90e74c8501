"""What every request passes first: whom it is addressed to, where it comes from, who makes it.

A request is refused that was meant for another host (DNS rebinding), that a page of another origin makes a browser send,
or that nobody known makes. What is behind the door finds the caller with `tinamou.service.auth.caller_of`.
"""

from __future__ import annotations

import contextlib
import http.cookies
import json
import logging
from collections.abc import Callable, Collection
from typing import Any
from urllib.parse import urlsplit

from starlette.types import ASGIApp, Receive, Scope, Send

from tinamou.errors import TinamouError
from tinamou.service.auth import Caller, by_peer, by_token
from tinamou.service.problems import Answer, refusal

__all__ = ["COOKIE", "LOGIN", "Door", "cookie_of", "secret_of"]

COOKIE = "tinamou"
"""The cookie of a browser that has logged in, on TCP: its token."""

LOGIN = "/login"
"""Where a browser is sent whose user is not known."""

_LOCAL = ("localhost", "127.0.0.1", "::1", "tinamou")
"""What a unix socket's caller may say whom it wants: what stands before it (ssh -L, socat) is on this name."""

_log = logging.getLogger(__name__)

_SAFE = ("GET", "HEAD", "OPTIONS")


class Door:
    """An ASGI application around another one. ``names`` are those by which the service is reached, subdomains too.

    ``open_paths`` are paths that nobody need be known for: the page's login and its style; ``known`` says who holds a token.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        names: Collection[str] = (),
        open_paths: Callable[[str], bool] = lambda _: False,
        known: Callable[[str], Caller | None] = by_token,
    ) -> None:
        self._app = app
        self._names = frozenset(name.lower() for name in (*names, *_LOCAL))
        self._open = open_paths
        self._known = known
        self._said = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request in, or answer it here."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        headers = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
        try:
            refused = self._misdirected(headers) or _foreign(scope, headers)
            caller = None if refused else _who(scope, headers, self._known)
        except TinamouError as error:  # the tokens are not read: why is nothing for somebody who is not known
            self._say(str(error))
            refused, caller = Answer(503, "it cannot be found out who asks", fix="the service's log says why"), None
        if refused is None and caller is None and not self._open(scope["path"]):
            refused = _unknown(scope)
        if refused is not None and refused.status == 401 and _browses(scope, headers):
            await _sent_to(send, LOGIN)
            return
        if refused is not None:
            await _answer(scope, send, refused.status, refusal(refused))
            return
        scope.setdefault("state", {})["caller"] = caller
        await self._app(scope, receive, send)

    def _say(self, text: str) -> None:
        if text != self._said:
            _log.warning("it cannot be found out who asks: %s", text)
        self._said = text

    def _misdirected(self, headers: dict[str, str]) -> Answer | None:
        host = _host(headers.get("host", ""))
        if host in self._names or any(host.endswith(f".{name}") for name in self._names):
            return None
        fix = "address it by a name it has: localhost, or those given with tinamou serve --name"
        return Answer(421, "this service is not the one that was asked for", f"the request is for {host[:100]!r}", fix)


def secret_of(headers: dict[str, str]) -> str:
    """The token a program sends: ``Authorization: Bearer`` or ``X-API-Key``; empty without one."""
    scheme, _, secret = headers.get("authorization", "").partition(" ")
    if scheme.lower() == "bearer" and secret:
        return secret.strip()
    return headers.get("x-api-key", "").strip()


def cookie_of(headers: dict[str, str], name: str) -> str:
    """A cookie's value; empty where there is none."""
    try:
        cookies = http.cookies.SimpleCookie(headers.get("cookie", ""))
    except http.cookies.CookieError:
        return ""
    return cookies[name].value if name in cookies else ""


def _who(scope: Scope, headers: dict[str, str], known: Callable[[str], Caller | None]) -> Caller | None:
    """The caller: a token counts before the kernel's word, so that whoever could do all can also do less."""
    peer = scope.get("state", {}).get("peer")
    if secret := secret_of(headers):
        return known(secret)
    return by_peer(peer) if peer is not None else known(cookie_of(headers, COOKIE))


def _browses(scope: Scope, headers: dict[str, str]) -> bool:
    """Whether a person is to be shown a page, and not a program an answer."""
    shown = scope["type"] == "http" and scope["method"] == "GET" and not scope["path"].startswith("/v1")
    return shown and "text/html" in headers.get("accept", "")


async def _sent_to(send: Send, path: str) -> None:
    headers = [(b"location", path.encode()), (b"content-length", b"0")]
    await send({"type": "http.response.start", "status": 303, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def _foreign(scope: Scope, headers: dict[str, str]) -> Answer | None:
    """Whether a page of another origin has a browser send this (source: Fetch, section 3.2 Origin header)."""
    if scope["type"] == "http" and scope["method"] in _SAFE:
        return None
    origin = headers.get("origin")
    with contextlib.suppress(ValueError):  # as of http://[, which is nobody's
        if origin is None or urlsplit(origin).netloc.lower() == headers.get("host", "").lower():
            return None
    return Answer(403, "a page of another origin may not ask for this", f"the request comes from {origin!r:.100}")


def _unknown(scope: Scope) -> Answer:
    if scope.get("state", {}).get("peer") is not None:
        return Answer(403, "you may not use this service", "it is another user's", "start your own: tinamou serve")
    fix = "send Authorization: Bearer TOKEN, made with tinamou token create"
    return Answer(401, "it is not known who asks", "there is no token, or one that is unknown, revoked or too old", fix)


def _host(value: str) -> str:
    """The name of a ``Host`` header without its port."""
    if value.startswith("["):
        return value[1:].partition("]")[0].lower()
    return value.partition(":")[0].lower()


async def _answer(scope: Scope, send: Send, status: int, body: dict[str, Any]) -> None:
    if scope["type"] == "websocket":
        await send({"type": "websocket.close", "code": 4000 + status, "reason": str(body["title"])[:120]})
        return
    data = json.dumps(body).encode()
    headers = [(b"content-type", b"application/problem+json"), (b"content-length", str(len(data)).encode())]
    if status == 401:
        headers.append((b"www-authenticate", b"Bearer"))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": data})
