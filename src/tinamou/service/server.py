"""Serves the application: on a unix socket whose callers the kernel knows, on TCP by TLS, on sockets systemd hands over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import ssl
import stat
import struct
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import uvicorn
from starlette.types import ASGIApp
from uvicorn.protocols.http.h11_impl import H11Protocol

from tinamou.errors import SpecError, StateError
from tinamou.late import dataclass
from tinamou.service import certificates
from tinamou.service.agents.e2b.serving import Address, served
from tinamou.service.app import application
from tinamou.service.journal import heard_by_journal, to_journal
from tinamou.service.oidc import Issuer, provider_of
from tinamou.service.shared import Service, Settings
from tinamou.system.loop_thread import dropped

__all__ = ["Listening", "serve"]

_HEAD_SECONDS = 5.0
"""How long a caller may take for the head of a request, the first or a later one, from its first byte on."""
_HEAD_BYTES = 32 << 10
_CREDENTIALS = struct.Struct("3i")
_FIRST_DESCRIPTOR = 3
_MOST_CONNECTIONS = 1000
_THREADS = 128
"""So that images that are downloaded, and guests that are slow, keep nobody from looking."""


@dataclass(frozen=True)
class Listening:
    """Where the service listens: a unix socket with that mode, an address by TLS with that certificate and key.

    ``e2b`` is where E2B's own clients find it, ``oidc`` the file that says which identity provider is believed.
    """

    socket: Path | None = None
    mode: int = 0o600
    address: tuple[str, int] | None = None
    certificate: Path | None = None
    key: Path | None = None
    names: tuple[str, ...] = ()
    e2b: Address | None = None
    oidc: Path | None = None


class _Protocol(H11Protocol):
    """Connections whose caller the kernel knows, and whose requests come soon once they have begun."""

    _limit: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self.app_state = {**self.app_state, "abort": transport.abort}
        peer = transport.get_extra_info("socket")
        if peer is not None and peer.family == socket.AF_UNIX:
            held = peer.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            self.app_state["peer"] = _CREDENTIALS.unpack(held)[1]
        self._limit = self.loop.call_later(_HEAD_SECONDS, self._end_idle)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)  # which ends the time a connection may be idle, whatever came
        if not self._idle and self._limit is not None:
            self._limit.cancel()
            self._limit = None
        elif self._idle and self._limit is None:
            self._limit = self.loop.call_later(_HEAD_SECONDS, self._end_idle)

    @property
    def _idle(self) -> bool:
        """Whether no request is being answered; a connection that is a WebSocket by now has another protocol."""
        return (self.cycle is None or self.cycle.response_complete) and self.transport.get_protocol() is self

    def _end_idle(self) -> None:
        if self._idle and not self.transport.is_closing():
            self.transport.abort()


class _Server(uvicorn.Server):
    """A server whose process heeds requests to end by itself."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


async def serve(listening: Listening, ready: Callable[[str], None]) -> int:
    """Serve until cancelled; ``ready`` is told where, once anybody can connect. Raises SpecError, StateError, OSError."""
    asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(_THREADS))
    if heard_by_journal():
        to_journal()
    issuer = Issuer(provider_of(listening.oidc)) if listening.oidc else None
    service = Service(Settings(names=_names(listening), issuer=issuer))
    app = application(service)
    plain, secure = _sockets(listening)
    async with contextlib.AsyncExitStack() as stack:
        used = [(_server(app), plain), (_server(app, listening), secure)] if secure else [(_server(app), plain)]
        if listening.e2b is not None:
            sandboxes = await stack.enter_async_context(served(listening.e2b))
            tls = listening if listening.e2b.domain else None
            used.append((_server(sandboxes, tls), [_tcp(listening.e2b.address)]))
        if issuer is not None:
            stack.push_async_callback(dropped, asyncio.ensure_future(issuer.run()))
        await stack.enter_async_context(service.running())
        await _until_ended([(server, mine) for server, mine in used if mine], listening, ready)
    return 0


def _server(app: ASGIApp, tls: Listening | None = None) -> _Server:
    """A server of an application, by TLS with that one's certificate where one is given."""
    options: dict[str, Any] = {
        "http": _Protocol,
        "ws": "websockets-sansio",
        "ws_max_size": 1 << 20,
        "lifespan": "off",
        "log_config": None,
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "h11_max_incomplete_event_size": _HEAD_BYTES,
        "timeout_graceful_shutdown": 3,
        "limit_concurrency": _MOST_CONNECTIONS,
    }
    if tls is not None:
        options |= {"ssl_certfile": str(tls.certificate), "ssl_keyfile": str(tls.key)}
    return _Server(uvicorn.Config(app, **options))


async def _until_ended(
    used: Sequence[tuple[_Server, list[socket.socket]]], listening: Listening, ready: Callable[[str], None]
) -> None:
    made = any(one.family == socket.AF_UNIX and _made_here(one) for _, mine in used for one in mine)
    tasks = [asyncio.ensure_future(server.serve(sockets=mine)) for server, mine in used]
    looked_after: asyncio.Task[None] | None = None
    try:
        while not all(server.started for server, _ in used):
            await asyncio.sleep(0.01)
            for task in (one for one in tasks if one.done()):
                task.result()
        for server, mine in used:
            for one in mine:
                ready(_shown(one, listening, secure=bool(server.config.ssl_certfile)))
        _notify("READY=1")
        looked_after = _renewed(listening, [server for server, _ in used])
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        if looked_after is not None:
            await dropped(looked_after)
        _notify("STOPPING=1")
        for server, _ in used:
            server.should_exit = True
        await asyncio.gather(*tasks, return_exceptions=True)
        if made:
            _unlink(listening)


def _renewed(listening: Listening, servers: Sequence[_Server]) -> asyncio.Task[None] | None:
    """The certificate is looked after, where there is one."""
    contexts = [server.config.ssl for server in servers if server.config.ssl is not None]
    if not contexts or listening.certificate is None or listening.key is None:
        return None
    return asyncio.ensure_future(certificates.renewed(listening.certificate, listening.key, contexts))


def _made_here(one: socket.socket) -> bool:
    """Whether a unix socket was made by `_unix`, and not handed over: it was bound by a name of its own."""
    return Path(str(one.getsockname())).name.startswith(".")


def _names(listening: Listening) -> tuple[str, ...]:
    """The names by which it is reached on TCP: those given, and the address where that is one."""
    host = listening.address[0] if listening.address else ""
    return tuple(dict.fromkeys((*listening.names, *([host] if host and host not in ("0.0.0.0", "::") else ()))))  # noqa: S104


def _sockets(listening: Listening) -> tuple[list[socket.socket], list[socket.socket]]:
    """The sockets without TLS, which are unix ones, and those with."""
    given = _handed_over()
    plain = [one for one in given if one.family == socket.AF_UNIX]
    secure = [one for one in given if one.family != socket.AF_UNIX]
    if listening.socket is not None and not plain:
        plain.append(_unix(listening.socket, listening.mode))
    if listening.address is not None:
        secure.append(_tcp(listening.address))
    if (secure or (listening.e2b and listening.e2b.domain)) and not (listening.certificate and listening.key):
        why, fix = "tokens would go over the net for everybody to read", "name both: --tls-cert FILE --tls-key FILE"
        raise SpecError("TCP is served by TLS alone", why=why, fix=fix)
    if secure or (listening.e2b and listening.e2b.domain):
        _check_tls(listening)
    return plain, secure


def _check_tls(listening: Listening) -> None:
    try:
        certificates.check(listening.certificate, listening.key)
    except (OSError, ssl.SSLError) as error:
        raise SpecError("the certificate or its key cannot be used", why=str(error), fix="name files in PEM") from error


def _handed_over() -> list[socket.socket]:
    """The sockets systemd has made (source: sd_listen_fds(3))."""
    if os.environ.pop("LISTEN_PID", "") != str(os.getpid()):
        return []
    count = int(os.environ.pop("LISTEN_FDS", "0"))
    found = [socket.socket(fileno=number) for number in range(_FIRST_DESCRIPTOR, _FIRST_DESCRIPTOR + count)]
    for one in found:
        os.set_inheritable(one.fileno(), False)
    return found


def _unix(path: Path, mode: int) -> socket.socket:
    """A socket at that path, in place of one nobody listens to. Raises StateError where somebody does."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o755)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise StateError(f"{path} is no socket", fix="name another path: --socket PATH")
        if _answers(path):
            raise StateError(f"somebody listens at {path} already", fix="use that service, or end it")
        path.unlink()
    made = socket.socket(socket.AF_UNIX)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    made.bind(str(part))
    part.chmod(mode)
    made.listen(1024)
    part.rename(path)
    return made


def _unlink(listening: Listening) -> None:
    """Take away the name of the socket that was made here, unless somebody else's has it by now."""
    with contextlib.suppress(OSError):
        if listening.socket and not _answers(listening.socket):
            listening.socket.unlink()


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _tcp(address: tuple[str, int]) -> socket.socket:
    host, port = address
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=1024)


def _shown(one: socket.socket, listening: Listening, *, secure: bool) -> str:
    """Where a socket is reached; one that was made here is bound by a name it has no more."""
    if one.family == socket.AF_UNIX:
        return f"unix:{listening.socket if _made_here(one) else one.getsockname()}"
    host, port = one.getsockname()[:2]
    return f"{'https' if secure else 'http'}://{f'[{host}]' if ':' in host else host}:{port}"


def _notify(text: str) -> None:
    """Tell systemd how far the service is (source: sd_notify(3))."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path.startswith(("/", "@")):
        return
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as sent:
        sent.sendto(text.encode(), path.replace("@", "\0", 1) if path.startswith("@") else path)
