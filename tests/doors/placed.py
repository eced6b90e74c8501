"""Machines that have something of the host to themselves, or lie in several parts: CPUs, huge pages, nodes, ports."""

from __future__ import annotations

import os
import shutil
import socket
import struct
from pathlib import Path
from typing import Any

from fields import Group, guest, host
from greeting import greeting_disk
from made_certificates import made_certificates
from seen import Seen
from typed import eventually

from tinamou.parts.display import has_spice
from tinamou.probe.qemu import find_binary, probe_qemu
from tinamou.system.threads import inside

DOOR = "$(sed 's/.*door=\\([0-9]*\\).*/\\1/' /proc/cmdline)"
"""In the guest: the port of the host that `answering` serves."""


def _placed(place: Path) -> dict[str, Any]:
    port = (place / "port").read_text() if (place / "port").exists() else "1"
    described: dict[str, Any] = {
        "name": "walk",
        "accel": "tcg",
        "cpu": {"count": 1, "pin": "auto", "strict": True, "realtime": 1},
        "memory": {"size": "256M", "hugepages": "2M"},
        "boot": {"cmdline": f"door={port}"},
        "net": [{"type": "passt", "host": True}] if shutil.which("passt") else [],
    }
    spice = has_spice(probe_qemu(find_binary(os.uname().machine)))
    screen = {"type": "spice", "clipboard": True, "redirected_usb": 2} if spice else {}
    return {**described, "display": {**screen, "looking_glass": "800x600", "looking_glass_user": "nobody"}}


def _places(seen: Seen) -> int:
    """How many CPUs its virtual one may run on, when it has been told: while its guest boots already."""
    eventually(lambda: len(os.sched_getaffinity(_vcpu(seen))) == 1, "a pinned CPU")
    return len(os.sched_getaffinity(_vcpu(seen)))


def _vcpu(seen: Seen) -> int:
    number = seen.ask("query-cpus-fast")[0]["thread-id"]  # before it is looked for: QEMU that answers has all its threads
    return inside(seen.record.pid)[number]


_FRAMES = "cd /sys/bus/pci/devices; for d in *; do [ $(cat $d/device) != 0x1110 ] || stat -c %s $d/resource2; done"


def _users(path: str) -> list[int]:
    """Everybody the file's list of rights names, by number."""
    listed = os.getxattr(path, "system.posix_acl_access")[4:]
    return [number for kind, _, number in struct.iter_unpack("<HHI", listed) if kind == 2]


def _redirected(seen: Seen) -> int:
    return sum(one["type"] == "child<usb-redir>" for one in seen.ask("qom-list", path="/machine/peripheral"))


def _large_pages(seen: Seen) -> int:
    """Bytes of the machine's memory that lie on pages of 2 MiB."""
    text = Path(f"/proc/{seen.record.pid}/smaps").read_text()
    large = [part for part in text.split("VmFlags:") if "KernelPageSize:     2048 kB" in part]
    return sum(int(part.split("\nSize:")[1].split()[0]) << 10 for part in large)


PLACED = Group(
    _placed,
    {
        "cpu.pin": host(_places, 1),
        "cpu.strict": host(lambda seen: len(seen.record.pinning), 1),
        "cpu.realtime": host(
            lambda seen: (
                os.sched_getscheduler(_vcpu(seen)) & ~os.SCHED_RESET_ON_FORK,
                os.sched_getparam(_vcpu(seen)).sched_priority,
            ),
            (os.SCHED_FIFO, 1),
        ),
        "memory.hugepages": host(_large_pages, 256 << 20),
        "display.type": host(lambda seen: (Path(seen.record.directory) / "run/spice.sock").is_socket(), True),
        "display.clipboard": host(lambda seen: "disable-copy-paste" in seen.after("spice")[0], False),
        "display.redirected_usb": host(_redirected, 2),
        "display.looking_glass": guest(_FRAMES, str(16 << 20)),
        "display.looking_glass_user": host(lambda seen: 65534 in _users("/dev/shm/looking-glass-walk"), True),
        "net[].type": host(lambda seen: len(seen.helper("passt")), 1),
        "net[].host": guest(f"sleep 5 | nc -w 20 10.0.2.2 {DOOR}", "from the host"),
    },
)


def free_port() -> int:
    """A port of the host that is free just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _in_parts(place: Path) -> dict[str, Any]:
    certificates = place / "tls"
    if not certificates.exists():
        made_certificates(certificates)
    return {
        "name": "walk",
        "accel": "tcg",
        "cpu": {"count": 2, "sockets": 2, "cores": 1, "threads": 1, "nodes": 2},
        "memory": {"size": "256M", "floor": "128M"},
        "net": [{"type": "user", "mac": "52:54:00:d0:0d:01", "forward": [f"tcp:127.0.0.1:{free_port()}:80"]}],
        "display": {"type": "vnc", "listen": f"127.0.0.1:{free_port()}", "tls": str(certificates)},
    }


def _screen_by_tcp(seen: Seen) -> dict[str, Any]:
    """How QEMU serves its screen by TCP."""
    [served] = [one for one in seen.ask("query-vnc-servers") if one["id"] == "tcp"]
    return {**served["server"][0], "tls": served.get("vencrypt")}


def _forwards(seen: Seen) -> list[str]:
    text = seen.ask("human-monitor-command", **{"command-line": "info usernet"})
    return [":".join(line.split()[2:4] + line.split()[5:6]) for line in text.splitlines() if "HOST_FORWARD" in line]


def _asked_forward(seen: Seen) -> list[str]:
    [text] = seen.record.spec["net"][0]["forward"]
    return [text.removeprefix("tcp:")]


IN_PARTS = Group(
    _in_parts,
    {
        "cpu.sockets": host(lambda seen: sorted(one["props"]["socket-id"] for one in seen.ask("query-cpus-fast")), [0, 1]),
        "cpu.nodes": guest("ls -d /sys/devices/system/node/node* | wc -l", "2"),
        "memory.floor": host(lambda seen: seen.prop("balloon0", "deflate-on-oom"), True),
        "net[].mac": guest("cat /sys/class/net/eth0/address", "52:54:00:d0:0d:01"),
        "net[].forward": host(_forwards, _asked_forward),
        "display.listen": host(
            lambda seen: f"127.0.0.1:{_screen_by_tcp(seen)['service']}", lambda seen: seen.record.spec["display"]["listen"]
        ),
        "display.tls": host(lambda seen: _screen_by_tcp(seen)["tls"], "x509-vnc"),
    },
)


def _too_large(place: Path) -> dict[str, Any]:
    available = next(line for line in Path("/proc/meminfo").read_text().splitlines() if line.startswith("MemAvailable"))
    size = (int(available.split()[1]) >> 10) + 1024
    return {
        "name": "walk",
        "image": str(greeting_disk(place / "disk.img")),
        "memory": {"size": f"{size}M", "overcommit": True},
        "net": [],
    }


TOO_LARGE = Group(
    _too_large,
    {
        "memory.overcommit": host(
            lambda seen: seen.ask("query-memory-size-summary")["base-memory"] >> 20,
            lambda seen: int(str(seen.record.spec["memory"]["size"]).removesuffix("M")),
        )
    },
    waited=False,
)
