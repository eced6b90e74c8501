"""The Connect protocol as far as E2B's client speaks it: JSON alone (source: connectrpc.com/docs/protocol)."""

from __future__ import annotations

import asyncio
import json
import struct
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from tinamou.errors import TinamouError
from tinamou.service.agents.e2b.problems import CODES, RefusedError, refusal_of

__all__ = ["beat_of", "body_of", "failure", "frames_of", "limited", "message_of", "seconds_of", "streamed", "unary"]

_HEADER = struct.Struct(">BI")
_LARGEST = 64 << 20
_END, _COMPRESSED = 2, 1
_BEAT_SECONDS = 50.0
_BODY_SECONDS = 60.0

Data = dict[str, Any]


async def body_of(request: Request, most: int) -> bytes:
    """The whole body, which comes soon and has so many bytes at most. Raises RefusedError."""
    found = bytearray()
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            async for piece in request.stream():
                found += piece
                if len(found) > most:
                    raise RefusedError(413, f"the body has more than {most} bytes", code="resource_exhausted")
    except TimeoutError:
        raise RefusedError(408, f"the body did not come within {_BODY_SECONDS:g} s", code="deadline_exceeded") from None
    return bytes(found)


async def unary(request: Request, method: Callable[[Data], Awaitable[Data]]) -> Response:
    """Answer a call of one message with one. Raises RefusedError, TinamouError."""
    if request.headers.get("content-type", "").partition(";")[0] != "application/json":
        raise RefusedError(415, "only JSON is spoken here: send application/json", code="invalid_argument")
    return JSONResponse(await method(_loaded(await body_of(request, _LARGEST))))


def failure(error: Exception) -> Response:
    """The answer to a call that failed."""
    refused = error if isinstance(error, RefusedError) else refusal_of(error)
    return JSONResponse({"code": refused.code, "message": refused.message}, status_code=CODES.get(refused.code, 500))


async def frames_of(request: Request) -> AsyncIterator[Data]:
    """The messages of a streaming call. Raises RefusedError for what is none."""
    came = bytearray()
    async for piece in request.stream():
        came += piece
        while len(came) >= _HEADER.size:
            flags, length = _HEADER.unpack_from(came)
            if length > _LARGEST or flags & _COMPRESSED:
                raise RefusedError(400, "a message is compressed, or larger than 64 MiB")
            if len(came) < _HEADER.size + length:
                break
            text = bytes(came[_HEADER.size : _HEADER.size + length])
            del came[: _HEADER.size + length]
            if not flags & _END:
                yield _loaded(text)
    if came:
        raise RefusedError(400, "the last message is cut short")


async def message_of(request: Request) -> Data:
    """The one message of a call that is answered with a stream. Raises RefusedError."""
    async for message in frames_of(request):
        return message
    raise RefusedError(400, "there is no message")


def streamed(events: AsyncIterator[Data]) -> Response:
    """Answer with a stream of messages; what goes wrong on the way is told in its last frame."""

    async def frames() -> AsyncIterator[bytes]:
        end: Data = {}
        try:
            async for event in events:
                yield _frame(0, event)
        except (RefusedError, TinamouError) as error:
            refused = error if isinstance(error, RefusedError) else refusal_of(error)
            end = {"error": {"code": refused.code, "message": refused.message}}
        yield _frame(_END, end)

    return StreamingResponse(frames(), media_type="application/connect+json")


def seconds_of(request: Request) -> float | None:
    """How long the call may take, None for ever. Raises RefusedError."""
    text = request.headers.get("connect-timeout-ms", "")
    if text and not (text.isdigit() and len(text) <= 10):
        raise RefusedError(400, "Connect-Timeout-Ms is no number of at most ten digits")
    return int(text) / 1000 if text else None


def beat_of(request: Request) -> float:
    """After how many seconds without an event a sign of life is wanted."""
    text = request.headers.get("keepalive-ping-interval", "")
    return min(max(float(text), 1.0), 600.0) if text.isdigit() and len(text) < 6 else _BEAT_SECONDS


async def limited(events: AsyncIterator[Data], seconds: float | None) -> AsyncIterator[Data]:
    """The same events, for so long. Raises RefusedError then."""
    try:
        async with asyncio.timeout(seconds):
            async for event in events:
                yield event
    except TimeoutError:
        raise RefusedError(504, f"the call's {seconds:g} s are over", code="deadline_exceeded") from None


def _frame(flags: int, data: Data) -> bytes:
    text = json.dumps(data, ensure_ascii=True).encode()
    return _HEADER.pack(flags, len(text)) + text


def _loaded(text: bytes) -> Data:
    try:
        data = json.loads(text or b"{}")
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, f"the message is no JSON: {error}") from error
    if not isinstance(data, dict):
        raise RefusedError(400, "the message is no JSON object")
    return data
