#!/usr/bin/python3 -IS
"""A stand-in for QEMU with a guest that always takes the same time: what is left of a run is tinamou's own.

Started for a machine with an agent, it greets on the monitors at once and answers the agent's and the resident's questions
SECONDS after its start, on the sockets it was handed or on the paths it is given; anything else is left to the real binary.
"""

import contextlib
import json
import os
import select
import socket
import struct
import sys
import time

SECONDS = 1.0
REAL = "@REAL@"
SLOW = ("agent", "resident")
RUNS = {"now": True}
GREETING = {"QMP": {"version": {"qemu": {"major": 7, "minor": 2, "micro": 0}, "package": ""}, "capabilities": []}}

ANSWERS: dict[object, object] = {
    **{"query-blockstats": [], "query-block": [], "query-fdsets": [], "query-balloon": {"actual": 1 << 29}},
    "x-debug-query-block-graph": {"nodes": [], "edges": []},
}
"""What is said of disks and memory to who looks again and again."""


def words(kind: str) -> list[dict[str, str]]:
    """The key=value options of every ``-kind``."""
    given = [sys.argv[at + 1] for at, word in enumerate(sys.argv) if word == f"-{kind}"]
    return [dict(pair.partition("=")[::2] for pair in text.split(",")) for text in given]


def listener(options: dict[str, str]) -> socket.socket:
    """The listening socket of a chardev."""
    if "fd" in options:
        return socket.socket(fileno=int(options["fd"]))
    sock = socket.socket(socket.AF_UNIX)
    sock.bind(options["path"])
    sock.listen()
    return sock


def answer(name: str, request: dict[str, object]) -> dict[str, object]:
    """What QEMU or the agent would say; every command prints ``answered``."""
    command, arguments = request.get("execute"), request.get("arguments", {})
    assert isinstance(arguments, dict)
    if name != "agent":
        RUNS["now"] = command == "cont" or (RUNS["now"] and command != "stop")
        state = {"running": RUNS["now"], "status": "running" if RUNS["now"] else "paused"}
        result: object = state if command == "query-status" else ANSWERS.get(command, {})
        if command == "qom-get":
            told = {"stats": {"stat-available-memory": 1 << 28}, "last-update": int(time.time())}
            result = told if arguments.get("property") == "guest-stats" else 2
        return {"return": result, **({"id": request["id"]} if "id" in request else {})}
    if command == "guest-sync-delimited":
        return {"return": arguments["id"]}
    if command == "guest-exec":
        return {"return": {"pid": 1}}
    return {"return": {"exited": True, "exitcode": 0, "out-data": "YW5zd2VyZWQK"}}


def resident(data: bytes) -> bytes:
    """What the resident would say to these frames (resident.c describes them); every command prints ``answered``."""
    said = b""
    while len(data) >= 8:
        kind, channel, length = struct.unpack("<BxHI", data[:8])
        body, data = data[8 : 8 + length], data[8 + length :]
        if chr(kind) in "RH":
            said += struct.pack("<BxHI", kind, 0, length) + body
        if chr(kind) == "S":
            output = struct.pack("<BxHI", ord("O"), channel, 9) + b"answered\n"
            said += output + struct.pack("<BxHIi", ord("D"), channel, 4, 0)
    return said


def heed(line: socket.socket, name: str) -> bool:
    """Answer what has come; whether more may come."""
    data = line.recv(1 << 16)
    if name == "resident":
        line.sendall(resident(data))
    else:
        for text in filter(None, data.replace(b"\xff", b"").splitlines()):
            delimiter = b"\xff" if b"guest-sync-delimited" in text else b""
            line.sendall(delimiter + json.dumps(answer(name, json.loads(text))).encode() + b"\n")
    return bool(data)


def serve(begin: float) -> None:
    """Answer until killed."""
    wanted = {"qmp", "qmp2", "agent", "resident"}
    listening = {listener(one): one["id"] for one in words("chardev") if one.get("id") in wanted}
    names: dict[socket.socket, str] = {}
    while True:
        now = time.monotonic()
        quiet = now < begin + SECONDS
        heard = [one for one, name in names.items() if not (quiet and name in SLOW)]
        ready, _, _ = select.select([*listening, *heard], [], [], begin + SECONDS - now if quiet else None)
        for one in ready:
            if one in listening:
                line, _ = one.accept()
                names[line] = listening[one]
                if names[line] not in SLOW:
                    with contextlib.suppress(OSError):
                        line.sendall(json.dumps(GREETING).encode() + b"\r\n")
                continue
            try:
                heeded = heed(one, names[one])
            except OSError:  # who asked waits no more
                heeded = False
            if not heeded:
                del names[one]
                one.close()


if __name__ == "__main__":
    if any("org.qemu.guest_agent.0" in word for word in sys.argv):
        serve(time.monotonic())
    os.execv(REAL, [REAL, *sys.argv[1:]])
