"""A machine that is changed after it was made, while it runs and while it is off; each step is looked at in the guest."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from typed import call, eventually, tinamou

import tinamou as library
from tinamou.state.machines import find

pytestmark = pytest.mark.vm


@pytest.fixture
def web() -> Iterator[str]:
    tinamou("run", "-d", "--name", "web", "--net", "user", "--memory", "256M", "--set", "cpu.max=4")
    yield "web"
    call("rm", "-f", "web")


def changed(*words: str) -> dict[str, tuple[Any, str]]:
    """Field → what it is to be, and when."""
    done = json.loads(tinamou("set", "web", *words, "--json"))
    return {one["field"]: (one["after"], one["effect"]) for one in done["changes"]}


def inside(script: str) -> str:
    return tinamou("exec", "web", "--", "sh", "-c", script).strip()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def said_at(port: int) -> str:
    """The first line that comes from a port; nothing where nobody listens in the guest yet."""
    try:
        with socket.create_connection(("127.0.0.1", port), timeout=60) as peer:
            return peer.makefile().readline()
    except ConnectionError:
        return ""


def test_while_it_runs_and_at_the_next_start(web: str) -> None:
    memory = int(inside("sed -n 's/MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo"))
    port = free_port()
    assert changed("cpus=3", "memory=192M", f"net[0].forward+=tcp:{port}:80", "boot.cmdline=walked=yes") == {
        "cpu.count": (3, "now"),
        "memory.size": ("192M", "now"),
        "net[0].forward": ([f"tcp:{port}:80"], "now"),
        "boot.cmdline": ("walked=yes", "next start"),
    }
    if inside("cat /sys/devices/system/cpu/possible") != "0":  # an emulated guest with a newer Linux has no room (findings)
        eventually(lambda: inside("nproc") == "3", "the CPUs in the guest")
    assert memory - int(inside("sed -n 's/MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")) == 64 << 10
    inside("(while :; do echo hello | nc -l -p 80; done) >/dev/null 2>&1 &")
    eventually(lambda: said_at(port) == "hello\n", "what the guest says at its port")
    assert changed("disk+=size=64M", "net+=type=user") == {
        "disk[0]": ({"size": "64M"}, "now"),
        "net[1]": ({"type": "user"}, "now"),
    }
    assert changed("disk[0].size=96M") == {"disk[0].size": ("96M", "now")}
    eventually(lambda: inside("cat /sys/block/vda/size") == str(96 << 11), "the larger disk in the guest")
    eventually(lambda: inside("ls /sys/class/net").split() == ["eth0", "eth1", "lo"], "the second card in the guest")
    assert changed("net[1]=")["net[1]"] == (None, "now")
    assert inside("ls /sys/class/net").split() == ["eth0", "lo"]
    assert changed("memory=320M", "cpus=2", f"net[0].forward-=tcp:{port}:80") == {
        "memory.size": ("320M", "next start"),
        "cpu.count": (2, "next start"),
        "net[0].forward": ([], "now"),
    }
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), timeout=60)
    assert find(web).spec["memory"]["size"] == "256M", "it is what it was started as"
    tinamou("restart", web)
    assert inside("nproc; cat /sys/block/vda/size").split() == ["2", "196608"]
    assert inside("grep -o walked=yes /proc/cmdline") == "walked=yes"
    assert int(inside("sed -n 's/MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo")) > memory
    assert find(web).later == {} and find(web).spec["cpu"] == {"count": 2, "max": 4}


@pytest.mark.slow
def test_a_suspended_machine_goes_on_as_what_it_was(web: str) -> None:
    with library.open(web) as machine:
        done = machine.change(cpus=2, memory="320M")
    assert {one.field: one.effect for one in done.changes} == {"cpu.count": "now", "memory.size": "next start"}
    tinamou("suspend", web)
    assert changed("boot.cmdline=walked=yes") == {"boot.cmdline": ("walked=yes", "next start")}
    tinamou("resume", web)
    assert inside("nproc; grep -c walked /proc/cmdline || true").split() == ["2", "0"]
    tinamou("restart", web)
    assert inside("nproc; grep -c walked /proc/cmdline").split() == ["2", "1"]


@pytest.mark.slow
def test_nothing_is_taken_of_what_cannot_be(web: str) -> None:
    before = find(web)
    for words, said in (
        (("memory=128M", "net[4].mtu=1"), "there is no net[4]: it has 1"),
        (("memory=128M", "memory.frob=1", "cpus=zwei"), "has 2 problems"),
        (("memory=128M", "name=other"), "tinamou rename"),
        (("memory=128M", "image=debian"), "its disk rests on that image"),
        (("memory=128M", "cpu.max=2000"), "at most"),
        (("memory=128M", "cpu.near=nosuch", "cpu.pin=auto"), "cpu.max"),
    ):
        done = call("set", web, *words)
        assert done.returncode and said in done.stderr, done.stderr
    assert find(web) == before
    assert "memory.size: 256M -> 128M, not done" in tinamou("set", web, "memory=128M", "--dry-run")
    assert find(web) == before
    assert "is so already" in tinamou("set", web, "memory=256M")
