"""A running server of E2B's protocol for tests, as a process of its own, and keys to it."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from tinamou.state import tokens
from tinamou.state.machines import free_port


class Serving:
    """The server at ``url``; it can be killed and started again on the same port."""

    def __init__(self, monkeypatch, templates: Path | None = None, domain: tuple[str, Path, Path] | None = None) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._words = ["--e2b-templates", str(templates)] if templates else []
        if domain is None:
            for name in ("E2B_API_URL", "E2B_SANDBOX_URL"):
                monkeypatch.setenv(name, self.url)
        else:
            name, certificate, key = f"{domain[0]}:{self.port}", *map(str, domain[1:])
            self._words += ["--e2b-domain", name, "--tls-cert", certificate, "--tls-key", key]
            monkeypatch.setenv("E2B_DOMAIN", name)
            monkeypatch.setenv("SSL_CERT_FILE", certificate)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        monkeypatch.setenv("E2B_API_KEY", self.key("test"))
        self.start()

    @staticmethod
    def key(name: str, verbs: tuple[str, ...] = ("*",)) -> str:
        """A token, in the form that E2B's clients have always taken."""
        return "e2b_" + tokens.create(name, verbs=verbs).removeprefix("tnm_")

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tinamou", "serve", "--e2b", f"127.0.0.1:{self.port}", *self._words], env=dict(os.environ)
        )
        deadline = time.monotonic() + 60
        while True:
            try:
                socket.create_connection(("127.0.0.1", self.port)).close()
                return
            except ConnectionRefusedError:
                assert time.monotonic() < deadline and self.process.poll() is None, "it never listened"
                time.sleep(0.05)

    def end(self, number: int = signal.SIGTERM) -> None:
        self.process.send_signal(number)
        self.process.wait()


def until(holds, seconds: float = 60.0) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, "it never held"
        time.sleep(0.1)
