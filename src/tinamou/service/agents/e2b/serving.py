"""Where E2B's protocol is served, for ``tinamou serve --e2b``."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import TYPE_CHECKING

from tinamou.errors import Problem, SpecError
from tinamou.late import dataclass

if TYPE_CHECKING:
    from starlette.types import ASGIApp

__all__ = ["Address", "served"]

_LOCAL = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Address:
    """An address for E2B's clients: by TLS, which they want for sandboxes below a ``domain``, or for this host alone.

    ``templates`` is the table of templates, ``most`` how many sandboxes there may be at a time.
    """

    address: tuple[str, int]
    domain: str = ""
    templates: Path | None = None
    most: int = 100

    def check(self) -> None:
        """Raises SpecError where others could read keys on their way."""
        if self.most < 1:
            raise SpecError("no sandbox could be", problems=[Problem("--e2b-most", self.most, "is none", "from 1 on")])
        if self.domain or self.address[0] in _LOCAL:
            return
        reason = "keys would go over the net for everybody to read"
        fix = "listen on 127.0.0.1, or name a domain that leads here: --e2b-domain, --tls-cert, --tls-key"
        raise SpecError(
            "E2B's protocol cannot be served there",
            problems=[Problem("--e2b", ":".join(map(str, self.address)), reason, fix)],
        )


@contextlib.asynccontextmanager
async def served(address: Address) -> AsyncIterator[ASGIApp]:
    """The application; sandboxes live by their deadlines while the block lasts. Raises SpecError, StateError."""
    from tinamou.service.agents.e2b.app import application
    from tinamou.service.agents.e2b.sandboxes import Sandboxes
    from tinamou.service.agents.e2b.templates import load

    address.check()
    async with Sandboxes(load(address.templates), most=address.most) as sandboxes:
        yield application(sandboxes, domain=address.domain)
