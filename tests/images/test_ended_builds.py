"""A build of a Debian system that is ended: nothing of it runs on, nothing stays mounted, nothing of the host is removed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

_STAND_IN = """#!/bin/sh
# as mmdebstrap does for root: file systems of the host's on folders of the new system, and programs that work there
root=$TMPDIR/root
mkdir -p "$root/dev"
if [ "$(id -u)" = 0 ]; then mount -t tmpfs host "$root/dev" && mount --bind "$HOST_FOLDER" "$root/dev" || exit 3; fi
(trap "" TERM INT HUP; exec sleep 1000.5) &
(trap "" TERM INT HUP; exec setsid sleep 1000.5) &
echo "$root" >"$TMPDIR/../ready.part" && mv "$TMPDIR/../ready.part" "$TMPDIR/../ready"
wait
"""

_BUILD = """
import shutil, sys
from pathlib import Path
from tinamou.cli.loop import heed_requests
from tinamou.images.debian import ARCHES
from tinamou.images.debian_tools import bootstrap
from tinamou.images.gpt import Identities
work = Path(sys.argv[1])
heed_requests()
try:
    bootstrap("bookworm", ARCHES["x86_64"], Identities.of("test"), include=["hello"], sources=[], work=work)
finally:
    shutil.rmtree(work)
"""


def _of(folder: Path) -> list[str]:
    """What of the build is left: its mounts, and the processes that have its folder in their environment."""
    found = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(folder) in line]
    for process in Path("/proc").glob("[0-9]*"):
        try:
            mine = f"TMPDIR={folder}/".encode() in (process / "environ").read_bytes()
            found += [(process / "cmdline").read_text()] if mine else []
        except OSError:
            continue
    return found


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_nothing_is_left_of_a_build_that_is_ended(number: signal.Signals, tmp_path: Path) -> None:
    tools, work, host = tmp_path / "bin", tmp_path / "work", tmp_path / "of-the-host"
    for folder in (tools, work, host):
        folder.mkdir()
    (host / "precious").write_text("still here")
    stand_in = tools / "mmdebstrap"
    stand_in.write_text(_STAND_IN.replace("$HOST_FOLDER", str(host)))
    stand_in.chmod(0o755)
    environment = {**os.environ, "PATH": f"{tools}:{os.environ['PATH']}"}
    build = subprocess.Popen([sys.executable, "-c", _BUILD, str(work)], env=environment, stderr=subprocess.PIPE, text=True)
    assert build.stderr is not None
    try:
        end = time.monotonic() + 60
        while not (work / "ready").exists():
            assert build.poll() is None and time.monotonic() < end, build.stderr.read()
            time.sleep(0.01)
        build.send_signal(number)
        assert build.wait(60) != 0
        while (left := _of(work)) and time.monotonic() < end:
            time.sleep(0.01)
        assert left == [] and (host / "precious").read_text() == "still here"
        assert work.exists() is (number == signal.SIGKILL)
    finally:
        build.stderr.close()
        for line in Path("/proc/self/mountinfo").read_text().splitlines():
            if str(work) in line:
                subprocess.run(["umount", "-l", line.split()[4]], check=False)
        for process in Path("/proc").glob("[0-9]*"):
            if "1000.5" in _text(process / "cmdline") and str(work) in _text(process / "environ"):
                os.kill(int(process.name), signal.SIGKILL)


def _text(path: Path) -> str:
    try:
        return path.read_bytes().decode(errors="replace")
    except OSError:
        return ""
