"""Servers that answer in odd ways, or all too slowly: each answer ends in a reason."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tinamou.errors import ImageError
from tinamou.images import download as module
from tinamou.images import http
from tinamou.images.download import download

pytestmark = pytest.mark.timeout(240)
Serve = Callable[..., str]


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Start a server that sends these bytes to whoever connects; ``drips`` adds one more every so many seconds, for ever."""
    listening: list[socket.socket] = []
    ended = threading.Event()

    def one(connection: socket.socket, reply: bytes, drips: float) -> None:
        with connection:
            try:
                connection.recv(65536)
                connection.sendall(reply)
                while drips and not ended.wait(drips):
                    connection.sendall(b"x")
            except OSError:
                pass

    def accept(server: socket.socket, reply: bytes, drips: float) -> None:
        while True:
            try:
                connection, _ = server.accept()
            except OSError:
                return
            threading.Thread(target=one, args=(connection, reply, drips), daemon=True).start()

    def start(reply: bytes, drips: float = 0.0) -> str:
        server = socket.create_server(("127.0.0.1", 0))
        listening.append(server)
        threading.Thread(target=accept, args=(server, reply, drips), daemon=True).start()
        return f"http://127.0.0.1:{server.getsockname()[1]}/file"

    yield start
    ended.set()
    for server in listening:
        server.shutdown(socket.SHUT_RDWR)
        server.close()


def small(url: str, timeout: float = 30.0) -> bytes:
    policy = http.Policy(attempts=1, timeout=timeout)
    with http.client(policy) as client:
        return http.fetch_bytes(client, url, policy)


OK, BUSY = b"HTTP/1.1 200 OK\r\n", b"HTTP/1.1 503 Busy\r\nRetry-After: "
ODD = {
    "no HTTP": b"hello\r\n",
    "a date beyond all dates": BUSY + b"Fri, 31 Dec 9999 23:59:59 -2359\r\nContent-Length: 0\r\n\r\n",
    "a date that is none": BUSY + b"Fri, 99 Foo 0000 99:99:99\r\nContent-Length: 0\r\n\r\n",
    "a wait of four thousand digits": BUSY + b"9" * 4000 + b"\r\nContent-Length: 0\r\n\r\n",
    "a redirection to no host": b"HTTP/1.1 302 X\r\nLocation: http://[::1\r\nContent-Length: 0\r\n\r\n",
    "a redirection to no port": b"HTTP/1.1 302 X\r\nLocation: http://a:b:c/\r\nContent-Length: 0\r\n\r\n",
    "a range of four thousand digits": b"HTTP/1.1 206 X\r\nContent-Range: bytes 0-1/" + b"9" * 4400 + b"\r\n\r\n",
    "a length that is none": OK + b"Content-Length: -1\r\n\r\n",
    "half of what it promises": OK + b"Content-Length: 100\r\n\r\nhalf",
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_answer(serve: Serve, tmp_path: Path, name: str) -> None:
    url = serve(ODD[name])
    with pytest.raises(ImageError):
        download(url, tmp_path / "part", policy=http.Policy(attempts=2, timeout=30.0, pause=lambda _: None))
    if "range" not in name:
        with pytest.raises(ImageError):
            small(url)


def test_a_checksum_file_that_drips(serve: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "_WHOLE", 0.05)
    with pytest.raises(ImageError, match="cannot be downloaded") as caught:
        small(serve(OK + b"\r\n", 0.05), timeout=20.0)
    assert "did not arrive within 1 seconds" in caught.value.why


def test_an_image_that_drips(serve: Serve, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLOW_SECONDS", 1.0)
    url = serve(OK + b"Content-Length: 1000000\r\n\r\n" + b"y" * 5000, 0.05)
    with pytest.raises(ImageError, match="too slow to end"):
        download(url, tmp_path / "part", policy=http.Policy(attempts=2, timeout=30.0))
    assert (tmp_path / "part").stat().st_size > 4000
    monkeypatch.setattr(module, "SLOW_SECONDS", 0.05)
    monkeypatch.setattr(module, "SLOW_BYTES", 1)
    quick = serve(OK + b"Content-Length: 5010\r\n\r\n" + b"y" * 5000, 0.1)
    assert download(quick, tmp_path / "other", policy=http.Policy(attempts=1, timeout=30.0)).size == 5010
