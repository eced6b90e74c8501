"""A network namespace of the test's own, in which the command starts machines, and what is done in it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

OUTSIDE, OUTSIDE6 = "192.0.2.1", "2001:db8:1::1"
UPGRADES = [
    pytest.param("", "", id="installed-installed"),
    pytest.param("10", "10", id="10-10", marks=pytest.mark.qemu10),
    pytest.param("10", "11", id="10-11", marks=[pytest.mark.qemu10, pytest.mark.qemu11]),
    pytest.param("11", "11", id="11-11", marks=pytest.mark.qemu11),
]
"""From which QEMU to which; none is the one that is installed."""


class Lab:
    """The namespace; ``tinamou`` runs the command in it, ``guest`` a script in a machine."""

    def __init__(self, name: str, state: Path) -> None:
        self.name = name
        self.state = state
        self._far: list[str] = []
        self._settings = Path("/etc/netns") / name

    def run(
        self, *argv: str, check: bool = True, input: str | None = None, seconds: float = 240
    ) -> subprocess.CompletedProcess[str]:
        words = ["ip", "netns", "exec", self.name, *argv]
        done = subprocess.run(words, capture_output=True, text=True, input=input, timeout=seconds, check=False)
        assert not check or done.returncode == 0, f"{argv}: {done.returncode}\n{done.stdout}\n{done.stderr}"
        return done

    def ip(self, line: str) -> str:
        return self.run("ip", *line.split()).stdout

    def tinamou(self, *argv: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        return self.run(sys.executable, "-m", "tinamou", *argv, check=check)

    def start(self, name: str, net: str, *more: str) -> None:
        self.tinamou("run", "tiny", "-d", "--name", name, "--net", net, *more)

    def guest(self, name: str, script: str, check: bool = True) -> str:
        return self.tinamou("exec", name, "--", "sh", "-c", script, check=check).stdout

    def wait(self, name: str, script: str, seconds: float = 60) -> str:
        """Until the script succeeds in the guest."""
        end = time.monotonic() + seconds
        while True:
            done = self.tinamou("exec", name, "--", "sh", "-c", script, check=False)
            if done.returncode == 0:
                return done.stdout
            assert time.monotonic() < end, f"{name} never came to: {script}\n{done.stdout}{done.stderr}"
            time.sleep(0.3)

    def pings(self, name: str, host: str) -> bool:
        return self.tinamou("exec", name, "--", "ping", "-c", "2", "-W", "2", host, check=False).returncode == 0

    def reaches(self, name: str, host: str, seconds: float = 30) -> bool:
        """A guest's addresses take a few seconds after its boot."""
        end = time.monotonic() + seconds
        while not (there := self.pings(name, host)) and time.monotonic() < end:
            time.sleep(0.3)
        return there

    def address(self, name: str, device: str = "eth0") -> str:
        return self.wait(name, f"ip -4 -o addr show {device} | grep -o 'inet [0-9.]*' | cut -c6- | grep .").strip()

    def address6(self, name: str, prefix: str, device: str = "eth0") -> str:
        return self.wait(
            name, f"ip -6 -o addr show {device} | grep -v tentative | grep -o '{prefix}[0-9a-f:]*' | grep ."
        ).split()[0]

    def outside(self) -> None:
        """A way out of the namespace, to an address that answers: another namespace on a cable."""
        far = f"{self.name}-far"
        subprocess.run(["ip", "netns", "add", far], check=True)
        self._far.append(far)
        self.ip(f"link add out0 type veth peer name far netns {far}")
        self.ip("address add 192.0.2.2/24 dev out0")
        self.ip("address add 2001:db8:1::2/64 dev out0 nodad")
        self.ip("link set out0 up")
        for line in ("address add 192.0.2.1/24 dev far", "address add 2001:db8:1::1/64 dev far nodad", "link set far up"):
            subprocess.run(["ip", "-n", far, *line.split()], check=True)
        self.ip(f"route add default via {OUTSIDE}")
        self.ip(f"-6 route add default via {OUTSIDE6}")

    def far(self, *argv: str, check: bool = True) -> str:
        words = ["ip", "netns", "exec", f"{self.name}-far", *argv]
        return subprocess.run(words, capture_output=True, text=True, check=check, timeout=60).stdout

    def resolver(self, name: str, address: str) -> None:
        """A name server outside that knows one name, as the one this host asks."""
        self._settings.mkdir(parents=True, exist_ok=True)
        (self._settings / "resolv.conf").write_text(f"nameserver {OUTSIDE}\n")
        words = ["dnsmasq", "--keep-in-foreground", "--conf-file=/dev/null", "--pid-file=", "--no-resolv", "--no-hosts"]
        words += [f"--address=/{name}/{address}", f"--listen-address={OUTSIDE}", "--bind-interfaces"]
        subprocess.Popen(["ip", "netns", "exec", f"{self.name}-far", *words], stdin=subprocess.DEVNULL)

    def traces(self) -> dict[str, str]:
        """Everything a machine may leave in the namespace."""
        links = sorted(line.split()[0] for line in self.ip("-br link").splitlines())
        return {"links": " ".join(links), "nft": self.run("nft", "list", "ruleset").stdout}

    def close(self) -> None:
        shutil.rmtree(self._settings, ignore_errors=True)
        for one in (self.name, *self._far):
            pids = subprocess.run(["ip", "netns", "pids", one], capture_output=True, text=True, check=False).stdout.split()
            for pid in pids:
                subprocess.run(["kill", "-9", pid], check=False, capture_output=True)
            subprocess.run(["ip", "netns", "delete", one], check=False, capture_output=True)


def sends(lab: Lab, sender: str, receiver: str, host: str, port: int = 5001, kib: int = 2048) -> None:
    """Random bytes sent over TCP arrive as they were."""
    keep = f'setsid nc -l -p {port} -e sh -c "cat >/tmp/got.part; mv /tmp/got.part /tmp/got"'
    lab.guest(receiver, f"rm -f /tmp/got; ({keep}) >/dev/null 2>&1 </dev/null &")
    lab.guest(sender, f"dd if=/dev/urandom of=/tmp/data bs=1k count={kib} 2>/dev/null")
    lab.wait(sender, f"nc -w 30 {host} {port} -e cat /tmp/data </dev/null")
    wanted = lab.guest(sender, "md5sum </tmp/data")
    assert lab.wait(receiver, "test -e /tmp/got && md5sum </tmp/got") == wanted


def speak6(lab: Lab, one: str, two: str) -> None:
    """Two guests on one nic reach each other by the IPv6 addresses every interface has, and send bytes both ways."""
    for sender, receiver in ((one, two), (two, one)):
        address = f"{lab.address6(receiver, 'fe80')}%eth0"
        assert lab.reaches(sender, address)
        sends(lab, sender, receiver, address, kib=256)
