"""What a Windows would find, looked at by a Linux guest: its controllers and card, and the discs of its setup."""

from __future__ import annotations

from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest
from typed import tinamou
from unattend import SPACE, faults, password

from tinamou.system.iso import build_iso

pytestmark = [pytest.mark.vm, pytest.mark.timeout(300)]

LOOK = """
tries=0; until [ -e /run/settled ] || [ $tries -gt 600 ]; do sleep 0.1; tries=$((tries + 1)); done
modprobe -a ahci e1000e
tries=0; until [ -e /dev/sr1 ] && [ -e /dev/sda ] || [ $tries -gt 300 ]; do sleep 0.1; tries=$((tries + 1)); done
for disk in sda vda; do echo "$(cat /sys/block/$disk/size) $(readlink -f /sys/block/$disk | grep -o ata. | head -1)"; done
basename $(readlink -f /sys/class/net/eth0/device/driver)
cat /sys/power/mem_sleep 2>/dev/null | grep -c deep
modprobe -q isofs
for disc in sr0 sr1; do mkdir -p /$disc && mount -o ro /dev/$disc /$disc; done
cat /sr1/viostor/w10/amd64/viostor.inf
cat /sr0/tinamou/setup.ps1 | grep -c qemu-ga-x86_64.msi
echo "-- answers"
cat /sr0/autounattend.xml
"""


def test_discs_and_controllers_as_a_guest_sees_them(tmp_path: Path):
    (tmp_path / "password").write_text("s3cret\n")
    build_iso(tmp_path / "drivers.iso", "VIRTIO", {"viostor/w10/amd64/viostor.inf": "the driver\n"})
    windows = {"user": "ada", "password_file": tmp_path / "password", "drivers": tmp_path / "drivers.iso", "locale": "de-DE"}
    words = [word for key, value in windows.items() for word in ("--set", f"windows.{key}={value}")]
    disks = ["--disk", "size=8M,interface=sata", "--disk", "size=16M"]
    card = ["--net", "type=user,model=e1000e"]
    machine = ["tiny", "--os", "windows-10", "--memory", "256M", *disks, *card, *words]
    said, _, answers = tinamou("run", *machine, "--", "sh", "-c", LOOK).partition("-- answers\n")
    assert said.splitlines() == [
        f"sda {(8 << 20) // 512} ata1",
        f"vda {(16 << 20) // 512} ",
        "e1000e",
        "0",
        "the driver",
        "1",
    ]
    assert faults(answers) == []
    value = fromstring(answers).findtext(f".//{SPACE}LocalAccount/{SPACE}Password/{SPACE}Value") or ""
    assert password(value) == "s3cret"
    assert "<UILanguage>de-DE</UILanguage>" in answers
