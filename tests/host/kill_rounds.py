"""Rounds of machines that are started in parallel and killed at random; what a round leaves on the host is printed.

``python tests/host/kill_rounds.py --rounds 200 --machines 20`` as root. It moves into namespaces of its own first (network,
mounts, processes), so that every interface, rule, mount and process it finds afterwards is one of its machines'; huge pages
and control groups are the host's. Round N is the same in every run: ``--first N`` goes on, or repeats one.

One JSON object a line: the round, what was started, how it ended, and ``left``, which must be empty.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
import zlib
from collections import Counter
from pathlib import Path

STATE = Path("/tmp/s")
PAGES = [*Path("/sys/devices/system/node").glob("node*/hugepages/*/nr_hugepages")]
VALUES = (
    "/proc/sys/net/ipv4/ip_forward",
    "/proc/sys/net/ipv6/conf/all/forwarding",
    "/sys/kernel/mm/transparent_hugepage/enabled",
    "/sys/kernel/mm/ksm/run",
)
SHELL = """
set -e
mkdir -p /tmp/groups && mount --rbind /sys/fs/cgroup /tmp/groups
mount -t sysfs none /sys && mount --rbind /tmp/groups /sys/fs/cgroup && umount -R /tmp/groups
mount -t tmpfs none /run && mount -t tmpfs none /dev/shm && mount -t tmpfs none /tmp
ip link set lo up && ip link add up0 type bridge && ip link set up0 up
ip address add 192.0.2.2/24 dev up0 && ip route add default via 192.0.2.1
exec "$0" "$@"
"""
"""The default route leads nowhere; passt wants one."""

SECONDS = 3.0
"""How long a machine has at most: less than all of a round's machines take to start, so that some die half made."""

KINDS = ("plain", "bridge", "passt", "disk")


def inside(words: list[str]) -> int:
    """The same command in namespaces of its own; ends with everything in it."""
    unshare = ["unshare", "--net", "--mount", "--pid", "--fork", "--mount-proc", "--kill-child=KILL", "sh", "-c", SHELL]
    environment = {**os.environ, "TINAMOU_STATE": str(STATE), "TINAMOU_RUN": "/run", "TMPDIR": "/tmp"}
    return subprocess.run(
        [*unshare, sys.executable, str(Path(__file__).resolve()), "--inside", *words], env=environment, check=False
    ).returncode


def command_lines() -> dict[int, str]:
    """Every process but this one: pid and command line, zombies left out."""
    found = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal() and int(folder.name) not in (1, os.getpid()):
            with contextlib.suppress(OSError):
                if line := (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip():
                    found[int(folder.name)] = line
    return found


def said(*words: str) -> list[str]:
    done = subprocess.run(words, capture_output=True, text=True, check=True)
    return sorted(line.strip() for line in done.stdout.splitlines())


def host_now() -> dict[str, list[str]]:
    """Everything of the host that a machine may change, as lists of lines."""
    groups = [str(path) for path in Path("/sys/fs/cgroup").glob("*/tinamou/*")]
    groups += [str(path) for path in Path("/sys/fs/cgroup").glob("tinamou/*")]
    mine = {f"{zlib.crc32(str(STATE / 'machines' / name).encode()):08x}" for name in names(64)}
    files = [path for root in ("/tmp", "/run", "/dev/shm", "/dev/hugepages") for path in Path(root).rglob("*")]
    return {
        "huge pages": [f"{path} {path.read_text().strip()}" for path in PAGES],
        "kernel values": [f"{path} {Path(path).read_text().strip()}" for path in VALUES],
        "control groups": sorted(group for group in groups if group[-8:] in mine),
        "mounts": sorted(line.split(" ", 1)[1] for line in Path("/proc/self/mountinfo").read_text().splitlines()),
        "interfaces": [line.split(":", 1)[-1] for line in said("ip", "-o", "link")],
        "addresses": [line.split(":", 1)[-1] for line in said("ip", "-o", "address")],
        "routes": said("ip", "route"),
        "packet filter": said("nft", "list", "ruleset"),
        "processes": sorted(command_lines().values()),
        "files": sorted(str(path) for path in files if path.name not in ("networks.lock", "tinamou.lock", "uids.json")),
        "sockets": sorted(line.split()[-1] for line in Path("/proc/net/unix").read_text().splitlines() if "/" in line),
    }


def names(count: int) -> list[str]:
    return [f"k{number}" for number in range(count)]


def words_of(number: int, kind: str, chance: random.Random) -> list[str]:
    """The command line of one machine. It stays at the reset line: what it takes from the host counts, not the guest."""
    words = ["run", "--name", f"k{number}", "--cpus", str(1 + number % 2), "--memory", "32M", "--pin", "auto"]
    words += ["--hugepages", "2M", "--set", "limits.cpu=0.5", "--set", 'qemu_args=["-S"]']
    words += {
        "plain": ["--net", "none"],
        "bridge": ["--net", "type=bridge,network=kills"],
        "passt": ["--net", "passt"],
        "disk": ["--net", "none", "--disk", "size=4M,format=raw,iothread=true"],
    }[kind]
    return [*words, "-d"] if chance.random() < 0.5 else [*words, "--", "true"]


def command(words: list[str]) -> int:
    """One tinamou command in a child: the real command line, without importing everything anew. The child's pid."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    os.setsid()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_DFL)
    log = os.open("/tmp/said", os.O_RDWR | os.O_CREAT | os.O_APPEND)
    for descriptor in (0, 1, 2):
        os.dup2(log, descriptor)
    try:
        from tinamou.cli.main import main

        sys.argv = ["tinamou", *words]
        main()
    except SystemExit as end:
        os._exit(int(end.code or 0))
    finally:
        os._exit(1)


def kill(pid: int, number: int = signal.SIGKILL) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


class Round:
    """One round: starts machines over a moment, kills what it finds of each when its time has come."""

    def __init__(self, number: int, machines: int, ended: Counter[str]) -> None:
        self.chance = random.Random(number)
        self.ended = ended
        self.waiting = names(machines)
        self.running: dict[int, tuple[str, float]] = {}
        self.most = 0

    def run(self) -> None:
        while self.waiting or self.running:
            if self.waiting and self.chance.random() < 0.5:
                name = self.waiting.pop(0)
                words = words_of(int(name[1:]), self.chance.choice(KINDS), self.chance)
                self.running[command(words)] = (name, time.monotonic() + self.chance.uniform(0.0, SECONDS))
            if self.chance.random() < 0.03:
                asks = self.chance.choice((["ls"], ["host", "repair"], ["host"]))
                self.running[command(asks)] = ("", time.monotonic() + self.chance.uniform(0.0, 0.3))
            for pid in [pid for pid, (_, moment) in self.running.items() if moment < time.monotonic()]:
                self._end(pid, self.running.pop(pid)[0])
            self.most = max(self.most, sum(int(path.read_text()) for path in PAGES))
            time.sleep(0.01)

    def _end(self, pid: int, name: str) -> None:
        """Kills the command, its QEMU, its helpers, all of them in one go, or asks the command to end."""
        way = self.chance.choice(("command", "qemu", "helpers", "everything", "SIGTERM")) if name else "repairer"
        others = [one for one, line in command_lines().items() if name and f"/machines/{name}/" in line]
        qemu = [one for one in others if "qemu-system" in (command_lines().get(one) or "")]
        victims = {"qemu": qemu, "helpers": [one for one in others if one not in qemu], "everything": others}.get(way, [])
        if way == "helpers" and self.chance.random() < 0.3:
            victims += [one for one, line in command_lines().items() if "dnsmasq" in line]
        for victim in victims:
            kill(victim)
        if way in ("qemu", "helpers"):
            time.sleep(self.chance.uniform(0, 0.1))
        kill(pid, signal.SIGTERM if way == "SIGTERM" else signal.SIGKILL)
        if way == "SIGTERM":
            self._patient(pid)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(pid, 0)
        self.ended[way] += 1

    def _patient(self, pid: int) -> None:
        deadline = time.monotonic() + 20
        while time.monotonic() < deadline:
            if os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return
            time.sleep(0.01)
        self.ended["SIGTERM not heeded"] += 1
        kill(pid)


def clean_up() -> None:
    """What a user does afterwards: kept machines are removed."""
    finish(["host", "repair"])
    kept = sorted(path.parent.name for path in (STATE / "machines").glob("*/machine.json"))
    for name in kept:
        finish(["rm", "-f", name])


def finish(words: list[str]) -> None:
    status = os.waitpid(command(words), 0)[1]
    if status:
        print(json.dumps({"failed": words, "status": os.waitstatus_to_exitcode(status)}), flush=True)


def settled(before: dict[str, list[str]]) -> dict[str, object]:
    """What differs from before, once processes on their way out had a moment."""
    for _ in range(100):
        now = host_now()
        if now == before:
            return {}
        time.sleep(0.05)
    return {
        kind: {"new": sorted((Counter(now[kind]) - Counter(old)).elements()), "gone": sorted(set(old) - set(now[kind]))}
        for kind, old in before.items()
        if now[kind] != old
    }


def spoil() -> Path:
    """Leaves one of each thing, to show that it is found; the control group, which outlives the namespaces, is returned."""
    Path("/tmp/left").touch()
    Path(VALUES[0]).write_text("1")
    subprocess.run(["ip", "link", "add", "left0", "type", "bridge"], check=True)
    subprocess.run(["nft", "add", "table", "inet", "left"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "none", "/run"], check=True)
    subprocess.Popen(["sleep", "60"])
    group = Path("/sys/fs/cgroup/cpu/tinamou" if Path("/sys/fs/cgroup/cpu").is_dir() else "/sys/fs/cgroup/tinamou")
    group /= f"k0-{zlib.crc32(str(STATE / 'machines/k0').encode()):08x}"
    group.mkdir(parents=True)
    return group


def rounds(first: int, count: int, machines: int, *, spoiled: bool = False) -> int:
    """Plays them; returns how many left something."""
    shutil.rmtree(STATE, ignore_errors=True)
    finish(["run", "--net", "type=bridge,network=kills", "--", "true"])
    clean_up()
    before, wrong = host_now(), 0
    took_pages = sum(int(path.read_text()) for path in PAGES)
    for number in range(first, first + count):
        ended: Counter[str] = Counter()
        since = time.monotonic()
        one = Round(number, machines, ended)
        one.run()
        clean_up()
        group = spoil() if spoiled else None
        left = settled(before)
        if group:
            group.rmdir()
            group.parent.rmdir()
        wrong += bool(left)
        row = {"round": number, "ended": dict(ended), "pages": one.most - took_pages, "left": left}
        print(json.dumps({**row, "seconds": round(time.monotonic() - since, 1)}), flush=True)
        for pid in command_lines() if left else ():
            kill(pid)
    return wrong


def main() -> int:
    reader = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    reader.add_argument("--rounds", type=int, default=1)
    reader.add_argument("--machines", type=int, default=20)
    reader.add_argument("--first", type=int, default=0)
    reader.add_argument("--spoil", action="store_true", help="leave things behind on purpose: they must be found")
    reader.add_argument("--inside", action="store_true")
    asked = reader.parse_args()
    if not asked.inside:
        return inside(sys.argv[1:])
    return 1 if rounds(asked.first, asked.rounds, asked.machines, spoiled=asked.spoil) else 0


if __name__ == "__main__":
    sys.exit(main())
