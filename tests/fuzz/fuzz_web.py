"""What is fuzzed of the web: the answers of servers, through a server on the loopback."""

from __future__ import annotations

import contextlib
import functools
import json
import re
import socket
import threading
from unittest import mock

import fuzz_seeds as seeds
from fuzz_folder import folder
from fuzzing import target

from tinamou.errors import ImageError
from tinamou.images import http
from tinamou.images.download import download


class Server(threading.Thread):
    """Answers every request on the loopback with the same bytes."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.reply = b""
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listening.getsockname()[1]}/file"
        self.start()

    def run(self) -> None:
        while True:
            connection, _ = self._listening.accept()
            with connection:
                try:
                    connection.settimeout(2)
                    connection.recv(65536)
                    connection.sendall(self.reply)
                    connection.shutdown(socket.SHUT_WR)
                    connection.recv(1)
                except OSError:
                    pass


@functools.cache
def server() -> Server:
    return Server()


@functools.cache
def one_client() -> object:
    """Making one takes longer than anything it is asked. It keeps no connection: the server hangs up after each."""
    import httpx2

    made = httpx2.Client(timeout=2.0, follow_redirects=False, limits=httpx2.Limits(max_keepalive_connections=0))
    return mock.patch.object(http, "client", lambda _: contextlib.nullcontext(made))


HEADERS = [
    "200",
    "206",
    "302",
    "416",
    "503",
    "Content-Length: ",
    "Content-Range: bytes ",
    "Location: ",
    "Retry-After: ",
    "chunked",
    "\r\n",
]
HEADERS += ["Content-Encoding: gzip", "http://", "//[", "99999999999999999999", "ETag: "]


@target("reply of a server", seeds=seeds.replies, words=HEADERS)
def reply(data: bytes) -> object:
    one, policy = server(), http.Policy(attempts=1, timeout=2.0)
    # Wherever it sends us, it is this server that is asked. How long the library takes for a header of blanks is its own.
    calm = re.sub(rb"[ \t]{64,}", b" " * 64, data)
    one.reply = re.sub(rb"(?i)(location: {0,64})(https?:)?//[^/\s]*", rb"\1" + one.url[:-5].encode(), calm)
    part = folder() / "part"
    part.write_bytes(data[:7])
    part.with_name("part.json").write_text(json.dumps({"url": one.url, "etag": '"v"', "modified": "", "total": len(data)}))
    with one_client(), http.client(policy) as client:
        small: object = None
        try:
            small = http.fetch_bytes(client, one.url, policy)
        except ImageError as error:
            small = error
        return small, download(one.url, part, policy=policy)
