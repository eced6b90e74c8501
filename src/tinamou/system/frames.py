"""A connection between two processes, held still where its bytes are between two frames, and put into a third process.

passt and QEMU say before each frame how long it is: whoever takes the connection over has to begin where a frame does. Each
of the two has only whole frames once the writer waits for what comes next and all that it wrote has been read.
"""

from __future__ import annotations

import array
import contextlib
import fcntl
import os
import signal
import socket
import struct
import termios
import time
from collections.abc import Iterator
from pathlib import Path

from tinamou.system import proc
from tinamou.system.spawn import Process, send

__all__ = ["connection", "hold", "let_go", "put_in"]

_WAITS = ("232", "281")
"""The numbers of epoll_wait and epoll_pwait, of x86_64: in them passt waits for what comes next."""
_GLANCE_SECONDS = 0.0005
_READ_SECONDS = 0.05


def connection(pid: int, other: Process) -> int:
    """A descriptor of ours for the end that the process ``pid`` has of its connection to ``other``. Raises OSError.

    Who is at the other end the kernel says (SO_PEERCRED of unix(7)).
    """
    from tinamou.system.descriptors import taken

    for entry in sorted(Path(f"/proc/{pid}/fd").iterdir()):
        with contextlib.suppress(FileNotFoundError):
            if not str(entry.readlink()).startswith("socket:"):
                continue
        with contextlib.suppress(OSError):
            found = taken(pid, int(entry.name))
            if _peer(found) == other.pid:
                return found
            os.close(found)
    raise FileNotFoundError(f"process {pid} has no connection to process {other.pid}")


def _peer(descriptor: int) -> int:
    with socket.socket(fileno=os.dup(descriptor)) as one:
        if (one.family, one.type) != (socket.AF_UNIX, socket.SOCK_STREAM):
            return 0
        return int(struct.unpack("3i", one.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))[0])


def hold(writer: Process, reader: Process, line: int, seconds: float) -> bool:
    """Stop the writer at the end of a frame that the reader has read; False where that did not come in so many seconds.

    ``line`` is the reader's end of the connection. The writer stays stopped until `let_go`.
    """
    until = time.monotonic() + seconds
    while True:
        if _held(writer, reader, line):
            return True
        if time.monotonic() > until:
            return False
        time.sleep(_GLANCE_SECONDS)


def let_go(writer: Process) -> None:
    """The writer goes on, if it was stopped."""
    send(writer, signal.SIGCONT)


def _held(writer: Process, reader: Process, line: int) -> bool:
    with _stopped(writer) as stopped:
        if (call := _call(writer.pid)) in _WAITS and _read(line):
            stopped.pop_all()
            return True
    return call is None and _held_unseen(writer, reader, line)


def _held_unseen(writer: Process, reader: Process, line: int) -> bool:
    """The same where the writer's calls are not ours to see.

    The reader is stopped, too: a writer that sleeps, though there is room for more, has written all of its frame.
    """
    with _stopped(reader):
        if _unread(line) or _state(writer.pid) != "S" or _unread(line):
            return False
        with _stopped(writer) as stopped:
            if _state(writer.pid) != "T" or _unread(line):
                return False
            stopped.pop_all()
            return True


@contextlib.contextmanager
def _stopped(process: Process) -> Iterator[contextlib.ExitStack]:
    """It is stopped in the block, and goes on after it, unless what the block is given has been emptied."""
    with contextlib.ExitStack() as stack:
        stack.callback(send, process, signal.SIGCONT)
        send(process, signal.SIGSTOP)
        until = time.monotonic() + _READ_SECONDS
        while _state(process.pid) not in ("T", "") and time.monotonic() < until:
            time.sleep(_GLANCE_SECONDS / 10)
        yield stack


def _state(pid: int) -> str:
    """One letter, as in proc_pid_stat(5); empty where it is gone."""
    fields = proc.stat(pid)
    return fields[0] if fields else ""


def _call(pid: int) -> str | None:
    """The number of the system call it is in, or came from; None where we may not see that (source: proc_pid_syscall(5))."""
    try:
        return Path(f"/proc/{pid}/syscall").read_text().split()[0]
    except OSError:
        return None


def _read(line: int) -> bool:
    until = time.monotonic() + _READ_SECONDS
    while _unread(line):
        if time.monotonic() > until:
            return False
        time.sleep(_GLANCE_SECONDS / 10)
    return True


def _unread(line: int) -> int:
    found = array.array("i", [0])
    fcntl.ioctl(line, termios.FIONREAD, found)
    return found[0]


def put_in(pid: int, stands_in: int, line: int) -> None:
    """In process ``pid`` what it has as ``stands_in``, a file of ours, becomes ``line``, which it was started with too.

    Inside of `tinamou.system.inject.begin`. Raises OSError.
    """
    from tinamou.system.descriptors import numbers_of
    from tinamou.system.inject import held

    old, new = numbers_of(pid, stands_in), numbers_of(pid, line)
    if not old or not new:
        raise FileNotFoundError(f"process {pid} has lost a connection it was started with")
    with held(pid) as caller:
        for number in old:
            caller.call("dup3", new[0], number, os.O_CLOEXEC)
        for number in new:
            caller.call("close", number)
