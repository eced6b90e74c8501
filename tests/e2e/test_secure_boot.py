"""Secure Boot of a real guest: really on, its keys guarded, measured into its TPM; a changed boot loader does not start."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typed import call, eventually

from tinamou.images.resolve import resolve
from tinamou.system.exec import find_tool

sys.path.insert(0, str(Path(__file__).parent.parent / "images"))
from disk_making import ESP, SECTOR, gpt

pytestmark = [
    pytest.mark.vm,
    pytest.mark.slow,
    pytest.mark.timeout(900),
]

VARIABLE = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
TAMPER = """
mountpoint -q /boot/efi || mount /dev/disk/by-partlabel/ESP /boot/efi || mount "$(blkid -t TYPE=vfat -o device)" /boot/efi
find /boot/efi -iname 'boot*64.efi' -o -iname 'shim*.efi' | while read -r file; do
    printf 'changed by the test' | dd of="$file" bs=1 seek=4096 conv=notrunc 2>/dev/null
done
sync
"""


@pytest.mark.skipif(not shutil.which("swtpm_setup"), reason="swtpm-tools is not installed (script/setup test)")
def test_secure_boot(leftovers):
    started = call("run", "debian", "-d", "--name", "safe", "--secure-boot", "--tpm", "--memory", "1G", timeout=600)
    assert started.returncode == 0, started.stderr
    try:
        assert inside(f"od -An -tu1 -j4 {VARIABLE}").strip() == "1"
        assert "Secure boot enabled" in inside("dmesg")
        assert "[integrity]" in inside("cat /sys/kernel/security/lockdown")
        assert set(inside("cat /sys/class/tpm/tpm0/pcr-sha256/7").strip()) != {"0"}
        inside(TAMPER)
        assert call("stop", "safe", "--grace", "120", timeout=300).returncode == 0
        refused = call("start", "safe", timeout=600)
        assert refused.returncode == 116
        assert "Secure Boot" in refused.stderr, refused.stderr
    finally:
        call("rm", "-f", "safe")
    assert leftovers.found() == []


def inside(script: str) -> str:
    done = call("exec", "safe", "--", "sh", "-c", script, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


NEEDED = ("sbsign", "virt-fw-vars", "mkfs.fat", "mcopy", "openssl")


@pytest.mark.skipif(
    any(find_tool(name) is None for name in NEEDED) or not Path("/usr/share/OVMF/OVMF_VARS_4M.fd").exists(),
    reason=f"{', '.join(NEEDED)}, or an OVMF with an empty store of keys is not installed",
)
def test_keys_of_our_own(tmp_path):
    """A kernel Debian has signed is refused; signed by our key too it starts, and says that Secure Boot is on."""
    keys = tmp_path / "keys"
    assert call("host", "secure-boot-keys", str(keys)).returncode == 0
    kernel = resolve("tiny", "x86_64").kernel
    signed = tmp_path / "signed.efi"
    sign = ["sbsign", "--key", str(keys / "db.key"), "--cert", str(keys / "db.pem"), "--output", str(signed), kernel]
    subprocess.run(sign, check=True, capture_output=True)
    common = ("--memory", "512M", "--arch", "x86_64", "--accel", "tcg", "--secure-boot-keys", str(keys))
    try:
        for name, loader in (("no", Path(kernel)), ("yes", signed)):
            image = str(disk(tmp_path / f"{name}.raw", loader))
            started = call("run", image, "-d", "--no-wait", "--name", name, *common, timeout=600)
            assert started.returncode == 0, started.stderr
        eventually(lambda: "UEFI Secure Boot is enabled" in call("logs", "yes").stdout, "the signed one was started", 300)
        eventually(lambda: "Access Denied" in call("logs", "no").stdout, "the other one was refused", 300)
        assert "EFI stub" not in call("logs", "no").stdout
        shown = json.loads(call("show", "yes", "--json").stdout)["trusts"]
        assert [one.split()[0] for one in shown] == ["PK", "KEK", "db"]
        assert all("tinamou" in one and "ends 20" in one for one in shown)
    finally:
        call("rm", "-f", "no")
        call("rm", "-f", "yes")


def disk(path: Path, loader: Path) -> Path:
    """A disk with nothing but an EFI system partition, from which this program is started."""
    size, first = 64 << 20, 2048
    volume = path.with_suffix(".fat")
    volume.write_bytes(bytes(size - (first + 64) * SECTOR))
    for words in (
        ["mkfs.fat", "-F", "32", volume],
        ["mmd", "-i", volume, "::EFI", "::EFI/BOOT"],
        ["mcopy", "-i", volume, loader, "::EFI/BOOT/BOOTX64.EFI"],
    ):
        subprocess.run([str(find_tool(str(words[0]))), *map(str, words[1:])], check=True, capture_output=True)
    data = volume.read_bytes()
    head = gpt(size, ESP, first, first + len(data) // SECTOR - 1).ljust(first * SECTOR, b"\0")
    path.write_bytes((head + data).ljust(size, b"\0"))
    return path
