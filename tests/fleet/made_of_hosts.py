"""Hosts of `script/hosts` for tests: networks, mounts, processes and ssh of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[2]
KNOW = """
import sys
from tinamou.fleet.hosts import Host, add
number, *command = sys.argv[1:]
words = next(line for line in open("/etc/ssh/of_hosts/known") if line.startswith(f"h{number},")).split()
key = " ".join(words[1:3])
add(Host(f"h{number}", f"10.77.0.{number}", key, user="root", identity="/root/.ssh/id_ed25519", command=tuple(command)))
"""


class Hosts:
    """Hosts that run; ``words`` call this checkout's tinamou on either."""

    def __init__(self, folder: Path) -> None:
        self.environment = {**os.environ, "HOSTS_FOLDER": str(folder)}
        own = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src"), "HOME": "/root"}
        self.words = ("env", "-i", *(f"{name}={value}" for name, value in own.items()), sys.executable, "-m", "tinamou")

    def script(self, *words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        argv = [str(ROOT / "script/hosts"), *words]
        return subprocess.run(argv, env=self.environment, capture_output=True, text=True, timeout=300, check=check)

    def tinamou(self, host: int, *words: str) -> str:
        done = self.script("run", str(host), *self.words, *words, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    def know(self, host: int, other: int) -> None:
        """Have one host know another."""
        self.script("run", str(host), *self.words[:-2], "-c", KNOW, str(other), *self.words)

    def states(self, host: int) -> list[str]:
        return [one["state"] for one in json.loads(self.tinamou(host, "ls", "--json"))]


def up(count: int) -> Iterator[Hosts]:
    with tempfile.TemporaryDirectory(prefix="th-", dir="/run") as name:
        hosts = Hosts(Path(name) / "f")
        hosts.script("up", str(count))
        try:
            yield hosts
        finally:
            hosts.script("down")
        assert list(Path(name).iterdir()) == []
