"""One question to many hosts at once: each answers, or is silent, within its own time, and none holds up another."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from tinamou.errors import HostError, TinamouError
from tinamou.fleet import remote
from tinamou.fleet.hosts import Host
from tinamou.late import dataclass

__all__ = ["Answer", "ask", "ask_all"]


@dataclass(frozen=True)
class Answer:
    """What a host said: ``data``, or the ``error`` where there is none."""

    host: str
    data: Any = None
    error: TinamouError | None = None

    @property
    def why(self) -> str:
        """Why there is no answer, in one line; empty where there is one."""
        if self.error is None:
            return ""
        return f"{self.error.what}: {self.error.why}" if self.error.why else self.error.what


async def ask(host: Host, words: Sequence[str], *, times: float = 1.0) -> Answer:
    """What ``tinamou WORDS --json`` says on one host; ``times`` is how often its patience the question may take."""
    try:
        return Answer(host.name, await remote.call_json(host, words, timeout=host.patience * times))
    except TinamouError as error:
        return Answer(host.name, error=error)
    except (OSError, ValueError) as error:  # no more processes or files here
        return Answer(host.name, error=HostError(f"{host.name} cannot be asked", why=str(error)))


async def ask_all(hosts: Sequence[Host], words: Sequence[str], *, times: float = 1.0) -> list[Answer]:
    """The same of each host, at once; the answers in the order of the hosts."""
    return list(await asyncio.gather(*(ask(host, words, times=times) for host in hosts)))
