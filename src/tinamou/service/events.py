"""Events as a stream that browsers and programs keep open (source: WHATWG HTML, server-sent events)."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from typing import Any

from starlette.responses import StreamingResponse

from tinamou.errors import Problem, SpecError
from tinamou.service.auth import Caller
from tinamou.service.feed import Event
from tinamou.service.table import Asked

__all__ = ["stream"]

_BREATH_SECONDS = 15.0
"""Something is sent at least so often, so that whoever stands between does not take the connection for dead."""


async def stream(asked: Asked) -> StreamingResponse:
    """What happens from now on, or from after an event on: ``Last-Event-ID``, or ``after`` in the query.

    Where events after that one are no longer known, one of the kind ``gap`` comes first: look at everything anew.
    """
    text = asked.request.headers.get("last-event-id", "") or asked.query.after
    if text and not (text.isascii() and text.isdecimal() and len(text) < 19):
        raise SpecError("it is not clear from where on", problems=[Problem("after", text[:60], "no number of an event")])
    abort = getattr(asked.request.state, "abort", None)
    found = _told(asked, int(text) if text else None, abort or (lambda: None))
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(found, media_type="text/event-stream", headers=headers)


async def _told(asked: Asked, after: int | None, cut: Any) -> AsyncIterator[str]:
    feed = asked.service.feed
    async with feed.listening(cut) as listener:
        last = feed.last if after is None else after
        missed, gap = feed.since(last)
        yield "retry: 1000\n\n"
        if gap:
            yield f"id: {feed.last}\nevent: gap\ndata: {json.dumps({'after': last})}\n\n"
            missed = []
            last = feed.last
        for event in missed:
            last = event["id"]
            if _may_hear(asked.caller, event):
                yield _spelled(event)
        while not listener.slow:
            next_one = await listener.next(_BREATH_SECONDS)
            if next_one is None and not listener.slow:
                yield ": still here\n\n"
            elif next_one is not None and next_one.get("id", last + 1) > last and _may_hear(asked.caller, next_one):
                yield _spelled(next_one)


def _may_hear(caller: Caller, event: Event) -> bool:
    """Whether it is about a machine of the caller's; what is about the host, for whoever may look at all machines."""
    if event["about"]:
        return caller.may("events", event["about"])
    return caller.may("events") and "*" in caller.machines


def _spelled(event: Event) -> str:
    number = f"id: {event['id']}\n" if "id" in event else ""  # without one the browser's last stays what it was
    return f"{number}event: {event['kind']}\ndata: {json.dumps(event, default=str)}\n\n"
