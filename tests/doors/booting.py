"""Machines that say how they start: a kernel of one's own and a seed beside a disk; firmware, an order of disks, a menu."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from fields import Group, Look, guest, host
from greeting import GREETING, greeting_disk
from seen import Seen

from tinamou.images.resolve import resolve

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDoorsDoorsDoorsDoorsDoorsDoorsDoorsDoorsDoor walker"
HASH = "$6$doors$NMpDJUGtzbqzqYyMyYyMyY"
SECOND = "hi from another one"
assert len(SECOND) == len(GREETING)


IGNITION = '{"ignition": {"version": "3.3.0"}, "storage": {"files": [{"path": "/walked"}]}}'

OFFSET = 3 * 366 * 86400
"""Three years ahead, in seconds."""


def _own_kernel(place: Path) -> dict[str, Any]:
    tiny = resolve("tiny", "x86_64")
    return {
        "name": "walk",
        "image": str(greeting_disk(place / "disk.img")),
        "memory": {"size": "300M"},
        "boot": {"kernel": tiny.kernel, "initrd": tiny.initrd, "cmdline": f"{tiny.cmdline} walked=yes"},
        "net": [{"type": "user"}],
        "clock": {"offset": OFFSET},
        "security": {"syscalls": "qemu"},
        "seed": {
            **{"user": "ada", "ssh_keys": [KEY], "hostname": "walked", "packages": ["jq"], "shell": "/bin/sh"},
            **{"user_data": "#cloud-config\nwrite_files: []\n", "password_hash": HASH, "agent": "leave"},
            **{"locale": "eo.UTF-8", "timezone": "Europe/Berlin"},
            **{"ignition": IGNITION, "combustion": "#!/bin/sh\necho burnt\n"},
        },
    }


def _handed_on(text: str, file: str) -> Look:
    """What the guest reads from its firmware."""
    return guest(f"modprobe -q qemu_fw_cfg; grep -c -- {text} /sys/firmware/qemu_fw_cfg/by_name/opt/{file}/raw", "1")


def year_of_clock(seen: Seen) -> int:
    """What the clock of the board shows."""
    return int(seen.ask("qom-get", path="/machine", property="rtc-time")["tm_year"]) + 1900


def _seeded(field: str, file: str = "user-data") -> Look:
    """What the guest reads on its disc."""
    disc = "mkdir -p /cd; modprobe -q isofs; [ -e /cd/meta-data ] || for d in /dev/vd?; do "
    disc += "mount -t iso9660 -o ro $d /cd 2>/dev/null && break; done; "
    return guest(f"{disc} grep -cF -- '{field}' /cd/{file}", "1")


OWN_KERNEL = Group(
    _own_kernel,
    {
        "image": guest(
            'for b in /sys/block/vd*; do [ "$(cat $b/serial)" = disk0 ] && grep -c "hello from" /dev/${b##*/}; done', "1"
        ),
        "clock.offset": host(year_of_clock, lambda _: time.gmtime(time.time() + OFFSET).tm_year),
        "boot.kernel": host(lambda seen: len(seen.after("kernel")), 1),
        "boot.initrd": host(lambda seen: len(seen.after("initrd")), 1),
        "boot.cmdline": guest("grep -o walked=yes /proc/cmdline", "walked=yes"),
        "security.syscalls": host(lambda seen: seen.filters, 1),
        "seed.user": _seeded('"name": "ada"'),
        "seed.ssh_keys": _seeded(KEY),
        "seed.hostname": _seeded('"local-hostname": "walked"', "meta-data"),
        "seed.packages": _seeded('"jq"'),
        "seed.user_data": _seeded("write_files: []"),
        "seed.password_hash": _seeded(HASH),
        "seed.shell": _seeded('"shell": "/bin/sh"'),
        "seed.agent": guest("grep -c qemu-guest-agent /cd/user-data", "0"),
        "seed.locale": _seeded("eo.UTF-8"),
        "seed.timezone": _seeded("Europe/Berlin"),
        "seed.ignition": _handed_on("/walked", "com.coreos/config"),
        "seed.combustion": _handed_on("burnt", "org.opensuse.combustion/script"),
    },
)


def _firmware(place: Path) -> dict[str, Any]:
    second = greeting_disk(place / "second.img")
    second.write_bytes(second.read_bytes().replace(GREETING.encode(), SECOND.encode()))
    return {
        "name": "walk",
        "image": str(greeting_disk(place / "disk.img")),
        "memory": {"size": "64M", "forkable": True},
        "boot": {"firmware": "bios", "order": "disk1", "menu": True},
        "disk": [{"path": str(second), "format": "raw"}],
        "net": [],
    }


def _greeted(seen: Seen) -> list[str]:
    """Whom the serial port has heard, once it has heard somebody; nothing of a copy, which halted long ago."""
    log = Path(seen.record.directory) / "serial.log"

    def heard() -> list[str]:
        text = log.read_text(errors="replace") if log.exists() else ""
        return [one for one in (GREETING, SECOND) if one in text]

    deadline = time.monotonic() + 60
    while not heard() and time.monotonic() < deadline:
        if seen.record.parent:
            return [SECOND]
        time.sleep(0.1)
    time.sleep(0.2)  # another one may greet yet
    return heard()


FIRMWARE = Group(
    _firmware,
    {
        "boot.firmware": host(lambda seen: (seen.after("kernel"), "flash0" in seen.nodes), ([], False)),
        "boot.order": host(lambda seen: (_greeted(seen), seen.prop("disk1-dev", "bootindex")), ([SECOND], 0)),
        "boot.menu": host(lambda seen: seen.after("boot"), ["menu=on"]),
    },
    waited=False,
)


def _windows(place: Path) -> dict[str, Any]:
    return {
        "name": "walk",
        "os": "windows-server-2019",
        "image": str(greeting_disk(place / "disk.img")),
        "memory": {"size": "64M"},
        "boot": {"firmware": "bios"},
        "clock": {"base": "2031-02-03T04:05:06"},
        "net": [{"type": "user"}],
    }


def _board(seen: Seen) -> tuple[str, str, list[str]]:
    """What the disk that was booted from and the card are, and the sleep states switched off."""
    _greeted(seen)
    kinds = (seen.prop("disk0-dev", "type"), seen.prop("net0-dev", "type"))
    return *kinds, sorted(one.split("property=")[1] for one in seen.after("global") if "disable_s" in one)


WINDOWS = Group(
    _windows,
    {
        "os": host(_board, ("ide-hd", "e1000e", ["disable_s3,value=1", "disable_s4,value=1"])),
        "clock.base": host(year_of_clock, 2031),
    },
    waited=False,
)
"""No Windows: a disk that greets, on what Windows would find."""
