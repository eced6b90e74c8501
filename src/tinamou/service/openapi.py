"""The OpenAPI document, made of the table that routes, the classes that read requests, and the shapes of answers below."""

from __future__ import annotations

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tinamou import fields, late
from tinamou.service.table import Nothing, Route
from tinamou.version import __version__

__all__ = ["document"]

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_NUMBER: Schema = {"type": "number"}
_WHOLE: Schema = {"type": "integer"}
_OBJECT: Schema = {"type": "object"}


def _table(required: Mapping[str, Schema], **more: Schema) -> Schema:
    return {"type": "object", "properties": {**required, **more}, "required": list(required)}


def _list(of: Schema) -> Schema:
    return {"type": "array", "items": of}


def _or_null(of: Schema) -> Schema:
    return {"anyOf": [of, {"type": "null"}]}


_PROBLEM = _table({"field": _TEXT, "path": _TEXT, "value": {}, "reason": _TEXT, "fix": _TEXT})
_ERROR = _table({"error": _TEXT, "stage": _TEXT, "code": _WHOLE, "why": _TEXT, "fix": _TEXT})
_ROW = _table(
    {
        **{"name": _TEXT, "state": _TEXT, "image": _TEXT, "arch": _TEXT, "accel": _TEXT, "pid": _or_null(_WHOLE)},
        **{"age": _WHOLE, "created": {"type": "number"}, "cpus": _WHOLE, "memory": _WHOLE},
        **{"addresses": _list(_TEXT), "ports": _list(_TEXT)},
    },
    why=_or_null(_TEXT),
    late=_or_null(_TEXT),
    replica=_or_null(_table({"host": _TEXT, "at": {"type": "number"}, "age": _WHOLE})),
)
_FINDING = _table({"machine": _or_null(_TEXT), **dict.fromkeys(("check", "title", "severity", "evidence", "fix"), _TEXT)})
_STATES = ("running", "done", "failed", "cancelled", "interrupted")
_WHY = {"asked_by": _TEXT, "reason": _TEXT}

SCHEMAS: dict[str, Schema] = {
    "Object": _OBJECT,
    "Problem": _table(
        {"type": _TEXT, "title": _TEXT, "status": _WHOLE, "detail": _TEXT, **_ERROR["properties"]},
        problems=_list(_PROBLEM),
        evidence=_OBJECT,
    ),
    "Me": _table({"name": _TEXT, "verbs": _list(_TEXT), "machines": _list(_TEXT)}),
    "Machines": _table({"machines": _list(_ROW), "next": _or_null(_TEXT)}),
    "Machine": _table({"name": _TEXT, "state": _TEXT, "image": _TEXT, "arch": _TEXT, "spec": _OBJECT, "created": _NUMBER}),
    "Operation": _table(
        {
            "id": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
            "verb": _TEXT,
            "about": _TEXT,
            "state": {"enum": list(_STATES)},
            "started": _NUMBER,
            "ended": _or_null(_NUMBER),
            "progress": _table({"text": _TEXT, "fraction": _or_null(_NUMBER)}),
            "error": _or_null(_ERROR),
            "result": {},
            "caller": _TEXT,
        }
    ),
    "Operations": _table({"operations": _list({"$ref": "#/components/schemas/Operation"}), "next": _or_null(_TEXT)}),
    "Plan": _table(
        {
            "name": _TEXT,
            "arch": _TEXT,
            "machine_type": _TEXT,
            "accel": _TEXT,
            "binary": _TEXT,
            "argv": _list(_TEXT),
            "arguments": _list(_table({"words": _list(_TEXT), **_WHY})),
            "steps": _list(_table({"step": _TEXT, **_WHY})),
            "walls": _list(_table({"name": _TEXT, "stands": {"type": "boolean"}, "why": _TEXT})),
            "notes": _list(_table({"level": _TEXT, "text": _TEXT, **_WHY})),
        }
    ),
    "Snapshots": _table({"current": _or_null(_WHOLE), "snapshots": _list(_table({"number": _WHOLE, "name": _TEXT}))}),
    "Disks": _table({"disks": _list(_table({"name": _TEXT, "file": _TEXT, "size": _WHOLE, "used": _WHOLE}))}),
    "Nics": _table({"nics": _list(_table({"name": _TEXT, "type": _TEXT, "mac": _TEXT}))}),
    "Findings": _table({"findings": _list(_FINDING)}),
    "Ran": _table({"status": _WHOLE, "seconds": _NUMBER, "out": _TEXT, "err": _TEXT}),
    "Ticket": _table({"ticket": _TEXT, "seconds": _NUMBER}),
    "Viewing": _table({"address": _TEXT, "tls": {"type": "boolean"}, "password": _TEXT, "seconds": _WHOLE}),
    "Written": _table({"path": _TEXT, "bytes": _WHOLE, "verified": {"type": "boolean"}}),
}
"""What is answered. More may come in an object; what is named is there."""

_HEADERS = [
    {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "asked again with the same key, it is not done twice: the operation that is known is answered",
        "schema": {"type": "string", "maxLength": 200},
    }
]
_REFUSALS = {
    "400": "the request is damaged",
    "401": "it is not known who asks",
    "403": "the caller may not do this",
    "404": "there is no such thing",
    "405": "not with this method",
    "408": "the request did not come",
    "409": "the machine and the request do not fit together",
    "413": "the request is too large",
    "415": "the request is not JSON",
    "421": "another service was asked for",
    "422": "what was said is not understood, or cannot be",
    "424": "the guest did not do its part",
    "429": "too much is under way",
    "503": "the host, or QEMU, did not do its part",
}


def document(routes: Sequence[Route]) -> dict[str, Any]:
    """The document of these routes (source: OpenAPI 3.1.1). WebSockets are named in its description."""
    paths: dict[str, dict[str, Any]] = {}
    sockets = []
    for one in routes:
        if one.method == "WEBSOCKET":
            sockets.append(f"{one.path}: {one.summary}")
        else:
            paths.setdefault(one.path, {})[one.method.lower()] = _operation(one)
    return {
        "openapi": "3.1.1",
        "info": {
            "title": "tinamou",
            "version": __version__,
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
            "description": "Virtual machines. By WebSocket: " + "; ".join(sockets),
        },
        "paths": paths,
        "components": {
            "schemas": SCHEMAS,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer"}},
            "responses": {
                status: {
                    "description": text,
                    "content": {"application/problem+json": {"schema": {"$ref": "#/components/schemas/Problem"}}},
                }
                for status, text in _REFUSALS.items()
            },
        },
        "security": [{"token": []}],
    }


def _operation(route: Route) -> dict[str, Any]:
    named = [
        {"name": name, "in": "path", "required": True, "schema": {"type": "string"}}
        for name in re.findall(r"{(\w+)}", route.path)
    ]
    content = {route.media: {"schema": _answer(route)}}
    answers: dict[str, Any] = {str(route.status): {"description": route.summary, "content": content}}
    if route.long:
        answers["200"] = {"description": "it has ended", "content": content}
    if route.method == "GET" and route.media == "application/json":
        answers["304"] = {"description": "it is as the If-None-Match says"}
    if route.media == "application/octet-stream":
        answers["206"] = {"description": "the range that was asked for", "content": content}
        answers["416"] = {"description": "there is no such range"}
    answers |= {status: {"$ref": f"#/components/responses/{status}"} for status in _REFUSALS}
    verb = f" Needs the verb {route.verb}." if route.verb else ""
    found: dict[str, Any] = {
        "operationId": route.call.__name__,
        "summary": route.summary,
        "description": f"{inspect.getdoc(route.call) or ''}{verb}",
        "parameters": [*named, *_query(route), *(_HEADERS if route.long else ())],
        "responses": dict(sorted(answers.items())),
    }
    if route.streams:
        found["requestBody"] = {"content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}}
    elif route.body is not Nothing:
        found["requestBody"] = {"content": {"application/json": {"schema": _bare(route.body)}}}
    return found


def _answer(route: Route) -> Schema:
    return {"$ref": f"#/components/schemas/{route.answer}"} if route.media == "application/json" else {"type": "string"}


def _bare(cls: type) -> Schema:
    return {key: value for key, value in fields.json_schema(cls).items() if key != "$schema"}


def _query(route: Route) -> Iterator[dict[str, Any]]:
    schema = _bare(route.query)["properties"]
    for one in late.fields(route.query):
        kind = {key: value for key, value in schema[one.name].items() if key != "description"}
        if pattern := one.metadata.get("pattern"):
            kind["pattern"] = f"^{pattern}$"
        yield {"name": one.name, "in": "query", "description": one.metadata.get("doc", ""), "schema": kind}
