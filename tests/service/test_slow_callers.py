"""Callers that begin to say something and do not end: each is let go."""

from __future__ import annotations

import asyncio
import socket
from typing import Any

import pytest
import uvicorn
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from uvicorn.server import ServerState

from tinamou.errors import SpecError
from tinamou.service import server
from tinamou.service.page import forms
from tinamou.service.shared import Service


def test_a_connection_that_is_kept_and_then_says_half_a_request_is_let_go(monkeypatch):
    monkeypatch.setattr(server, "_HEAD_SECONDS", 0.5)
    config = uvicorn.Config(PlainTextResponse("here"), lifespan="off", log_config=None, timeout_keep_alive=3600)
    config.load()

    async def asked() -> tuple[bytes, bytes]:
        mine, theirs = socket.socketpair()
        loop = asyncio.get_running_loop()
        await loop.connect_accepted_socket(lambda: server._Protocol(config, ServerState(), {}), theirs)
        reader, writer = await asyncio.open_connection(sock=mine)
        try:
            writer.write(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            answer = await asyncio.wait_for(reader.readuntil(b"here"), 60)
            writer.write(b"G")
            return answer, await asyncio.wait_for(reader.read(), 60)
        finally:
            writer.close()

    answer, after = asyncio.run(asked())
    assert answer.startswith(b"HTTP/1.1 200") and after == b""


def test_a_form_that_does_not_come_is_waited_for_no_longer_than_so_long(state, monkeypatch):
    monkeypatch.setattr(forms, "_SECONDS", 0.05)

    async def nothing() -> Any:
        await asyncio.Event().wait()

    headers = [(b"content-length", b"20"), (b"content-type", b"application/x-www-form-urlencoded")]
    request = Request({"type": "http", "method": "POST", "path": "/login", "headers": headers}, nothing)

    async def asked() -> None:
        await asyncio.wait_for(forms.form_of(request, Service()), 60)

    with pytest.raises(SpecError, match="did not come whole"):
        asyncio.run(asked())
