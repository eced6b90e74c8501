"""Refusals in the shapes E2B's client reads: of the control routes, of files, of remote calls."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from starlette.responses import JSONResponse

from tinamou.errors import GuestError, ImageError, NoCommandError, PlanError, SpecError, StateError, TimeLimitError
from tinamou.guest.resident.line import LineError
from tinamou.service.auth import NotAllowedError

__all__ = ["CODES", "RefusedError", "answer", "gone", "refusal_of", "unsupported"]

CODES = {
    "invalid_argument": 400,
    "failed_precondition": 400,
    "unauthenticated": 401,
    "permission_denied": 403,
    "not_found": 404,
    "already_exists": 409,
    "resource_exhausted": 429,
    "internal": 500,
    "unimplemented": 501,
    "unavailable": 503,
    "deadline_exceeded": 504,
}
"""Code of a remote call → HTTP status (source: the Connect protocol, Error codes)."""


class RefusedError(Exception):
    """A request that is not served: an HTTP status, the words for it, a code for remote calls, more for the body."""

    def __init__(self, status: int, message: str, *, code: str = "", body: Mapping[str, object] | None = None) -> None:
        super().__init__(message)
        self.status: int = status
        self.message: str = message
        self.code: str = code or next((name for name, number in CODES.items() if number == status), "internal")
        self.body: dict[str, object] = dict(body or {})


def unsupported(what: str, why: str) -> RefusedError:
    """What E2B has and this does not, by name."""
    return RefusedError(501, f"{what} is not supported by tinamou: {why}")


def gone(sandbox: str) -> RefusedError:
    """The answer for a sandbox that does not run; the client knows it by these words."""
    body = {"sandboxId": sandbox, "message": "The sandbox was not found", "code": 502}
    return RefusedError(502, "The sandbox was not found", code="unavailable", body=body)


def answer(refused: RefusedError) -> JSONResponse:
    """The answer of a control route or of files. It is final: the client, which tries again by itself, must not."""
    body = {"code": refused.status, "message": refused.message, **refused.body}
    return JSONResponse(body, status_code=refused.status, headers={"Should-Retry": "false"})


def refusal_of(error: Exception) -> RefusedError:
    """An error of the product as a refusal, with all it says."""
    kinds: tuple[tuple[Any, int, str], ...] = (
        (NotAllowedError, 403, "permission_denied"),
        (SpecError | PlanError | ImageError, 400, "invalid_argument"),
        (StateError, 409, "failed_precondition"),
        (TimeLimitError, 504, "deadline_exceeded"),
        (NoCommandError, 400, "invalid_argument"),
        (LineError, 503, "unavailable"),
        (GuestError, 400, "failed_precondition"),
    )
    status, code = next(((number, code) for kind, number, code in kinds if isinstance(error, kind)), (500, "internal"))
    return RefusedError(status, str(error), code=code)
