"""A Debian guest whose own cards the host does not reach: ssh comes over the card ``ssh0``, and nothing else does."""

from __future__ import annotations

import subprocess
import time

import pytest
from labs import OUTSIDE, Lab

from tinamou.images.resolve import resolve

pytestmark = [pytest.mark.vm, pytest.mark.root, pytest.mark.slow, pytest.mark.timeout(900)]

HOST = "10.0.255.2"
"""The host, as QEMU's own TCP/IP shows it on that card."""


@pytest.mark.parametrize("net", ["none", "type=tap,address=10.9.0.1/24"])
def test_ssh_reaches_a_guest_that_no_other_card_leads_to(lab: Lab, net: str):
    resolve("debian", "x86_64")
    lab.outside()
    here, far = (listener(name, address) for name, address in ((lab.name, "127.0.0.1"), (f"{lab.name}-far", OUTSIDE)))
    assert lab.run("nc", "-z", "127.0.0.1", "7070", check=False).returncode == 0
    assert lab.run("nc", "-z", OUTSIDE, "7070", check=False).returncode == 0
    line = ("run", "debian", "--arch", "x86_64", "-d", "--name", "deb", "--memory", "1G", "--timeout", "600", "--net", net)
    lab.tinamou(*line)
    lab.tinamou("exec", "deb", "--", "cloud-init", "status", "--wait", check=False)
    assert by_ssh(lab, "id", "-un").strip() == "debian"
    addresses = lab.guest("deb", "ip -4 -o addr")
    assert "10.0.255.15/24" in addresses
    assert ("10.9.0.1/24" in addresses) is ("10.9.0.1" in net)
    lab.guest("deb", f"ip route replace default via {HOST} dev ssh0")
    assert not lab.pings("deb", OUTSIDE)
    for host in (HOST, OUTSIDE):
        reach = f"timeout 5 bash -c '</dev/tcp/{host}/7070'"
        assert lab.tinamou("exec", "deb", "--", "sh", "-c", reach, check=False).returncode != 0, host
    assert by_ssh(lab, "cat", "/proc/sys/kernel/hostname").strip() == "deb"
    lab.tinamou("rm", "-f", "deb")
    assert lab.traces() == {"links": "lo out0@if2", "nft": ""}
    for one in (here, far):
        one.kill()
        one.wait()


def listener(namespace: str, address: str) -> subprocess.Popen[bytes]:
    words = ["ip", "netns", "exec", namespace, "nc", "-lk", "-s", address, "-p", "7070"]
    started = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    shown = ["ip", "netns", "exec", namespace, "ss", "-Htln"]
    while b":7070" not in subprocess.run(shown, capture_output=True, check=True).stdout:
        time.sleep(0.05)
    return started


def by_ssh(lab: Lab, *words: str) -> str:
    """What the command says over ssh, once sshd answers."""
    end = time.monotonic() + 180
    while (done := lab.tinamou("ssh", "deb", "--", *words, check=False)).returncode and time.monotonic() < end:
        time.sleep(1)
    assert done.returncode == 0, done.stderr
    return done.stdout
