"""Forks beside cold boot and virsh: request to first answered command, 200 at once with their memory, in one run.

usage: python bench/forks.py [--rounds 15] [--many 200] [--cpus 1] [--memory 512M] [--no-virsh]
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import os
import shutil
import statistics
import subprocess
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

from tinamou.aio import Machine, Pool
from tinamou.machine.forking import fork_many
from tinamou.snapshots.checkpoint import Checkpoint, discard


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--many", type=int, default=200)
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--memory", default="512M")
    parser.add_argument("--no-virsh", action="store_true")
    wish = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tb-", dir="/tmp") as state:
        Path(state).chmod(0o755)
        os.environ["TINAMOU_STATE"] = state
        asyncio.run(measure(wish))
        if not wish.no_virsh:
            virsh(wish.memory, wish.rounds)


async def measure(wish: argparse.Namespace) -> None:
    print(f"{os.cpu_count()} CPUs, load {os.getloadavg()[0]:.1f} at the start; milliseconds")
    settings = {"cpus": wish.cpus, "memory": wish.memory, "disks": [{"size": "64M"}]}
    cold = [await timed(lambda: boot(settings)) for _ in range(3)]
    row("cold boot", cold)
    async with Machine(forkable=True, **settings) as source:
        checkpoint = await source.checkpoint("bench")
        print(f"checkpoint of a machine that goes on: {ms(checkpoint.took)}; it stood still for {ms(checkpoint.pause)}")
        await once(checkpoint)
        forked = [await timed(lambda: once(checkpoint)) for _ in range(wish.rounds)]
        row("fork, own disk and identity", forked, cold)
        row("pooled fork", await pooled(checkpoint, wish.rounds), cold)
        await many(checkpoint, wish.many)
        discard(Path(checkpoint.directory))


async def timed(work: Callable[[], Awaitable[float]]) -> float:
    return await work()


async def boot(settings: dict[str, object]) -> float:
    began = time.perf_counter()
    async with Machine(**settings) as machine:  # type: ignore[arg-type]
        await machine.run(["true"])
        return time.perf_counter() - began


async def once(checkpoint: Checkpoint) -> float:
    began = time.perf_counter()
    [woken] = await fork_many(checkpoint, 1)
    machine = Machine.woken(woken)
    await machine.run(["true"])
    spent = time.perf_counter() - began
    await machine.kill()
    return spent


async def pooled(checkpoint: Checkpoint, rounds: int) -> list[float]:
    spent = []
    async with Pool(checkpoint, 4) as pool:
        for _ in range(rounds):
            while pool.waiting < pool.size:  # noqa: ASYNC110 (the pool fills itself; nothing tells when)
                await asyncio.sleep(0.05)
            await asyncio.sleep(0.3)
            began = time.perf_counter()
            machine = await pool.take()
            await machine.run(["true"])
            spent.append(time.perf_counter() - began)
            await machine.kill()
    return spent


async def many(checkpoint: Checkpoint, count: int) -> None:
    began = time.perf_counter()
    machines = [Machine.woken(one) for one in await fork_many(checkpoint, count)]
    started = time.perf_counter() - began
    who = "cat /etc/machine-id /sys/class/net/eth0/address; hostname; head -c 32 /dev/urandom | base64"
    answers = await asyncio.gather(*(machine.run(who) for machine in machines))
    answered = time.perf_counter() - began
    columns = zip(*(answer.text.split("\n") for answer in answers), strict=True)
    distinct = [len(set(column)) for column in columns]
    shares = [share(machine.record.pid) for machine in machines]
    began = time.perf_counter()
    await asyncio.gather(*(machine.kill() for machine in machines))
    print(
        f"{count} at once: running {ms(started)}, all answered {ms(answered)}, gone {ms(time.perf_counter() - began)}; "
        f"PSS {statistics.median(shares):.1f} MB each; distinct machine-id, MAC, hostname, random: {distinct}"
    )


def share(pid: int) -> float:
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1000


def virsh(memory: str, rounds: int) -> None:
    """The same guest saved and restored by libvirt; the restore ends when the guest's agent answers."""
    if not shutil.which("virsh") or subprocess.run(["virsh", "uri"], capture_output=True, check=False).returncode:
        print("virsh save / restore: no libvirt here (script/packages bench; virtqemud or libvirtd must run)")
        return
    from tinamou.images.resolve import resolve

    image = resolve("tiny", "x86_64")
    with domain(image.kernel, image.initrd, image.cmdline, memory) as name:
        saved = Path(tempfile.gettempdir()) / "tinamou-bench.saved"
        save, restore = [], []
        for _ in range(max(3, rounds // 3)):
            save.append(stopwatch("virsh", "save", name, str(saved)))
            began = time.perf_counter()
            subprocess.run(["virsh", "restore", str(saved)], check=True, capture_output=True)
            ping(name)
            restore.append(time.perf_counter() - began)
        saved.unlink(missing_ok=True)
        row("virsh save", save)
        row("virsh restore, agent answers", restore)


@contextlib.contextmanager
def domain(kernel: str, initrd: str, cmdline: str, memory: str) -> Iterator[str]:
    name = "tinamou-bench"
    xml = f"""<domain type='qemu'><name>{name}</name><memory unit='MiB'>{memory.rstrip("M")}</memory><vcpu>1</vcpu>
    <os><type arch='x86_64' machine='q35'>hvm</type><kernel>{kernel}</kernel><initrd>{initrd}</initrd>
    <cmdline>console=ttyS0 {cmdline}</cmdline></os><features><acpi/></features><cpu mode='maximum'/><devices>
    <interface type='user'><model type='virtio'/></interface>
    <channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel></devices></domain>"""
    with tempfile.NamedTemporaryFile("w", suffix=".xml") as file:
        file.write(xml)
        file.flush()
        subprocess.run(["virsh", "create", file.name], check=True, capture_output=True)
    try:
        ping(name)
        yield name
    finally:
        subprocess.run(["virsh", "destroy", name], check=False, capture_output=True)


def ping(name: str) -> None:
    words = ["virsh", "qemu-agent-command", name, '{"execute":"guest-ping"}']
    for _ in range(600):
        if subprocess.run(words, capture_output=True, check=False).returncode == 0:
            return
        time.sleep(0.02)
    raise SystemExit("the guest under virsh never answered")


def stopwatch(*words: str) -> float:
    began = time.perf_counter()
    subprocess.run(words, check=True, capture_output=True)
    return time.perf_counter() - began


def ms(seconds: float) -> str:
    return f"{seconds * 1000:.0f} ms"


def row(what: str, seconds: list[float], against: list[float] | None = None) -> None:
    ordered = sorted(seconds)
    ninety_nine = ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))]
    median = statistics.median(ordered)
    ratio = f"   {statistics.median(against) / median:.0f} x faster than cold boot" if against else ""
    print(f"{what:<30} median {median * 1000:8.1f}  p99 {ninety_nine * 1000:8.1f}  n {len(ordered):3}{ratio}", flush=True)


if __name__ == "__main__":
    main()
