"""A process that tinamou starts has the descriptors it was given and no others."""

import os
import time
from pathlib import Path

from tinamou.system.spawn import end, spawn


def held(pid):
    """Descriptor → what it is, once the process is the program it was started as."""
    process, deadline = Path(f"/proc/{pid}"), time.monotonic() + 10
    while (process / "exe").resolve().name != "sleep" and time.monotonic() < deadline:
        time.sleep(0.01)
    return {int(link.name): str(link.readlink()) for link in (process / "fd").iterdir()}


def test_nothing_the_caller_left_open(tmp_path):
    (tmp_path / "given").touch()
    read, write = os.pipe()
    os.set_inheritable(write, True)
    given = os.open(tmp_path / "given", os.O_RDONLY)
    process = spawn(["sleep", "60"], log=str(tmp_path / "log"), inherit=(given,), environment={"PATH": "/usr/bin:/bin"})
    try:
        assert held(process.pid) == {
            0: "/dev/null", 1: f"{tmp_path}/log", 2: f"{tmp_path}/log", given: f"{tmp_path}/given",
        }  # fmt: skip
        os.close(write)
        assert os.read(read, 1) == b"", "its reader is told that nobody writes any more"
    finally:
        end(process)
        os.close(read)
        os.close(given)


def test_a_descriptor_the_caller_was_started_with_can_be_given(tmp_path):
    read, write = os.pipe()
    os.set_inheritable(read, True)
    process = spawn(["sleep", "60"], log=str(tmp_path / "log"), inherit=(read,), environment={"PATH": "/usr/bin:/bin"})
    try:
        assert held(process.pid)[read].startswith("pipe:")
    finally:
        end(process)
        os.close(read)
        os.close(write)
