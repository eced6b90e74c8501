"""A live move with its disk: tinamou move beside virsh migrate --live --copy-storage-all, between hosts of script/hosts.

``python -m bench.moves ROUNDS`` as root, with libvirtd installed. Both move the same kernel, memory and written disk, by the
same QEMU (``TINAMOU_QEMU``; where that would lose writes of an emulated guest tinamou stops it first: take 10.0 or later).
The guest says something on its console all the time: how long it stood still is what lies between the last that was seen
of it on one host and the first on the other, by the same clock for both tools. Of an emulated guest much of that is its own:
what it runs has to be translated anew there. So what QEMU's own events tell is measured too, from its stop on one host until
it runs on the other (of tinamou until that was heard, which is later). virsh moves it twice: told of its target over ssh, as
its users do and tinamou does, and over a connection of libvirt's own without encryption or a login. Milliseconds. What a
busy machine does not change is counted too: processor time of both hosts, in milliseconds, from the command's start to its
end (libvirtd's, the guest's and both QEMUs' among it).
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import astuple, dataclass
from datetime import datetime
from pathlib import Path

from tinamou.images.resolve import resolve

ROOT = Path(__file__).parents[1]
QEMU = os.environ.get("TINAMOU_QEMU", "/usr/bin/qemu-system-{arch}").replace("{arch}", "x86_64")
MEMORY, DISK = 256, 256
"""MiB."""
SAYS = "(while :; do echo x >/dev/console; usleep 2000; done) >/dev/null 2>&1 &"
DOMAIN = """<domain type='qemu'><name>m</name><memory unit='MiB'>{memory}</memory><vcpu>1</vcpu>
<os><type arch='x86_64' machine='pc-q35-7.2'>hvm</type><kernel>{kernel}</kernel><initrd>{initrd}</initrd>
<cmdline>console=ttyS0</cmdline></os><features><acpi/></features><cpu mode='custom' check='none'><model>qemu64</model></cpu>
<devices><emulator>{qemu}</emulator>
<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/root/m.qcow2'/>
<target dev='vda' bus='virtio'/></disk>
<serial type='file'><source path='/root/m.log'/></serial>
<channel type='unix'><target type='virtio' name='org.qemu.guest_agent.0'/></channel></devices></domain>"""
LIBVIRT = r"""
mkdir -p /root/lv && cd /root/lv
printf 'listen_tls=0\nlisten_tcp=1\nauth_tcp="none"\nauth_unix_rw="none"\n' >l.conf
printf 'host_uuid="%s"\n' "$(cat /proc/sys/kernel/random/uuid)" >>l.conf
printf 'user="root"\ngroup="root"\nsecurity_driver="none"\ncgroup_controllers=[]\n' >/etc/libvirt/qemu.conf
printf 'namespaces=[]\nstdio_handler="file"\n' >>/etc/libvirt/qemu.conf
mkdir -p /run/libvirt
setsid virtlogd >/dev/null 2>&1 </dev/null &
setsid libvirtd --listen --config /root/lv/l.conf >/root/lv/log 2>&1 </dev/null &
until virsh -c qemu:///system version >/dev/null 2>&1; do sleep 0.1; done
setsid stdbuf -oL virsh -c qemu:///system qemu-monitor-event --loop --timestamp >events 2>&1 </dev/null &
"""
KNOW = """
import sys
from tinamou.fleet.hosts import Host, add
words = next(line for line in open("/etc/ssh/of_hosts/known") if line.startswith("h2,")).split()
key = " ".join(words[1:3])
add(Host("h2", "10.77.0.2", key, user="root", identity="/root/.ssh/id_ed25519", command=tuple(sys.argv[1:])))
"""


class Hosts:
    """Two hosts that run."""

    def __init__(self, folder: str) -> None:
        self.folder = folder
        self.environment = {**os.environ, "HOSTS_FOLDER": folder}
        own = {"PATH": os.environ["PATH"], "PYTHONPATH": str(ROOT / "src"), "HOME": "/root", "TINAMOU_QEMU": QEMU}
        self.words = ["env", "-i", *(f"{name}={value}" for name, value in own.items()), sys.executable, "-m", "tinamou"]

    def script(self, *words: str) -> str:
        """What script/hosts says. Raises CalledProcessError."""
        argv = [str(ROOT / "script/hosts"), *words]
        done = subprocess.run(argv, env=self.environment, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.stderr.write(done.stderr)
        done.check_returncode()
        return done.stdout

    def root(self, host: int) -> Path:
        """A host's file system, from here."""
        return Path(f"/proc/{Path(self.folder, f'h{host}.pid').read_text().strip()}/root")

    def spent(self) -> float:
        """Seconds of processor time of both hosts so far."""
        groups = [Path(self.script("group", host).strip(), "cpu.stat") for host in ("1", "2")]
        return sum(int(group.read_text().split()[1]) for group in groups) / 1e6


@dataclass(frozen=True)
class Took:
    """What a move took: milliseconds it said nothing, was stopped, in all, and of processor time."""

    still: float
    stopped: float
    total: float
    spent: float

    def __str__(self) -> str:
        still = f"{self.still:.0f} ms silent, {self.stopped:.0f} stopped"
        return f"{still}, {self.total:.0f} in all, {self.spent:.0f} of processor time"


@contextlib.contextmanager
def watched(first: Path, second: Path) -> Iterator[list[float]]:
    """For the block: the moments at which each of two files grew last, and first."""
    seen, over = [0.0, 0.0], threading.Event()

    def size(path: Path) -> int:
        try:
            return path.stat().st_size
        except OSError:
            return 0

    def look() -> None:
        before, begun = size(first), size(second)
        while not over.is_set():
            if (now := size(first)) > before and not seen[1]:
                before, seen[0] = now, time.monotonic()
            if not seen[1] and size(second) > begun:
                seen[1] = time.monotonic()
            time.sleep(0.001)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield seen
    finally:
        over.set()
        thread.join()


def moved(hosts: Hosts, log: str, move: Callable[[], str], stopped: Callable[[str], float]) -> Took:
    """What that took of a guest that writes to this file on both hosts; ``stopped`` reads what the tool said."""
    with watched(hosts.root(1) / log, hosts.root(2) / log) as seen:
        began, before = time.monotonic(), hosts.spent()
        said = move()
        total, spent = time.monotonic() - began, hosts.spent() - before
        while not seen[1]:
            time.sleep(0.01)
    return Took((seen[1] - seen[0]) * 1000, stopped(said) * 1000, total * 1000, spent * 1000)


def by_tinamou(hosts: Hosts) -> Took:
    """Move one by tinamou."""
    words = ("run", "-d", "--name", "m", "--memory", f"{MEMORY}M", "--net", "none", "--set", 'disk=[{path="/root/m.qcow2"}]')
    hosts.script("run", "1", *hosts.words, *words)
    hosts.script("run", "1", *hosts.words, "exec", "m", "--", "sh", "-c", SAYS)
    log = "var/lib/tinamou/machines/m/serial.log"
    move = functools.partial(hosts.script, "run", "1", *hosts.words, "move", "m", "h2", "--json")
    took = moved(hosts, log, move, lambda said: float(json.loads(said)["downtime"]))
    hosts.script("run", "2", *hosts.words, "rm", "-f", "m")
    hosts.script("run", "1", *hosts.words, "rm", "m")
    return took


OVER_SSH = "qemu+ssh://root@10.77.0.2/system?keyfile=/root/.ssh/id_ed25519&no_verify=1"
OVER_TCP = "qemu+tcp://10.77.0.2/system"


def by_virsh(hosts: Hosts, target: str = OVER_TCP) -> Took:
    """The same of libvirt."""
    for host in ("1", "2"):
        hosts.script("run", host, "rm", "-f", "/root/m.log")
    hosts.script("run", "2", "qemu-img", "create", "-q", "-f", "qcow2", "/root/m.qcow2", f"{DISK}M")
    virsh = ("run", "1", "virsh", "-q", "-c", "qemu:///system")
    hosts.script(*virsh, "create", "/root/m.xml")
    said = {"execute": "guest-exec", "arguments": {"path": "/bin/sh", "arg": ["-c", SAYS]}}
    while True:
        with contextlib.suppress(subprocess.CalledProcessError):
            hosts.script(*virsh, "qemu-agent-command", "m", json.dumps(said))
            break
        time.sleep(0.5)
    migrate = ("migrate", "--live", "--copy-storage-all", "m", target)
    took = moved(hosts, "root/m.log", lambda: hosts.script(*virsh, *migrate), lambda _: _stopped(hosts))
    hosts.script("run", "2", "virsh", "-c", "qemu:///system", "destroy", "m")
    return took


def _stopped(hosts: Hosts) -> float:
    """Seconds from the last stop on one host to the last beginning on the other, which virsh logs as QEMU tells them."""

    def last(host: int, event: str) -> float:
        log = hosts.root(host) / "root/lv/events"
        while not (found := re.findall(rf"^(\S+ \S+): event {event} ", log.read_text(), re.M)):
            time.sleep(0.01)
        return datetime.fromisoformat(found[-1]).timestamp()

    return last(2, "RESUME") - last(1, "STOP")


def prepared(hosts: Hosts) -> None:
    """Both hosts have libvirt, and the first one a written disk."""
    for host in ("1", "2"):
        hosts.script("run", host, "sh", "-ec", LIBVIRT)
    tiny = resolve("tiny", "x86_64")
    domain = DOMAIN.format(qemu=QEMU, memory=MEMORY, kernel=tiny.kernel, initrd=tiny.initrd)
    (hosts.root(1) / "root/m.xml").write_text(domain)
    fill = f"head -c {DISK}M /dev/urandom >/root/raw && qemu-img convert -O qcow2 /root/raw /root/m.qcow2 && rm /root/raw"
    hosts.script("run", "1", "sh", "-ec", fill)
    hosts.script("run", "1", *hosts.words[:-2], "-c", KNOW, *hosts.words)


def main() -> int:
    """Measure, and print a table."""
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    ways: dict[str, Callable[[Hosts], Took]] = {
        "tinamou": by_tinamou,
        "virsh over ssh": functools.partial(by_virsh, target=OVER_SSH),
        "virsh over bare TCP": by_virsh,
    }
    found: dict[str, list[Took]] = {name: [] for name in ways}
    with tempfile.TemporaryDirectory(prefix="bm-", dir="/run") as folder:
        hosts = Hosts(f"{folder}/f")
        hosts.script("up", "2")
        try:
            prepared(hosts)
            for number in range(rounds):
                for name, way in ways.items():
                    found[name].append(way(hosts))
                    print(f"{number + 1} {name}: {found[name][-1]} (load {os.getloadavg()[0]:.1f})", flush=True)
        finally:
            hosts.script("down")
    middle = {name: Took(*map(statistics.median, zip(*map(astuple, runs), strict=True))) for name, runs in found.items()}
    for name, took in middle.items():
        print(f"{name}: median of {rounds}: {took}")
    mine = astuple(middle.pop("tinamou"))
    for name, took in middle.items():
        still, stopped, total, spent = (own / other for own, other in zip(mine, astuple(took), strict=True))
        print(
            f"ratio to {name}: {still:.2f} silent, {stopped:.2f} stopped, {total:.2f} in all, {spent:.2f} of processor time"
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
