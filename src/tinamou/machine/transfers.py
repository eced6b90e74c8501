"""How fast disks of a device of the host are read: by the host while it has the device, and by a guest, to be compared."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path

from tinamou.errors import GuestError, PrepareError
from tinamou.machine.connected import Connected
from tinamou.system.exec import CommandError, TimeoutExpired, run
from tinamou.system.paths import cache_dir
from tinamou.system.replaced import replace_text
from tinamou.units import PciAddress

__all__ = ["ENOUGH", "here", "in_the_guest", "known", "read"]

ENOUGH = 0.98
"""What share of the host's own figure a guest that drives the device itself has to reach."""

_SECONDS = 600
_SCRIPT = """
for b in /sys/block/*; do
    case $(readlink -f "$b") in *"/$1/"*) ;; *) continue ;; esac
    disk=$(basename "$b" | sed 's/c[0-9]*n/n/')
    count=$(($(cat "$b/size") / 2048)); [ "$count" -le 1024 ] || count=1024
    [ "$count" -gt 0 ] || continue
    echo "disk $disk"
    for round in 1 2 3; do
        sum=0
        read -r begun rest </proc/uptime
        now=$begun
        while [ $((${now%.*} - ${begun%.*})) -lt 4 ]; do
            dd if="/dev/$disk" of=/dev/null bs=1M count="$count" iflag=direct 2>/dev/null || exit 1
            sum=$((sum + count))
            read -r now rest </proc/uptime
        done
        echo "took $sum $begun $now"
    done
done
"""
"""Reads up to 1 GiB of each disk of a device, over and over for some three seconds, three times, past the caches: the same
program on both sides, which looks at a clock itself: busybox's dd tells no time. A disk with several ways to it is read by
its one name (nvme0c1n1 is a way to nvme0n1)."""


def read(said: str) -> list[int]:
    """Bytes a second of each disk, the best of three."""
    found = []
    for part in said.split("disk ")[1:]:
        timed = re.findall(r"^took (\d{1,9}) (\d{1,10}\.\d\d) (\d{1,10}\.\d\d)$", part, flags=re.MULTILINE)
        rates = [
            int((int(count) << 20) / (float(end) - float(begun))) for count, begun, end in timed if float(end) > float(begun)
        ]
        found += [max(rates)] if rates else []
    return found


def here(address: str) -> list[int]:
    """Read the disks of a device that the host has, and keep what each gave a second. Raises PrepareError."""
    place = str(PciAddress.parse(address))
    try:
        rates = read(run(["sh", "-c", _SCRIPT, "sh", place], timeout=_SECONDS))
    except (CommandError, TimeoutExpired) as error:
        raise PrepareError(f"the disks of {place} cannot be read", why=str(error), fix="run it as root") from error
    if not rates:
        fix = "give it back first, where a machine has it; what is no disk is not measured"
        raise PrepareError(f"this host has no disk of {place} now", fix=fix)
    replace_text(_file(), json.dumps({**_kept(), place: rates}, indent=1))
    return rates


def known(address: str) -> list[int]:
    """What the host measured of that device, none where it never did."""
    found = _kept().get(address)
    return [one for one in found if isinstance(one, int)] if isinstance(found, Sequence) else []


async def in_the_guest(machine: Connected, address: str) -> list[int]:
    """The same of the guest's device of that address, as it tells. Raises GuestError."""
    done = await machine.run(["sh", "-c", _SCRIPT, "sh", address], timeout=_SECONDS, check=False)
    if done.status:
        raise GuestError(
            f"the guest of {machine.name} does not read its disks", why=done.stdout.decode(errors="replace")[-500:]
        )
    return read(done.stdout.decode(errors="replace"))


def _file() -> Path:
    return cache_dir() / "transfers.json"


def _kept() -> dict[str, object]:
    try:
        found = json.loads(_file().read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
