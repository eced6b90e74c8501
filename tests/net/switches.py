"""Open vSwitch in a lab's namespace, and what a guest needs to speak to it: kernel modules for VLANs and bonds."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from labs import Lab

from tinamou.system.paths import cache_dir

PROGRAMS = "/usr/sbin:/usr/bin"
DPDK = (
    "other_config:dpdk-init=true",
    "other_config:dpdk-extra=--no-huge --legacy-mem --no-pci --no-telemetry -m 512",
    "other_config:per-port-memory=true",
    "other_config:pmd-cpu-mask=0x2",
    "other_config:pmd-maxsleep=500",
)
"""DPDK without huge pages and hardware, and resting between packets."""

MODULES = {
    "8021q": ("llc/llc", "802/stp", "802/garp", "802/mrp", "8021q/8021q"),
    "bonding": ("tls/tls", "drivers/net/bonding/bonding"),
}


class Switch:
    """The two programs and a bridge ``sw0``; ``ctl`` and ``app`` run their commands."""

    def __init__(self, lab: Lab, monkeypatch: pytest.MonkeyPatch, program: str, settings: tuple[str, ...] = ()) -> None:
        self.lab, self._program, self._settings = lab, program, settings
        self.place = lab.state / "ovs"
        for key in ("OVS_RUNDIR", "OVS_DBDIR", "OVS_LOGDIR", "XDG_RUNTIME_DIR"):
            monkeypatch.setenv(key, str(self.place))
        self.processes: list[subprocess.Popen[bytes]] = []

    def __enter__(self) -> Self:
        self.place.mkdir()
        database = self.place / "conf.db"
        self.lab.run("ovsdb-tool", "create", str(database), "/usr/share/openvswitch/vswitch.ovsschema")
        self._start("ovsdb-server", str(database), f"--remote=punix:{self.place}/db.sock")
        while not (self.place / "db.sock").exists():
            time.sleep(0.02)
        self.ctl("--no-wait", "init")
        if self._settings:
            self.ctl("--no-wait", "set", "Open_vSwitch", ".", *self._settings)
        self._start(self._program, f"unix:{self.place}/db.sock")
        self.ctl("add-br", "sw0", "--", "set", "bridge", "sw0", "datapath_type=netdev")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for machine in [path.name for path in (self.lab.state / "machines").glob("*")]:
            self.lab.tinamou("rm", "-f", machine, check=False)
        self.stop()

    def _start(self, *argv: str) -> None:
        with (self.place / f"{Path(argv[0]).name}.log").open("wb") as log:
            words = ["ip", "netns", "exec", self.lab.name, *argv]
            self.processes.append(subprocess.Popen(words, stdout=log, stderr=log))

    def stop(self) -> None:
        while self.processes:
            process = self.processes.pop()
            process.terminate()
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait(10)

    def ctl(self, *words: str) -> str:
        return self.lab.run("ovs-vsctl", "--timeout=20", *words).stdout.strip()

    def app(self, *words: str) -> str:
        [control] = self.place.glob("ovs-vswitchd*.ctl")
        return self.lab.run("ovs-appctl", "-t", str(control), *words).stdout

    def ports(self) -> list[str]:
        return self.ctl("list-ports", "sw0").split()


def load_module(lab: Lab, name: str, module: str) -> None:
    """Load a kernel module the tiny guest does not carry, out of its kernel's own package."""
    release = lab.guest(name, "uname -r").strip()
    folder = cache_dir() / "net-modules" / release
    if not folder.is_dir():
        part = folder.with_suffix(".part")
        part.mkdir(parents=True, exist_ok=True)
        subprocess.run(["apt-get", "download", "-q", f"linux-image-{release}"], cwd=part, check=True, capture_output=True)
        for package in part.glob("*.deb"):
            subprocess.run(["dpkg-deb", "-x", str(package), str(part / "root")], check=True)
        part.rename(folder)
    base = folder / "root/lib/modules" / release / "kernel"
    for path in MODULES[module]:
        file = base / (path if path.startswith("drivers") else f"net/{path}")
        lab.tinamou("cp", f"{file}.ko", f"{name}:/tmp/{file.name}.ko")
        lab.guest(name, f"insmod /tmp/{file.name}.ko" + (" max_bonds=0" if file.name == "bonding" else ""))
