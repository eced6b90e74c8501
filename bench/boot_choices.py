"""What each choice of the fast direct boot gains, from the start of QEMU to the agent's answer.

``python -m bench.boot_choices [--runs 5] [--seconds S] [--qemu BINARY] [--only WORD] [--json FILE]``. Everything is compared
with one choice taken back, or one added. The variants take turns, so that a busy host disturbs all of them alike;
milliseconds, medians; ``cpu`` is the time QEMU computed.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import statistics
import subprocess
import time
from dataclasses import dataclass, replace
from pathlib import Path

from tinamou.facts.image import ImageFacts
from tinamou.images.resolve import resolve

BLACKLIST = "initcall_blacklist="
SYNC = b'\xff{"execute":"guest-sync-delimited","arguments":{"id":77}}\n'


@dataclass(frozen=True)
class Variant:
    """One command line: ``kernel`` and ``cmdline`` as given, ``rest`` the other arguments."""

    name: str
    kernel: str
    cmdline: tuple[str, ...]
    machine: str = "q35,hpet=off,vmport=off,smm=off"
    rest: tuple[str, ...] = ("-nodefaults", "-no-user-config", "-display", "none")
    cpu: str = ""
    smp: int = 1

    def argv(self, qemu: str, initrd: str) -> list[str]:
        """The command line, without the agent's channel."""
        argv = [qemu, *(["-machine", self.machine] if self.machine else []), "-m", "512", *self.rest]
        argv += ["-cpu", self.cpu] if self.cpu else []
        argv += ["-smp", str(self.smp)] if self.smp > 1 else []
        return [*argv, "-kernel", self.kernel, "-initrd", initrd, "-append", " ".join(self.cmdline)]


def variants(image: ImageFacts) -> list[Variant]:
    """Plain QEMU, the whole fast path, and the fast path with one choice taken back or one added."""
    words = ("console=ttyS0", "no_timer_check", *image.cmdline.split())
    fast = Variant("all", image.fast_kernel, words)
    plain = Variant("plain QEMU", image.kernel, ("console=ttyS0",), machine="", rest=("-display", "none"))
    found = [plain, fast, replace(fast, name="without PVH (bzImage)", kernel=image.kernel)]
    found += [_without(fast, word) for word in image.cmdline.split() if not word.startswith(BLACKLIST)]
    idle = next(word for word in image.cmdline.split() if word.startswith(BLACKLIST)).removeprefix(BLACKLIST).split(",")
    for name in idle:
        rest = BLACKLIST + ",".join(other for other in idle if other != name)
        changed = tuple(rest if word.startswith(BLACKLIST) else word for word in words)
        found.append(replace(fast, name=f"with {name}", cmdline=changed))
    found.append(replace(fast, name="without hpet=off", machine="q35,vmport=off,smm=off"))
    found.append(replace(fast, name="without smm=off", machine="q35,hpet=off,vmport=off"))
    found.append(replace(fast, name="without -nodefaults", rest=("-display", "none")))
    found.append(replace(fast, name="with -cpu max", cpu="max"))
    found.append(replace(fast, name="with -cpu max,erms=off,fsrm=off", cpu="max,erms=off,fsrm=off"))
    found.append(replace(fast, name="with -cpu Nehalem", cpu="Nehalem"))
    found.append(replace(fast, name="with -smp 2", smp=2))
    lean = f"{fast.machine},i8042=off,sata=off,smbus=off"
    found.append(replace(fast, name="with i8042, sata, smbus off", machine=lean))
    found.append(replace(fast, name="with 8250.nr_uarts=1", cmdline=(*words, "8250.nr_uarts=1")))
    found.append(replace(fast, name="with noreplace-smp", cmdline=(*words, "noreplace-smp")))
    qboot = Path("/usr/share/qemu/qboot.rom")
    if qboot.exists():
        found.append(replace(fast, name="with qboot instead of SeaBIOS", rest=(*fast.rest, "-bios", str(qboot))))
    return found


def _without(variant: Variant, word: str) -> Variant:
    return replace(variant, name=f"without {word}", cmdline=tuple(w for w in variant.cmdline if w != word))


def boot(argv: list[str], timeout: float = 30) -> tuple[float, float]:
    """Wall and CPU seconds from the start of QEMU to the agent's answer. Raises TimeoutError."""
    ours, theirs = socket.socketpair()
    channel = ["-chardev", f"socket,id=qga,fd={theirs.fileno()}", "-device", "virtio-serial-pci"]
    port = ["-device", "virtserialport,chardev=qga,name=org.qemu.guest_agent.0", "-serial", "null"]
    start = time.perf_counter()
    qemu = subprocess.Popen([*argv, *channel, *port], pass_fds=[theirs.fileno()], stdin=subprocess.DEVNULL)
    theirs.close()
    try:
        ours.settimeout(timeout)
        ours.sendall(SYNC)
        answer = b""
        while b"77" not in answer:
            answer += ours.recv(4096) or _ended()
        return time.perf_counter() - start, _computed(qemu.pid)
    finally:
        qemu.kill()
        qemu.wait()
        ours.close()


def _ended() -> bytes:
    raise TimeoutError("QEMU ended before the guest answered")


def _computed(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def measure(
    chosen: list[Variant], qemu: str, initrd: str, *, runs: int, seconds: float
) -> dict[str, list[tuple[float, float]]]:
    """``runs`` rounds of all variants, each in turn; no round begins after so many seconds."""
    end = time.monotonic() + seconds
    found: dict[str, list[tuple[float, float]]] = {variant.name: [] for variant in chosen}
    for _ in range(runs):
        if time.monotonic() > end:
            break
        for variant in chosen:
            try:
                found[variant.name].append(boot(variant.argv(qemu, initrd)))
            except OSError as error:
                print(f"{variant.name}: {error}", flush=True)
    return found


def table(found: dict[str, list[tuple[float, float]]]) -> str:
    """A Markdown table: wall and CPU milliseconds (median, least), and the ratio of CPU to the whole fast path."""
    lines = ["| variant | wall | least | cpu | least | cpu ÷ all | runs |", "|---|---|---|---|---|---|---|"]
    base = statistics.median(cpu for _, cpu in found["all"]) if found.get("all") else 0.0
    for name, values in found.items():
        if values:
            wall, cpu = [w for w, _ in values], [c for _, c in values]
            ratio = f"{statistics.median(cpu) / base:.2f}" if base else ""
            figures = (statistics.median(wall), min(wall), statistics.median(cpu), min(cpu))
            lines.append(f"| {name} | {' | '.join(f'{1000 * f:.0f}' for f in figures)} | {ratio} | {len(values)} |")
    return "\n".join(lines)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3600)
    parser.add_argument("--qemu", default="qemu-system-x86_64")
    parser.add_argument("--only", default="")
    parser.add_argument("--json", default="")
    given = parser.parse_args()
    image = resolve("tiny", "x86_64")
    chosen = [v for v in variants(image) if given.only in v.name or v.name in ("plain QEMU", "all")]
    found = measure(chosen, given.qemu, image.initrd, runs=given.runs, seconds=given.seconds)
    print(table(found))
    if given.json:
        Path(given.json).write_text(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
