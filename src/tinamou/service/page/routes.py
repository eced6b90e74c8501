"""The paths of the page."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles

from tinamou.errors import TinamouError
from tinamou.service.page import forms, views
from tinamou.service.page.rendering import STATIC, page
from tinamou.service.problems import status_of
from tinamou.service.shared import Service

__all__ = ["open_to_all", "routes"]

View = Callable[[Request, Service], Awaitable[Response]]


def open_to_all(path: str) -> bool:
    """Whether a path is for those too whom nobody knows: where a browser logs in."""
    return path in ("/login", "/static/style.css", "/static/page.js", "/static/icon.svg")


def routes(service: Service) -> list[BaseRoute]:
    """The page of a service."""

    def shown(path: str, view: View, *methods: str) -> Route:
        async def answer(request: Request) -> Response:
            try:
                return await view(request, service)
            except TinamouError as error:
                return page(request, service, "error.html", status_of(error), error=error)

        return Route(path, answer, methods=list(methods or ("GET",)))

    return [
        shown("/", views.listing),
        shown("/page/rows", views.rows),
        shown("/machines/{name}", views.one),
        shown("/machines/{name}", forms.do, "POST"),
        shown("/machines/{name}/wrong", views.wrong),
        shown("/machines/{name}/lately", views.lately),
        shown("/new", views.new),
        shown("/new", forms.create, "POST"),
        shown("/forks", views.forks),
        shown("/host", views.host),
        shown("/operations", views.operations),
        shown("/events", views.events),
        shown("/login", forms.login, "GET", "POST"),
        shown("/logout", forms.logout, "POST"),
        Mount("/static", StaticFiles(directory=STATIC)),
    ]
