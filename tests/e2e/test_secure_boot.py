"""Secure Boot of a real guest: really on, its keys guarded, measured into its TPM; a changed boot loader does not start."""

from __future__ import annotations

import shutil

import pytest
from typed import call

pytestmark = [
    pytest.mark.vm,
    pytest.mark.slow,
    pytest.mark.timeout(900),
    pytest.mark.skipif(not shutil.which("swtpm_setup"), reason="swtpm-tools is not installed (script/setup test)"),
]

VARIABLE = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
TAMPER = """
mountpoint -q /boot/efi || mount /dev/disk/by-partlabel/ESP /boot/efi || mount "$(blkid -t TYPE=vfat -o device)" /boot/efi
find /boot/efi -iname 'boot*64.efi' -o -iname 'shim*.efi' | while read -r file; do
    printf 'changed by the test' | dd of="$file" bs=1 seek=4096 conv=notrunc 2>/dev/null
done
sync
"""


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
