"""The control routes of E2B: sandboxes made, found, prolonged, paused, forked, saved, ended."""

from __future__ import annotations

import base64
import json
import secrets
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import parse_qsl, unquote

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tinamou.errors import StateError, TinamouError
from tinamou.service.agents.e2b.entries import Entry, Snapshot, fresh_id
from tinamou.service.agents.e2b.problems import RefusedError, refusal_of, unsupported
from tinamou.service.agents.e2b.rpc import body_of
from tinamou.service.agents.e2b.sandboxes import Sandboxes, State, record_of
from tinamou.service.agents.e2b.templates import BASE, Template
from tinamou.service.auth import Caller
from tinamou.snapshots.save import memory_of
from tinamou.spec import load_spec
from tinamou.state.folder import plan_of

__all__ = ["VERSION", "Control"]

VERSION = "0.5.7"
"""The version of envd whose calls are served; a higher one would promise more."""

Data = dict[str, Any]

_SECONDS, _FORK_SECONDS, _LONGEST, _MOST_FORKS, _PAGE = 300, 15, 30 * 24 * 3600, 100, 100
_MOST_TEXT, _LARGEST = 64 << 10, 1 << 20
_METRICS = "nproc; head -1 /proc/stat; sleep 0.2; head -1 /proc/stat; cat /proc/meminfo; stat -f -c '%S %b %f' /"
_REFUSED = {
    "mcp": "run an MCP server with commands.run",
    "iam": "there is no issuer of workload tokens",
    "volumeMounts": "there are no volumes; put shares into the template's machine",
    "network": "what a machine may reach is said in the template's machine",
}
"""Fields of a request that are not served, and why."""


class Control:
    """The routes, for callers who are known: each handler is given the request and who makes it."""

    def __init__(self, sandboxes: Sandboxes, domain: str) -> None:
        self._all, self._domain = sandboxes, domain

    async def create(self, request: Request, caller: Caller) -> Response:
        """``POST /v2/sandboxes``."""
        key = fresh_id("sb")
        caller.need("create", key)
        data = await _data(request)
        _refuse(data)
        asked = request.headers.get("idempotency-key", "")[:256]
        if (before := self._all.made_by(caller.name, asked)) is not None:
            return JSONResponse(self._sandbox(before), status_code=201)
        template, name = self._template(str(data.get("templateID") or BASE), caller)
        now = time.time()
        entry = Entry(
            id=key,
            machine=key,
            owner=caller.name,
            template=name,
            token=secrets.token_hex(32),
            started=now,
            deadline=now + _seconds(data, _SECONDS),
            metadata=_texts(data, "metadata"),
            env=_texts(data, "envVars"),
            auto_pause=bool(data.get("autoPause")),
            user=template.user,
            request=asked,
        )
        network = data.get("allow_internet_access") is not False
        made = await self._all.create(entry, template, network=network)
        return JSONResponse(self._sandbox(made), status_code=201)

    def _template(self, wanted: str, caller: Caller) -> tuple[Template, str]:
        if (template := self._all.templates.get(wanted)) is not None:
            return template, wanted
        snapshot = self._all.saved_as(wanted, caller.name)
        if snapshot is None:
            known = ", ".join(sorted(self._all.templates))
            raise RefusedError(404, f"template {wanted[:64]} was not found: there are {known}, and your snapshots")
        return Template(snapshot.id, checkpoint=snapshot.id, user=snapshot.user), snapshot.id

    async def connect(self, request: Request, caller: Caller) -> Response:
        """``POST /v2/sandboxes/{id}/connect``: a longer life; a paused one is taken up."""
        entry = self._found(request, caller, "pause")
        data = await _data(request)
        if data.get("memory") is False:
            raise unsupported("connect with memory=False", "a paused sandbox is taken up where it was")
        entry, resumed = await self._all.connect(entry, _seconds(data, _SECONDS))
        return JSONResponse(self._sandbox(entry), status_code=201 if resumed else 200)

    async def every(self, request: Request, caller: Caller) -> Response:
        """``GET /v2/sandboxes``: page by page."""
        caller.need("ls")
        query = request.query_params
        wanted = _filter(request)
        found = [(entry, state) for entry, state in self._all.every(caller.name) if wanted(entry, state)]
        found.sort(key=lambda one: (one[0].started, one[0].id), reverse=query.get("order", "desc") == "desc")
        page, token = _page(found, query.get("limit", ""), query.get("nextToken", ""))
        return JSONResponse([self._detail(*one) for one in page], headers={"x-next-token": token})

    async def info(self, request: Request, caller: Caller) -> Response:
        """``GET /sandboxes/{id}``."""
        entry = self._found(request, caller, "show")
        return JSONResponse(self._detail(entry, self._all.state(entry)))

    async def kill(self, request: Request, caller: Caller) -> Response:
        """``DELETE /sandboxes/{id}``."""
        await self._all.kill(self._found(request, caller, "rm", gone=True))
        return Response(status_code=204)

    async def timeout(self, request: Request, caller: Caller) -> Response:
        """``POST /sandboxes/{id}/timeout``: so many seconds from now on, more or less than it had."""
        entry = self._found(request, caller, "pause")
        seconds = _seconds(await _data(request), _SECONDS)
        if self._all.state(entry) != "running":
            raise RefusedError(409, f"sandbox {entry.id} is paused: connect takes it up")
        self._all.until(entry, seconds)
        return Response(status_code=204)

    async def metrics(self, request: Request, caller: Caller) -> Response:
        """``GET /sandboxes/{id}/metrics``: what the guest says of this moment, as a list of one."""
        live = await self._all.live(self._found(request, caller, "stats"))
        return JSONResponse([metric_of((await live.run(["sh", "-c", _METRICS])).stdout.decode(errors="replace"))])

    async def pause(self, request: Request, caller: Caller) -> Response:
        """``POST /sandboxes/{id}/pause``."""
        entry = self._found(request, caller, "pause")
        if (await _data(request)).get("memory") is False:
            raise unsupported("pause without memory", "the whole state is saved")
        await self._all.pause(entry)
        return Response(status_code=204)

    async def fork(self, request: Request, caller: Caller) -> Response:
        """``POST /sandboxes/{id}/fork``: all of the copies, or an error for each."""
        entry = self._found(request, caller, "fork")
        data = await _data(request)
        count = data.get("count", 1)
        if not isinstance(count, int) or not 1 <= count <= _MOST_FORKS:
            raise RefusedError(400, f"count is from 1 to {_MOST_FORKS}")
        ids = [fresh_id("sb") for _ in range(count)]
        try:
            made = await self._all.fork(entry, ids, _seconds(data, _FORK_SECONDS))
            answers: list[Data] = [{"sandbox": self._sandbox(one)} for one in made]
        except TinamouError as error:
            refused = refusal_of(error)
            answers = [{"error": {"code": refused.status, "message": refused.message}}] * count
        return JSONResponse(answers, status_code=201)

    async def snapshot(self, request: Request, caller: Caller) -> Response:
        """``POST /sandboxes/{id}/snapshots``."""
        entry = self._found(request, caller, "snapshot")
        data = await _data(request)
        if data.get("memory") is False:
            raise unsupported("a snapshot without memory", "the whole state is saved")
        name = data.get("name")
        if name is not None and (not isinstance(name, str) or not 0 < len(name) <= 128 or name in self._all.templates):
            raise RefusedError(
                400, f"{name!r:.80} cannot be a snapshot's name: it is a template's, or no text of up to 128 letters"
            )
        return JSONResponse(_saved(await self._all.snapshot(entry, [name] if name else [])), status_code=201)

    async def snapshots(self, request: Request, caller: Caller) -> Response:
        """``GET /snapshots``: page by page, the newest first."""
        caller.need("ls")
        query = request.query_params
        mine = [one for one in self._all.snapshots if one.owner == caller.name]
        mine = [one for one in mine if query.get("sandboxID", one.sandbox) == one.sandbox]
        mine = [one for one in mine if not query.get("name") or query["name"] in (one.id, *one.names)]
        mine.sort(key=lambda one: one.created, reverse=True)
        page, token = _page(mine, query.get("limit", ""), query.get("nextToken", ""))
        return JSONResponse([_saved(one) for one in page], headers={"x-next-token": token})

    async def forget(self, request: Request, caller: Caller) -> Response:
        """``DELETE /templates/{id}``: of a snapshot; templates are the configuration's."""
        caller.need("snapshot")
        name = request.path_params["id"]
        snapshot = self._all.saved_as(name, caller.name)
        if snapshot is None and name in self._all.templates:
            raise unsupported("deleting a template", "take it out of the table the service was started with")
        if snapshot is None:
            raise RefusedError(404, f"snapshot {name[:64]} was not found")
        await self._all.forget(snapshot)
        return Response(status_code=204)

    def _found(self, request: Request, caller: Caller, verb: str, *, gone: bool = False) -> Entry:
        """A sandbox of the caller's; a token's patterns are of sandboxes' ids: a pool names its machines by itself."""
        entry = self._all.find(request.path_params["id"], caller.name, gone=gone)
        caller.need(verb, entry.id)
        return entry

    def _sandbox(self, entry: Entry) -> Data:
        return {
            "templateID": entry.template,
            "sandboxID": entry.id,
            "clientID": "tinamou",
            "envdVersion": VERSION,
            "envdAccessToken": entry.token,
            "domain": self._domain,
        }

    def _detail(self, entry: Entry, state: State) -> Data:
        lifecycle = {"onTimeout": "pause" if entry.auto_pause else "kill", "autoResume": False}
        more = {
            "startedAt": _time(entry.started),
            "endAt": _time(entry.deadline or time.time()),
            "state": state,
            "metadata": entry.metadata,
            "lifecycle": lifecycle,
        }
        shown = {key: value for key, value in self._sandbox(entry).items() if key != "envdAccessToken"}
        return {**shown, **more, **_size(entry)}


async def _data(request: Request) -> Data:
    try:
        body = await body_of(request, _LARGEST)
        data = json.loads(body) if body else {}
    except (ValueError, RecursionError) as error:
        raise RefusedError(400, f"the body is no JSON: {error}") from error
    if not isinstance(data, dict):
        raise RefusedError(400, "the body is no JSON object")
    return data


def _refuse(data: Data) -> None:
    """Raises RefusedError naming what of a request is not served."""
    for field, why in _REFUSED.items():
        if data.get(field):
            raise unsupported(field, why)
    if data.get("autoPauseMemory") is False:
        raise unsupported("autoPauseMemory=false", "the whole state is saved")
    if (data.get("autoResume") or {}).get("enabled"):
        raise unsupported("autoResume", "Sandbox.connect takes a paused sandbox up")


def _seconds(data: Data, default: int) -> int:
    value = data.get("timeout", default)
    if type(value) is not int or not 0 <= value <= _LONGEST:
        raise RefusedError(400, f"timeout is a whole number of seconds, from 0 to {_LONGEST}")
    return value


def _texts(data: Data, field: str) -> dict[str, str]:
    value = data.get(field) or {}
    if not isinstance(value, dict) or not all(isinstance(one, str) for one in value.values()):
        raise RefusedError(400, f"{field} is a table of texts")
    if sum(len(name) + len(one) for name, one in value.items()) > _MOST_TEXT:
        raise RefusedError(400, f"{field} has more than {_MOST_TEXT} letters")
    return value


def _filter(request: Request) -> Callable[[Entry, State], bool]:
    """Which sandboxes a list is asked for; metadata is a query within the query, its values encoded. Raises RefusedError."""
    query = request.query_params
    metadata = {name: unquote(value) for name, value in parse_qsl(query.get("metadata", ""), keep_blank_values=True)}
    states = [one for part in query.getlist("state") for one in part.split(",")]
    since = query.get("startedAfter", "")
    try:
        after = datetime.fromisoformat(since.replace(" ", "+")).timestamp() if since else 0.0
    except ValueError as error:
        raise RefusedError(400, f"startedAfter is no time: {error}") from error

    def wanted(entry: Entry, state: State) -> bool:
        return (
            entry.started > after
            and (not states or state in states)
            and query.get("template", entry.template) == entry.template
            and all(entry.metadata.get(name) == value for name, value in metadata.items())
        )

    return wanted


def _page(found: list[Any], limit: str, token: str) -> tuple[list[Any], str]:
    """The page that begins at a token, and the token of the next one, empty where there is none. Raises RefusedError."""
    try:
        start = int(base64.urlsafe_b64decode(token)) if token else 0
        size = int(limit) if limit else _PAGE
    except ValueError as error:
        raise RefusedError(400, f"limit and nextToken are not understood: {error}") from error
    if not 1 <= size <= _PAGE or start < 0:
        raise RefusedError(400, f"limit is from 1 to {_PAGE}")
    more = start + size < len(found)
    return found[start : start + size], base64.urlsafe_b64encode(str(start + size).encode()).decode() if more else ""


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _saved(snapshot: Snapshot) -> Data:
    return {"snapshotID": snapshot.id, "names": list(snapshot.names)}


def _size(entry: Entry) -> Data:
    """What its machine was given: virtual CPUs, memory; a disk only where its template's machine has one."""
    record = record_of(entry)
    try:
        assert record is not None
        spec, memory = load_spec(record.spec), memory_of(plan_of(record))
    except (AssertionError, StateError):
        return {"cpuCount": 0, "memoryMB": 0, "diskSizeMB": 0}
    disks = sum(int(one.size) for one in spec.disk if one.size)
    return {"cpuCount": spec.cpu.count or 1, "memoryMB": memory >> 20, "diskSizeMB": disks >> 20}


def metric_of(text: str) -> Data:
    """A metric out of the number of CPUs, two looks at /proc/stat, meminfo and the file system at /. Raises RefusedError."""
    try:
        count, first, second, *lines = text.splitlines()
        memory = {
            words[0].rstrip(":"): int(words[1]) << 10 for line in lines if line.endswith("kB") and (words := line.split())
        }
        processors = int(count)
        block, blocks, unused = (int(word) for word in lines[-1].split())
        busy, over = (after - before for before, after in zip(_ticks(first), _ticks(second), strict=True))
        total, free, cached = (memory[name] for name in ("MemTotal", "MemAvailable", "Cached"))
        share = round(100 * busy / over, 2) if over else 0.0
    except (ValueError, IndexError, KeyError, OverflowError) as error:
        raise RefusedError(500, f"the guest does not say what it uses: {error!r}") from error
    now = time.time()
    return {
        "timestamp": _time(now),
        "timestampUnix": int(now),
        "cpuCount": processors,
        "cpuUsedPct": share,
        "memTotal": total,
        "memUsed": total - free,
        "memCache": cached,
        "diskUsed": block * (blocks - unused),
        "diskTotal": block * blocks,
    }


def _ticks(line: str) -> Iterator[int]:
    """Busy, and in all, of all CPUs (source: proc(5), /proc/stat: the fourth and fifth are idle ones)."""
    ticks = [int(word) for word in line.split()[1:9]]
    yield sum(ticks) - ticks[3] - ticks[4]
    yield sum(ticks)
