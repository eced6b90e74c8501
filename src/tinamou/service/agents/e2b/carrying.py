"""Files into a sandbox and out of it: ``GET`` and ``POST /files`` of envd, and the signatures of its URLs."""

from __future__ import annotations

import base64
import hashlib
import hmac
import posixpath
import shutil
import stat
import tempfile
import time
import zlib
from collections.abc import AsyncIterator, Iterable
from typing import Any

from starlette.datastructures import UploadFile
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse

from tinamou.errors import GuestError
from tinamou.guest.resident.underway import RunningCommand
from tinamou.service.agents.e2b.entries import Entry
from tinamou.service.agents.e2b.filing import found_at
from tinamou.service.agents.e2b.live import Live
from tinamou.service.agents.e2b.problems import RefusedError
from tinamou.service.agents.listing import look
from tinamou.system.closing import IfFailed

__all__ = ["download", "signed_for", "upload"]

_WRITE = 'mkdir -p -- "$2" && cat >"$1"'
_PIECE = 256 << 10
_MOST_FILES = 1000


async def download(request: Request, live: Live, user: str) -> Response:
    """The bytes of a regular file, as they come. Raises RefusedError, TinamouError."""
    path = await live.path(_path(request), user)
    found = await look(live.runner(user), path, follow=True) or await found_at(live, path, user)
    if not stat.S_ISREG(found.mode):
        raise RefusedError(400, f"{path} is no regular file")
    running = await live.begin(live.what(["cat", "--", path], user=user))
    running.end_input()
    with IfFailed(running.leave):
        said = await running.read()
        if (said is None and running.status) or (said is not None and said[0] == "err"):
            raise RefusedError(400, said[1].decode(errors="replace").strip() if said else f"{path} cannot be read")
    return StreamingResponse(_rest(running, said[1] if said else b""), media_type="application/octet-stream")


async def _rest(running: RunningCommand, first: bytes) -> AsyncIterator[bytes]:
    try:
        yield first
        while (said := await running.read()) is not None:
            if said[0] == "err":
                raise GuestError("the file could not be read to its end", why=said[1].decode(errors="replace").strip())
            yield said[1]
    finally:
        running.leave()


async def upload(request: Request, live: Live, user: str) -> Response:
    """Make files of a form's parts, or of the body. Raises RefusedError, TinamouError."""
    if any(name.startswith("x-metadata-") for name in request.headers):
        raise RefusedError(501, "files have no metadata of their own here: leave metadata out")
    kind = request.headers.get("content-type", "").partition(";")[0]
    if kind == "multipart/form-data":
        written = await _form(request, live, user)
    elif kind == "application/octet-stream":
        written = [await _written(live, await live.path(_path(request), user), user, _body(request))]
    else:
        raise RefusedError(415, f"a body of the type {kind or 'nothing'} is not understood")
    return JSONResponse(written)


async def _form(request: Request, live: Live, user: str) -> list[dict[str, str]]:
    written = []
    _bounded(request)
    async with request.form(max_files=_MOST_FILES) as form:
        parts = [one for name, one in form.multi_items() if name == "file" and isinstance(one, UploadFile)]
        named = request.query_params.get("path", "")
        if named and len(parts) != 1:
            raise RefusedError(400, f"one path is given for {len(parts)} files")
        for part in parts:
            path = await live.path(named or part.filename or "", user)
            written.append(await _written(live, path, user, _pieces(part)))
    if not written:
        raise RefusedError(400, "there is no file in the form")
    return written


def _bounded(request: Request) -> None:
    """A form lies on this host's disk while it comes: it says how long it is, and has room. Raises RefusedError."""
    length = request.headers.get("content-length", "")
    if not length.isdecimal():
        raise RefusedError(411, "a form must say how long it is: send Content-Length, or the bytes of one file as they are")
    room = shutil.disk_usage(tempfile.gettempdir()).free // 4
    if int(length) > room:
        raise RefusedError(413, f"a form of {length} bytes, with room for {room}: send the bytes of one file as they are")


async def _pieces(part: UploadFile) -> AsyncIterator[bytes]:
    while piece := await part.read(_PIECE):
        yield piece


async def _body(request: Request) -> AsyncIterator[bytes]:
    """The body, unpacked where it is gzip's. Raises RefusedError."""
    packing = request.headers.get("content-encoding", "identity")
    if packing not in ("gzip", "identity"):
        raise RefusedError(415, f"the encoding {packing} is not understood")
    unpacker = zlib.decompressobj(wbits=31) if packing == "gzip" else None
    async for piece in request.stream():
        if unpacker is None:
            yield piece
            continue
        while piece:
            try:
                yield unpacker.decompress(piece, _PIECE)
            except zlib.error as error:
                raise RefusedError(400, f"the body is no gzip: {error}") from error
            piece = unpacker.unconsumed_tail
    if unpacker is not None and not unpacker.eof:
        raise RefusedError(400, "the body is cut short")


async def _written(live: Live, path: str, user: str, pieces: AsyncIterator[bytes]) -> dict[str, str]:
    words = ["sh", "-c", _WRITE, "sh", path, posixpath.dirname(path)]
    done = await live.run(words, user=user, input=pieces, limit=None)
    if done.status:
        why = done.stderr.decode(errors="replace").strip()
        raise RefusedError(507 if "No space left" in why else 400, why or f"{path} cannot be written")
    return {"name": posixpath.basename(path), "type": "file", "path": path}


def _path(request: Request) -> str:
    path = request.query_params.get("path", "")
    if not path:
        raise RefusedError(400, "no path is given")
    return path


def signed_for(request: Request, entries: Iterable[Entry]) -> Entry | None:
    """The sandbox for whose file the URL is signed, while that holds (source: envd, v1 signatures)."""
    given, until = request.query_params.get("signature", ""), request.query_params.get("signature_expiration", "")
    if not given or (until and not (until.isdigit() and int(until) >= time.time())):
        return None
    verb = "read" if request.method == "GET" else "write"
    path, user = request.query_params.get("path", ""), request.query_params.get("username", "")
    for one in entries:
        parts: list[Any] = [path, verb, user, one.token, *([until] if until else [])]
        digest = hashlib.sha256(":".join(parts).encode(errors="replace")).digest()
        if hmac.compare_digest(
            f"v1_{base64.b64encode(digest).rstrip(b'=').decode()}".encode(), given.encode(errors="replace")
        ):
            return one
    return None
