"""Errors as the service answers them: problem+json (RFC 9457) with tinamou's code, why, fix and every problem by field."""

from __future__ import annotations

import json
from collections.abc import Mapping

from starlette.responses import Response

from tinamou.errors import GuestError, ImageError, PlanError, SpecError, StateError, TinamouError
from tinamou.late import dataclass
from tinamou.service.auth import NotAllowedError

__all__ = ["Answer", "MissingError", "problem_of", "refusal", "status_of", "told"]

_KEPT = 2000
"""Characters of a text of evidence, which is a log's tail, in an answer."""


class MissingError(StateError):
    """There is no such thing, or none that the caller may know of; the service answers 404."""


@dataclass(frozen=True)
class Answer:
    """A refusal that is none of the product's own errors: an HTTP status, what, why and what to do."""

    status: int
    what: str
    why: str = ""
    fix: str = ""


def status_of(error: TinamouError) -> int:
    """The HTTP status of an error: who must do something else about it."""
    if isinstance(error, NotAllowedError):
        return 403
    if isinstance(error, MissingError):
        return 404
    if isinstance(error, SpecError | PlanError | ImageError):
        return 422
    if isinstance(error, StateError):
        return 409
    return 424 if isinstance(error, GuestError) else 503


def problem_of(error: TinamouError) -> dict[str, object]:
    """The body: RFC 9457's members, and `TinamouError.to_json`'s beside them."""
    plain = error.to_json()
    plain["evidence"] = {name: text[-_KEPT:] for name, text in error.evidence.items()}
    plain["problems"] = [{"field": one["path"], **one} for one in plain["problems"]]  # type: ignore[attr-defined]
    return {
        "type": "about:blank",
        "title": error.what,
        "status": status_of(error),
        "detail": error.why or error.what,
        **plain,
    }


def told(body: dict[str, object], status: int, headers: Mapping[str, str] | None = None) -> Response:
    """The response. Whatever a caller wrote is in it, half characters too: it is written in ASCII."""
    return Response(json.dumps(body), status, headers, media_type="application/problem+json")


def refusal(answer: Answer) -> dict[str, object]:
    """The same members for what never came to an operation."""
    return {
        "type": "about:blank",
        "title": answer.what,
        "status": answer.status,
        "detail": answer.why or answer.what,
        "error": answer.what,
        "stage": "service",
        "code": 119,
        "why": answer.why,
        "fix": answer.fix,
        "problems": [],
        "evidence": {},
    }
