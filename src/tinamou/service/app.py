"""The application: the table of routes behind the door, and what other packages give it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from starlette.applications import Starlette

from tinamou.late import dataclass
from tinamou.service.door import Door

if TYPE_CHECKING:
    from starlette.routing import BaseRoute
    from starlette.types import ASGIApp

__all__ = ["Settings", "application"]


@dataclass(frozen=True)
class Settings:
    """How the service is reached: ``names`` are hosts by which it is, ``secure`` whether all of it goes through TLS."""

    names: tuple[str, ...] = ()
    secure: bool = False


def application(settings: Settings | None = None, more: Sequence[BaseRoute] = ()) -> ASGIApp:
    """The ASGI application; ``more`` are further routes behind the same door."""
    settings = settings or Settings()
    return Door(Starlette(routes=[*more]), names=settings.names)
