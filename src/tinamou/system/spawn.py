"""Start a long-lived process with exactly the descriptors it is meant to have, and tell whether a process still lives."""

from __future__ import annotations

import contextlib
import errno
import fcntl
import gc
import os
import select
import signal
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TypeVar

from tinamou.late import dataclass
from tinamou.system import proc
from tinamou.system.closing import Closing
from tinamou.system.exec import find_tool
from tinamou.system.lock import locked

__all__ = [
    "Process",
    "age",
    "alive",
    "apart",
    "beside",
    "end",
    "exit_code",
    "found_started",
    "gone",
    "process_of",
    "send",
    "spawn",
    "start_exactly",
    "wait_gone",
]

_BORN_SECONDS = 5.0
_ended: dict[int, int] = {}
"""How children ended that were asked about: who asks first has them gone from the process table."""

T = TypeVar("T")


@dataclass(frozen=True)
class Process:
    """A process for good: its number and its start time in clock ticks since boot, so that a reused number is noticed."""

    pid: int
    started: int


def spawn(
    argv: Sequence[str],
    *,
    log: str | int,
    inherit: Sequence[int] = (),
    stdin: int | None = None,
    environment: Mapping[str, str],
) -> Process:
    """Start ``argv`` in a session of its own, in ``/``; stdin is empty unless given, stdout and stderr go to ``log``.

    ``log`` is a file's name, or a descriptor. ``inherit`` are descriptors the process keeps under their numbers. It gets
    none of those this process was started with: they would be rights it was not given, and would keep whoever waits for the
    end of a pipe waiting. A file is appended to, and locked from before the process exists until it ends, which
    `found_started` relies on; only our own programs are given one. Raises OSError when the program cannot be started.
    """
    if isinstance(log, int):
        return process_of(start_exactly(_in_root(argv, environment), log, inherit, environment, stdin))
    with Closing(os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)) as output:
        fcntl.flock(output, fcntl.LOCK_SH)
        return process_of(start_exactly(_in_root(argv, environment), output, inherit, environment, stdin))


@contextlib.contextmanager
def beside(argv: Sequence[str], *, inherit: Sequence[int]) -> Iterator[None]:
    """A program of ours that leaves our folder and detaches itself, started before the block, which it does not hold up.

    Descriptors as in `spawn`. Raises OSError, and ChildProcessError after the block where it did not start well.
    """
    with Closing(os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)) as null:
        pid = start_exactly(argv, null, inherit, {})
    try:
        yield
    finally:
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if status:
        raise ChildProcessError(f"{argv[0]} ended with status {status}")


def start_exactly(
    words: Sequence[str], output: int, inherit: Sequence[int], environment: Mapping[str, str], stdin: int | None = None
) -> int:
    """The number of a child whose program is the first word, a path; as `spawn`, but for that in our folder."""
    with Closing(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)) as null:
        kept = ((null if stdin is None else stdin, 0), (output, 1), (output, 2), *((fd, fd) for fd in inherit))
        actions: list[tuple[int, ...]] = [(os.POSIX_SPAWN_DUP2, *pair) for pair in kept]
        actions += [(os.POSIX_SPAWN_CLOSE, fd) for fd in _open_to_children() if fd not in inherit]
        pid = os.posix_spawn(words[0], list(words), dict(environment), file_actions=actions, setsid=True)
        _ended.pop(pid, None)
        return pid


def apart(work: Callable[[Callable[[], None]], None], seconds: float = 5.0) -> bool:
    """Do ``work`` in a process of its own, which outlives this one and has nothing of it but its memory.

    Returns when the work has called what it is given, which says that it is ready; whether it did, within ``seconds``. This
    process must have no threads: a lock that one of them holds would never be free there.
    """
    said, mine = os.pipe()
    child = os.fork()
    if not child:
        try:
            if not os.fork():
                ready = _leave_all(mine)
                work(lambda: _say_once(ready))
        finally:
            os._exit(0)
    os.close(mine)
    with Closing(said):
        os.waitpid(child, 0)
        return bool(select.select([said], [], [], seconds)[0] and os.read(said, 1))


def _leave_all(kept: int) -> int:
    """Leave the session, the signals and the descriptors of the process this one was forked from, but for one."""
    kept = fcntl.fcntl(kept, fcntl.F_DUPFD_CLOEXEC, 3)
    os.setsid()
    signal.set_wakeup_fd(-1)
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGWINCH):
        signal.signal(number, signal.SIG_DFL)
    gc.freeze()  # what was made before is never taken apart: its descriptors have other meanings here
    os.closerange(0, kept)
    os.closerange(kept + 1, os.sysconf("SC_OPEN_MAX"))
    for _ in range(3):
        os.open(os.devnull, os.O_RDWR)
    os.chdir("/")
    return kept


def _say_once(descriptor: int) -> None:
    os.write(descriptor, b"!")
    os.close(descriptor)


def _in_root(argv: Sequence[str], environment: Mapping[str, str]) -> list[str]:
    """The same, started in ``/``: the caller's folder is none of its business. Raises OSError for a missing program.

    It keeps the name it was called by where it finds itself by that.
    """
    program, env = find_tool(argv[0]), find_tool("env")
    if program is None:
        raise FileNotFoundError(errno.ENOENT, "there is no such program", argv[0])
    if env is None or "=" in program:  # what has that sign is a variable to env(1)
        return [program, *argv[1:]]
    found = os.path.dirname(program) in environment.get("PATH", "").split(":")  # noqa: PTH120
    return [env, "--chdir=/", argv[0] if found else program, *argv[1:]]


def _open_to_children() -> list[int]:
    """Descriptors beyond stderr that every child of this process would get: whoever started it left them open."""
    found = []
    for name in os.listdir("/proc/self/fd"):  # noqa: PTH208
        with contextlib.suppress(OSError):  # the folder's own, closed by now
            if int(name) > 2 and os.get_inheritable(int(name)):
                found.append(int(name))
    return found


def found_started(find: Callable[[], T], log: str | Path) -> T:
    """What ``find`` finds by command lines, asked again while a process of this log is still on its way.

    Whoever started it may have been killed a moment ago: until the last exec the process has another command line.
    """
    deadline = time.monotonic() + _BORN_SECONDS
    while not (found := find()) and _locked(log) and time.monotonic() < deadline:
        time.sleep(0.002)
    return found or find()


def _locked(path: str | Path) -> bool:
    try:
        return locked(Path(path))
    except FileNotFoundError:
        return False


def process_of(pid: int) -> Process:
    """The process that has this number now. Raises ProcessLookupError."""
    stat = proc.stat(pid)
    if stat is None:
        raise ProcessLookupError(pid)
    return Process(pid, int(stat[19]))


def alive(process: Process) -> bool:
    """Whether that very process still runs; a zombie does not."""
    stat = proc.stat(process.pid)
    return stat is not None and int(stat[19]) == process.started and stat[0] not in "ZX"


def age(process: Process | None) -> float:
    """Seconds since the process was started; 0 for none."""
    if process is None:
        return 0.0
    return max(time.clock_gettime(time.CLOCK_BOOTTIME) - process.started / os.sysconf("SC_CLK_TCK"), 0.0)


def end(process: Process, *, grace: float = 0.0) -> None:
    """End a process: SIGTERM, and SIGKILL after ``grace`` seconds (at once when 0). Returns when it is gone."""
    send(process, signal.SIGTERM if grace else signal.SIGKILL)
    if grace and not wait_gone(process, grace):
        send(process, signal.SIGKILL)
    wait_gone(process, 5.0)
    exit_code(process.pid)


def send(process: Process, number: signal.Signals) -> bool:
    """Send a signal to that very process, never to another that got its number; whether it was there."""
    with contextlib.suppress(ProcessLookupError), Closing(os.pidfd_open(process.pid)) as handle:
        if alive(process):
            signal.pidfd_send_signal(handle, number)
            return True
    return False


def wait_gone(process: Process | None, seconds: float) -> bool:
    """Wait until the process has ended; whether it has within ``seconds``."""
    if process is None:
        return True
    with contextlib.suppress(ProcessLookupError), Closing(os.pidfd_open(process.pid)) as handle:
        poll = select.poll()
        poll.register(handle, select.POLLIN)
        stat = proc.stat(process.pid)
        another = stat is None or int(stat[19]) != process.started
        return another or bool(poll.poll(seconds * 1000))
    return True


async def gone(process: Process | None, seconds: float) -> bool:
    """As `wait_gone`, on the event loop: cancelled, it waits no longer."""
    import asyncio

    try:
        handle = os.pidfd_open(process.pid if process else 0)
    except OSError:
        return wait_gone(process, 0)
    loop, ended = asyncio.get_running_loop(), asyncio.Event()
    try:
        loop.add_reader(handle, ended.set)
        async with asyncio.timeout(0 if wait_gone(process, 0) else seconds):
            await ended.wait()
    except TimeoutError:
        pass
    finally:
        loop.remove_reader(handle)
        os.close(handle)
    return wait_gone(process, 0)


def exit_code(pid: int) -> int | None:
    """How a child of this process ended, -N for signal N; None while it runs, and for no child."""
    try:
        done, status = os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:
        return _ended.get(pid)
    if not done:
        return None
    _ended[pid] = os.waitstatus_to_exitcode(status)
    return _ended[pid]
