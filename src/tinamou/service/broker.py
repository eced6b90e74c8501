"""The broker of secrets on HTTP: the three routes of the KBS protocol, in the foreground until it is asked to end."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from tinamou.attest.broker import MOST_BODY, Broker, Reply

__all__ = ["application", "serve"]

_COOKIE = "kbs-session-id"


def application(broker: Broker, *, secure: bool = True) -> Starlette:
    """The routes; ``secure`` is whether they are served by TLS, so that the cookie goes nowhere else."""

    def answered(reply: Reply) -> Response:
        response = JSONResponse(reply.body, reply.status, {"Cache-Control": "no-store"})
        if reply.session:
            response.set_cookie(_COOKIE, reply.session, httponly=True, secure=secure, samesite="strict", path="/kbs")
        return response

    async def auth(request: Request) -> Response:
        return answered(broker.auth(await _body(request), _client(request)))

    async def attest(request: Request) -> Response:
        session, body = request.cookies.get(_COOKIE, ""), await _body(request)
        return answered(await run_in_threadpool(broker.attest, session, body, _client(request)))

    async def resource(request: Request) -> Response:
        session = request.cookies.get(_COOKIE, "")
        return answered(await run_in_threadpool(broker.resource, session, request.path_params["path"], _client(request)))

    return Starlette(
        routes=[
            Route("/kbs/v0/auth", auth, methods=["POST"]),
            Route("/kbs/v0/attest", attest, methods=["POST"]),
            Route("/kbs/v0/resource/{path:path}", resource, methods=["GET"]),
        ]
    )


async def _body(request: Request) -> bytes:
    """The body, and one byte more than is looked at where it is longer."""
    found = bytearray()
    async for piece in request.stream():
        found += piece[: MOST_BODY + 1 - len(found)]
        if len(found) > MOST_BODY:
            break
    return bytes(found)


def _client(request: Request) -> str:
    return request.client.host if request.client else ""


class _Server(uvicorn.Server):
    """A server whose process heeds requests to end by itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(
    broker: Broker,
    address: tuple[str, int],
    certificate: Path | None,
    key: Path | None,
    ready: Callable[[str], None],
) -> int:
    """Serve until it is cancelled; ``ready`` is told where, once anybody can connect. Raises OSError."""
    family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
    listening = socket.create_server(address, family=family)
    config = uvicorn.Config(
        application(broker, secure=certificate is not None),
        ssl_certfile=certificate and str(certificate),
        ssl_keyfile=key and str(key),
        http="h11",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
        limit_concurrency=64,
        h11_max_incomplete_event_size=32 << 10,
        timeout_graceful_shutdown=3,
    )
    server = _Server(config)
    where = listening.getsockname()
    host = f"[{where[0]}]" if family == socket.AF_INET6 else where[0]
    ready(f"{'https' if certificate else 'http'}://{host}:{where[1]}")
    task = asyncio.ensure_future(server.serve(sockets=[listening]))
    try:
        await asyncio.wait([task])
        task.result()
    finally:
        server.should_exit = True
        await asyncio.gather(task, return_exceptions=True)
        listening.close()
    return 0
