"""Stands where a machine's QEMU is, and lies: on its monitors, as the guest's agent, as the guest's resident.

usage: stand_in.py DIRECTORY QMP AGENT RESIDENT        each the name of a way, or ``honest``
"""

from __future__ import annotations

import base64
import contextlib
import json
import socket
import struct
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Line = Iterator[dict[str, Any]]
ESCAPES = "\x1b[2J\x1b]0;owned\x07running\r\x9b31m"
GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": ["oob"]}}
DEEP = b"[" * 100_000 + b"]" * 100_000
HONEST: dict[str, Any] = {
    "query-status": {"status": "running", "running": True},
    "query-fdsets": [],
    "x-debug-query-block-graph": {"nodes": [], "edges": []},
    "query-blockstats": [],
    "query-block": [],
    "query-pci": [],
    "query-named-block-nodes": [],
    "query-jobs": [],
    "query-cpus-fast": [],
    "query-iothreads": [],
    "query-balloon": {"actual": 1 << 27},
    "human-monitor-command": "",
    "qom-list": [],
    "qom-get": 0,
}


def lines(peer: socket.socket) -> Line:
    """The commands that come in; a client that has gone ends them."""
    with peer.makefile("rb") as file:
        for line in file:
            with contextlib.suppress(ValueError):
                yield json.loads(line.rpartition(b"\xff")[2])


def say(peer: socket.socket, message: object) -> None:
    peer.sendall(json.dumps(message).encode() + b"\r\n")


def wait_for_end(peer: socket.socket) -> None:
    while peer.recv(65536):
        pass


def flood(peer: socket.socket, data: bytes) -> None:
    while True:
        peer.sendall(data)


def event(name: object, **data: object) -> bytes:
    stamp = {"seconds": int(time.time()), "microseconds": 0}
    return json.dumps({"event": name, "data": data, "timestamp": stamp}).encode() + b"\n"


def serve(peer: socket.socket, answer: Callable[[dict[str, Any]], bytes | None], greeting: object = GREETING) -> None:
    """Greet, and answer each command with the line that ``answer`` makes; nothing where it makes none."""
    say(peer, greeting)
    for command in lines(peer):
        if command.get("execute") == "qmp_capabilities":
            say(peer, {"return": {}, "id": command.get("id")})
        elif (line := answer(command)) is not None:
            peer.sendall(line + b"\n")


def honestly(command: dict[str, Any]) -> bytes:
    if command.get("arguments", {}).get("property") == "guest-stats":
        return returning(command, {"last-update": int(time.time()) + 1, "stats": {"stat-available-memory": 1 << 26}})
    return returning(command, HONEST.get(command["execute"], {}))


def returning(command: dict[str, Any], value: object) -> bytes:
    return json.dumps({"return": value, "id": command.get("id")}).encode()


def always(value: object) -> Callable[[dict[str, Any]], bytes]:
    return lambda command: returning(command, value)


def status(text: str) -> Callable[[dict[str, Any]], bytes]:
    said = {"status": text, "running": True}
    return lambda command: returning(command, said) if command["execute"] == "query-status" else honestly(command)


def events_for_ever(peer: socket.socket) -> None:
    say(peer, GREETING)
    asked = next(lines(peer))
    say(peer, {"return": {}, "id": asked["id"]})
    flood(peer, event("RTC_CHANGE", offset=1) * 500)


def events_first(peer: socket.socket) -> None:
    say(peer, GREETING)
    flood(peer, event("RTC_CHANGE", offset=1) * 500)


def with_raw(value: bytes) -> Callable[[dict[str, Any]], bytes]:
    return lambda command: b'{"return": ' + value + b', "id": "' + str(command.get("id")).encode() + b'"}'


def odd_event(command: dict[str, Any]) -> bytes:
    return json.dumps({"event": {"x": []}, "data": 7, "timestamp": "noon"}).encode()


def refusing_oddly(command: dict[str, Any]) -> bytes:
    return json.dumps({"error": {"class": [], "desc": {"a": 1}}, "id": command.get("id")}).encode()


def refusing(command: dict[str, Any]) -> bytes:
    return json.dumps({"error": {"class": "GenericError", "desc": ESCAPES}, "id": command.get("id")}).encode()


QMP: dict[str, Callable[[socket.socket], object]] = {
    "honest": lambda peer: serve(peer, honestly),
    "silent": wait_for_end,
    "closes": lambda peer: None,
    "greets-only": lambda peer: (say(peer, GREETING), wait_for_end(peer)),
    "never-answers": lambda peer: serve(peer, lambda command: None),
    "events": events_for_ever,
    "events-first": events_first,
    "deep-answer": lambda peer: serve(peer, with_raw(DEEP)),
    "odd-event": lambda peer: serve(peer, odd_event),
    "odd-error": lambda peer: serve(peer, refusing_oddly),
    "refuses": lambda peer: serve(peer, refusing),
    "odd-version": lambda peer: serve(peer, honestly, {"QMP": {"version": {"qemu": ["x"]}, "capabilities": 7}}),
    "odd-greeting": lambda peer: serve(peer, honestly, {"QMP": None}),
    "deep-greeting": lambda peer: (peer.sendall(DEEP + b"\n"), wait_for_end(peer)),
    "surrogate": lambda peer: serve(peer, status("\ud800")),
    "escapes": lambda peer: serve(peer, status(ESCAPES)),
    "nine-megabytes": lambda peer: serve(peer, status("x" * 9_000_000)),
    "garbage": lambda peer: flood(peer, bytes(range(256)) + b"\n"),
    "endless-line": lambda peer: flood(peer, b"x" * 65536),
    "lists": lambda peer: serve(peer, always([[[]]])),
    "nulls": lambda peer: serve(peer, always(None)),
    "numbers": lambda peer: serve(peer, always(-(10**400))),
    "not-a-number": lambda peer: serve(peer, always(float("nan"))),
    "unhashable-id": lambda peer: serve(peer, lambda command: b'{"return": {}, "id": [[]]}'),
    "objects": lambda peer: serve(peer, always([{}, {"id": {}}])),
}


def agent(peer: socket.socket, answer: Callable[[dict[str, Any]], bytes]) -> None:
    """In step as an agent is, and lying about everything else."""
    for command in lines(peer):
        if command["execute"] == "guest-sync-delimited":
            peer.sendall(b"\xff" + json.dumps({"return": command["arguments"]["id"]}).encode() + b"\n")
        else:
            peer.sendall(answer(command) + b"\n")


def ended(**more: object) -> Callable[[dict[str, Any]], bytes]:
    """Every command has run and ended, with ``more`` in its status."""

    def answer(command: dict[str, Any]) -> bytes:
        said: object = {"pid": 7} if command["execute"] == "guest-exec" else {"exited": True, "exitcode": 0, **more}
        return json.dumps({"return": said}).encode()

    return answer


AGENT: dict[str, Callable[[socket.socket], object]] = {
    "honest": lambda peer: agent(peer, ended(**{"out-data": base64.b64encode(b"hello\n").decode()})),
    "silent": wait_for_end,
    "garbage": lambda peer: flood(peer, b"\xff\xfe{[\n" * 100),
    "deep": lambda peer: agent(peer, lambda command: b'{"return": ' + DEEP + b"}"),
    "bad-base64": lambda peer: agent(peer, ended(**{"out-data": "%%%"})),
    "odd-types": lambda peer: agent(peer, ended(exited="yes", exitcode=[1])),
    "huge-status": lambda peer: agent(peer, ended(exitcode=10**30)),
    "endless-line": lambda peer: agent(peer, lambda command: b"x" * (64 << 20)),
    "odd-error": lambda peer: agent(peer, lambda command: b'{"error": 7}'),
    "no-return": lambda peer: agent(peer, lambda command: b"{}"),
}


def frame(kind: bytes, payload: bytes = b"", length: int | None = None) -> bytes:
    channel = 1 if kind in b"OEDWF?" else 0
    return struct.pack("<cxHI", kind, channel, len(payload) if length is None else length) + payload


def resident(peer: socket.socket, end: bytes, then: Callable[[], bytes] = lambda: b"") -> None:
    """Answers who is there, and a command by ``end``, then ``then`` again and again."""
    while header := peer.recv(8, socket.MSG_WAITALL):
        kind, _, length = struct.unpack("<cxHI", header)
        payload = peer.recv(length, socket.MSG_WAITALL) if length else b""
        if kind in b"RH":
            peer.sendall(frame(kind, payload))
        elif kind == b"S":
            peer.sendall(end)
            while more := then():
                peer.sendall(more)


RESIDENT: dict[str, Callable[[socket.socket], object]] = {
    "honest": lambda peer: resident(peer, frame(b"O", b"hello\n") + frame(b"D", bytes(4))),
    "silent": wait_for_end,
    "closes": lambda peer: None,
    "garbage": lambda peer: flood(peer, bytes(range(256))),
    "wrong-nonce": lambda peer: flood(peer, frame(b"H", b"12345678") * 1000),
    "huge-frame": lambda peer: resident(peer, frame(b"O", b"x", 1 << 31)),
    "half-a-frame": lambda peer: resident(peer, frame(b"O", b"x", 1 << 10)),
    "endless-output": lambda peer: resident(peer, b"", lambda: frame(b"O", b"x" * 32768)),
    "empty-frames": lambda peer: resident(peer, b"", lambda: frame(b"O") * 1000),
    "unknown-answers": lambda peer: resident(peer, b"", lambda: frame(b"!", b"x") * 1000),
    "much-room": lambda peer: resident(peer, frame(b"W", b"\xff" * 4)),
    "short-refusal": lambda peer: resident(peer, frame(b"F", b"x")),
    "unknown-frames": lambda peer: resident(peer, b"", lambda: frame(b"?", b"x") * 1000),
    "short-end": lambda peer: resident(peer, frame(b"D", b"\0")),
    "odd-end": lambda peer: resident(peer, frame(b"D", b"\x7f\xff\xff\xff")),
}


def listening(path: Path) -> socket.socket:
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.listen(16)
    return listener


def accept(listener: socket.socket, way: Callable[[socket.socket], object]) -> None:
    """Serve everybody who connects, each as if it were alone."""

    def one(peer: socket.socket) -> None:
        with peer, contextlib.suppress(OSError, StopIteration):
            way(peer)

    while True:
        threading.Thread(target=one, args=(listener.accept()[0],), daemon=True).start()


def main(directory: str, qmp: str, guest: str, inside: str) -> None:
    places = {"qmp.sock": QMP[qmp], "qmp2.sock": QMP[qmp], "agent.sock": AGENT[guest], "resident.sock": RESIDENT[inside]}
    for name, way in places.items():
        threading.Thread(target=accept, args=(listening(Path(directory, name)), way), daemon=True).start()
    print("ready", flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main(*sys.argv[1:])
