"""Inside the lab: a USB stick of the host is a guest's, which reads it, and the host's again however that ends."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

pytestmark = [pytest.mark.lab, pytest.mark.timeout(1500)]

BUS = Path("/sys/bus/usb/devices")


def tinamou(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run([sys.executable, "-m", "tinamou", *words], capture_output=True, text=True, check=False)
    assert not check or done.returncode == 0, done.stderr
    return done


def eventually(condition) -> None:
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.1)


@pytest.fixture
def port() -> str:
    """Where the stick is plugged in; QEMU's sticks are 46f4:0001."""
    eventually(lambda: any((one / "idVendor").exists() for one in BUS.glob("[0-9]*-[0-9]")))
    [found] = [one.name for one in BUS.glob("[0-9]*-[0-9]") if (one / "idVendor").read_text().strip() == "46f4"]
    eventually(lambda: driver(found) == "usb-storage")
    return found


def driver(port: str) -> str:
    place = BUS / f"{port}:1.0" / "driver"
    return place.resolve().name if place.exists() else ""


def test_a_stick_is_a_guests_and_comes_back(port):
    words = (
        "run",
        "-d",
        "--net",
        "none",
        "--kernel",
        "/boot/lab/vmlinuz",
        "--initrd",
        "/boot/lab/initrd",
        "--timeout",
        "900",
    )
    try:
        tinamou(*words, "--name", "inner", "--usb", "type=host,device=46f4:0001")
        assert driver(port) != "usb-storage"
        find = "modprobe -a xhci-pci usb-storage; until [ -b /dev/sda ]; do sleep 1; done; head -c 1048576 /dev/sda | wc -c"
        assert tinamou("exec", "inner", "--", "sh", "-c", find).stdout.strip() == "1048576"
        assert driver(port) == "usbfs"  # QEMU claims it when the guest has chosen its configuration
        refused = tinamou(*words, "--name", "other", "--usb", f"type=host,device={port}", check=False)
        assert "inner has" in refused.stderr, refused.stderr
        forked = tinamou("fork", "inner", check=False)
        assert forked.returncode and "a device of this host's USB" in forked.stderr, forked.stderr
        os.kill(json.loads(tinamou("show", "inner", "--json").stdout)["pid"], signal.SIGKILL)
        tinamou("ls")
        eventually(lambda: driver(port) == "usb-storage")
        tinamou("start", "inner")
        assert driver(port) != "usb-storage"
        tinamou("stop", "inner", check=False)
        eventually(lambda: driver(port) == "usb-storage")
    finally:
        tinamou("rm", "-f", "inner", check=False)
        tinamou("rm", "-f", "other", check=False)
