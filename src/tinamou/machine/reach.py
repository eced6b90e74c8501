"""What a program does with a running guest beside short commands: output as it comes, files, the console's log, ssh."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinamou.errors import GuestError
from tinamou.facts import files
from tinamou.machine.connected import Connected
from tinamou.machine.of_host import of_host

if TYPE_CHECKING:
    from tinamou.guest.copy import Copied
    from tinamou.state.record import Record

__all__ = ["Reach"]


@of_host
class Reach:
    """The part of `AsyncMachine` that carries things into the guest and out of it."""

    @property
    def record(self) -> Record:
        """Its record in the state directory."""
        raise NotImplementedError

    def _at_hand(self, *, long: bool = False) -> AbstractAsyncContextManager[Connected]:
        """The running machine with its lines."""
        raise NotImplementedError

    async def stream(
        self,
        command: str | Sequence[str],
        hear: Callable[[bytes], None],
        *,
        complaints: Callable[[bytes], None] | None = None,
        input: bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        user: str = "",
        timeout: float | None = None,
    ) -> int:
        """Run a command and hand over what it prints while it runs, without limit; returns its exit status.

        ``hear`` is given its stdout piece by piece, ``complaints`` its stderr (``hear`` too when left out). The rest is as
        for `run`.
        """
        how: dict[str, Any] = {"input": input, "env": env, "cwd": cwd, "user": user, "timeout": timeout}
        async with self._at_hand() as machine:
            return await machine.stream(command, hear, complaints or hear, **how)

    async def put(self, source: str | Path, target: str) -> Copied:
        """Copy a file or folder of this host into the guest, where ``target`` is its new name or a folder it goes into.

        ``"FOLDER/."`` is what is in a folder. Modes are kept, holes stay holes, and both ends compare the sha256. Raises
        GuestError; OSError when the source cannot be read.
        """
        from tinamou.guest.copy import into_guest

        async with self._at_hand() as machine:
            return await into_guest(await machine.settled_agent(), source, target, directory=machine.record.directory)

    async def get(self, source: str, target: str | Path, *, limit: int | None = None) -> Copied:
        """Copy a file or folder of the guest to this host, where ``target`` is its new name or a folder it goes into.

        The guest may send ``limit`` bytes, or nine tenths of the room there is. Nothing but ``target`` is touched, whatever
        it sends. Raises GuestError, OSError.
        """
        from tinamou.guest.copy import out_of_guest

        async with self._at_hand() as machine:
            agent, directory = await machine.settled_agent(), machine.record.directory
            return await out_of_guest(agent, source, target, directory=directory, limit=limit)

    async def read(self, path: str) -> bytes:
        """What is in a file of the guest, up to 64 MiB. Raises GuestError."""
        from tinamou.guest.files import read

        async with self._at_hand() as machine:
            return await read(await machine.settled_agent(), path)

    async def write(self, path: str, data: bytes | str) -> None:
        """Make a file in the guest, or replace what is in it. Raises GuestError."""
        from tinamou.guest.files import write

        async with self._at_hand() as machine:
            await write(await machine.settled_agent(), path, [data.encode() if isinstance(data, str) else data])

    def log(self) -> str:
        """What the guest has printed on its console so far, the last 4 MiB of it or a little more."""
        from tinamou.system.logs import kept

        return kept(self.record.file(files.SERIAL_LOG)).decode(errors="replace")

    def ssh_command(self, *words: str) -> list[str]:
        """The ``ssh`` command line to a shell in the guest, or to the command of ``words``, with the machine's own key.

        Raises GuestError where the image has no ssh server, or no way leads to it.
        """
        from tinamou.guest.ssh import ssh_argv, target

        record = self.record
        if record.ssh_port is None:
            why = f"the image {record.image} runs no ssh server, as far as is known"
            raise GuestError(f"{record.name} cannot be reached by ssh", why=why, fix="run commands with run()")
        return ssh_argv(target(record.directory, record.ssh_user or "root", record.ssh_port), words)
