"""Real OpenSSH servers of a test, as its user: throw-away keys, a free port of the loopback, nothing else of the host."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tinamou.fleet.hosts import Host

DEADLINE = 120.0
SOURCES = Path(__file__).parent.parent / "src"


class Sshd:
    """A server that runs: ``port``, its key as one line, the private key that opens it, and its process."""

    def __init__(self, folder: Path, port: int, process: subprocess.Popen[bytes]) -> None:
        self.folder = folder
        self.port = port
        self.process = process

    @property
    def key(self) -> str:
        """Its public key, as `Host.key` has it."""
        return " ".join((self.folder / "host.pub").read_text().split()[:2])

    @property
    def identity(self) -> str:
        """The private key that is let in."""
        return str(self.folder / "user")

    def host(self, name: str = "far", *, state: Path | None = None, **other: object) -> Host:
        """The host it stands for; ``state`` is the state directory of the tinamou there, when it is not the caller's."""
        words = command(state) if state else ("tinamou",)
        known = {
            "name": name,
            "address": "127.0.0.1",
            "key": self.key,
            "port": self.port,
            "identity": self.identity,
            "patience": DEADLINE,
        }
        return Host(**{**known, "user": getpass.getuser(), "command": words, **other})  # type: ignore[arg-type]


def command(state: Path) -> tuple[str, ...]:
    """The words that call this checkout's tinamou with a state directory of its own."""
    kept = {name: os.environ[name] for name in ("PATH", "TINAMOU_CACHE") if name in os.environ}
    there = {**kept, "PYTHONPATH": str(SOURCES), "TINAMOU_STATE": str(state), "TINAMOU_RUN": str(state)}
    return ("env", *(f"{name}={value}" for name, value in there.items()), sys.executable, "-m", "tinamou")


def _program() -> str:
    found = shutil.which("sshd", path="/usr/sbin:/usr/local/sbin:" + os.environ.get("PATH", ""))
    if found is None:
        pytest.skip("no sshd (openssh-server)")
    return found


def make_key(path: Path, kind: str = "ed25519") -> None:
    """A pair of keys without a passphrase: ``path`` and ``path.pub``."""
    subprocess.run(["ssh-keygen", "-q", "-t", kind, "-N", "", "-f", str(path)], check=True)


@contextlib.contextmanager
def sshd(folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[Sshd]:
    """A server for the block; with it end all that were let in."""
    program = _program()
    if os.geteuid() == 0:
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    folder.mkdir(exist_ok=True)
    for name in ("host", "user"):
        if not (folder / name).exists():
            make_key(folder / name)
    (folder / "authorized").write_text((folder / "user.pub").read_text())
    with socket.create_server(("127.0.0.1", 0)) as place:
        port = place.getsockname()[1]
    said = {
        "ListenAddress": f"127.0.0.1:{port}",
        "HostKey": folder / "host",
        "AuthorizedKeysFile": folder / "authorized",
        "PidFile": "none",
        "UsePAM": "no",
        "StrictModes": "no",
        "PasswordAuthentication": "no",
        "KbdInteractiveAuthentication": "no",
        "PermitRootLogin": "yes",
        **(settings or {}),
    }
    if not subprocess.run(
        [program, "-t", "-o", "PerSourcePenalties=no", "-h", str(folder / "host")], capture_output=True
    ).returncode:
        said["PerSourcePenalties"] = "no"  # from OpenSSH 9.8 on who was refused too often is not heard at all
    (folder / "config").write_text("".join(f"{name} {value}\n" for name, value in said.items()))
    process = subprocess.Popen(
        [program, "-D", "-e", "-f", str(folder / "config")], stderr=(folder / "log").open("ab"), start_new_session=True
    )
    try:
        _until_it_listens(port, process, folder)
        yield Sshd(folder, port, process)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(process.pid, signal.SIGCONT)
            process.kill()
        process.wait()


def _until_it_listens(port: int, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + DEADLINE
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise AssertionError((folder / "log").read_text())
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=DEADLINE) as line:
            if line.recv(4) == b"SSH-":
                return
        time.sleep(0.02)
    raise AssertionError("sshd does not listen")
