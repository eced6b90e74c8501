"""Fixture of the tests that need a network namespace of their own."""

from __future__ import annotations

import os
import shutil
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
from labs import Lab
from switches import DPDK, PROGRAMS, Switch

from tinamou.images.resolve import resolve


@pytest.fixture
def lab(state: Path) -> Iterator[Lab]:
    if not shutil.which("ip"):
        pytest.skip("no ip(8) on this host (script/setup installs iproute2)")
    resolve("tiny", os.uname().machine)
    name = f"tmlab-{os.getpid()}-{uuid.uuid4().hex[:4]}"
    subprocess.run(["ip", "netns", "add", name], check=True)
    made = Lab(name, state)
    made.ip("link set lo up")
    try:
        yield made
        for machine in [path.name for path in (state / "machines").iterdir()] if (state / "machines").is_dir() else []:
            made.tinamou("rm", "-f", machine, check=False)
    finally:
        made.close()


@pytest.fixture
def switch(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Switch]:
    """Open vSwitch in the namespace, as programs without the kernel's module."""
    if not shutil.which("ovs-vsctl") or not shutil.which("ovsdb-server", path=PROGRAMS):
        pytest.skip("Open vSwitch is not installed (script/setup --dev test)")
    with Switch(lab, monkeypatch, "/usr/lib/openvswitch-switch/ovs-vswitchd") as made:
        yield made


@pytest.fixture
def dpdk_switch(lab: Lab, monkeypatch: pytest.MonkeyPatch) -> Iterator[Switch]:
    """The same with DPDK: it reads the guests' memory."""
    program = "/usr/lib/openvswitch-switch-dpdk/ovs-vswitchd-dpdk"
    if not Path(program).exists() or not shutil.which("ovsdb-server", path=PROGRAMS):
        pytest.skip("Open vSwitch with DPDK is not installed (script/setup --dev test)")
    with Switch(lab, monkeypatch, program, DPDK) as made:
        yield made
