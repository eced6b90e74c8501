"""The Debian guest by every way of booting: seeded, reached by agent and ssh, files in and out, kept over a restart."""

from __future__ import annotations

import gzip
import json
import os
import stat
import subprocess

import pytest
from typed import TINAMOU, call, eventually

pytestmark = [pytest.mark.vm, pytest.mark.slow, pytest.mark.timeout(900)]

USER_DATA = """#cloud-config
write_files:
  - path: /etc/from-user-data
    content: the user's own document
"""


@pytest.mark.parametrize("firmware", ["direct", "bios", "uefi"])
def test_a_seeded_debian(firmware, tmp_path, leftovers):
    (tmp_path / "user-data").write_bytes(gzip.compress(USER_DATA.encode()))
    options = ["--firmware", firmware, "--memory", "1G", "--user-data", str(tmp_path / "user-data")]
    seed = ["--set", "seed.user=ada", "--set", "seed.hostname=engine"]
    started = call("run", "debian", "-d", "--name", "deb", *options, *seed, timeout=600)
    assert started.returncode == 0, started.stderr
    try:
        assert ssh("true").returncode == 0  # the guest's server is not there yet, and is waited for
        assert "Debian GNU/Linux 12" in inside("cat", "/etc/os-release")
        assert inside("sh", "-c", "test -d /sys/firmware/efi && echo yes || echo no") == (
            "yes\n" if firmware == "uefi" else "no\n"
        )
        inside("cloud-init", "status", "--wait")
        assert inside("hostname") == "engine\n"
        assert inside("cat", "/etc/from-user-data") == "the user's own document"
        assert ssh("id", "-un").stdout == "ada\n"
        assert ssh("sudo", "id", "-un").stdout == "root\n"
        assert ssh("sh", "-c", "exit 9").returncode == 9
        copies(tmp_path)
        streams()
        if firmware == "uefi":
            restarted()
        assert call("stop", "deb", "--grace", "120", timeout=300).returncode == 0
    finally:
        call("rm", "-f", "deb")
    assert leftovers.found() == []


def inside(*words):
    done = call("exec", "deb", "--", *words, timeout=300)
    assert done.returncode == 0, done.stderr
    return done.stdout


def ssh(*words):
    return call("ssh", "deb", "--", *words, timeout=300)


def copies(tmp_path):
    """A folder in and out by cp, its contents and modes kept."""
    folder = tmp_path / "folder"
    (folder / "below").mkdir(parents=True)
    (folder / "below" / "data").write_bytes(os.urandom(1 << 20))
    (folder / "script").write_text("#!/bin/sh\n")
    (folder / "script").chmod(0o755)
    assert call("cp", str(folder), "deb:/srv/folder", timeout=300).returncode == 0
    assert call("cp", "deb:/srv/folder", str(tmp_path / "back"), timeout=300).returncode == 0
    assert (tmp_path / "back/below/data").read_bytes() == (folder / "below/data").read_bytes()
    assert stat.S_IMODE((tmp_path / "back/script").stat().st_mode) == 0o755


def streams():
    """Much data in and out of a command, which the resident carries: this guest brings none, and was given it."""
    data = os.urandom(20_000_000)
    done = subprocess.run([*TINAMOU, "exec", "deb", "--", "cat"], input=data, capture_output=True, check=True, timeout=300)
    assert done.stdout == data
    assert "/.tinamou/resident" in inside("sh", "-c", "cat /proc/[0-9]*/cmdline | tr '\\0' '\\n'")


def restarted():
    """What was written is there after a stop and a start, and ssh finds the same host key."""
    inside("sh", "-c", "echo kept > /root/kept; sync")
    assert call("stop", "deb", "--grace", "120", timeout=300).returncode == 0
    assert json.loads(call("show", "deb", "--json").stdout)["state"] == "stopped"
    assert call("start", "deb", timeout=600).returncode == 0
    assert inside("cat", "/root/kept") == "kept\n"
    eventually(lambda: ssh("true").returncode == 0, "an answer by ssh after the restart", seconds=120)
