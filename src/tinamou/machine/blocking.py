"""The machine for programs without asyncio: the same methods, each waiting for its result. A test holds the signatures."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, overload

from tinamou.images.progress import Progress, silent
from tinamou.machine import life
from tinamou.machine.connected import READY_SECONDS
from tinamou.machine.facade import AsyncMachine
from tinamou.machine.facade_pools import TAKE_SECONDS, AsyncPool, AsyncSharedPool
from tinamou.machine.handled import PlainHandled
from tinamou.machine.kept_blocking import Kept
from tinamou.machine.parts_of import AsyncDisks, AsyncNics, AsyncSnapshots, Disk, Nic
from tinamou.system.loop_thread import wait_for
from tinamou.units import Size

if TYPE_CHECKING:
    from types import TracebackType

    from tinamou.guest.agent import Completed
    from tinamou.guest.clock import Clock
    from tinamou.guest.copy import Copied
    from tinamou.guest.ready import ReadyReport
    from tinamou.machine.forking import Request
    from tinamou.machine.upgrading import Upgraded
    from tinamou.snapshots.checkpoint import Checkpoint
    from tinamou.snapshots.history import Snapshot
    from tinamou.spec import MachineSpec
    from tinamou.state.record import Record

__all__ = ["Disks", "Forks", "Machine", "Nics", "Pool", "SharedPool", "Snapshots"]


class Machine(PlainHandled, Kept):
    """One virtual machine, started on entering ``with`` and gone without trace on leaving it.

    ``with Machine("debian", cpus=2, memory="1G") as vm: vm.run("uname -a")``. Arguments as for `AsyncMachine`.
    """

    _machine: AsyncMachine

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

    @classmethod
    def open(cls, name: str, *, timeout: float = READY_SECONDS, progress: Progress = silent) -> Self:
        """A machine that exists, running or not, by its name; leaving the block leaves it as it is. Raises StateError."""
        return cls.around(AsyncMachine.open(name, timeout=timeout, progress=progress))

    @property
    def spec(self) -> MachineSpec:
        """What was asked for."""
        return self._machine.spec

    @property
    def record(self) -> Record:
        """Its record in the state directory. Raises StateError where there is none (yet, or any more)."""
        return self._machine.record

    @property
    def running(self) -> bool:
        """Whether its QEMU lives."""
        return self._machine.running

    @property
    def name(self) -> str:
        """The machine's name, which is its guest's hostname."""
        return self._machine.name

    @property
    def snapshots(self) -> Snapshots:
        """Snapshots of its disks."""
        return Snapshots(self._machine.snapshots)

    @property
    def disks(self) -> Disks:
        """Its disks."""
        return Disks(self._machine.disks)

    @property
    def nics(self) -> Nics:
        """Its network cards."""
        return Nics(self._machine.nics)

    def start(self) -> ReadyReport:
        """Start the machine and wait until its guest answers; returns the stages of the boot, timed."""
        return wait_for(self._machine.start())

    def qmp(self, command: str, arguments: Mapping[str, object] | None = None) -> object:
        """One command of QEMU's monitor, and its answer; see `AsyncMachine.qmp`."""
        return wait_for(self._machine.qmp(command, arguments))

    def run(
        self,
        command: str | Sequence[str],
        *,
        input: bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        user: str = "",
        timeout: float | None = None,
        check: bool = True,
    ) -> Completed:
        """Run a command in the guest: a string in its shell, a list of words as it is; see `AsyncMachine.run`.

        Raises GuestError when it ends with a status other than 0, unless ``check`` is false.
        """
        running = self._machine.run(command, input=input, env=env, cwd=cwd, user=user, timeout=timeout, check=check)
        return wait_for(running)

    def stream(
        self,
        command: str | Sequence[str],
        hear: Callable[[bytes], None],
        *,
        complaints: Callable[[bytes], None] | None = None,
        input: bytes | None = None,
        env: Mapping[str, str] | None = None,
        cwd: str = "",
        user: str = "",
        timeout: float | None = None,
    ) -> int:
        """Run a command and hand over what it prints while it runs, without limit; returns its exit status.

        ``hear`` is given its stdout piece by piece, ``complaints`` its stderr (``hear`` too when left out), both in another
        thread.
        """
        streaming = self._machine.stream(
            command, hear, complaints=complaints, input=input, env=env, cwd=cwd, user=user, timeout=timeout
        )
        return wait_for(streaming)

    def put(self, source: str | Path, target: str) -> Copied:
        """Copy a file or folder of this host into the guest; see `Reach.put`."""
        return wait_for(self._machine.put(source, target))

    def get(self, source: str, target: str | Path, *, limit: int | None = None) -> Copied:
        """Copy a file or folder of the guest to this host; see `Reach.get`."""
        return wait_for(self._machine.get(source, target, limit=limit))

    def read(self, path: str) -> bytes:
        """What is in a file of the guest, up to 64 MiB. Raises GuestError."""
        return wait_for(self._machine.read(path))

    def write(self, path: str, data: bytes | str) -> None:
        """Make a file in the guest, or replace what is in it. Raises GuestError."""
        wait_for(self._machine.write(path, data))

    def log(self) -> str:
        """What the guest has printed on its console so far, the last 4 MiB of it or a little more."""
        return self._machine.log()

    def ssh_command(self, *words: str) -> list[str]:
        """The ``ssh`` command line to a shell in the guest, or to the command of ``words``; see `Reach.ssh_command`."""
        return self._machine.ssh_command(*words)

    def checkpoint(self, name: str = "", *, kind: Request = "auto", ephemeral: bool = False) -> Checkpoint:
        """Save the whole state of the machine, which goes on; see `AsyncMachine.checkpoint`."""
        return wait_for(self._machine.checkpoint(name, kind=kind, ephemeral=ephemeral))

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

    def resume(self) -> Clock:
        """Let its virtual CPUs run on, its guest's clock set right; a suspended machine is taken up where it was."""
        return wait_for(self._machine.resume())

    def suspend(self) -> None:
        """Save a kept machine to disk and end its QEMU; see `AsyncMachine.suspend`."""
        wait_for(self._machine.suspend())

    def upgrade(self, binary: str = "") -> Upgraded:
        """Put another QEMU under the machine while it runs; see `AsyncMachine.upgrade`."""
        return wait_for(self._machine.upgrade(binary))

    def reset(self) -> None:
        """Press the reset button, and wait until the guest answers again."""
        wait_for(self._machine.reset())

    def stop(self, *, grace: float = life.GRACE_SECONDS) -> None:
        """Ask the guest to shut down, cut the power after ``grace`` seconds; a throw-away machine is gone then."""
        wait_for(self._machine.stop(grace=grace))

    def kill(self) -> None:
        """Cut the power; a throw-away machine is gone then."""
        wait_for(self._machine.kill())

    def remove(self, *, force: bool = False) -> None:
        """Remove a kept machine, its disks and its schedules. Raises StateError while it runs, unless ``force``."""
        wait_for(self._machine.remove(force=force))

    def release(self, *, stays: bool = False) -> None:
        """Leave the machine to itself: it runs on when this process ends; ``stays`` keeps even a throw-away one."""
        wait_for(self._machine.release(stays=stays))

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


class Snapshots:
    """The snapshots of one machine's disks; see `AsyncSnapshots`."""

    def __init__(self, of: AsyncSnapshots) -> None:
        self._of = of

    def list(self) -> tuple[Snapshot, ...]:
        """All of them, oldest first."""
        return wait_for(self._of.list())

    def create(self, name: str = "", *, note: str = "", quiesce: float = 0.0) -> Snapshot:
        """Freeze the present state of all disks, running or not; ``quiesce`` in seconds. See `AsyncSnapshots.create`."""
        return wait_for(self._of.create(name, note=note, quiesce=quiesce))

    def revert(self, name: str) -> None:
        """Make a snapshot's state the present one; the machine must be off. Raises StateError."""
        wait_for(self._of.revert(name))

    def remove(self, *names: str) -> None:
        """Strike snapshots and merge their files; what is left reads the same. Raises StateError for an unknown name."""
        wait_for(self._of.remove(*names))


class Disks:
    """The disks of one machine; see `AsyncDisks`."""

    def __init__(self, of: AsyncDisks) -> None:
        self._of = of

    def list(self) -> tuple[Disk, ...]:
        """Those its guest can write to."""
        return wait_for(self._of.list())

    def add(self, path: str | Path = "", **settings: Any) -> str:
        """Give the machine a disk, at once while it runs: a file, or ``size="10G"``; its name. See `AsyncDisks.add`."""
        return wait_for(self._of.add(path, **settings))

    def remove(self, name: str, *, timeout: float = 30.0, force: bool = False) -> None:
        """Take a disk away; a running guest gives it back first, within ``timeout`` seconds. See `AsyncDisks.remove`."""
        wait_for(self._of.remove(name, timeout=timeout, force=force))

    def resize(self, name: str, size: Size | str) -> None:
        """Make a disk larger; a running guest sees it at once. Raises StateError for a smaller one."""
        wait_for(self._of.resize(name, size))


class Nics:
    """The network cards of one machine; see `AsyncNics`."""

    def __init__(self, of: AsyncNics) -> None:
        self._of = of

    def list(self) -> tuple[Nic, ...]:
        """All of them, in the order of their numbers."""
        return wait_for(self._of.list())

    def add(self, type: str = "auto", **settings: Any) -> str:
        """Give the machine a card, at once while it runs; its name. See `AsyncNics.add`."""
        return wait_for(self._of.add(type, **settings))

    def remove(self, name: str) -> None:
        """Take a card away; the others keep their names. Raises StateError, ControlError."""
        wait_for(self._of.remove(name))

    def change(self, name: str, **settings: Any) -> None:
        """Describe a card anew, from the next start on. See `AsyncNics.change`."""
        wait_for(self._of.change(name, **settings))


class Pool:
    """The pool for programs without asyncio: ``with Pool("tiny", 8) as pool: vm = pool.take()``; see `AsyncPool`."""

    def __init__(
        self,
        of: Checkpoint | str = "tiny",
        size: int = 4,
        *,
        bound: str = "",
        timeout: float = READY_SECONDS,
        progress: Progress = silent,
        **settings: Any,
    ) -> None:
        async def make() -> AsyncPool:
            return AsyncPool(of, size, bound=bound, timeout=timeout, progress=progress, **settings)

        self._pool = wait_for(make())

    @property
    def waiting(self) -> int:
        """How many machines wait now."""
        return self._pool.waiting

    def start(self) -> None:
        """Fill the pool. Raises what booting, saving and forking raise."""
        wait_for(self._pool.start())

    def take(self) -> Machine:
        """A running machine nobody else has; leave it with ``with``, or ``kill`` it."""
        return Machine.around(wait_for(self._pool.take()))

    def close(self) -> None:
        """End the machines that wait."""
        wait_for(self._pool.close())

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class SharedPool:
    """A pool made by ``tinamou pool create``, for programs without asyncio: ``with SharedPool("web").take() as vm: …``.

    ``progress`` is told what must be said of a machine that is taken, such as an address its guest did not get.
    """

    def __init__(self, name: str, *, progress: Progress = silent) -> None:
        self.name = name
        self._pool = AsyncSharedPool(name, progress=progress)

    def take(self, timeout: float = TAKE_SECONDS) -> Machine:
        """A running machine nobody else has; see `AsyncSharedPool.take`."""
        return Machine.around(wait_for(self._pool.take(timeout)))
