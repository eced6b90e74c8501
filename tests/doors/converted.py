"""A machine file that was made of a QEMU command line, by the command people type."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path
from typing import Any

from fields import Group, guest, host
from greeting import greeting_disk
from placed import free_port
from seen import Seen
from typed import tinamou

from tinamou.images.resolve import resolve

OTHERS = (
    *(
        "usb[].type",
        "devices.sound",
        "devices.watchdog",
        "devices.serial",
        "devices.vsock",
        "smbios.manufacturer",
        "smbios.product",
    ),
    *("smbios.version", "smbios.serial", "smbios.sku", "smbios.family", "smbios.uuid", "smbios.oem"),
    *("image", "cpu.model", "cpu.nodes", "cpu.pin", "cpu.strict", "memory.hugepages", "limits.cpu"),
    *("boot.firmware", "boot.secure", "boot.menu", "boot.order", "disk[].size", "disk[].aio", "disk[].iothread"),
    *("disk[].queues", "disk[].key", "net[].type", "net[].model", "net[].network", "net[].bridge", "net[].interface"),
    *("net[].address", "net[].dns", "net[].host", "net[].queues", "net[].packed", "net[].vhost", "net[].vlan"),
    *("pmem[].path", "pmem[].readonly"),
    *("usb[].device", "display.clipboard", "display.redirected_usb", "display.looking_glass"),
    *("os", "windows.virtio", "clock.base", "clock.offset", "cpu.hyperv"),
    *("net[].socket", "net[].listen", "share[].path", "share[].readonly", "pci[].device", "confidential.type"),
)
"""Fields that other sources, or other command lines, have: tests/convert reads them, and every machine file is one door."""

UNSAID = (
    *("cpu.max", "cpu.plugged"),
    *(
        "disk[].block_size",
        "usb[].path",
        "usb[].format",
        "display.video",
        "display.looking_glass_user",
        "display.listen",
        "display.tls",
    ),
    *("windows.drivers", "windows.user"),
    *("windows.password_file", "windows.edition", "windows.product_key", "windows.locale", "windows.keyboard"),
    *("windows.timezone", "windows.agent", "windows.ssh", "windows.ssh_keys", "windows.firstboot"),
    *("cpu.sockets", "cpu.latency", "cpu.near", "cpu.realtime", "memory.overcommit", "memory.forkable", "memory.floor"),
    *("limits.memory", "limits.read", "limits.write", "limits.pids", "disk[].port", "disk[].number", "net[].subnet"),
    *("net[].gateway", "boot.secure_keys"),
    *("net[].peers", "net[].anti_spoof", "net[].allow_out", "net[].allow_in", "net[].rate_out", "net[].rate_in"),
    *("net[].queue_size", "net[].offload", "net[].rss", "net[].trunk", "net[].bond", "net[].bond_mode", "net[].lacp"),
    *(
        "net[].port",
        "share[].to",
        "pci[].alone",
        "pci[].rom",
        "pci[].rom_file",
        "pci[].region",
        "pci[].together",
        "pci[].reset",
        "devices.iommufd",
        "pci[].mac",
        "pci[].vlan",
        "pci[].trust",
        "pci[].spoof_check",
        "pci[].rate",
        "confidential.debug",
        "confidential.id_block",
        "confidential.id_auth",
        "confidential.host_data",
        "confidential.dh_cert",
        "confidential.session",
        "placement.spread",
        "placement.together",
        "placement.near",
        "replicate.to",
        "replicate.every",
        "security.syscalls",
        "security.apparmor",
        "security.selinux",
        "security.sched_core",
        "devices.rng",
        "devices.balloon",
    ),
    *("devices.panic", "devices.hotplug", "seed.user", "seed.ssh_keys", "seed.hostname", "seed.packages"),
    *("seed.user_data", "seed.password_hash", "seed.shell", "seed.agent", "seed.locale", "seed.timezone"),
    *("seed.ignition", "seed.combustion"),
    "confine.without",
)
"""Fields no other tool has a word for, or whose words ``convert`` answers with what tinamou does by itself."""


def _line(place: Path) -> list[str]:
    tiny = resolve("tiny", "x86_64")
    raw, qcow2 = greeting_disk(place / "raw.img"), place / "two.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", qcow2, "8M"], check=True)
    second = f"if=none,id=d1,file={qcow2},format=qcow2,cache=none,discard=ignore,detect-zeroes=on,werror=report"
    return [
        *("qemu-system-x86_64", "-name", "walk", "-machine", "q35,mem-merge=on", "-accel", "tcg", "-m", "300M"),
        *("-smp", "2,sockets=1,cores=1,threads=2", "-vnc", ":7"),
        *("-drive", f"if=virtio,file={raw},format=raw,readonly=on"),
        *("-drive", f"{second},throttling.iops-total=500,throttling.bps-total=52428800"),
        *("-device", "virtio-scsi-pci,id=s0", "-device", "scsi-hd,drive=d1,bus=s0.0"),
        *("-netdev", f"user,id=n0,ipv6=off,hostfwd=tcp:127.0.0.1:{free_port()}-:80"),
        *("-device", "virtio-net-pci,netdev=n0,mac=52:54:00:d0:0d:02,host_mtu=1400"),
        *("-netdev", "user,id=n1,restrict=on", "-device", "virtio-net-pci,netdev=n1"),
        *("-chardev", "socket,id=c,path=/nosuch", "-tpmdev", "emulator,id=t,chardev=c", "-device", "tpm-crb,tpmdev=t"),
        *("-kernel", tiny.kernel, "-initrd", tiny.initrd, "-append", f"{tiny.cmdline} walked=yes"),
        *("-device", "edu,id=by-hand"),
    ]


def _describe(place: Path) -> dict[str, Any]:
    return tomllib.loads(tinamou("convert", "--", *_line(place)))


def _threads(seen: Seen, what: str) -> list[int]:
    return sorted({one["props"][what] for one in seen.ask("query-cpus-fast")})


_WAIT = "until [ -e /sys/block/sda ] || [ $((i += 1)) -gt 1000 ]; do sleep 0.1; done;"
"""The kernel looks for such disks while the guest boots on."""


CONVERTED = Group(
    _describe,
    {
        "name": host(lambda seen: seen.record.name, "walk"),
        "arch": guest("uname -m", "x86_64"),
        "accel": host(lambda seen: seen.ask("query-kvm")["enabled"], False),
        "cpu.count": guest("nproc", "2"),
        "cpu.cores": host(lambda seen: _threads(seen, "core-id"), [0]),
        "cpu.threads": host(lambda seen: _threads(seen, "thread-id"), [0, 1]),
        "memory.size": host(lambda seen: seen.ask("query-memory-size-summary")["base-memory"], 300 << 20),
        "memory.merge": host(lambda seen: seen.prop("ram0", "merge"), True),
        "boot.kernel": host(lambda seen: len(seen.after("kernel")), 1),
        "boot.initrd": host(lambda seen: len(seen.after("initrd")), 1),
        "boot.cmdline": guest("grep -o walked=yes /proc/cmdline", "walked=yes"),
        "disk[].path": guest("grep -c 'hello from the disk' /dev/vda", "1"),
        "disk[].format": host(lambda seen: seen.node("disk0")["driver"], "raw"),
        "disk[].readonly": guest("cat /sys/block/vda/ro", "1"),
        "disk[].interface": guest(f"{_WAIT} cat /sys/block/sda/size", str((8 << 20) // 512)),
        "disk[].cache": host(lambda seen: seen.nodes["disk1"]["cache"]["direct"], True),
        "disk[].discard": host(lambda seen: "discard" in seen.node("disk1"), False),
        "disk[].detect_zeroes": host(lambda seen: seen.nodes["disk1"]["detect_zeroes"], "on"),
        "disk[].on_full": host(lambda seen: seen.prop("disk1-dev", "werror"), "report"),
        "disk[].iops": host(lambda seen: seen.prop("disk1-limits", "limits")["iops-total"], 500),
        "disk[].bandwidth": host(lambda seen: seen.prop("disk1-limits", "limits")["bps-total"], 50 << 20),
        "net[].mac": guest("cat /sys/class/net/eth0/address", "52:54:00:d0:0d:02"),
        "net[].mtu": guest("cat /sys/class/net/eth0/mtu", "1400"),
        "net[].ipv6": host(lambda seen: seen.netdev("net0")["ipv6"], False),
        "net[].forward": host(lambda seen: len(seen.netdev("net0")["hostfwd"]), 1),
        "net[].isolated": host(lambda seen: seen.netdev("net1")["restrict"], True),
        "display.type": host(lambda seen: (Path(seen.record.directory) / "run/vnc.sock").is_socket(), True),
        "tpm.enabled": host(lambda seen: len(seen.helper("swtpm")), 1),
        "qemu_args": host(lambda seen: "by-hand" in seen.devices, True),
    },
)
