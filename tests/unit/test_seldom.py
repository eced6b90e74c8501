"""What a module names and seldom asks is not loaded with it, and is there as ever when it is asked."""

from __future__ import annotations

import subprocess
import sys

SELDOM = {"ssl", "_ssl", "asyncio.sslproto", "inspect", "locale", "logging", "traceback", "textwrap"}
BEGIN = """
import sys
from tinamou.system.seldom import lean_asyncio, load_pathlib
load_pathlib()
lean_asyncio()
import asyncio
async def works():
    await asyncio.sleep(0)
    async with asyncio.timeout(60):
        return await asyncio.gather(asyncio.sleep(0, 1), asyncio.sleep(0, 2))
"""


def _run(code: str, *words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *words, "-c", BEGIN + code], capture_output=True, text=True, check=True)


def test_a_loop_runs_without_them():
    done = _run(f"print(asyncio.run(works()), sorted({SELDOM!r} & set(sys.modules)))")
    assert done.stdout == "[1, 2] []\n"


def test_they_are_themselves_for_who_wants_them():
    code = """
import inspect, logging, ssl, traceback, urllib.parse
from asyncio import sslproto
assert inspect.isfunction(lean_asyncio) and inspect.iscoroutinefunction(works)
assert asyncio.sslproto is sslproto and issubclass(sslproto.SSLProtocol, asyncio.BufferedProtocol)
assert asyncio.log.logger.name == "asyncio" and logging.getLogger("asyncio").handle == asyncio.log.logger.handle
print(asyncio.run(works()))
from pathlib import Path
print(Path("/a b").as_uri())
"""
    assert _run(code).stdout == "[1, 2]\nfile:///a%20b\n"


def test_a_lost_error_is_told_with_its_trace():
    code = """
async def lose():
    async def fail():
        raise ValueError("lost")
    task = asyncio.create_task(fail())
    await asyncio.wait([task])
asyncio.run(lose())
"""
    said = _run(code).stderr
    assert "Task exception was never retrieved" in said
    assert "in fail" in said and "ValueError: lost" in said


def test_debugging_is_heard():
    done = _run("import logging; logging.basicConfig(level=logging.DEBUG); asyncio.run(works())")
    assert "DEBUG:asyncio:Using selector" in done.stderr
    assert "Executing" not in _run("asyncio.run(works())", "-X", "dev").stderr


def test_tls_is_spoken():
    code = """
import ssl
async def refused():
    async def greet(reader, writer):
        writer.close()
    server = await asyncio.start_server(greet, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    try:
        await asyncio.open_connection("127.0.0.1", port, ssl=ssl.create_default_context(), server_hostname="guest")
    except OSError as error:
        print(isinstance(error, ssl.SSLError | ConnectionError))
asyncio.run(refused())
"""
    assert _run(code).stdout == "True\n"
