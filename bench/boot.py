"""From command to the first guest command answered: tinamou, plain QEMU, virsh start, virtme-ng."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

from bench.framework import AtLeast, Bar, Difference, Missing, Table, Way
from bench.guest_line import PROCESSOR, RESIDENT, bare_run, ended
from bench.libvirt import Libvirt
from bench.virtme import Virtme
from tinamou.blueprint import Plan
from tinamou.launch.argv import argv
from tinamou.machine.gather import resolve_image
from tinamou.machine.planning import plan_only
from tinamou.spec import load_spec
from tinamou.state import machines

__all__ = ["SPEC", "TINAMOU", "Guest", "article", "by_hand", "command_line", "in_python", "tables", "the_guest"]

TINAMOU = Path(sys.executable).with_name("tinamou")
SPEC = {"image": "tiny", "name": "bench"}
COMMAND_LINE, PYTHON, PYTHON_AGAIN = "tinamou run", "Machine(), first in its process", "Machine(), again"
BY_HAND, ARTICLE, QUIET = "tinamou's QEMU line by hand", "plain QEMU", "plain QEMU, quiet kernel"
VIRSH, VNG = "virsh start", "virtme-ng"
_PROGRAM = """
import sys, time
from resource import RUSAGE_CHILDREN, RUSAGE_SELF, getrusage
from tinamou import Machine
Machine
def computed():
    return sum(u.ru_utime + u.ru_stime for u in map(getrusage, (RUSAGE_SELF, RUSAGE_CHILDREN)))
def once():
    before = computed()
    begin = time.perf_counter()
    with Machine() as vm:
        vm.run(["true"])
        answered = time.perf_counter()
    print(answered - begin, time.perf_counter() - begin, computed() - before, flush=True)
for line in sys.stdin:
    once()
"""


@dataclass(frozen=True)
class Guest:
    """What every way boots."""

    plan: Plan
    scratch: Path
    kernel: Path
    initrd: Path
    cmdline: str

    @property
    def binary(self) -> str:
        """QEMU."""
        return self.plan.binary


def tables(stack: ExitStack, scratch: Path) -> list[Table]:
    """The boot, from every command."""
    subprocess.run([TINAMOU, "run", "--", "true"], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    return [_boot(stack, the_guest(scratch))]


def the_guest(scratch: Path) -> Guest:
    """Kernel and initrd are copies: libvirt changes the owner of what it is given."""
    spec = load_spec(SPEC)
    image = resolve_image(spec, build=True)
    kernel, initrd = scratch / "vmlinuz", scratch / "initrd"
    shutil.copyfile(image.kernel, kernel)
    shutil.copyfile(image.initrd, initrd)
    return Guest(plan_only(spec, throwaway=True), scratch, kernel, initrd, image.cmdline)


# ── the boot ──


def _boot(stack: ExitStack, guest: Guest) -> Table:
    ways = [
        Way(COMMAND_LINE, command_line),
        Way(PYTHON, in_python(stack, fresh=True)),
        Way(PYTHON_AGAIN, in_python(stack, fresh=False)),
        Way(BY_HAND, lambda: by_hand(guest)),
        Way(ARTICLE, lambda: article(guest, "console=ttyS0", guest.scratch)),
        Way(QUIET, lambda: article(guest, "console=ttyS0 quiet", guest.scratch)),
    ]
    missing: list[Missing] = []
    notes = [f"QEMU: {_version(guest.binary)}; accelerator: {guest.plan.accel}; the guest: tiny, 512 MiB, 1 CPU."]
    for name, prepare in ((VIRSH, Libvirt.prepare), (VNG, Virtme.prepare)):
        peer = prepare(stack, guest.scratch, guest.binary, guest.kernel, guest.initrd)
        if isinstance(peer, str):
            missing.append(Missing(name, peer))
            continue
        ways.append(Way(name, lambda peer=peer: {"": peer.answered()}))  # type: ignore[misc]
        notes.append(f"{name}: {peer.differs}")
    bars: list[Bar] = [AtLeast(COMMAND_LINE, times, than) for times, than in ((1.5, ARTICLE), (1.0, VIRSH), (1.0, VNG))]
    bars.append(AtLeast(f"{COMMAND_LINE}: {PROCESSOR}", 1.5, f"{ARTICLE}: {PROCESSOR}"))
    own = [
        Difference("own share of the command line, of a real boot", COMMAND_LINE, BY_HAND),
        Difference("own share of Machine(), of a real boot", PYTHON_AGAIN, BY_HAND),
        *(
            Difference(f"own processor time, of a real boot: {name}", f"{name}: {PROCESSOR}", f"{BY_HAND}: {PROCESSOR}")
            for name in (COMMAND_LINE, PYTHON_AGAIN)
        ),
    ]
    return Table("command → first guest command answered", ways, ARTICLE, notes, missing, own, bars)


def _version(binary: str) -> str:
    return subprocess.run([binary, "--version"], check=True, capture_output=True, text=True).stdout.splitlines()[0]


def command_line() -> Mapping[str, float]:
    """``""`` ends with the guest command's output, ``to its exit`` when all is gone; the stages are tinamou's own clock."""
    began = time.perf_counter()
    process = subprocess.Popen(
        [TINAMOU, "run", "--timings", "--", "echo", "answered"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    answered = time.perf_counter() - began
    assert process.stderr is not None
    said = process.stderr.read()
    computed = ended(process)
    whole = time.perf_counter() - began
    if line != "answered\n" or process.returncode:
        raise RuntimeError(said)
    stages = {name: float(ms) / 1000 for name, ms in re.findall(r"^ *(\w+) +([\d.]+) ms", said, re.MULTILINE)}
    return {"": answered, "to its exit": whole, PROCESSOR: computed, **stages}


def in_python(stack: ExitStack, *, fresh: bool) -> Callable[[], Mapping[str, float]]:
    """A Python program that has imported ``Machine`` before the clock starts; ``fresh``: a new one each time."""

    def start() -> subprocess.Popen[str]:
        words = [sys.executable, "-c", _PROGRAM]
        program = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        stack.callback(_end, program)
        return program

    kept = [] if fresh else [start()]
    if kept:
        _once(kept[0])

    def run() -> Mapping[str, float]:
        program = start() if fresh else kept[0]
        try:
            return _once(program)
        finally:
            if fresh:
                _end(program)

    return run


def _once(program: subprocess.Popen[str]) -> Mapping[str, float]:
    assert program.stdin is not None and program.stdout is not None
    program.stdin.write("\n")
    program.stdin.flush()
    answered, whole, computed = map(float, program.stdout.readline().split())
    return {"": answered, "to its end": whole, PROCESSOR: computed}


def _end(program: subprocess.Popen[str]) -> None:
    if program.poll() is None:
        program.communicate(timeout=30)


def by_hand(guest: Guest) -> Mapping[str, float]:
    """The very command line of tinamou's plan, without tinamou: nothing confined, QEMU opens its own files."""
    folder = machines.machines_dir() / guest.plan.name
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return bare_run(argv(guest.plan), folder / RESIDENT, guest.scratch / "by-hand.log")
    finally:
        shutil.rmtree(folder)


def article(guest: Guest, cmdline: str, folder: Path, *, seconds: float = 120.0) -> Mapping[str, float]:
    """The usual line, with an agent's port in ``folder`` so that an answer can be measured."""
    agent = folder / "plain.sock"
    line = [guest.binary, "-accel", guest.plan.accel, "-m", "512", "-smp", "1", "-kernel", str(guest.kernel)]
    line += ["-initrd", str(guest.initrd), "-append", cmdline, "-net", "nic,model=e1000", "-net", "user", "-nographic"]
    line += ["-device", "virtio-serial", "-chardev", f"socket,id=agent,path={agent},server=on,wait=off"]
    line += ["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]
    return bare_run(line, agent, folder / "plain.log", seconds)
