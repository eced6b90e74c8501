"""The tools about files of a machine: read, written, edited."""

from __future__ import annotations

import base64
import shlex
from typing import Annotated, Any, Literal

from mcp.server import MCPServer
from pydantic import Field

from tinamou.errors import GuestError, StateError
from tinamou.guest.command import Completed
from tinamou.machine.facade import AsyncMachine
from tinamou.service.agents.mcp.session import Session
from tinamou.service.agents.mcp.told import said
from tinamou.service.agents.mcp.tools import DESTROYS, READS, Name

__all__ = ["add"]

Path = Annotated[str, Field(pattern="^/", description="The whole path in the guest, from / on")]
Encoding = Annotated[Literal["text", "base64"], Field(description="text is UTF-8")]

_SECONDS, _EDITED_BYTES = 300.0, 4 << 20


def add(server: MCPServer, session: Session) -> None:
    """Give the server these tools."""

    @server.tool(annotations=READS)
    @said
    async def machine_read(
        machine: Name,
        path: Path,
        offset: Annotated[int, Field(ge=0)] = 0,
        limit: Annotated[int, Field(ge=1, le=200_000, description="Bytes at most")] = 50_000,
        encoding: Encoding = "text",
    ) -> dict[str, Any]:
        """Read a file of a machine, or a part of it from a byte on."""
        size, part = await _part(session.find(machine), path, offset, limit)
        text = part.decode(errors="replace") if encoding == "text" else base64.b64encode(part).decode()
        left = max(size - offset - len(part), 0)
        answer: dict[str, Any] = {"content": text, "size": size}
        return {**answer, "more": f"{left} bytes are left: offset={offset + len(part)}"} if left else answer

    @server.tool(annotations=DESTROYS)
    @said
    async def machine_write(
        machine: Name, path: Path, content: str, encoding: Encoding = "text", append: bool = False
    ) -> dict[str, Any]:
        """Make a file in a machine, or replace what is in it, or append to it; folders on the way to it are made."""
        data = content.encode() if encoding == "text" else base64.b64decode(content, validate=True)
        await _write(session.find(machine), path, data, append=append)
        return {"path": path, "bytes": len(data)}

    @server.tool(annotations=DESTROYS)
    @said
    async def machine_edit(machine: Name, path: Path, old: str, new: str) -> dict[str, Any]:
        """Replace one piece of a text file of a machine; ``old`` must be there exactly once."""
        held = session.find(machine)
        size, data = await _part(held, path, 0, _EDITED_BYTES)
        if size > _EDITED_BYTES:
            raise StateError(f"{path} is larger than {_EDITED_BYTES >> 20} MiB", fix="edit it with sed by machine_run")
        times = data.count(old.encode()) if old else 0
        if times != 1:
            raise StateError(
                f"{path} holds the old text {times} times",
                why="it must be there exactly once",
                fix="give more of what is around",
            )
        await _write(held, path, data.replace(old.encode(), new.encode()))
        return {"path": path, "replaced": 1}


async def _part(machine: AsyncMachine, path: str, offset: int, limit: int) -> tuple[int, bytes]:
    """The size of a regular file and a part of it. Raises GuestError."""
    file = shlex.quote(path)
    check = f"[ -f {file} ] || {{ echo 'no such file, or no regular one' >&2; exit 1; }}"
    read = f"stat -L -c %s -- {file} && tail -c +{offset + 1} -- {file} | head -c {limit}"
    done = await machine.run(f"{check}; {read}", check=False, timeout=_SECONDS)
    size, newline, part = done.stdout.partition(b"\n")
    if done.status or not newline or not size.isdigit():
        raise _failed("read", path, done)
    return int(size), part


async def _write(machine: AsyncMachine, path: str, data: bytes, *, append: bool = False) -> None:
    """Raises GuestError."""
    file, folder = shlex.quote(path), shlex.quote(path.rpartition("/")[0] or "/")
    into = f"mkdir -p -- {folder} && cat {'>>' if append else '>'}{file}"
    done = await machine.run(into, input=data, check=False, timeout=_SECONDS)
    if done.status:
        raise _failed("written", path, done)


def _failed(verb: str, path: str, done: Completed) -> GuestError:
    return GuestError(f"{path} cannot be {verb} in the guest", why=done.stderr.decode(errors="replace").strip())
