"""The shortest way to a guest's answer: one command through the agent's or the resident's socket, with nothing between."""

from __future__ import annotations

import itertools
import json
import os
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from tinamou.guest.command import Command
from tinamou.guest.resident.frames import HEADER, frame, start

__all__ = ["PROCESSOR", "RESIDENT", "SilentError", "answered_by", "bare_run", "ended"]

PAUSE = 0.001
RESIDENT = "resident.sock"
PROCESSOR = "processor time"
_numbers = itertools.count(1)


class SilentError(Exception):
    """The guest did not answer in time."""


def answered_by(path: Path, seconds: float, alive: Callable[[], bool]) -> None:
    """Run ``true`` in the guest; returns when its end has been heard of. Raises SilentError."""
    deadline = time.monotonic() + seconds
    with _connected(path, deadline, alive) as line:
        line.settimeout(seconds)
        try:
            (_talk_to_resident if path.name == RESIDENT else _talk)(line, deadline)
        except (TimeoutError, ConnectionError) as error:
            raise SilentError(f"no answer within {seconds:g} s") from error


def _talk(line: socket.socket, deadline: float) -> None:
    number = next(_numbers)
    answers = line.makefile("rb")
    _send(line, "guest-sync-delimited", {"id": number}, b"\xff")
    while json.loads(answers.readline().lstrip(b"\xff") or b"null") != {"return": number}:
        if time.monotonic() > deadline:
            raise TimeoutError
    _send(line, "guest-exec", {"path": "true", "capture-output": True})
    pid = json.loads(answers.readline())["return"]["pid"]
    while True:
        _send(line, "guest-exec-status", {"pid": pid})
        state = json.loads(answers.readline())["return"]
        if state["exited"]:
            assert state["exitcode"] == 0
            return
        time.sleep(PAUSE)


def _talk_to_resident(line: socket.socket, deadline: float) -> None:
    line.sendall(frame("S", start(Command(("true",))), 1))
    answers = line.makefile("rb")
    while time.monotonic() < deadline:
        kind, _, length = HEADER.unpack(answers.read(HEADER.size))
        body = answers.read(length)
        if chr(kind) == "D":
            assert body == bytes(4), body
            return
    raise TimeoutError


def _connected(path: Path, deadline: float, alive: Callable[[], bool]) -> socket.socket:
    while time.monotonic() < deadline and alive():
        line = socket.socket(socket.AF_UNIX)
        try:
            line.connect(str(path))
            return line
        except OSError:
            line.close()
            time.sleep(PAUSE)
    raise SilentError(f"nobody listens on {path}")


def _send(line: socket.socket, command: str, arguments: dict[str, object], prefix: bytes = b"") -> None:
    line.sendall(prefix + json.dumps({"execute": command, "arguments": arguments}).encode() + b"\n")


def bare_run(argv: list[str], agent: Path, log: Path, seconds: float = 120.0) -> Mapping[str, float]:
    """Start a command line by hand; the seconds until its guest has answered, and the processor's. It is killed then."""
    agent.unlink(missing_ok=True)
    with log.open("ab") as said:
        began = time.perf_counter()
        process = subprocess.Popen(argv, stdin=subprocess.DEVNULL, stdout=said, stderr=said)
    try:
        answered_by(agent, seconds, lambda: process.poll() is None)
        answered = time.perf_counter() - began
    except SilentError as error:
        tail = log.read_text(errors="replace")[-300:]
        raise SilentError(f"{error}: {tail}") from error
    finally:
        process.kill()
        computed = ended(process)
    return {"": answered, PROCESSOR: computed}


def ended(process: subprocess.Popen[Any]) -> float:
    """Wait for a process; the processor seconds it and its descendants took."""
    _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    return usage.ru_utime + usage.ru_stime
