"""Reading what a guest's agent answered: what has not the shape it must have is a GuestError that says so."""

from __future__ import annotations

from tinamou.control.answers import Reader
from tinamou.errors import GuestError

__all__ = ["said"]

said: Reader = Reader("The guest's agent", GuestError)
