"""What the agent in a guest can do, typed: run commands, files, freeze, time, network, power.

Source: the QEMU guest agent protocol reference; one method per command or group of commands.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, Self

from tinamou.guest.answers import said
from tinamou.guest.channel import AgentRefusedError, AgentSilentError, Channel
from tinamou.guest.command import CAPTURED, Completed, Hear, Input, command
from tinamou.late import dataclass

if TYPE_CHECKING:
    from tinamou.guest.login import Account

__all__ = ["Agent", "Completed", "ExecStatus", "Interface", "OsInfo"]

_WINDOWS = "mswindows"
_SIGNALS, _STATUS = 127, (1 << 32) - 1
"""The largest number of a signal, and of an exit status (of Windows)."""


@dataclass(frozen=True)
class ExecStatus:
    """A command started by ``start``: None in ``completed`` while it runs."""

    completed: Completed | None


@dataclass(frozen=True)
class Interface:
    """A network interface of the guest; ``addresses`` with prefix length, ``10.0.2.15/24``."""

    name: str
    mac: str
    addresses: tuple[str, ...]


@dataclass(frozen=True)
class OsInfo:
    """What the guest says it is: ``id`` as in os-release, ``machine`` as ``uname -m``."""

    id: str
    name: str
    version: str
    kernel: str
    machine: str


class Agent:
    """The agent of one machine, by its socket; methods raise AgentRefusedError and AgentSilentError (both GuestError).

    ``async with`` closes the line; several Agents, in one program or in many, take turns.
    """

    def __init__(self, path: str, *, timeout: float = 30.0) -> None:
        self.channel: Channel = Channel(path)
        self.timeout = timeout
        self.account: Account | None = None
        """The agent's own, once it was asked for."""
        self.windows: bool | None = None
        """Whether the guest is a Windows, once it was asked."""

    async def command(
        self, name: str, arguments: Mapping[str, object] | None = None, *, timeout: float | None = None
    ) -> object:
        """Any agent command, as JSON data."""
        return await self.channel.request(name, arguments, timeout=self.timeout if timeout is None else timeout)

    async def wait(self, timeout: float) -> None:
        """Return when the agent has answered for the first time; the guest need not have started to boot yet."""
        await self.channel.sync(timeout=timeout)

    async def ping(self, timeout: float | None = None) -> None:
        """``guest-ping``."""
        await self.command("guest-ping", timeout=timeout)

    async def commands(self) -> frozenset[str]:
        """The commands the agent knows and its administrator allows."""
        info = said.record(await self.command("guest-info"))
        known = said.records(info.get("supported_commands", []))
        return frozenset(said.text(one, "name") for one in known if one.get("enabled"))

    async def version(self) -> str:
        """The agent's version."""
        return said.text(said.record(await self.command("guest-info")), "version")

    async def run(
        self,
        argv: Sequence[str],
        *,
        input: Input = None,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        user: str = "",
        timeout: float | None = None,
        bare: bool = False,
    ) -> Completed:
        """Run a command in the guest to its end and return its status and output, up to 16 MiB of each stream.

        It runs as a login of ``user`` would (of the agent's own when empty), in the folder ``cwd`` (the user's home when
        empty), with ``env`` added to the login's variables; ``bare`` leaves all that out: it runs as the agent does. When
        ``timeout`` seconds pass, or the caller is cancelled, it is killed in the guest. Raises GuestError, SpecError.
        """
        from tinamou.guest import execute, stream

        what = command(argv, cwd=cwd, user=user, env=env)
        if bare and (input is None or isinstance(input, bytes)):
            return await execute.run(self, argv, input=input, timeout=timeout)
        return await stream.capture(self, what, input=input, timeout=timeout)

    async def stream(
        self,
        argv: Sequence[str],
        out: Hear,
        err: Hear,
        *,
        input: Input = None,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        user: str = "",
        timeout: float | None = None,
    ) -> Completed:
        """As `run`, but the output is handed to ``out`` and ``err`` while the command runs, and there is no limit to it.

        The guest needs room in /tmp for all the output, and for a large input or one that comes piece by piece.
        """
        from tinamou.guest import stream

        return await stream.run(self, command(argv, cwd=cwd, user=user, env=env), out, err, input=input, timeout=timeout)

    async def start(
        self,
        argv: Sequence[str],
        *,
        input: bytes | None = None,
        env: Mapping[str, str] | None = None,
        capture: bool = True,
    ) -> int:
        """``guest-exec``: start a program and return its process number in the guest; ``env`` *replaces* the agent's own."""
        arguments: dict[str, object] = {"path": argv[0], "arg": list(argv[1:]), "capture-output": capture}
        if input is not None:
            arguments["input-data"] = base64.b64encode(input).decode()
        if env is not None:
            arguments["env"] = [f"{name}={value}" for name, value in env.items()]
        return said.number(said.record(await self.command("guest-exec", arguments)), "pid")

    async def progress(self, pid: int) -> ExecStatus:
        """``guest-exec-status``; the agent forgets the process once it has told that it ended."""
        answer = said.record(await self.command("guest-exec-status", {"pid": pid}))
        if not said.flag(answer, "exited"):
            return ExecStatus(None)
        signal = said.number(answer, "signal", 0, least=0, most=_SIGNALS)
        status = -signal if signal else said.number(answer, "exitcode", 0, least=0, most=_STATUS)
        (out, out_cut), (err, err_cut) = _stream(answer, "out"), _stream(answer, "err")
        return ExecStatus(Completed(status, out, err, out_cut or err_cut))

    async def os(self) -> OsInfo:
        """``guest-get-osinfo``."""
        info = said.record(await self.command("guest-get-osinfo"))
        pretty = said.text(info, "pretty-name", said.text(info, "name", ""))
        return OsInfo(
            said.text(info, "id", ""),
            pretty,
            said.text(info, "version-id", ""),
            said.text(info, "kernel-release", ""),
            said.text(info, "machine", ""),
        )

    async def is_windows(self) -> bool:
        """Whether the guest is a Windows, as its agent calls it; asked once."""
        if self.windows is None:
            try:
                self.windows = (await self.os()).id == _WINDOWS
            except AgentRefusedError:
                self.windows = False
        return self.windows

    async def interfaces(self) -> tuple[Interface, ...]:
        """``guest-network-get-interfaces``."""
        found = said.records(await self.command("guest-network-get-interfaces"))
        return tuple(
            Interface(
                said.text(i, "name"),
                said.text(i, "hardware-address", ""),
                tuple(
                    f"{said.text(a, 'ip-address')}/{said.number(a, 'prefix')}"
                    for a in said.records(i.get("ip-addresses", []))
                ),
            )
            for i in found
        )

    async def add_ssh_keys(self, user: str, keys: Iterable[str]) -> None:
        """Add public keys to a user's authorized keys (``guest-ssh-add-authorized-keys``)."""
        await self.command("guest-ssh-add-authorized-keys", {"username": user, "keys": list(keys)})

    async def set_time(self, seconds: float | None = None) -> None:
        """Set the guest's clock, to seconds since 1970; None takes it from the hardware clock."""
        await self.command("guest-set-time", None if seconds is None else {"time": int(seconds * 1_000_000_000)})

    async def freeze(self) -> int:
        """Write the filesystems out and stop them; returns how many. While frozen the agent does little but thaw."""
        return _count(await self.command("guest-fsfreeze-freeze"))

    async def thaw(self) -> int:
        """Let the filesystems go on; returns how many were frozen."""
        return _count(await self.command("guest-fsfreeze-thaw"))

    @contextlib.asynccontextmanager
    async def frozen(self) -> AsyncIterator[int]:
        """Filesystems frozen inside the block; thawed after it whatever happens, also when the freeze answered late."""
        try:
            count = await self.freeze()
        except (AgentSilentError, asyncio.CancelledError):
            with contextlib.suppress(AgentRefusedError, AgentSilentError):
                await self._thaw_surely()
            raise
        try:
            yield count
        finally:
            await self._thaw_surely()

    async def _thaw_surely(self) -> None:
        """Thaw, also when the caller is cancelled meanwhile."""
        thawing = asyncio.ensure_future(self.thaw())
        try:
            await asyncio.shield(thawing)
        except asyncio.CancelledError:
            await asyncio.gather(thawing, return_exceptions=True)
            raise

    async def shutdown(self, mode: Literal["powerdown", "reboot", "halt"] = "powerdown") -> None:
        """Ask the guest to end; returns when the agent took the order, not when the guest has ended."""
        await self.channel.notify("guest-shutdown", {"mode": mode})

    async def close(self) -> None:
        """Give up the line."""
        await self.channel.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()


def _count(answer: object) -> int:
    return said.number({"count": answer}, "count", least=0)


def _stream(answer: Mapping[str, object], name: str) -> tuple[bytes, bool]:
    """What was kept of an output, and whether there was more.

    The agent of QEMU 10.0 says no where there was more, and nothing where there was not; so a no beside as much as is kept
    at most counts as a yes (findings/qemu-ga-says-nothing-was-cut.sh).
    """
    data, told = said.data(answer, f"{name}-data", "", most=CAPTURED), f"{name}-truncated"
    return data, said.flag(answer, told, False) or (told in answer and len(data) == CAPTURED)
