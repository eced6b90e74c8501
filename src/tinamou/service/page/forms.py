"""What is sent from the page: each form is one request of the API, with the mark of this page on it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from starlette.requests import ClientDisconnect, Request
from starlette.responses import RedirectResponse, Response

from tinamou import fields, late
from tinamou.errors import SpecError, TinamouError
from tinamou.machine.planning import plan_only
from tinamou.service import reading
from tinamou.service.auth import caller_of
from tinamou.service.descriptions import described
from tinamou.service.door import COOKIE
from tinamou.service.page import views
from tinamou.service.page.describing import written
from tinamou.service.page.rendering import check_mark, page
from tinamou.service.routes import ROUTES
from tinamou.service.shared import Service
from tinamou.service.table import Asked, Route
from tinamou.system.loop_thread import in_thread

__all__ = ["create", "do", "login", "logout"]

_LARGEST, _SECONDS = 1 << 20, 30.0
"""Bytes of a form, and seconds within which it must come."""
_MACHINE = "/v1/machines/{name}"
_FORMS = {
    **{verb: ("POST", f"{_MACHINE}/{verb}") for verb in ("start", "stop", "restart", "kill", "reset", "pause", "resume")},
    **{verb: ("POST", f"{_MACHINE}/{verb}") for verb in ("suspend", "fork", "checkpoint", "diagnose")},
    "snapshot": ("POST", f"{_MACHINE}/snapshots"),
    "revert": ("POST", f"{_MACHINE}/snapshots/{{snapshot}}/revert"),
    "forget": ("DELETE", f"{_MACHINE}/snapshots/{{snapshot}}"),
    "link": ("POST", f"{_MACHINE}/nics/{{nic}}/link"),
    "rm": ("DELETE", _MACHINE),
}
"""What a form does, and the route that does it."""


async def form_of(request: Request, service: Service) -> Mapping[str, Any]:
    """What was sent, from this page. Raises SpecError, NotAllowedError."""
    size = request.headers.get("content-length", "")
    if not (size.isdecimal() and int(size) <= _LARGEST):
        raise SpecError("the form is not understood", why="it is too large, or does not say how large it is")
    try:
        async with asyncio.timeout(_SECONDS):
            found = await request.form(max_files=0, max_fields=400)
    except (TimeoutError, ClientDisconnect):
        raise SpecError("the form did not come whole", why=f"not within {_SECONDS:g} s") from None
    check_mark(request, service, found.get("mark"))
    return found


def _route(action: object) -> Route:
    wanted = _FORMS.get(action) if isinstance(action, str) else None
    if wanted is None:
        raise SpecError("this form is not known")
    return next(one for one in ROUTES if (one.method, one.path) == wanted)


def _read(cls: type, form: Mapping[str, Any]) -> Any:
    """The fields of a form that a class has, as its kinds. Raises SpecError."""
    given = {one.name: (str(one.type), form.get(one.name)) for one in late.fields(cls)}
    data: dict[str, Any] = {}
    for name, (kind, text) in given.items():
        if isinstance(text, str) and text:
            data[name] = int(text) if kind == "int" and text.isdecimal() else text == "true" if kind == "bool" else text
    found, problems = fields.load(cls, data)
    if problems:
        raise SpecError("the form is not understood", problems=problems)
    return found


async def do(request: Request, service: Service) -> Response:
    """Begin what a machine's page asks for, and show the machine."""
    form = await form_of(request, service)
    name, route = request.path_params["name"], _route(form.get("action"))
    caller = caller_of(request.scope)
    caller.need(route.verb, name)
    request.path_params.update({key: str(form.get(key, "")) for key in ("snapshot", "nic")})
    asked = Asked(request, service, caller)
    asked.body, asked.query = _read(route.body, form), _read(route.query, form)
    asked.given = {key: str(value) for key, value in form.items()}
    await route.call(asked)
    started = next(iter(service.work.every()))["id"]
    where = "/" if route.verb == "rm" else f"/machines/{quote(name)}?operation={started}"
    return RedirectResponse(where, 303)


async def create(request: Request, service: Service) -> Response:
    """Show the plan of what was written, with its reasons; or, where that was asked for, make it."""
    form, caller = await form_of(request, service), caller_of(request.scope)
    shown = {key: str(value) for key, value in form.items()}
    try:
        spec = described(written(form), caller)
        if form.get("action") != "create":
            plan = reading.explained(await in_thread(plan_only, spec))
            return await views.new(request, service, written=shown, plan=plan)
    except TinamouError as error:
        return await views.new(request, service, written=shown, error=error)
    route = next(one for one in ROUTES if (one.method, one.path) == ("POST", "/v1/machines"))
    asked = Asked(request, service, caller)
    asked.given = {"spec": {**written(form), "name": spec.name}}
    asked.body, asked.query = fields.load(route.body, asked.given)[0], route.query()
    await route.call(asked)
    return RedirectResponse("/operations", 303)


async def login(request: Request, service: Service) -> Response:
    """Keep a token in the browser, where there is one that holds."""
    if request.method == "GET":
        return page(request, service, "login.html", fault="")
    form = await form_of(request, service)
    text = str(form.get("token", "")).strip()
    if service.known(text) is None:
        return page(request, service, "login.html", 401, fault="This token is unknown, revoked or too old.")
    answer = RedirectResponse("/", 303)
    answer.set_cookie(COOKIE, text, path="/", httponly=True, samesite="strict", secure=request.url.scheme == "https")
    return answer


async def logout(request: Request, service: Service) -> Response:
    """Forget the browser's token."""
    await form_of(request, service)
    answer = RedirectResponse("/login", 303)
    answer.delete_cookie(COOKIE, path="/", httponly=True, samesite="strict")
    return answer
