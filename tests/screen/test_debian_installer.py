"""Debian's own installer, from its netboot disc, unattended: a machine that answers ssh and its agent, by BIOS and by UEFI.

An hour each where nothing but emulation runs a guest: TINAMOU_INSTALLS=1 asks for them.
"""

from __future__ import annotations

import contextlib
import json
import os
import socket
import subprocess
from pathlib import Path

import debian_mirror
import debian_netboot
import pytest
from typed import call, tinamou

SECONDS = 7200
PRESEED = """
d-i debian-installer/locale string en_US.UTF-8
d-i keyboard-configuration/xkb-keymap select us
d-i netcfg/choose_interface select auto
d-i netcfg/get_hostname string unassigned
d-i netcfg/get_domain string unassigned
d-i netcfg/hostname string installed
d-i mirror/country string manual
d-i mirror/protocol string http
d-i mirror/http/hostname string 10.0.2.2:{port}
d-i mirror/http/directory string /debian
d-i mirror/http/proxy string
d-i mirror/suite string trixie
# the index of the installer's parts has nobody's signature; packages are checked by Debian's again
d-i debian-installer/allow_unauthenticated boolean true
d-i partman/early_command string debconf-set debian-installer/allow_unauthenticated false
d-i passwd/root-login boolean false
d-i passwd/user-fullname string Ann
d-i passwd/username string ann
d-i passwd/user-password-crypted password !
d-i clock-setup/utc boolean true
d-i clock-setup/ntp boolean false
d-i time/zone string Etc/UTC
d-i partman-auto/method string regular
d-i partman-auto/choose_recipe select atomic
d-i partman-partitioning/confirm_write_new_label boolean true
d-i partman/choose_partition select finish
d-i partman/confirm boolean true
d-i partman/confirm_nooverwrite boolean true
d-i base-installer/install-recommends boolean false
d-i base-installer/kernel/image string linux-image-cloud-amd64
d-i base-installer/initramfs-tools/driver-policy select dep
d-i apt-setup/services-select multiselect
d-i pkgsel/run_tasksel boolean false
d-i pkgsel/include string openssh-server qemu-guest-agent
d-i pkgsel/upgrade select none
d-i pkgsel/update-policy select none
d-i grub-installer/only_debian boolean true
d-i grub-installer/bootdev string default
d-i preseed/late_command string in-target install -d -m 700 -o ann -g ann /home/ann/.ssh; \\
  echo '{key}' >/target/home/ann/.ssh/authorized_keys; in-target chown ann /home/ann/.ssh/authorized_keys
d-i finish-install/reboot_in_progress note
"""

pytestmark = [
    pytest.mark.vm,
    pytest.mark.slow,
    pytest.mark.timeout(2 * SECONDS + 600),
    pytest.mark.skipif(
        not os.environ.get("TINAMOU_INSTALLS"), reason="an hour under emulation: TINAMOU_INSTALLS=1 runs Debian's installer"
    ),
]


@pytest.fixture(scope="module")
def netboot(cache, tmp_path_factory):
    """The disc, and a mirror for it; skips by the name of what no way round leads to."""
    try:
        found, mirror = debian_netboot.found(cache / "test-images" / "debian-netboot")
    except debian_mirror.MissingError as error:
        pytest.skip(str(error))
    return debian_netboot.disc(found, tmp_path_factory.mktemp("netboot")), mirror


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_debian_is_installed_and_answers(netboot, firmware, tmp_path, state):
    disc, mirror = netboot
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", key], check=True)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    with debian_mirror.served(mirror) as (mirror_port, log):
        (tmp_path / "preseed.cfg").write_text(
            PRESEED.format(port=mirror_port, key=key.with_suffix(".pub").read_text().strip())
        )
        words = ("--disk", "size=10G", "--memory", "2G", "--cpus", "2", "--firmware", firmware, "--timeout", str(SECONDS))
        more = ("--answers", str(tmp_path / "preseed.cfg"), "--publish", f"127.0.0.1:{port}:22")
        try:
            done = call("install", str(disc), "--name", "installed", *words, *more, timeout=2 * SECONDS)
            assert (done.returncode, done.stdout) == (0, "installed\n"), done.stderr
            assert not [line for line in log if line.startswith("404") and "/pool/" in line]
            assert "what was installed answers: agent" in done.stderr
            _seen_from_inside(firmware)
            _seen_by_ssh(key, port)
            tinamou("stop", "installed", "--grace", "600")
            tinamou("start", "installed")  # from its disk again, without the disc in its drive
            _seen_from_inside(firmware)
        finally:
            with contextlib.suppress(OSError):
                print((state / "machines" / "installed" / "serial.log").read_text(errors="replace")[-4000:])
            call("rm", "-f", "installed")


def _seen_from_inside(firmware: str) -> None:
    boot = json.loads(tinamou("show", "installed", "--json"))["spec"]["boot"]
    assert (boot["firmware"], "kernel" in boot) == (firmware, False)
    inside = "test -d /sys/firmware/efi && echo uefi || echo bios; hostname; findmnt -no FSTYPE /; cat /proc/cmdline"
    said = tinamou("exec", "installed", "--", "sh", "-c", inside).splitlines()
    assert said[:3] == [firmware, "installed", "ext4"]
    assert "preseed" not in said[3]
    assert tinamou(
        "exec", "installed", "--", "sh", "-c", "dpkg-query -Wf '${Status}' grub-efi-amd64 grub-pc 2>/dev/null || true"
    )


def _seen_by_ssh(key: Path, port: int) -> None:
    options = ["-o", "StrictHostKeyChecking=no", "-o", f"UserKnownHostsFile={key.parent}/known", "-o", "BatchMode=yes"]
    words = ["ssh", "-i", key, "-p", str(port), *options, "ann@127.0.0.1", "id -un; cat /etc/debian_version"]
    done = subprocess.run(words, capture_output=True, text=True, check=False, timeout=120)
    assert done.stdout.startswith("ann\n13."), done.stderr
