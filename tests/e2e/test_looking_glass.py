"""Memory for pictures (Looking Glass): host and guest see the same, its viewer may open it, and it goes with the machine."""

from __future__ import annotations

import json
import mmap
import os
import signal
from pathlib import Path

import pytest
from typed import call, eventually, tinamou

pytestmark = [pytest.mark.vm, pytest.mark.root]

FILE = Path("/dev/shm/looking-glass-seen")
SWITCH_ON = """
cd /sys/bus/pci/devices; for d in *; do [ $(cat $d/device) != 0x1110 ] || { echo 1 >$d/enable; sed -n 3p $d/resource; }; done
"""


def test_the_guest_and_a_viewer_share_it() -> None:
    tinamou("run", "-d", "--name", "seen", "--net", "none", "--set", "display.looking_glass=1920x1080", "tiny")
    try:
        start, end, _ = (int(word, 16) for word in tinamou("exec", "seen", "--", "sh", "-c", SWITCH_ON).split())
        assert end - start + 1 == FILE.stat().st_size == 32 << 20
        with FILE.open("r+b") as file, mmap.mmap(file.fileno(), 0) as memory:
            memory[:4] = (0x01020304).to_bytes(4, "little")
            assert tinamou("exec", "seen", "--", "devmem", hex(start), "32").strip() == "0x01020304"
            tinamou("exec", "seen", "--", "devmem", hex(start + 8), "32", "0xcafe")
            assert memory[8:10] == b"\xfe\xca"
        assert str(FILE) in tinamou("host")
        assert "ivshmem" in call("checkpoint", "seen").stderr
        shown = ("--set", "display.looking_glass=64M", "--set", "display.looking_glass_user=no.such.user")
        other = call("run", "-d", "--name", "seen2", *shown, "tiny")
        assert other.returncode and "no.such.user" in other.stderr
        pid = json.loads(tinamou("show", "seen", "--json"))["pid"]
        os.kill(pid, signal.SIGKILL)
        eventually(lambda: not Path(f"/proc/{pid}").exists(), "the end of QEMU")
        tinamou("ls")
        assert not FILE.exists()
        FILE.write_text("somebody else's")
        assert "there already" in call("start", "seen").stderr
        assert FILE.read_text() == "somebody else's"
    finally:
        FILE.unlink(missing_ok=True)
        call("rm", "-f", "seen")
