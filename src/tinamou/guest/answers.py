"""Reading what a guest's agent answered: what has not the shape it must have is a GuestError that says so."""

from __future__ import annotations

from tinamou.control.answers import Reader
from tinamou.errors import GuestError

__all__ = ["agent", "data", "flag", "member", "number", "record", "records", "text"]

agent = Reader("The guest's agent", GuestError)
record, records, member = agent.record, agent.records, agent.member
text, number, flag, data = agent.text, agent.number, agent.flag, agent.data
