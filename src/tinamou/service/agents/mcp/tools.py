"""The tools about machines as a whole: made, used, copied, compared, ended."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp_types import ToolAnnotations
from pydantic import Field

from tinamou.errors import StateError, TimeLimitError
from tinamou.guest.command import kept
from tinamou.machine import life
from tinamou.machine.facade import AsyncMachine
from tinamou.service.agents.comparing import FOLDERS, compare
from tinamou.service.agents.listing import Run
from tinamou.service.agents.mcp.outputs import shown
from tinamou.service.agents.mcp.session import Session
from tinamou.service.agents.mcp.told import said, telling

__all__ = ["ADDS", "DESTROYS", "READS", "Name", "add", "runner"]

READS = ToolAnnotations(read_only_hint=True, open_world_hint=False)
ADDS = ToolAnnotations(read_only_hint=False, destructive_hint=False, open_world_hint=False)
DESTROYS = ToolAnnotations(read_only_hint=False, destructive_hint=True, open_world_hint=False)

Name = Annotated[str, Field(description="The machine's name, as machine_create, machine_fork or machine_list gave it")]
Most = Annotated[int, Field(ge=100, le=200_000, description="Bytes of each output that are shown; the middle is cut")]

_ASK_SECONDS = 300.0
_COMPARED = 200


def add(server: MCPServer, session: Session) -> None:
    """Give the server these tools."""
    _add_lives(server, session)
    _add_commands(server, session)
    _add_copies(server, session)
    _add_snapshots(server, session)


def runner(machine: AsyncMachine) -> Run:
    """How commands of tinamou's own are run in a machine."""

    async def run(argv: Any) -> Any:
        return await machine.run(list(argv), check=False, timeout=_ASK_SECONDS)

    return run


async def _described(machine: AsyncMachine, own: bool) -> dict[str, Any]:
    record = machine.record
    return {
        "name": record.name,
        "state": await life.state_of(record),
        "image": record.image or record.spec.get("image", "tiny"),
        "accelerator": record.accel,
        "kept": not record.ephemeral,
        "yours": own,
    }


def _add_lives(server: MCPServer, session: Session) -> None:
    @server.tool(annotations=READS)
    @said
    async def machine_list() -> dict[str, Any]:
        """The machines that can be used: those this session made, all of this host where that was allowed."""
        own = session.own
        found = [await _described(session.find(name), name in own) for name in session.names()]
        return {"machines": found, "all_machines": session.all_machines}

    @server.tool(annotations=ADDS)
    @said
    async def machine_create(
        context: Context,
        image: Annotated[
            str, Field(description="tiny (Linux with busybox, boots in seconds), debian, or another image")
        ] = "tiny",
        network: Annotated[bool, Field(description="A way out to the internet, and none in")] = False,
        settings: Annotated[
            dict[str, Any] | None,
            Field(
                description='Fields of a machine file, as {"cpus": 2, "memory": "1G"}; none that name something of the host'
            ),
        ] = None,
        checkpoint: Annotated[str, Field(description="Fork this checkpoint, from machine_checkpoint, instead")] = "",
        keep: Annotated[bool, Field(description="Let it go on when this session ends")] = False,
    ) -> dict[str, Any]:
        """Make a machine and wait until it answers: booted from an image, or forked from a checkpoint.

        It is thrown away when this session ends, unless kept. It can be forked in an instant.
        """
        said_so = dict(settings or {})
        if checkpoint and (said_so or network or image != "tiny"):
            raise StateError("a fork of a checkpoint is as that was", fix="leave image, network and settings out")
        if not {"net", "nics"} & said_so.keys():
            said_so["net"] = ["auto"] if network else []
        said_so.setdefault("memory.forkable", True)
        async with telling(context, "making a machine") as progress:
            made = await session.create(image, _nested(said_so), checkpoint=checkpoint, keep=keep, progress=progress)
            return await _described(made, own=True)

    @server.tool(annotations=ADDS)
    @said
    async def machine_keep(machine: Name) -> dict[str, Any]:
        """Let a machine go on when this session ends; `tinamou rm` removes it then."""
        await session.keep(machine)
        return await _described(session.find(machine), own=True)

    @server.tool(annotations=DESTROYS)
    @said
    async def machine_discard(machine: Name) -> dict[str, Any]:
        """End a machine at once and remove it with its disks. What was in it is lost."""
        await session.discard(machine)
        return {"discarded": machine}


def _nested(settings: Mapping[str, Any]) -> dict[str, Any]:
    """``memory.forkable`` as a field of the table memory, also where that is given by its size alone."""
    data = dict(settings)
    forkable = data.pop("memory.forkable")
    memory = data.get("memory", {})
    memory = memory if isinstance(memory, dict) else {"size": memory}
    return {**data, "memory": {"forkable": forkable, **memory}}


def _add_commands(server: MCPServer, session: Session) -> None:
    @server.tool(annotations=DESTROYS)
    @said
    async def machine_run(
        context: Context,
        machine: Name,
        command: Annotated[str, Field(description="A command line for the guest's shell")],
        cwd: Annotated[str, Field(description="The folder it begins in; the user's home when empty")] = "",
        user: Annotated[str, Field(description="Who runs it; root when empty")] = "",
        env: dict[str, str] | None = None,
        input: Annotated[str, Field(description="Its standard input")] = "",
        timeout: Annotated[float, Field(gt=0, le=3600, description="Seconds until it is killed")] = 120.0,
        max_output: Most = 20_000,
    ) -> dict[str, Any]:
        """Run a command in a machine and wait for its end: its exit status, and what it printed.

        A status other than 0 is no error of this tool. Where an output is long its middle is cut, and ``more`` says how to
        read the rest.
        """
        out, err = bytearray(), bytearray()
        how: dict[str, Any] = {"input": input.encode(), "env": env, "cwd": cwd, "user": user, "timeout": timeout}
        async with telling(context, f"running {command:.60}"):
            try:
                status: int | None = await session.find(machine).stream(command, kept(out), complaints=kept(err), **how)
            except TimeLimitError:
                status = None
        answer = {"status": status, **_outputs(session, {"stdout": bytes(out), "stderr": bytes(err)}, max_output)}
        return answer if status is not None else {**answer, "killed": f"it did not end within {timeout:g} s"}

    @server.tool(annotations=READS)
    @said
    async def machine_output(
        output: Annotated[str, Field(description="The id that machine_run gave in more")],
        offset: Annotated[int, Field(ge=0, description="The byte to begin at")] = 0,
        limit: Most = 20_000,
    ) -> dict[str, Any]:
        """More of a long output of machine_run: a part of it from a byte on."""
        text = session.outputs.find(output)
        part = text[offset : offset + limit]
        left = max(len(text) - offset - len(part), 0)
        return {"text": part.decode(errors="replace"), "bytes_left": left, "next_offset": offset + len(part)}

    @server.tool(annotations=READS)
    @said
    async def machine_logs(machine: Name, max_output: Most = 10_000) -> dict[str, Any]:
        """What the guest's kernel and boot printed on its console: why it does not answer, or died."""
        text = await asyncio.to_thread(session.find(machine).log)
        return _outputs(session, {"console": text.encode()}, max_output)


def _outputs(session: Session, outputs: Mapping[str, bytes], most: int) -> dict[str, Any]:
    answer: dict[str, Any] = {}
    more: dict[str, str] = {}
    for name, text in outputs.items():
        answer[name], cut = shown(text, most)
        if cut:
            key = session.outputs.keep(text)
            more[name] = f"{cut} of {len(text)} bytes were cut; machine_output with output={key!r} and offset={most // 2}"
    return {**answer, "more": more} if more else answer


def _add_copies(server: MCPServer, session: Session) -> None:
    @server.tool(annotations=ADDS)
    @said
    async def machine_fork(context: Context, machine: Name, count: Annotated[int, Field(ge=1, le=32)] = 1) -> dict[str, Any]:
        """Running copies of a running machine as it is at this moment, with its memory, processes and files.

        Each has a name, addresses and random numbers of its own, and is thrown away when this session ends.
        """
        async with telling(context, f"forking {machine}"):
            forks = await session.fork(machine, count)
            return {"forks": [await _described(one, own=True) for one in forks]}

    @server.tool(annotations=ADDS)
    @said
    async def machine_checkpoint(context: Context, machine: Name, name: str = "", keep: bool = False) -> dict[str, Any]:
        """Save the whole state of a running machine, which goes on; machine_create with ``checkpoint`` makes copies of it.

        It is gone when this session ends, unless kept.
        """
        async with telling(context, f"saving {machine}"):
            taken = await session.checkpoint(machine, name, keep=keep)
        return {"checkpoint": taken.name, "kind": taken.kind, "why": taken.why, "kept": keep}

    @server.tool(annotations=READS)
    @said
    async def machine_compare(
        context: Context,
        first: Name,
        second: Name,
        folders: Annotated[list[str] | None, Field(description=f"Where to look; without it {', '.join(FOLDERS)}")] = None,
    ) -> dict[str, Any]:
        """Which files differ between two machines, such as two forks of one, with the diffs of texts."""
        one, other = (runner(session.find(name)) for name in (first, second))
        async with telling(context, f"comparing {first} and {second}"):
            found = await compare(one, other, folders or FOLDERS)
        answer: dict[str, Any] = {"differences": found[:_COMPARED], "count": len(found)}
        if len(found) > _COMPARED:
            answer["more"] = f"{len(found) - _COMPARED} are not shown: name fewer folders"
        return answer


def _add_snapshots(server: MCPServer, session: Session) -> None:
    @server.tool(annotations=DESTROYS)
    @said
    async def machine_snapshot(
        context: Context,
        machine: Name,
        action: Annotated[
            Literal["list", "create", "revert"], Field(description="revert cuts the power and boots again")
        ] = "list",
        name: str = "",
    ) -> dict[str, Any]:
        """Snapshots of a machine's disks (of memory: machine_checkpoint). The tiny guest has no disk unless it is given one.

        Only a kept machine can go back to one.
        """
        snapshots = session.find(machine).snapshots
        if action == "create":
            return {"snapshot": (await snapshots.create(name)).name}
        if action == "revert":
            async with telling(context, f"reverting {machine}"):
                await session.revert(machine, name)
            return {"reverted": name}
        return {"snapshots": [one.name for one in await snapshots.list()]}
