"""From command to the first guest command answered: tinamou, plain QEMU, virsh start, virtme-ng; and tinamou's own share."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path

from bench.framework import AtLeast, AtMost, Bar, Difference, Missing, Table, Way
from bench.guest_line import bare_run
from bench.libvirt import Libvirt
from bench.virtme import Virtme
from tinamou.blueprint import Plan
from tinamou.facts import Place
from tinamou.launch.argv import argv
from tinamou.machine.gather import gather, resolve_image
from tinamou.machine.starting import plan_only
from tinamou.planner import plan as make_plan
from tinamou.spec import load_spec
from tinamou.state import machines

__all__ = ["tables"]

TINAMOU = Path(sys.executable).with_name("tinamou")
SPEC = {"image": "tiny", "name": "bench"}
COMMAND_LINE, PYTHON, PYTHON_AGAIN = "tinamou run", "Machine(), first in its process", "Machine(), again"
BY_HAND, ARTICLE, QUIET = "tinamou's QEMU line by hand", "plain QEMU", "plain QEMU, quiet kernel"
VIRSH, VNG = "virsh start", "virtme-ng"
_PROGRAM = """
import sys, time
from tinamou import Machine
Machine
def once():
    begin = time.perf_counter()
    with Machine() as vm:
        vm.run(["true"])
        answered = time.perf_counter()
    print(answered - begin, time.perf_counter() - begin, flush=True)
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
    """The boot itself, tinamou's own share with a guest of constant time, and planning."""
    subprocess.run([TINAMOU, "run", "--", "true"], check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    guest = _guest(scratch)
    return [_boot(stack, guest), _share(stack, guest), _planning()]


def _guest(scratch: Path) -> Guest:
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
        Way(COMMAND_LINE, _command_line),
        Way(PYTHON, _in_python(stack, fresh=True)),
        Way(PYTHON_AGAIN, _in_python(stack, fresh=False)),
        Way(BY_HAND, lambda: {"": _by_hand(guest)}),
        Way(ARTICLE, lambda: {"": _article(guest, "console=ttyS0")}),
        Way(QUIET, lambda: {"": _article(guest, "console=ttyS0 quiet")}),
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
    own = [
        Difference("own share of the command line, of a real boot", COMMAND_LINE, BY_HAND),
        Difference("own share of Machine(), of a real boot", PYTHON_AGAIN, BY_HAND),
    ]
    return Table("command → first guest command answered", ways, ARTICLE, notes, missing, own, bars)


def _version(binary: str) -> str:
    return subprocess.run([binary, "--version"], check=True, capture_output=True, text=True).stdout.splitlines()[0]


def _command_line() -> Mapping[str, float]:
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
    _, said = process.communicate()
    whole = time.perf_counter() - began
    if line != "answered\n" or process.returncode:
        raise RuntimeError(said)
    stages = {name: float(ms) / 1000 for name, ms in re.findall(r"^ *(\w+) +([\d.]+) ms", said, re.MULTILINE)}
    return {"": answered, "to its exit": whole, **stages}


def _in_python(stack: ExitStack, *, fresh: bool) -> Callable[[], Mapping[str, float]]:
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
    answered, whole = program.stdout.readline().split()
    return {"": float(answered), "to its end": float(whole)}


def _end(program: subprocess.Popen[str]) -> None:
    if program.poll() is None:
        program.communicate(timeout=30)


def _by_hand(guest: Guest) -> float:
    """The very command line of tinamou's plan, without tinamou: nothing confined, QEMU opens its own files."""
    folder = machines.machines_dir() / guest.plan.name
    folder.mkdir(parents=True, exist_ok=True)
    try:
        return bare_run(argv(guest.plan), folder / "agent.sock", guest.scratch / "by-hand.log")
    finally:
        shutil.rmtree(folder)


def _article(guest: Guest, cmdline: str) -> float:
    """The usual line, with an agent's port so that an answer can be measured."""
    agent = guest.scratch / "plain.sock"
    line = [guest.binary, "-accel", guest.plan.accel, "-m", "512", "-smp", "1", "-kernel", str(guest.kernel)]
    line += ["-initrd", str(guest.initrd), "-append", cmdline, "-net", "nic,model=e1000", "-net", "user", "-nographic"]
    line += ["-device", "virtio-serial", "-chardev", f"socket,id=agent,path={agent},server=on,wait=off"]
    line += ["-device", "virtserialport,chardev=agent,name=org.qemu.guest_agent.0"]
    return bare_run(line, agent, guest.scratch / "plain.log")


# ── tinamou's own share ──


def _share(stack: ExitStack, guest: Guest) -> Table:
    """Everything that is not QEMU or guest: a run with a stand-in of constant time, less that stand-in started by hand."""
    standin = guest.scratch / "qemu-system-x86_64"
    text = Path(__file__).with_name("standin.py").read_text()
    standin.write_text(text.replace("@REAL@", guest.binary))
    standin.chmod(0o755)
    environment = {"TINAMOU_QEMU": str(standin)}
    plan = replace(guest.plan, binary=str(standin))

    def under(run: Callable[[], Mapping[str, float]]) -> Callable[[], Mapping[str, float]]:
        def patched() -> Mapping[str, float]:
            before = dict(os.environ)
            os.environ.update(environment)
            try:
                return run()
            finally:
                os.environ.clear()
                os.environ.update(before)

        return patched

    under(_command_line)()
    by_hand = "the stand-in by hand"
    ways = [
        Way("command line", under(_command_line)),
        Way("first in its process", under(_in_python(stack, fresh=True))),
        Way("again", _again(stack, environment)),
        Way(by_hand, lambda: {"": _by_hand(replace(guest, plan=plan))}),
    ]
    own = [
        Difference(f"own share: {name}", row, by_hand)
        for name, row in (
            ("command line → answer", "command line"),
            ("command line → exit", "command line: to its exit"),
            ("Machine() first in its process → answer", "first in its process"),
            ("Machine() again → answer", "again"),
            ("Machine() again → all gone", "again: to its end"),
        )
    ]
    bars: list[Bar] = [
        AtMost("own share: command line → exit", 0.150),
        AtMost("own share: Machine() again → answer", 0.030),
        AtMost("own share: Machine() first in its process → answer", 0.030),
    ]
    notes = ["The stand-in answers as QEMU and agent do, a second after its start; it stands where QEMU stands in a run."]
    return Table("tinamou's own share, with a guest of constant time", ways, by_hand, notes, (), own, bars)


def _again(stack: ExitStack, environment: Mapping[str, str]) -> Callable[[], Mapping[str, float]]:
    before = os.environ.get("TINAMOU_QEMU")
    os.environ.update(environment)
    try:
        return _in_python(stack, fresh=False)
    finally:
        os.environ.pop("TINAMOU_QEMU")
        if before is not None:
            os.environ["TINAMOU_QEMU"] = before


# ── planning ──


def _planning() -> Table:
    spec = load_spec(SPEC)
    place = Place("bench", str(machines.machines_dir() / "bench"))
    facts = gather(spec, resolve_image(spec, build=False), place)

    def timed(work: Callable[[], object]) -> Callable[[], Mapping[str, float]]:
        def run() -> Mapping[str, float]:
            began = time.perf_counter()
            work()
            return {"": time.perf_counter() - began}

        return run

    def command() -> None:
        subprocess.run([TINAMOU, "plan"], check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    ways = [
        Way("plan: from facts, decided and spelled", timed(lambda: argv(make_plan(spec, facts)))),
        Way("plan: with image, host and QEMU looked at", timed(lambda: plan_only(spec, throwaway=True))),
        Way("tinamou plan", timed(command)),
    ]
    bars: list[Bar] = [AtMost(way.name, 0.010) for way in ways[:2]]
    return Table("planning", ways, "tinamou plan", bars=bars)
