"""The remote calls about files: `filesystem.Filesystem` of envd."""

from __future__ import annotations

import asyncio
import datetime
import posixpath
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from tinamou.guest.command import Completed
from tinamou.service.agents.e2b.entries import fresh_id
from tinamou.service.agents.e2b.live import Live
from tinamou.service.agents.e2b.problems import RefusedError
from tinamou.service.agents.e2b.rpc import beat_of, limited, message_of, seconds_of, streamed, unary
from tinamou.service.agents.e2b.watching import Watch
from tinamou.service.agents.listing import Found, links, look, walk

__all__ = ["METHODS", "call", "entry_of", "found_at"]

Data = dict[str, Any]

_DEEPEST, _WATCHES = 64, 64
_LATEST = 253402300799
"""The last second of the year 9999, which is the last one that JSON's times have."""
_MISSING, _THERE, _ODD = 44, 45, 46
"""Exit statuses of the scripts below."""
_MAKE = f'[ -d "$1" ] && exit {_THERE}; [ -e "$1" ] || [ -L "$1" ] && exit {_ODD}; mkdir -p -- "$1"'
_MOVE = f"""
[ -e "$1" ] || [ -L "$1" ] || exit {_MISSING}
[ -d "$2" ] && ! [ -L "$2" ] && exit {_ODD}
mkdir -p -- "$(dirname -- "$2")" && mv -f -- "$1" "$2"
"""


async def call(request: Request, live: Live, user: str, method: str) -> Response:
    """Answer a call. Raises RefusedError, TinamouError."""
    if method == "WatchDir":
        watch = await _watching(live, await message_of(request), user)
        return streamed(limited(_changes(watch, beat_of(request)), seconds_of(request)))
    return await unary(request, lambda message: METHODS[method](live, message, user))


async def found_at(live: Live, path: str, user: str) -> Found:
    """What is at a path. Raises RefusedError where there is nothing."""
    found = await look(live.runner(user), path)
    if found is None:
        raise RefusedError(404, f"there is nothing at {path}")
    return found


async def _run(live: Live, user: str, script: str, *words: str) -> Completed:
    done = await live.run(["sh", "-c", script, "sh", *words], user=user)
    if done.status == _MISSING:
        raise RefusedError(404, f"there is nothing at {words[0]}")
    if done.status not in (0, _THERE, _ODD):
        raise RefusedError(400, done.stderr.decode(errors="replace").strip() or f"it ended with status {done.exit_status}")
    return done


async def _entries(live: Live, found: Sequence[Found], user: str) -> list[Data]:
    linked = await links(live.runner(user), [one.path for one in found if stat.S_ISLNK(one.mode)])
    return [entry_of(one, linked.get(one.path)) for one in found]


def entry_of(one: Found, target: str | None) -> Data:
    """A `filesystem.EntryInfo` as JSON, with where a link leads."""
    kinds = {stat.S_IFREG: "FILE", stat.S_IFDIR: "DIRECTORY", stat.S_IFLNK: "SYMLINK"}
    when = datetime.datetime.fromtimestamp(min(max(one.modified, 0), _LATEST), datetime.UTC)
    entry = {
        "name": _text(posixpath.basename(one.path)) or "/",
        "type": f"FILE_TYPE_{kinds.get(stat.S_IFMT(one.mode), 'UNSPECIFIED')}",
        "path": _text(one.path),
        "size": str(one.size),
        "mode": stat.S_IMODE(one.mode),
        "permissions": stat.filemode(one.mode),
        "owner": one.owner,
        "group": one.group,
        "modifiedTime": when.strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return entry if target is None else {**entry, "symlinkTarget": _text(target)}


def _text(path: str) -> str:
    """A name as JSON can say it: bytes that are no UTF-8 become replacement characters."""
    return path.encode(errors="surrogateescape").decode(errors="replace")


async def _stat(live: Live, message: Data, user: str) -> Data:
    found = await found_at(live, await live.path(message.get("path", ""), user), user)
    return {"entry": (await _entries(live, [found], user))[0]}


async def _make_dir(live: Live, message: Data, user: str) -> Data:
    path = await live.path(message.get("path", ""), user)
    done = await _run(live, user, _MAKE, path)
    if done.status == _THERE:
        raise RefusedError(409, f"{path} is a folder already", code="already_exists")
    if done.status == _ODD:
        raise RefusedError(400, f"{path} is there, and no folder")
    return await _stat(live, {"path": path}, user)


async def _move(live: Live, message: Data, user: str) -> Data:
    source, target = [await live.path(message.get(key, ""), user) for key in ("source", "destination")]
    if (await _run(live, user, _MOVE, source, target)).status == _ODD:
        raise RefusedError(400, f"{target} is a folder already")
    return await _stat(live, {"path": target}, user)


async def _list_dir(live: Live, message: Data, user: str) -> Data:
    path = await live.path(message.get("path", ""), user)
    await _folder(live, path, user)
    depth = min(int(message.get("depth") or 1), _DEEPEST)
    return {"entries": await _entries(live, await walk(live.runner(user), path, depth), user)}


async def _folder(live: Live, path: str, user: str) -> None:
    found = await look(live.runner(user), path, follow=True)
    if found is None:
        raise RefusedError(404, f"there is nothing at {path}")
    if not stat.S_ISDIR(found.mode):
        raise RefusedError(400, f"{path} is no folder")


async def _remove(live: Live, message: Data, user: str) -> Data:
    path = await live.path(message.get("path", ""), user)
    await _run(live, user, 'rm -rf -- "$1"', path)
    return {}


async def _watching(live: Live, message: Data, user: str) -> Watch:
    if message.get("includeEntry") or message.get("include_entry"):
        raise RefusedError(501, "what is changed is not described in events: ask for it", code="unimplemented")
    path = await live.path(message.get("path", ""), user)
    await _folder(live, path, user)
    if len(live.watches) >= _WATCHES:
        raise RefusedError(429, f"{_WATCHES} folders are watched already")
    watch = Watch(live.runner(user), path, deep=bool(message.get("recursive")))
    await watch.start()
    return watch


async def _changes(watch: Watch, beat: float) -> AsyncIterator[Data]:
    try:
        yield {"start": {}}
        while True:
            try:
                async with asyncio.timeout(beat):
                    await watch.changed.wait()
            except TimeoutError:
                yield {"keepalive": {}}
            for change in watch.take():
                yield {"filesystem": change}
            if watch.error is not None:
                raise watch.error
    finally:
        watch.stop()


async def _create_watcher(live: Live, message: Data, user: str) -> Data:
    watch = await _watching(live, message, user)
    key = fresh_id("w")
    live.watches[key] = watch
    return {"watcherId": key}


def _watcher(live: Live, message: Data) -> tuple[str, Watch]:
    key = str(message.get("watcherId") or message.get("watcher_id") or "")
    if key not in live.watches:
        raise RefusedError(404, f"there is no watcher {key[:64]}")
    return key, live.watches[key]


async def _events(live: Live, message: Data, _: str) -> Data:
    watch = _watcher(live, message)[1]
    if watch.error is not None:
        raise watch.error
    return {"events": watch.take()}


async def _remove_watcher(live: Live, message: Data, _: str) -> Data:
    key, watch = _watcher(live, message)
    watch.stop()
    del live.watches[key]
    return {}


METHODS: dict[str, Callable[..., Awaitable[Data]]] = {
    "Stat": _stat,
    "MakeDir": _make_dir,
    "Move": _move,
    "ListDir": _list_dir,
    "Remove": _remove,
    "CreateWatcher": _create_watcher,
    "GetWatcherEvents": _events,
    "RemoveWatcher": _remove_watcher,
}
"""The calls of one message that are answered with one."""
