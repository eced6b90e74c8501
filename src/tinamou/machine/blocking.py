"""The machine for programs without asyncio: the same methods, each waiting for its result."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, TypeVar, overload

from tinamou.images.progress import Progress, silent
from tinamou.machine.attended import READY_SECONDS, AsyncMachine

if TYPE_CHECKING:
    from types import TracebackType

    from tinamou.guest.agent import Completed
    from tinamou.guest.copy import Copied
    from tinamou.guest.ready import ReadyReport
    from tinamou.machine.forking import Wish
    from tinamou.snapshots.checkpoint import Checkpoint
    from tinamou.spec import MachineSpec
    from tinamou.state.record import Record

__all__ = ["Forks", "Machine", "wait_for"]

T = TypeVar("T")
_lock = threading.Lock()
_loops: list[asyncio.AbstractEventLoop] = []


def _loop() -> asyncio.AbstractEventLoop:
    """The one event loop behind all machines of this process, in a thread that lives as long as the process."""
    with _lock:
        if not _loops:
            loop = asyncio.new_event_loop()
            threading.Thread(target=loop.run_forever, name="tinamou", daemon=True).start()
            _loops.append(loop)
        return _loops[0]


def wait_for(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine on the loop and return its result; interrupting the wait cancels it."""
    future = asyncio.run_coroutine_threadsafe(work, _loop())
    try:
        return future.result()
    except KeyboardInterrupt:
        future.cancel()
        raise


class Machine:
    """One virtual machine, started on entering ``with`` and gone without trace on leaving it.

    ``with Machine("debian", cpus=2, memory="1G") as vm: vm.run("uname -a")``. Arguments as for `AsyncMachine`.
    """

    def __init__(
        self,
        image: str = "tiny",
        *,
        keep: bool = False,
        warm: bool = False,
        wait: bool = True,
        timeout: float = READY_SECONDS,
        progress: Progress = silent,
        **settings: Any,
    ) -> None:
        self._machine = AsyncMachine(image, keep=keep, warm=warm, wait=wait, timeout=timeout, progress=progress, **settings)

    @property
    def spec(self) -> MachineSpec:
        """What was asked for."""
        return self._machine.spec

    @property
    def record(self) -> Record:
        """Its entry in the state directory. Raises StateError while it does not run."""
        return self._machine.record

    @property
    def name(self) -> str:
        """The machine's name, which is its guest's hostname."""
        return self._machine.name

    def start(self) -> ReadyReport:
        """Start the machine and wait until its guest answers; returns the stages of the boot, timed."""
        return wait_for(self._machine.start())

    def run(
        self,
        command: str | Sequence[str],
        *,
        input: bytes | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float | None = None,
        check: bool = True,
    ) -> Completed:
        """Run a command in the guest: a string in its shell, a list of words as it is; ``timeout`` in seconds.

        Raises GuestError when it ends with a status other than 0, unless ``check`` is false.
        """
        return wait_for(self._machine.run(command, input=input, environment=environment, timeout=timeout, check=check))

    def stream(
        self,
        command: str | Sequence[str],
        hear: Callable[[bytes], None],
        *,
        complaints: Callable[[bytes], None] | None = None,
        input: bytes | None = None,
        environment: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> int:
        """Run a command and hand over what it prints while it runs, without limit; returns its exit status.

        ``hear`` is given its stdout piece by piece, ``complaints`` its stderr (``hear`` too when left out), both in another
        thread.
        """
        streaming = self._machine.stream(
            command, hear, complaints=complaints, input=input, environment=environment, timeout=timeout
        )
        return wait_for(streaming)

    def put(self, source: str | Path, target: str) -> Copied:
        """Copy a file or folder of this host into the guest; see `Reach.put`."""
        return wait_for(self._machine.put(source, target))

    def get(self, source: str, target: str | Path) -> Copied:
        """Copy a file or folder of the guest to this host; see `Reach.get`."""
        return wait_for(self._machine.get(source, target))

    def read(self, path: str) -> bytes:
        """What is in a file of the guest, up to 64 MiB. Raises GuestError."""
        return wait_for(self._machine.read(path))

    def write(self, path: str, data: bytes | str) -> None:
        """Make a file in the guest, or replace what is in it. Raises GuestError."""
        wait_for(self._machine.write(path, data))

    def log(self) -> str:
        """Everything the guest has printed on its console so far."""
        return self._machine.log()

    def ssh_command(self, *words: str) -> list[str]:
        """The ``ssh`` command line to a shell in the guest, or to the command of ``words``; see `Reach.ssh_command`."""
        return self._machine.ssh_command(*words)

    def checkpoint(self, name: str = "", *, kind: Wish = "auto") -> Checkpoint:
        """Save the whole state of the machine, which goes on; see `AsyncMachine.checkpoint`."""
        return wait_for(self._machine.checkpoint(name, kind=kind))

    @overload
    def fork(self) -> Self: ...
    @overload
    def fork(self, count: int) -> Forks: ...
    def fork(self, count: int | None = None) -> Self | Forks:
        """A running copy of this running machine with an identity of its own, or ``count`` of them.

        ``with vm.fork() as one: …``, ``with vm.fork(100) as hundred: …``. See `AsyncMachine.fork`.
        """
        if count is None:
            return self.around(wait_for(self._machine.fork()))
        return Forks(self.around(one) for one in wait_for(self._machine.fork(count)))

    @classmethod
    def around(cls, machine: AsyncMachine) -> Self:
        """The same machine, for programs without asyncio."""
        blocking = cls.__new__(cls)
        blocking._machine = machine
        return blocking

    def pause(self) -> None:
        """Freeze its virtual CPUs."""
        wait_for(self._machine.pause())

    def resume(self) -> None:
        """Let its virtual CPUs run on; a suspended machine is taken up where it was."""
        wait_for(self._machine.resume())

    def suspend(self) -> None:
        """Save a kept machine to disk and end its QEMU; see `AsyncMachine.suspend`."""
        wait_for(self._machine.suspend())

    def reset(self) -> None:
        """Press the reset button, and wait until the guest answers again."""
        wait_for(self._machine.reset())

    def stop(self) -> None:
        """Ask the guest to shut down, cut the power when it does not; a throw-away machine is gone then."""
        wait_for(self._machine.stop())

    def kill(self) -> None:
        """Cut the power; a throw-away machine is gone then."""
        wait_for(self._machine.kill())

    def __enter__(self) -> Self:
        wait_for(self._machine.__aenter__())
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        wait_for(self._machine.__aexit__(kind, error, trace))


class Forks(list[Machine]):
    """Forks of one machine; leaving the ``with`` block ends them all."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()

    def kill(self) -> None:
        """End every one of them, at the same time."""

        async def end() -> None:
            await asyncio.gather(*(one._machine.kill() for one in self))

        wait_for(end())
