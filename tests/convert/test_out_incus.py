"""Every golden spec, written for Incus: a real incusd takes what it says of a machine's options and devices.

As a profile: without vhost-vsock, which test hosts lack, it makes no machine. What it asks of machines alone (ports by NAT)
test_out_elsewhere.py has.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import time
import tomllib
from collections.abc import Callable, Iterator

import pytest
import yaml
from golden_domains import SPECS

from tinamou.convert.out import formats
from tinamou.convert.out.asked import Place
from tinamou.spec import load_spec

DAEMON = shutil.which("incusd", path="/usr/libexec/incus:/opt/incus/bin:/usr/sbin:/usr/bin")
PRESEED = """
storage_pools: [{name: default, driver: dir}]
networks: [{name: incusbr0, type: bridge, config: {ipv4.address: none, ipv6.address: none, dns.mode: none}}]
"""
ALONE = 'mount -t cgroup2 none /sys/fs/cgroup 2>/dev/null || true; ip link set lo up; exec "$0" --group root'


@pytest.fixture(scope="module")
def incus(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., subprocess.CompletedProcess[str]]]:
    """``incus(input, words…)`` of a daemon with a network, mounts and processes of its own."""
    if os.geteuid() != 0 or DAEMON is None or not shutil.which("incus"):
        pytest.skip("incusd, as root (Debian 13: incus-base, incus-client)")
    folder = tmp_path_factory.mktemp("incus")
    environment = {**os.environ, "INCUS_DIR": str(folder), "INCUS_CONF": str(folder / "client")}
    apart = ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "sh", "-c", ALONE, DAEMON]
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(apart, env=environment, stdout=log, stderr=log)

    def run(given: str, *words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["incus", *words], env=environment, input=given, capture_output=True, text=True, timeout=120, check=False
        )

    try:
        until = time.monotonic() + 120
        while run("", "query", "/1.0").returncode:
            assert daemon.poll() is None and time.monotonic() < until, (folder / "log").read_text()[-2000:]
            time.sleep(0.5)
        made = run(PRESEED, "admin", "init", "--preseed")
        assert made.returncode == 0, made.stderr
        yield run
    finally:
        daemon.kill()  # it is the first process of its own, which hears no other signal
        daemon.wait(60)


def test_it_takes_every_golden_spec(incus: Callable[..., subprocess.CompletedProcess[str]]) -> None:
    for spec in SPECS:
        machine = {"name": spec.stem, **tomllib.loads(spec.read_text())}
        written = yaml.safe_load(formats.write(load_spec(machine), Place(image="/srv/debian.qcow2"), "incus").text)
        profile = {key: written[key] for key in ("config", "devices")}
        made = incus(yaml.safe_dump(profile), "profile", "create", spec.stem)
        assert made.returncode == 0, f"{spec.stem}: {made.stderr}"
        there = yaml.safe_load(incus("", "profile", "show", spec.stem).stdout)
        assert {key: there[key] for key in profile} == profile


@pytest.mark.parametrize(
    ("profile", "why"),
    [
        ({"config": {"limits.memory": "much"}}, "much"),
        ({"devices": {"eth0": {"type": "nic", "network": "incusbr0", "mtu": "9000"}}}, "mtu"),
    ],
)
def test_it_refuses_what_it_does_not_know(
    profile: dict[str, object], why: str, incus: Callable[..., subprocess.CompletedProcess[str]]
) -> None:
    refused = incus(yaml.safe_dump(profile), "profile", "create", "refused")
    assert refused.returncode
    assert why in refused.stderr
