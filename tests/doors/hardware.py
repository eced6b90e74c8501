"""A machine that has most of what a description can say: CPUs, memory, limits, disks, cards, shares, small devices."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from fields import Group, guest, host
from seen import Seen

from tinamou.system.cgroups import mounts

PASSPHRASE = "doors"
UUID = "123e4567-e89b-42d3-a456-426614174000"
_OF = 'for b in /sys/block/vd*; do [ "$(cat $b/serial)" = {} ] && {}; done'


def _describe(place: Path) -> dict[str, Any]:
    (place / "data.qcow2").write_bytes(b"the raw disk".ljust(4 << 20, b"\0"))
    (place / "key").write_text(PASSPHRASE)
    (place / "shared").mkdir(exist_ok=True)
    (place / "shared/greeting").write_text("hello\n")
    (place / "stick.qcow2").unlink(missing_ok=True)
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", place / "stick.qcow2", "4M"], check=True)
    return {
        "name": "walk",
        "arch": "x86_64",
        "accel": "tcg",
        "cpu": {"count": 2, "max": 4, "plugged": 1, "sockets": 2, "cores": 1, "threads": 2, "model": "qemu64,+aes"},
        "memory": {"size": "300M", "merge": True, "forkable": True},
        "limits": _limits(),
        "confine": {"without": ["hostname"]},
        "boot": {"firmware": "direct", "cmdline": "walked=yes"},
        "disk": [
            {"path": str(place / "data.qcow2"), "format": "raw", "readonly": True, "aio": "threads"},
            {
                **{"size": "8M", "interface": "scsi", "cache": "none", "discard": False, "detect_zeroes": "on"},
                **{"iothread": True, "queues": 2, "iops": 500, "bandwidth": "50M", "on_full": "error"},
            },
            {"size": "16M", "key": str(place / "key"), "port": 1, "number": 5, "block_size": 4096},
        ],
        "net": [
            {"type": "user", "model": "e1000", "ipv6": False, "isolated": True},
            {
                **{"type": "user", "address": "10.0.3.77/24", "gateway": "10.0.3.2", "dns": ["10.0.3.3"]},
                **{"mtu": 1400, "queue_size": 512, "packed": "on", "port": 2},
            },
        ],
        "share": [{"path": str(place / "shared"), "to": "/srv/shared", "readonly": True}],
        "display": {"type": "vnc", "video": "std"},
        "usb": [{"type": "tablet"}, {"type": "stick", "path": str(place / "stick.qcow2"), "format": "qcow2"}],
        "smbios": {
            **{
                "manufacturer": "Tinamou",
                "product": "Walk, 2",
                "version": "v3",
                "serial": "S4",
                "sku": "K5",
                "family": "F6",
            },
            **{"uuid": UUID, "oem": ["first=1"]},
        },
        "tpm": {"enabled": True},
        "devices": {
            **{"rng": False, "balloon": False, "panic": False, "hotplug": 3},
            **{"sound": "hda", "watchdog": "pause", "serial": 2},
        },
        "qemu_args": ["-device", "virtio-rng-pci,id=by-hand", "-device", "edu", "-device", "edu,addr=0x4"],
    }


def _apart(seen: Seen, kind: str) -> bool:
    """Whether its QEMU has a namespace of its own."""
    theirs, mine = (Path(f"/proc/{one}/ns/{kind}").readlink() for one in (seen.record.pid, "self"))
    return theirs != mine


def _limits() -> dict[str, Any]:
    """What the control groups of this host can hold."""
    there = mounts()
    wanted: dict[str, tuple[str, Any]] = {
        "cpu": ("cpu", 1.75),
        "memory": ("memory", "900M"),
        "read": ("io", "64M"),
        "write": ("io", "32M"),
    }
    wanted["pids"] = ("pids", 700)
    return {name: value for name, (controller, value) in wanted.items() if controller in there and os.geteuid() == 0}


def _cpus(seen: Seen, what: str) -> list[int]:
    return sorted({one["props"][what] for one in seen.ask("query-cpus-fast")})


def _period(seen: Seen) -> float:
    quota, *period = seen.limit("cpu.cfs_quota_us", "cpu.max").split()
    return int(quota) / int(period[0] if period else 100_000)


def _rate(seen: Seen, way: str) -> int:
    text = seen.limit(f"blkio.throttle.{way}_bps_device", "io.max")
    return int(next((word.split("=")[1] for word in text.split() if word.startswith(f"{way[0]}bps=")), text.split()[-1]))


def _screen(seen: Seen) -> tuple[str, bool]:
    """Where QEMU's server listens, and whether that is there."""
    [text] = seen.after("vnc")
    assert seen.ask("query-vnc-servers")
    path = text.removeprefix("unix:").partition(",")[0]
    return f"unix:{path}", Path(path).is_socket()


def _key_of(seen: Seen) -> tuple[str, bool]:
    """How the disk is encrypted, and whether its file shows it."""
    path = next(Path(seen.record.directory).glob("disk5*.qcow2"))
    return seen.node("disk5")["encrypt"]["format"], b"LUKS\xba\xbe" in path.read_bytes()


_MAKER = {
    **{
        "manufacturer": ("sys_vendor", "Tinamou"),
        "product": ("product_name", "Walk, 2"),
        "version": ("product_version", "v3"),
    },
    **{"serial": ("product_serial", "S4"), "sku": ("product_sku", "K5"), "family": ("product_family", "F6")},
    "uuid": ("product_uuid", UUID),
}
"""Field → file of the kernel's, and what it says."""


def _codec(seen: Seen) -> str:
    return str(seen.prop("sound0-codec", "type"))


def _plug(seen: Seen, device: str) -> str:
    return str(seen.prop(device, "parent_bus")).split("/")[-1]


HARDWARE = Group(
    _describe,
    {
        "name": guest("hostname", lambda seen: seen.name),
        "arch": guest("uname -m", "x86_64"),
        "accel": host(lambda seen: seen.ask("query-kvm")["enabled"], False),
        "cpu.count": guest("nproc", "3"),
        "cpu.max": host(lambda seen: len(seen.ask("query-hotpluggable-cpus")), 4),
        "cpu.plugged": host(lambda seen: (seen.prop("cpu2", "socket-id"), seen.prop("cpu2", "thread-id")), (1, 0)),
        "cpu.cores": host(lambda seen: _cpus(seen, "core-id"), [0]),
        "cpu.threads": host(lambda seen: _cpus(seen, "thread-id"), [0, 1]),
        "cpu.model": guest(
            'grep -m1 "model name" /proc/cpuinfo; grep -m1 -ow aes /proc/cpuinfo',
            "model name\t: QEMU Virtual CPU version 2.5+\naes",
        ),
        "memory.size": host(lambda seen: seen.ask("query-memory-size-summary")["base-memory"], 300 << 20),
        "memory.merge": host(lambda seen: seen.prop("ram0", "merge"), True),
        "memory.forkable": host(
            lambda seen: (seen.prop("ram0", "type"), seen.prop("ram0", "share")), ("memory-backend-file", True)
        ),
        "limits.cpu": host(_period, 1.75),
        "limits.memory": host(lambda seen: int(seen.limit("memory.limit_in_bytes", "memory.max")), 900 << 20),
        "limits.pids": host(lambda seen: int(seen.limit("pids.max")), 700),
        "limits.read": host(lambda seen: _rate(seen, "read"), 64 << 20),
        "limits.write": host(lambda seen: _rate(seen, "write"), 32 << 20),
        "confine.without": host(lambda seen: (_apart(seen, "uts"), _apart(seen, "ipc")), (False, True)),
        "boot.firmware": host(lambda seen: len(seen.after("kernel")), 1),
        "boot.cmdline": guest("grep -o walked=yes /proc/cmdline", "walked=yes"),
        "disk[].path": guest(_OF.format("disk0", "head -c 12 /dev/${b##*/}"), "the raw disk"),
        "disk[].format": guest(_OF.format("disk0", "cat $b/size"), str((4 << 20) // 512)),
        "disk[].readonly": guest(_OF.format("disk0", "cat $b/ro"), "1"),
        "disk[].aio": host(lambda seen: seen.node("disk0")["file"]["aio"], "threads"),
        "disk[].size": guest("cat /sys/block/sda/size", str((8 << 20) // 512)),
        "disk[].interface": guest("cat /sys/block/sda/device/vendor", "QEMU"),
        "disk[].cache": host(lambda seen: seen.nodes["disk1"]["cache"]["direct"], True),
        "disk[].discard": host(
            lambda seen: ("discard" in seen.node("disk1"), "discard" in seen.node("disk5")), (False, True)
        ),
        "disk[].detect_zeroes": host(lambda seen: seen.nodes["disk1"]["detect_zeroes"], "on"),
        "disk[].iothread": host(lambda seen: seen.prop("disk1-bus", "iothread"), "/objects/disk1-io"),
        "disk[].queues": host(lambda seen: seen.prop("disk1-bus", "num_queues"), 2),
        "disk[].iops": host(lambda seen: seen.prop("disk1-limits", "limits")["iops-total"], 500),
        "disk[].bandwidth": host(lambda seen: seen.prop("disk1-limits", "limits")["bps-total"], 50 << 20),
        "disk[].on_full": host(lambda seen: seen.prop("disk1-dev", "werror"), "report"),
        "disk[].key": host(_key_of, ("luks", True)),
        "disk[].block_size": guest(_OF.format("disk5", "cat $b/queue/logical_block_size"), "4096"),
        "disk[].port": host(lambda seen: _plug(seen, "disk5-dev"), "plug1"),
        "disk[].number": host(lambda seen: "disk5-dev" in seen.devices, True),
        "net[].type": host(lambda seen: seen.netdev("net0")["type"], "user"),
        "net[].model": guest("grep -l 0x100e /sys/bus/pci/devices/*/device | wc -l", "1"),
        "net[].ipv6": host(lambda seen: seen.netdev("net0")["ipv6"], False),
        "net[].isolated": host(lambda seen: seen.netdev("net0")["restrict"], True),
        "net[].address": guest("ip -4 addr show eth0 | grep -o 10.0.3.77/24", "10.0.3.77/24"),
        "net[].gateway": guest("ip route | grep -o 'default via [0-9.]*'", "default via 10.0.3.2"),
        "net[].dns": guest("cat /etc/resolv.conf", "nameserver 10.0.3.3"),
        "net[].mtu": guest("cat /sys/class/net/eth0/mtu", "1400"),
        "net[].queue_size": host(lambda seen: seen.prop("net1-dev", "rx_queue_size"), 512),
        "net[].packed": host(lambda seen: seen.prop("net1-dev", "packed"), True),
        "net[].port": host(lambda seen: _plug(seen, "net1-dev"), "plug2"),
        "share[].path": guest("cat /srv/shared/greeting", "hello"),
        "share[].to": guest("grep -c ' /srv/shared virtiofs ' /proc/mounts", "1"),
        "share[].readonly": guest("touch /srv/shared/new 2>/dev/null; echo $?", "1"),
        "display.type": host(_screen, lambda seen: (f"unix:{seen.record.directory}/run/vnc.sock", True)),
        "display.video": host(lambda seen: seen.prop("video", "type"), "VGA"),
        "usb[].type": host(lambda seen: seen.prop("usb0-0", "type"), "usb-tablet"),
        "usb[].path": host(lambda seen: Path(seen.node("stick1")["file"]["filename"]).name[:1].isdecimal(), True),
        "usb[].format": host(lambda seen: seen.nodes["stick1"]["drv"], "qcow2"),
        **{f"smbios.{field}": guest(f"cat /sys/class/dmi/id/{file}", said) for field, (file, said) in _MAKER.items()},
        "smbios.oem": guest("grep -c first=1 /sys/firmware/dmi/entries/11-0/raw", "1"),
        "devices.sound": host(lambda seen: (seen.prop("sound0", "type"), _codec(seen)), ("ich9-intel-hda", "hda-duplex")),
        "devices.watchdog": guest("grep -l 0x25ab /sys/bus/pci/devices/*/device | wc -l", "1"),
        "devices.serial": guest("grep -c 16550A /proc/tty/driver/serial", "3"),
        "tpm.enabled": guest("cat /sys/class/tpm/tpm0/tpm_version_major", "2"),
        "devices.rng": host(lambda seen: "rng0-dev" in seen.devices, False),
        "devices.balloon": host(lambda seen: "balloon0" in seen.devices, False),
        "devices.panic": host(lambda seen: "panic0" in seen.devices, False),
        "devices.hotplug": host(
            lambda seen: sorted(one for one in seen.devices if one.startswith("plug")), [f"plug{n}" for n in range(1, 5)]
        ),
        "qemu_args": host(lambda seen: "by-hand" in seen.devices, True),
    },
)
