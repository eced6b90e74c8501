"""Starting a machine from a checkpoint: the same hardware, its own files, sockets, user and identity."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path

from tinamou import late
from tinamou.blueprint import Element, Flag, HandOver, MakeCgroup, Plan, StartHelper, Step, Value, Why
from tinamou.control.pipelined import Monitor
from tinamou.control.session import DisconnectedError, RefusedError
from tinamou.errors import GuestError, StateError
from tinamou.facts import Place, files
from tinamou.guest.clock import ahead_of
from tinamou.guest.resident import Identity, Line
from tinamou.late import dataclass
from tinamou.launch.process import died, start
from tinamou.parts import process
from tinamou.parts.net import NetSpec, mac_of
from tinamou.prepare.groups import enter_groups
from tinamou.prepare.journal import Journal
from tinamou.probe.qemu import probe_qemu
from tinamou.probe.walls import probe_walls
from tinamou.snapshots.checkpoint import Checkpoint
from tinamou.snapshots.disks_of_forks import with_disks
from tinamou.snapshots.hardware import digest
from tinamou.snapshots.memory_of_forks import ForkMemory, is_copied, is_mapped, memory_for
from tinamou.snapshots.state_file import loading, loads
from tinamou.spec import load_spec
from tinamou.state.record import Record, change
from tinamou.system.closing import Closing, IfFailed
from tinamou.system.logs import last_lines
from tinamou.system.sockets import NotListeningError
from tinamou.system.spawn import Process
from tinamou.tuning import apparmor, walls
from tinamou.tuning.memory import RAM

__all__ = ["Restored", "fork_plan", "given", "hand_out", "identity_for", "wake"]

WAKE_SECONDS = 60.0
_WARM_ROUNDS = 3
"""How often a fork that will wait does what is asked of it later: after that hardly any code is left to translate."""
_WHY = Why("fork", "the memory of the checkpoint, shared with all its forks until one of them writes to a page")


def fork_plan(checkpoint: Checkpoint, record: Record, *, same: bool = False) -> Plan:
    """The plan of a fork: that of the checkpoint's machine with everything replaced that is a machine's own.

    ``same`` keeps the addresses of its network interfaces. A fork with shared folders has memory of its own: another process
    works in it. Any other has the checkpoint's below its own, which can be checkpointed in turn: put there when QEMU is up
    (branching.py), or mapped by QEMU itself where that cannot be; then one that is the ``same`` gets a copy too.
    Raises StateError when the checkpoint's hardware is not what its digest says.
    """
    saved = checkpoint.loaded_plan()
    if digest(saved) != checkpoint.digest:
        why = "the device arguments in its entry are not those it was saved with"
        fix = f"tinamou checkpoints rm {checkpoint.name}, and take it again"
        raise StateError(f"checkpoint {checkpoint.name} cannot be loaded", why=why, fix=fix)
    own = _Own(checkpoint, record, same)
    elements = tuple(own.element(element) for element in saved.elements)
    flags = (*(own.flag(flag) for flag in saved.flags), Flag("incoming", Why("fork", "the saved state is loaded"), "defer"))
    helpers = tuple(own.helper(step) for step in saved.steps if isinstance(step, StartHelper))
    bounds = tuple(
        late.replace(step, name=record.name, beside=record.directory) for step in saved.steps if isinstance(step, MakeCgroup)
    )
    handed = tuple(own.step(step) for step in saved.steps if isinstance(step, HandOver))
    steps: tuple[Step, ...] = (process.room(record.directory, record.uid), *helpers, *handed, *bounds)
    before = saved.confinement
    reads = before.reads or probe_qemu(saved.binary).loads  # entries of before there were walls do not say
    confinement = late.replace(before, uid=record.uid, gid=record.uid, locked=None, reads=reads)
    saved = late.replace(saved, elements=elements, flags=flags, steps=steps, confinement=confinement)
    saved = with_disks(saved, checkpoint.disks, Path(checkpoint.directory), record.directory)
    saved = late.replace(saved, name=record.name, ssh_port=record.ssh_port)
    made = _profiled(saved, record) if before.profile else saved
    made = walls.confined(made, probe_walls(), load_spec(record.spec).confine.without)
    return _labelled(made, record) if before.label else made


def _labelled(plan: Plan, record: Record) -> Plan:
    """The fork under SELinux labels of its own, where this host has any."""
    from tinamou.probe.selinux import probe_selinux
    from tinamou.tuning import selinux

    whose, _ = probe_selinux()
    return selinux.confined(plan, whose, record.directory, record.uid) if whose else plan


def _profiled(plan: Plan, record: Record) -> Plan:
    """The fork under AppArmor profiles of its own, as the machine it is made of was."""
    return apparmor.confined(plan, Place(record.name, record.directory, record.uid))


class _Own:
    """What is replaced: paths in the machine's folder, its name, its addresses, its memory."""

    def __init__(self, checkpoint: Checkpoint, record: Record, same: bool) -> None:
        self._checkpoint, self._same = checkpoint, same
        self._copied = is_copied(record, same=same)
        self._mapped = checkpoint.ram is not None and is_mapped(record, same=same)
        self._name, self._old_name = record.name, checkpoint.machine
        self._directory, self._old_directory = f"{record.directory}/", f"{checkpoint.record['directory']}/"
        self._ports = (f":{checkpoint.record.get('ssh_port')}-:", f":{record.ssh_port}-:")
        self._uid, self._old_uid = record.uid, checkpoint.record.get("uid") or 0
        self._card = 0
        self._macs: dict[str, str] = {}

    def value(self, value: Value) -> Value:
        if isinstance(value, str) and value.startswith(self._old_directory):
            return self._directory + value.removeprefix(self._old_directory)
        if isinstance(value, dict):
            return {key: self.value(inner) for key, inner in value.items()}
        if isinstance(value, list):
            return [self.value(inner) for inner in value]
        return value.replace(*self._ports) if isinstance(value, str) else value

    def step(self, step: HandOver) -> HandOver:
        shared = step.access == "memory" and not self._copied
        return late.replace(step, path=str(self.value(step.path)), why=_WHY if shared else step.why)

    def helper(self, helper: StartHelper) -> StartHelper:
        words = tuple(word.replace(self._old_directory, self._directory) for word in helper.argv)
        owner = helper.owner
        if owner is not None and self._uid is not None:
            owner += self._uid - self._old_uid
        return late.replace(helper, argv=words, socket=str(self.value(helper.socket)), owner=owner)

    def flag(self, flag: Flag) -> Flag:
        value = flag.value
        if flag.name == "name":
            value = f"guest={self._name}"
        if value and flag.name == "append":
            value = value.replace(f"tinamou.hostname={self._old_name}", f"tinamou.hostname={self._name}")
            for old, new in self._macs.items():
                value = value.replace(f":{old}:", f":{new}:")
        if value and flag.name:
            value = value.replace(self._old_directory, self._directory)
        return late.replace(flag, value=value, options={key: self.value(one) for key, one in flag.options.items()})

    def element(self, element: Element) -> Element:
        props: dict[str, Value] = {key: self.value(value) for key, value in element.props.items()}
        if element.id == RAM and self._mapped:
            props["share"] = False
            props |= {"readonly": True, "rom": "off"} if self._checkpoint.read_only else {}
        if "mac" in props and not self._same:
            props["mac"] = mac_of(NetSpec(), self._name, self._card)
            self._macs[str(element.props["mac"]).replace(":", "-")] = str(props["mac"]).replace(":", "-")
            self._card += 1
        return late.replace(element, props=props)


def identity_for(checkpoint: Checkpoint, plan: Plan, files: tuple[tuple[str, int, bytes], ...] = ()) -> Identity:
    """Who the fork of this plan is: hostname, machine id, network addresses, and ``files`` beside."""
    before, now = _macs(checkpoint.loaded_plan()), _macs(plan)
    there = {bytes.fromhex(mac.replace(":", "")) for mac in checkpoint.guest.get("macs", ())}
    machine_id = os.urandom(16).hex()
    written = [("/etc/machine-id", 0o444, f"{machine_id}\n".encode()), ("/etc/hostname", 0o644, f"{plan.name}\n".encode())]
    return Identity(
        hostname=plan.name,
        macs={old: new for old, new in zip(before, now, strict=True) if old in there},
        files=(*written, *files),
        signals=(("/run/sshd.pid", 1),) if files else (),
        ahead=ahead_of(checkpoint.record["spec"]),
    )


def _macs(plan: Plan) -> list[bytes]:
    return [bytes.fromhex(str(e.props["mac"]).replace(":", "")) for e in plan.elements if "mac" in e.props]


@dataclass(frozen=True)
class Restored:
    """A fork that runs: its entry, and the line to its resident (None where the guest has none)."""

    record: Record
    plan: Plan
    line: Line | None
    monitor: Monitor | None = None
    """Open while the fork waits to be handed out."""
    notes: tuple[str, ...] = ()
    """What must be said of its addresses; its record has that and what else there is, once it is made."""

    def hand_over(self) -> list[int]:
        """Descriptors of its open lines, for another process to make `given` of; here they are closed."""
        assert self.monitor is not None
        return [self.monitor.hand_over(), *([self.line.hand_over()] if self.line is not None else [])]

    def close(self) -> None:
        """Hang up."""
        if self.line is not None:
            self.line.close()
        if self.monitor is not None:
            self.monitor.close()


def given(record: Record, plan: Plan, lines: Sequence[int]) -> Restored:
    """A waiting fork another process gave away with `Restored.hand_over`."""
    monitor = Monitor.adopted(lines[0], str(record.file(files.QMP)))
    return Restored(record, plan, Line.adopted(lines[1]) if len(lines) > 1 else None, monitor)


async def hand_out(restored: Restored) -> None:
    """Let a waiting fork run on, with the time of now and random numbers that were nowhere before.

    Where there is a line to its guest, nothing is waited for here: what the guest is asked next comes after that.
    """
    if restored.monitor is None:
        return
    running = asyncio.create_task(_run_on(restored.monitor))
    if restored.line is None:
        await running
        return
    running.add_done_callback(lambda task: task.cancelled() or task.exception())  # heard by whoever asks the guest next
    await asyncio.sleep(0)  # it is sent before anything else is done here
    with IfFailed(running.cancel):
        await restored.line.begin_to_become(Identity(ahead=ahead_of(restored.record.spec)), after=running)


async def _run_on(monitor: Monitor) -> None:
    with contextlib.closing(monitor):
        await monitor.execute([("cont", {})])


Settle = Callable[[Record, Line | None], Awaitable[None]]


async def wake(
    checkpoint: Checkpoint,
    record: Record,
    plan: Plan,
    who: Awaitable[Identity],
    *,
    dies_with_parent: bool,
    stopped: bool = False,
    settle: Settle | None = None,
) -> Restored:
    """Start QEMU for ``plan``, load the state and give the guest its identity. Raises LaunchError, GuestError.

    The guest is asked to become another before QEMU has even started; it answers when it is there. ``who`` is awaited while
    QEMU starts, ``settle`` done when the guest is that. ``stopped`` leaves the fork waiting after that, warm and with an
    identity of its own.
    """
    directory = Path(record.directory)
    memory = memory_for(checkpoint, plan, record)
    with IfFailed(memory.close):
        process, state = _begun(checkpoint, plan, directory, memory, dies_with_parent=dies_with_parent)
    entering = asyncio.create_task(asyncio.to_thread(enter_groups, Journal(directory), process.pid))
    entering.add_done_callback(lambda task: task.cancelled() or task.exception())  # heard below, unless loading fails first
    record = change(record, pid=process.pid, started=process.started)
    line: Line | None = None
    try:
        line = Line(str(record.file(files.RESIDENT))) if checkpoint.resident else None
        monitor = Monitor(str(record.file(files.QMP)))
    except BaseException as error:
        memory.close()
        Restored(record, plan, line).close()
        if isinstance(error, NotListeningError):
            raise died(plan, directory, process.pid) from error
        raise
    try:
        async with asyncio.timeout(WAKE_SECONDS):
            resuming = asyncio.create_task(_loaded(checkpoint, plan, memory, monitor, process.pid, state))
            try:
                await _become(line, await who, resuming)
                await resuming
                await entering
            finally:
                resuming.cancel()
            if settle is not None:
                await settle(record, line)
            if stopped and line is not None:
                for _ in range(_WARM_ROUNDS):
                    await line.run(["true"])
                    await line.become(Identity(ahead=ahead_of(record.spec)))
                await monitor.execute([("stop", {})])
    except BaseException as error:
        Restored(record, plan, line, monitor).close()
        if isinstance(error, DisconnectedError | RefusedError):
            raise died(plan, directory, process.pid) from error
        if isinstance(error, TimeoutError):
            said = {"qemu said": last_lines(directory / files.QEMU_LOG)}
            raise GuestError(f"{record.name} did not wake within {WAKE_SECONDS:g} s", evidence=said) from error
        raise
    if stopped:
        return Restored(record, plan, line, monitor)
    monitor.close()
    return Restored(record, plan, line)


def _begun(
    checkpoint: Checkpoint, plan: Plan, directory: Path, memory: ForkMemory, *, dies_with_parent: bool
) -> tuple[Process, int]:
    """Start its QEMU; returns also the number it has the saved state under."""
    state = os.open(checkpoint.state.path, os.O_RDONLY | os.O_CLOEXEC)
    inherit = (state,) if memory.template is None else (state, memory.template)
    with Closing(state):
        how = {"dies_with_parent": dies_with_parent, "enters": False}
        return start(loads(plan, state), directory, **how, inherit=inherit, given=memory.given), state


async def _loaded(checkpoint: Checkpoint, plan: Plan, memory: ForkMemory, monitor: Monitor, pid: int, state: int) -> None:
    with contextlib.closing(memory):
        if memory.template is not None:
            await monitor.execute([])
            await memory.put_on(pid)
    await monitor.execute(_load(checkpoint, plan, state), until="RESUME")


async def _become(line: Line | None, who: Identity, loading: asyncio.Task[None]) -> None:
    """Give the identity, unless loading fails first."""
    if line is None:
        return
    becoming = asyncio.create_task(line.become(who))
    try:
        await asyncio.wait([becoming, loading], return_when=asyncio.FIRST_EXCEPTION)
        if loading.done():
            loading.result()
        await becoming
    finally:
        becoming.cancel()


def _load(checkpoint: Checkpoint, plan: Plan, state: int) -> list[tuple[str, Mapping[str, object]]]:
    capabilities = [{"capability": "x-ignore-shared", "state": True}] if checkpoint.ram is not None else []
    commands: list[tuple[str, Mapping[str, object]]] = [("migrate-set-capabilities", {"capabilities": capabilities})]
    return [*commands, *loading(plan, state)]
