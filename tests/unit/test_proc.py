"""What is read of processes is what the kernel says, whatever shortcut is taken."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tinamou.system import proc


def _said(pid: int) -> set[int]:
    line = next(line for line in Path(f"/proc/{pid}/status").read_text().splitlines() if line.startswith("Uid:"))
    return {int(word) for word in line.split()[1:]}


def test_users_of_every_process():
    seen = 0
    for pid in proc.numbers():
        with contextlib.suppress(OSError):
            assert proc.users(pid) == _said(pid)
            seen += 1
    assert seen > 1


@pytest.mark.root
@pytest.mark.parametrize("ids", [(0, 0, 77), (77, 0, 0), (77, 77, 77), (0, 77, 0)])
@pytest.mark.parametrize("hidden", [False, True])
def test_users_of_one_that_has_several(ids, hidden):
    """Also of one that has hidden itself, of which the files belong to root."""
    code = "import os, sys, ctypes; os.setresuid(*map(int, sys.argv[2:]))\n"
    code += "if sys.argv[1] == 'True': ctypes.CDLL(None).prctl(4, 0)\n"
    code += "print(flush=True); sys.stdin.read()"
    words = [sys.executable, "-c", code, str(hidden), *map(str, ids)]
    with subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as child:
        assert child.stdout is not None and child.stdout.readline()
        assert proc.users(child.pid) == proc.user_ids(child.pid) == set(ids)
        child.send_signal(signal.SIGKILL)


def test_a_file_is_read_whole():
    assert proc.read("self", "maps", 1 << 24).count(b"\n") > 10
    assert len(proc.read(os.getpid(), "environ", 10)) <= 10
    with pytest.raises(OSError, match="No such"):
        proc.read(2**22 + 1, "stat")
