"""Scripts in the guest of a running machine: one after the other, what each prints, up to so many bytes."""

from __future__ import annotations

from collections.abc import AsyncIterator

from tinamou.errors import GuestError
from tinamou.guest.command import Command
from tinamou.images.progress import Progress, silent
from tinamou.operations.commands import stream

__all__ = ["Inside"]


class Inside:
    """The way into a machine's guest. ``what`` cannot be used where a script fails, and ``fix`` says what helps."""

    def __init__(self, name: str, what: str, fix: str, progress: Progress = silent) -> None:
        self.name: str = name
        self._what = what
        self._fix = fix
        self._progress = progress

    async def run(self, script: str, input: bytes = b"", most: int = 1 << 16, *words: str) -> bytes:
        """What a script of the shell prints; it gets these bytes as its input, and words. Raises GuestError."""
        out, err = bytearray(), bytearray()

        async def given() -> AsyncIterator[bytes]:
            yield input

        status = await stream(
            self.name,
            Command(("sh", "-c", script, "sh", *words)),
            lambda piece: out.extend(piece[: max(0, most + 1 - len(out))]),
            lambda piece: err.extend(piece[: max(0, 4096 - len(err))]),
            input=given(),
            time_limit=60,
            progress=self._progress,
        )
        if len(out) > most:
            raise GuestError(f"the guest of {self.name} says too much", why=f"more than {most} bytes")
        if status:
            why = err.decode(errors="replace").strip() or f"status {status}"
            raise GuestError(f"{self._what} of {self.name} cannot be used", why=why, fix=self._fix)
        return bytes(out)
