"""The MCP server of one session: its tools over stdio, or over HTTP to whoever has the token."""

from __future__ import annotations

import hmac
from collections.abc import MutableMapping
from typing import Any

import uvicorn
from mcp.server import MCPServer
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

from tinamou.service.agents.mcp import files, tools
from tinamou.service.agents.mcp.session import Session
from tinamou.version import __version__

__all__ = ["INSTRUCTIONS", "http_app", "serve_http", "serve_stdio", "server_of"]

INSTRUCTIONS = """\
Virtual machines to try things in. A machine made here is thrown away when this session ends, unless it is kept; nothing done
in it can reach the host{but}.
A typical session: machine_create, machine_write and machine_run to prepare it, machine_fork to try several ways at once from
the same moment, machine_compare to see what each way changed, machine_discard.
Long outputs are cut in the middle; the answer then says how to read the rest.
"""
_BUT = ", but for what its settings give it of that (shares, disks, ports, devices): it was started with --host-access"


def server_of(session: Session) -> MCPServer:
    """The server whose tools work on that session's machines."""
    told = INSTRUCTIONS.format(but=_BUT if session.host_access else "")
    server = MCPServer(
        "tinamou", title="tinamou virtual machines", instructions=told, version=__version__, log_level="WARNING"
    )
    tools.add(server, session)
    files.add(server, session)
    return server


async def serve_stdio(*, all_machines: bool = False, host_access: bool = False) -> None:
    """Serve one client on stdin and stdout until it hangs up; the session's machines are ended then."""
    async with Session(all_machines=all_machines, host_access=host_access) as session:
        await server_of(session).run_stdio_async()


async def serve_http(host: str, port: int, token: str, *, all_machines: bool = False, host_access: bool = False) -> None:
    """Serve clients that have the token until this is cancelled; all of them share one session. Raises OSError."""
    async with Session(all_machines=all_machines, host_access=host_access) as session:
        app = http_app(server_of(session), host, token)
        config = uvicorn.Config(app, host=host, port=port, log_level="warning", timeout_graceful_shutdown=5)
        await uvicorn.Server(config).serve()


def http_app(server: MCPServer, host: str, token: str) -> ASGIApp:
    """The server as an ASGI application, at ``/mcp``, for those who send ``Authorization: Bearer TOKEN``."""
    return _Guarded(server.streamable_http_app(host=host), token)


class _Guarded:
    """Lets those in who have the token, and answers 401 to all others."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app, self._wanted = app, f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and not self._let_in(scope):
            answer = JSONResponse(
                {"error": "no token, or a wrong one", "fix": "send Authorization: Bearer TOKEN, as tinamou mcp printed it"},
                status_code=401,
                headers={"WWW-Authenticate": "Bearer"},
            )
            await answer(scope, receive, send)
            return
        await self._app(scope, receive, send)

    def _let_in(self, scope: MutableMapping[str, Any]) -> bool:
        given = [value for name, value in scope["headers"] if name == b"authorization"]
        return len(given) == 1 and hmac.compare_digest(given[0], self._wanted)
