"""Inside the lab: packets that the kernel moves itself (vhost-net), which the host of the tests may not have."""

import contextlib
import json
import subprocess
from pathlib import Path

import pytest
from typed import call, tinamou

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]


def opened(pid):
    """What a process has open, but for what it closes meanwhile."""
    found = []
    for path in Path(f"/proc/{pid}/fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            found.append(str(path.readlink()))
    return found


def test_packets_go_through_the_kernel():
    subprocess.run(["modprobe", "vhost_net"], check=False)
    started = call(
        *("run", "--name", "inner", "-d", "--accel", "kvm", "--timeout", "500", "--cpus", "2"),
        *("--net", "type=tap,address=10.9.0.2/24,vhost=on"),
    )
    assert started.returncode == 0, started.stderr
    try:
        assert "not vhost" not in started.stderr
        entry = json.loads(tinamou("net", "ls", "--json"))["interfaces"][0]
        subprocess.run(["ip", "address", "add", "10.9.0.1/24", "dev", entry["link"]], check=True)
        pid = json.loads(tinamou("show", "inner", "--json"))["pid"]
        assert opened(pid).count("/dev/vhost-net") == 2
        pinged = call("exec", "inner", "--", "ping", "-c", "3", "-W", "20", "10.9.0.1")
        assert pinged.returncode == 0, pinged.stdout
        diagnosed = call("net", "diagnose", "inner", "--no-measure", "--json")
        assert diagnosed.returncode in (0, 1), diagnosed.stdout + diagnosed.stderr
        causes = json.loads(diagnosed.stdout)["findings"]
        assert not any("not through the kernel" in finding["cause"] for finding in causes)
        plugged = tinamou("net", "add", "inner", "type=tap,address=10.9.1.2/24,vhost=on")
        assert plugged.strip() == "net1"
        assert opened(pid).count("/dev/vhost-net") == 4
    finally:
        call("rm", "-f", "inner")
