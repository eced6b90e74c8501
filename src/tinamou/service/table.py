"""What a route is, and how requests come to its function; the OpenAPI document is made of the same table."""

from __future__ import annotations

import asyncio
import functools
import hashlib
import json
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, get_type_hints

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, WebSocketRoute
from starlette.routing import Route as HttpRoute

from tinamou import fields
from tinamou.errors import Problem, SpecError, TinamouError
from tinamou.late import dataclass
from tinamou.service.auth import Caller, caller_of
from tinamou.service.problems import Answer, problem_of, refusal, status_of, told

if TYPE_CHECKING:
    from starlette.websockets import WebSocket

    from tinamou.service.shared import Service

__all__ = ["MARK", "Asked", "Call", "Nothing", "Route", "answered", "as_json", "made", "written"]

Call = Callable[..., Awaitable[Any]]

MARK = "tinamou-form"
"""The cookie that tells a browser from another: of the page's forms, and of tickets."""
_LARGEST, _BODY_SECONDS = 1 << 20, 30.0
"""Bytes and seconds of a JSON body."""


@dataclass(frozen=True)
class Nothing:
    """No fields at all."""


@dataclass(frozen=True)
class Route:
    """One thing that can be asked for.

    ``verb`` is what a caller must be allowed (`tinamou.state.tokens.VERBS`; empty: nothing in particular), with the machine
    where the path has a ``{name}``. ``body`` and ``query`` are classes whose fields are what can be said; ``answer`` is the
    name of a schema in `tinamou.service.openapi`, ``media`` what it is in where that is not JSON. ``long`` answers an
    operation. ``call`` is given an `Asked`; that of a ``websocket`` the socket and the service.
    """

    method: str
    path: str
    verb: str
    summary: str
    call: Call
    body: type = Nothing
    query: type = Nothing
    answer: str = "Object"
    media: str = "application/json"
    status: int = 200
    long: bool = False
    streams: bool = False


class Asked:
    """One request whose caller is known and allowed, its words read."""

    def __init__(self, request: Request, service: Service, caller: Caller) -> None:
        self.request: Request = request
        self.service: Service = service
        self.caller: Caller = caller
        self.name: str = request.path_params.get("name", "")
        self.body: Any = None
        self.query: Any = None
        self.given: Any = None
        """The body as it came, as plain data."""


def made(routes: list[Route], service: Service) -> list[BaseRoute]:
    """The same as Starlette routes."""
    found: list[BaseRoute] = []
    for one in routes:
        if one.method == "WEBSOCKET":
            found.append(WebSocketRoute(one.path, _socket(one, service)))
        else:
            found.append(HttpRoute(one.path, _endpoint(one, service), methods=[one.method]))
    return found


def _socket(route: Route, service: Service) -> Callable[[WebSocket], Awaitable[None]]:
    async def accept(socket: WebSocket) -> None:
        try:
            caller = caller_of(socket.scope)
            caller.need(route.verb, socket.path_params.get("name"))
            if "origin" in socket.headers:  # a page has opened it: programs say none
                ticket, browser = socket.query_params.get("ticket", ""), socket.cookies.get(MARK, "")
                service.tickets.take(ticket, caller, browser, socket.url.path)
        except TinamouError as error:
            await socket.close(4000 + status_of(error), error.what[:120])
            return
        await route.call(socket, service)

    return accept


def _endpoint(route: Route, service: Service) -> Callable[[Request], Awaitable[Response]]:
    async def answer(request: Request) -> Response:
        try:
            asked = Asked(request, service, caller_of(request.scope))
            if route.verb:
                asked.caller.need(route.verb, request.path_params.get("name"))
            asked.query = _read(route.query, _spelled(route.query, request), "the query")
            if route.method in ("POST", "PUT", "PATCH") and not route.streams:
                asked.given = await _json(request)
                asked.body = _read(route.body, asked.given, "the request")
            return answered(await route.call(asked), request, route.status)
        except TinamouError as error:
            return told(problem_of(error), status_of(error))
        except _RefusedError as error:
            return told(refusal(error.answer), error.answer.status)

    return answer


def answered(found: Any, request: Request, status: int = 200) -> Response:
    """A response as it is, or data as JSON with an ETag, and 304 to who has it already."""
    if isinstance(found, Response):
        return found
    return as_json(found, request, status)


def as_json(found: Any, request: Request, status: int = 200) -> Response:
    """Data as JSON."""
    if request.method in ("GET", "HEAD"):
        return written(found).answer(request, status)
    return Response(json.dumps(found, default=str), status, media_type="application/json")


@dataclass(frozen=True)
class Written:
    """JSON that is answered, to several at once: its text and its ETag."""

    text: bytes
    tag: str

    def answer(self, request: Request, status: int = 200) -> Response:
        """The same as a response, without the text to who has it already."""
        if self.tag in request.headers.get("if-none-match", ""):
            return Response(status_code=304, headers={"etag": self.tag})
        headers = {"etag": self.tag, "cache-control": "no-cache"}
        return Response(self.text, status, media_type="application/json", headers=headers)


def written(found: Any, *, same: Any = None) -> Written:
    """Data as JSON; ``same`` is what the ETag is made of, where not all of the data tells a change."""
    text = json.dumps(found, default=str).encode()
    marked = text if same is None else json.dumps(same, default=str).encode()
    return Written(text, f'"{hashlib.sha256(marked).hexdigest()[:24]}"')


class _RefusedError(Exception):
    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.what)
        self.answer = answer


async def _json(request: Request) -> Any:
    """The body, an empty table where there is none. It comes whole, soon, and is not large."""
    found = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for piece in request.stream():
                found += piece
                if len(found) > _LARGEST:
                    raise _RefusedError(Answer(413, "the request is too large", f"more than {_LARGEST >> 20} MiB"))
    except TimeoutError:
        raise _RefusedError(Answer(408, "the request did not come", f"not within {_BODY_SECONDS:g} s")) from None
    except ClientDisconnect:
        raise _RefusedError(Answer(400, "the request did not come whole")) from None
    if not found.strip():
        return {}
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        why, fix = f"it is {kind[:60]!r}", "send Content-Type: application/json"
        raise _RefusedError(Answer(415, "the request is not JSON", why, fix))
    try:
        return json.loads(found)
    except (ValueError, RecursionError) as error:
        raise _RefusedError(Answer(400, "the request is not JSON", str(error)[:200])) from None


def _read(cls: type, data: Any, what: str) -> Any:
    """Raises SpecError with every problem."""
    found, problems = fields.load(cls, data)
    if problems:
        raise SpecError(f"{what} is not understood", problems=problems)
    return found


def _spelled(cls: type, request: Request) -> dict[str, Any]:
    """The query's words as the kinds its fields have; raises SpecError for one given twice."""
    hints, found = _hints(cls), {}
    for key, text in request.query_params.multi_items():
        if key in found:
            raise SpecError("the query is not understood", problems=[Problem(key, text[:100], "given twice")])
        found[key] = _value(hints.get(key), text)
    return found


@functools.cache
def _hints(cls: type) -> dict[str, Any]:
    return get_type_hints(cls)


def _value(kind: Any, text: str) -> Any:
    try:
        if kind is int and len(text) < 20:
            return int(text)
        if kind is float:
            return float(text)
    except ValueError:
        return text
    return {"true": True, "false": False}.get(text, text) if kind is bool else text
