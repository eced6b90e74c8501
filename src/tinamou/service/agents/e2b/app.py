"""The application that E2B's client speaks to: its control routes and, told apart by path, those inside a sandbox."""

from __future__ import annotations

import hmac
import re
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from tinamou.errors import TinamouError
from tinamou.service.agents.e2b import carrying, filing, processing
from tinamou.service.agents.e2b.control import Control
from tinamou.service.agents.e2b.keys import caller_of, need_of_owner
from tinamou.service.agents.e2b.live import Live
from tinamou.service.agents.e2b.problems import RefusedError, answer, gone, refusal_of, unsupported
from tinamou.service.agents.e2b.rpc import failure
from tinamou.service.agents.e2b.sandboxes import Sandboxes
from tinamou.service.auth import Caller

__all__ = ["NOWHERE", "application"]

NOWHERE = "sandbox.invalid"
"""The domain of sandboxes where none is configured: a name that never leads anywhere (RFC 2606), so that a client which was
told only where the control routes are sends no token to strangers."""

_PORT = "49983"
_HOST = re.compile(r"(\d+)-([a-z0-9]+)\.")

UNSUPPORTED = {
    "/sandboxes/{id}/network": "what a machine may reach is said in the template's machine",
    "/sandboxes/{id}/resume": "use connect",
    "/sandboxes/{id}/refreshes": "use timeout",
    "/sandboxes/{id}/logs": "tinamou logs shows a machine's console",
    "/v2/sandboxes/{id}/logs": "tinamou logs shows a machine's console",
    "/sandboxes/metrics": "ask for the metrics of each sandbox",
    "/templates": "templates are the table the service was started with",
    "/v2/templates": "templates are the table the service was started with",
    "/v3/templates": "templates are the table the service was started with",
    "/templates/{rest:path}": "templates are the table the service was started with",
    "/v2/templates/{rest:path}": "templates are the table the service was started with",
    "/volumes": "there are no volumes",
    "/volumes/{rest:path}": "there are no volumes",
    "/secrets": "there are no secrets",
    "/secrets/{rest:path}": "there are no secrets",
    "/teams": "there are tokens, no teams",
    "/teams/{rest:path}": "there are tokens, no teams",
    "/nodes": "this is one host",
    "/api-keys": "tinamou token makes keys",
    "/execute": "code runs by commands.run: the code interpreter's own service is not there",
    "/contexts": "code runs by commands.run: the code interpreter's own service is not there",
    "/contexts/{rest:path}": "code runs by commands.run: the code interpreter's own service is not there",
    "/init": "a sandbox is set up by its template",
    "/metrics": "ask the control route for metrics",
    "/envs": "give envs to create or to commands.run",
    "/files/compose": "upload the file as a whole",
}
"""Routes of E2B that are not served, and why; each answers 501."""

_METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE"]


def application(sandboxes: Sandboxes, *, domain: str = "") -> Starlette:
    """The application.

    ``domain`` is the one below which ``49983-ID.DOMAIN`` leads here, by TLS; without one clients must be told
    ``E2B_SANDBOX_URL``.
    """
    control, inside = Control(sandboxes, domain or NOWHERE), _Inside(sandboxes)
    routes = [
        Route("/templates/{id:path}", _known(control.forget), methods=["DELETE"]),
        *(Route(path, _refuser(path, why), methods=_METHODS) for path, why in UNSUPPORTED.items()),
        *_control(control),
        Route("/health", inside.health),
        Route("/files", inside.files, methods=["GET", "POST"]),
        Route("/process.Process/{method}", inside.process, methods=["POST"]),
        Route("/filesystem.Filesystem/{method}", inside.filesystem, methods=["POST"]),
        Route("/{rest:path}", _unknown, methods=_METHODS),
    ]
    return Starlette(routes=routes)


def _control(control: Control) -> list[Route]:
    """The control routes; create and connect also where clients before 2.51 ask for them."""
    table = [
        ("POST", "/v2/sandboxes", control.create),
        ("POST", "/sandboxes", control.create),
        ("GET", "/v2/sandboxes", control.every),
        ("POST", "/v2/sandboxes/{id}/connect", control.connect),
        ("POST", "/sandboxes/{id}/connect", control.connect),
        ("GET", "/sandboxes/{id}", control.info),
        ("DELETE", "/sandboxes/{id}", control.kill),
        ("POST", "/sandboxes/{id}/timeout", control.timeout),
        ("GET", "/sandboxes/{id}/metrics", control.metrics),
        ("POST", "/sandboxes/{id}/pause", control.pause),
        ("POST", "/sandboxes/{id}/fork", control.fork),
        ("POST", "/sandboxes/{id}/snapshots", control.snapshot),
        ("GET", "/snapshots", control.snapshots),
    ]
    return [Route(path, _known(handler), methods=[method]) for method, path, handler in table]


def _known(handler: Callable[[Request, Caller], Awaitable[Response]]) -> Callable[[Request], Awaitable[Response]]:
    async def asked(request: Request) -> Response:
        try:
            return await handler(request, caller_of(request.headers.get("x-api-key", "")))
        except RefusedError as refused:
            return answer(refused)
        except TinamouError as error:
            return answer(refusal_of(error))

    return asked


def _refuser(path: str, why: str) -> Callable[[Request], Awaitable[Response]]:
    async def refused(request: Request) -> Response:
        return answer(unsupported(f"{request.method} {path}", why))

    return refused


async def _unknown(request: Request) -> Response:
    return answer(RefusedError(404, f"there is nothing at {request.method} {request.url.path[:200]}"))


class _Inside:
    """The routes inside a sandbox, for whoever has its token."""

    def __init__(self, sandboxes: Sandboxes) -> None:
        self._all = sandboxes

    async def health(self, request: Request) -> Response:
        """Whether the sandbox runs."""
        try:
            await self._live(request, "")
        except RefusedError as refused:
            return answer(refused)
        return Response(status_code=204)

    async def files(self, request: Request) -> Response:
        """A file read, or files written."""
        try:
            live = await self._live(request, "cp")
            carry = carrying.download if request.method == "GET" else carrying.upload
            return await carry(request, live, request.query_params.get("username", ""))
        except RefusedError as refused:
            return answer(refused)
        except TinamouError as error:
            return answer(refusal_of(error))

    async def process(self, request: Request) -> Response:
        """A call about commands."""
        methods = {*processing.METHODS, "Start", "Connect", "StreamInput"}
        return await self._called(request, "exec", processing.call, methods)

    async def filesystem(self, request: Request) -> Response:
        """A call about files."""
        return await self._called(request, "cp", filing.call, {*filing.METHODS, "WatchDir"})

    async def _called(
        self, request: Request, verb: str, call: Callable[[Request, Live, str, str], Awaitable[Response]], methods: set[str]
    ) -> Response:
        method = request.path_params["method"]
        try:
            if method not in methods:
                raise RefusedError(404, f"there is no method {method[:64]}", code="unimplemented")
            return await call(request, await self._live(request, verb), _user(request), method)
        except RefusedError as refused:
            return answer(refused) if refused.status == 502 else failure(refused)
        except TinamouError as error:
            return failure(error)

    async def _live(self, request: Request, verb: str) -> Live:
        """The sandbox a request is for, which needs its token, and a maker who may do this; without a verb it does not.

        Raises RefusedError, 401, 502, NotAllowedError.
        """
        port, key = _target(request)
        if port != _PORT:
            raise unsupported(
                f"port {port} of a sandbox", "only files and commands lead in; forward a port in the template's machine"
            )
        signed = carrying.signed_for(request, self._all.entries) if request.url.path == "/files" else None
        entry = self._all.entries.get(key) if key else signed
        if entry is None and not key and "signature" in request.query_params:
            raise RefusedError(401, "the signature is no sandbox's, or its time is over")
        if entry is None:
            raise gone(key[:64])
        token = request.headers.get("x-access-token", "")
        known = hmac.compare_digest(token.encode(), entry.token.encode())
        if verb and not (known or (signed is not None and signed.id == entry.id)):
            raise RefusedError(401, "the access token, or the signature, is not this sandbox's")
        if verb:
            need_of_owner(entry, verb)
        return await self._all.live(entry)


def _target(request: Request) -> tuple[str, str]:
    """The port and the id a request is for, by its headers, else by the host's first label."""
    named = _HOST.match(request.headers.get("host", ""))
    port, key = named.groups() if named else (_PORT, "")
    return request.headers.get("e2b-sandbox-port", port), request.headers.get("e2b-sandbox-id", key)


def _user(request: Request) -> str:
    """The guest's user a call is made as: ``Authorization: Basic`` of the name and no password. Raises RefusedError."""
    scheme, _, text = request.headers.get("authorization", "").partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return b64decode(text, validate=True).decode().partition(":")[0]
    except (Base64Error, ValueError) as error:
        raise RefusedError(401, f"the user's name cannot be read: {error}", code="unauthenticated") from error
