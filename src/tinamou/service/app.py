"""The application: the table of routes behind the door, and what other packages give it."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Sequence
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route
from starlette.types import ASGIApp

from tinamou.service.door import Door
from tinamou.service.openapi import document
from tinamou.service.page.routes import open_to_all
from tinamou.service.page.routes import routes as pages
from tinamou.service.problems import Answer, refusal, told
from tinamou.service.routes import ROUTES
from tinamou.service.shared import Service
from tinamou.service.table import as_json, made

__all__ = ["application"]


def application(service: Service, more: Sequence[BaseRoute] = ()) -> ASGIApp:
    """The ASGI application of a service; ``more`` are further routes behind the same door."""
    described = document(ROUTES)

    async def openapi(request: Request) -> Response:
        return as_json(described, request)

    @contextlib.asynccontextmanager
    async def lifespan(_: Any) -> AsyncIterator[None]:
        async with service.running():
            yield

    routes = [*made(ROUTES, service), Route("/v1/openapi.json", openapi), *pages(service), *more]
    inner = Starlette(routes=routes, lifespan=lifespan, exception_handlers={HTTPException: _refused, Exception: _fault})
    return Door(inner, names=service.settings.names, open_paths=open_to_all, known=service.known)


async def _refused(_: Request, error: Exception) -> Response:
    """What the router refuses: no such path, no such method."""
    assert isinstance(error, HTTPException)
    body = refusal(Answer(error.status_code, error.detail, fix="see /v1/openapi.json"))
    return told(body, error.status_code, error.headers)


async def _fault(_: Request, error: Exception) -> Response:
    """A fault of the service's own, which it also says in its log."""
    body = refusal(Answer(500, f"{type(error).__name__}: {error}"[:500], "this is a fault of tinamou's"))
    return told(body, 500)
