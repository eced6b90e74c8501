"""A process that tinamou starts has the descriptors it was given and no others."""

import asyncio
import os
import signal
import time
from pathlib import Path

from tinamou.system.spawn import Process, end, exit_code, gone, spawn, wait_gone

SLEEPING = {"230": "clock_nanosleep, x86_64", "115": "clock_nanosleep, aarch64 and riscv64"}
"""The system call ``sleep`` waits in, by number (source: proc_pid_syscall(5))."""


def held(pid):
    """Descriptor → what it is, once the process sleeps: on its way there its loader opens and closes files of its own."""
    process, deadline = Path(f"/proc/{pid}"), time.monotonic() + 60
    while time.monotonic() < deadline:
        asleep = (process / "syscall").read_text().split()[0] in SLEEPING
        if (process / "exe").resolve().name == "sleep" and asleep:
            return {int(link.name): str(link.readlink()) for link in (process / "fd").iterdir()}
        time.sleep(0.01)
    raise AssertionError(f"process {pid} does not sleep")


def test_nothing_the_caller_left_open(tmp_path):
    (tmp_path / "given").touch()
    read, write = os.pipe()
    os.set_inheritable(write, True)
    given = os.open(tmp_path / "given", os.O_RDONLY)
    process = spawn(["sleep", "600"], log=str(tmp_path / "log"), inherit=(given,), environment={"PATH": "/usr/bin:/bin"})
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
    process = spawn(["sleep", "600"], log=str(tmp_path / "log"), inherit=(read,), environment={"PATH": "/usr/bin:/bin"})
    try:
        assert held(process.pid)[read].startswith("pipe:")
    finally:
        end(process)
        os.close(read)
        os.close(write)


def test_how_a_child_ended_is_told_to_all_who_ask(tmp_path):
    process = spawn(["sh", "-c", "exit 7"], log=str(tmp_path / "log"), environment={"PATH": "/usr/bin:/bin"})
    assert wait_gone(process, 60)
    assert [exit_code(process.pid) for _ in range(3)] == [7, 7, 7]


def test_an_end_is_waited_for_on_the_event_loop(tmp_path):
    process = spawn(["sleep", "600"], log=str(tmp_path / "log"), environment={"PATH": "/usr/bin:/bin"})
    assert asyncio.run(gone(process, 0.05)) is False
    os.kill(process.pid, signal.SIGTERM)
    assert asyncio.run(gone(process, 60)) is True
    assert asyncio.run(gone(process, 60)) is True and asyncio.run(gone(None, 60)) is True


def test_another_process_of_that_number_is_not_waited_for(tmp_path):
    process = spawn(["sleep", "600"], log=str(tmp_path / "log"), environment={"PATH": "/usr/bin:/bin"})
    try:
        assert asyncio.run(gone(Process(process.pid, process.started + 1), 60)) is True
    finally:
        end(process)
