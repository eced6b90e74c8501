"""Three hosts under a real Pacemaker: a host dies, stands still, is cut off, goes to standby; machines run once."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from clustered import Cluster, cluster
from made_of_hosts import up
from typed import eventually

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.vm,
    pytest.mark.timeout(1800),
    pytest.mark.skipif(
        not all(shutil.which(one, path="/usr/sbin:/usr/bin") for one in ("sshd", "corosync", "pacemakerd", "crm")),
        reason="no sshd, corosync, pacemaker or crmsh",
    ),
]
WRITES = (
    "(i=$(dd if=/dev/vda bs=512 skip=8 count=1 2>/dev/null | head -1 | tr -dc 0-9); i=${i:-0}; while :; do i=$((i+1)); "
    "echo $i | dd of=/dev/vda bs=512 seek=8 conv=fsync 2>/dev/null || exit; done) >/dev/null 2>&1 &"
)


@pytest.fixture
def three() -> Iterator[Cluster]:
    for hosts in up(3):
        with cluster(hosts, 3) as made:
            yield made


def synced(made: Cluster, name: str) -> int:
    """What a machine's disk says was written last."""
    with Path(made.shared, f"{name}.raw").open("rb") as file:
        file.seek(4096)
        return int(file.read(512).split(b"\n")[0].strip(b"\0") or 0)


def protected(made: Cluster, *names: str, rules: str = "", folder: str = "/mnt", writes: str = WRITES) -> dict[str, int]:
    """Machines that the cluster keeps running and that write to disks in that folder; where each is."""
    files = []
    for name in names:
        if folder == "/mnt":
            Path(made.shared, f"{name}.raw").write_bytes(bytes(16 << 20))
        said = f'name = "{name}"\nmemory = "128M"\ncpus = 1\n[[net]]\ntype = "none"\n'
        said += f'[[disk]]\npath = "{folder}/{name}.raw"\n{rules}'
        Path(made.shared, f"{name}.toml").write_text(said)
        files.append(f"/mnt/{name}.toml")
    nodes = [made.hosts.tinamou(host, "cluster", "node") for host in range(1, made.count + 1)]
    made.load([*nodes, made.hosts.tinamou(1, "cluster", "resource", *files)])
    at = {name: made.until_at(name) for name in names}
    for name in names:
        made.hosts.tinamou(at[name], "exec", name, "--", "sh", "-c", writes)
        eventually(lambda name=name: synced(made, name), "it writes")
    return at


def runs_once(made: Cluster, name: str, before: int, lost: int) -> int:
    """It came back on one other host, with all that was synced."""
    at = made.until_at(name, lost)
    assert made.running(name) == [at]
    assert synced(made, name) >= before
    made.hosts.tinamou(at, "exec", name, "--", "sh", "-c", WRITES)
    now = synced(made, name)
    eventually(lambda: synced(made, name) > now, "it writes on")
    return at


def test_a_machine_outlives_a_host_that_dies(three: Cluster) -> None:
    at = protected(three, "m1")["m1"]
    before = synced(three, "m1")
    three.on = at % 3 + 1
    three.hosts.script("kill", str(at))
    runs_once(three, "m1", before, at)
    assert f"off h{at} off" in (three.folder / "bmc.log").read_text()


def test_a_host_that_stands_still_is_fenced_and_writes_no_more(three: Cluster) -> None:
    at = protected(three, "m1")["m1"]
    before = synced(three, "m1")
    three.on = at % 3 + 1
    three.hosts.script("freeze", str(at))
    runs_once(three, "m1", before, at)
    assert three.hosts.script("thaw", str(at), check=False).returncode != 0


SAYS = WRITES.replace("|| exit", "|| { echo refused >/dev/console; exit; }")
FILE = """
touch /srv/m1.raw
node=driver=nbd,node-name=m1,server.type=inet,server.host=10.77.0.254,server.port=1080$1,reconnect-delay=0
qemu-storage-daemon --daemonize --blockdev $node \
    --export type=fuse,id=m1,node-name=m1,mountpoint=/srv/m1.raw,writable=on,allow-other=on
"""
"""A network's file system of one file: a lock there is known to this host alone, and the storage decides who writes."""


@contextlib.contextmanager
def stored(made: Cluster) -> Iterator[None]:
    """For the block there is storage beside the hosts, which serves each of them the same disk, as ``/srv/m1.raw``."""
    disk = Path(made.shared, "m1.raw")
    disk.write_bytes(bytes(16 << 20))
    opened = f"driver=raw,file.driver=file,file.locking=off,file.filename={disk}"
    beside = ["nsenter", "-t", (made.folder / "switch.pid").read_text().strip(), "-n"]
    with contextlib.ExitStack() as stack:
        for host in range(1, made.count + 1):
            words = [*beside, "qemu-nbd", "-t", "-b", "10.77.0.254", "-p", f"1080{host}", "--image-opts", opened]
            serving = stack.enter_context(subprocess.Popen(words))
            stack.callback(serving.kill)
            (made.folder / f"h{host}.storage").write_text(f"{serving.pid}")
            tried = ("run", str(host), "sh", "-ec", FILE, "sh", str(host))
            eventually(lambda tried=tried: made.hosts.script(*tried, check=False).returncode == 0, "its disk is served")
        yield


def test_a_host_that_comes_back_after_its_machine_did_elsewhere_has_its_writes_refused(three: Cluster) -> None:
    with stored(three):
        at = protected(three, "m1", folder="/srv", writes=SAYS)["m1"]
        three.on = at % 3 + 1
        three.hosts.script("freeze", str(at))
        now = three.until_at("m1", at)
        assert sorted(three.running("m1")) == sorted([at, now])  # the frozen one still is
        three.hosts.tinamou(now, "exec", "m1", "--", "sh", "-c", SAYS)
        before = synced(three, "m1")
        eventually(lambda: synced(three, "m1") > before, "it writes where it is now")
        console = Path(three.shared).with_name(f"h{at}-var.up") / "lib/tinamou/machines/m1/serial.log"
        assert "refused" not in console.read_text(errors="replace")
        three.hosts.script("thaw", str(at))
        eventually(lambda: "refused" in console.read_text(errors="replace"), "its write fails")
        seen = [synced(three, "m1")]
        while seen[-1] < seen[0] + 20:
            seen.append(synced(three, "m1"))
        assert seen == sorted(seen)  # a number of the other's would be smaller
        assert f"off h{at} off" in (three.folder / "bmc.log").read_text()


def test_a_fencing_device_that_lies_meets_the_lock_of_the_disk(three: Cluster) -> None:
    at = protected(three, "m1")["m1"]
    three.on = at % 3 + 1
    (three.folder / "lie").touch()
    three.hosts.script("freeze", str(at))
    eventually(lambda: f"off h{at} on" in (three.folder / "bmc.log").read_text(), "the lie", 240)
    eventually(lambda: "m1 start on" in three.shows(), "the other hosts cannot start it", 240)
    assert three.running("m1") == [at]
    before = synced(three, "m1")
    three.hosts.script("thaw", str(at))
    eventually(lambda: synced(three, "m1") >= before, "nobody wrote between")


def test_the_minority_stops(three: Cluster) -> None:
    at = protected(three, "m1")["m1"]
    before = synced(three, "m1")
    three.on = at % 3 + 1
    three.hosts.script("cut", str(at))
    runs_once(three, "m1", before, at)


def test_a_host_in_standby_is_emptied_by_live_moves(three: Cluster) -> None:
    at = protected(three, "m1", "m2", rules='[placement]\nspread = "m"\n')
    assert at["m1"] != at["m2"]
    source = at["m1"]
    three.on = source
    uptime = float(three.hosts.tinamou(source, "exec", "m1", "--", "cut", "-d ", "-f1", "/proc/uptime"))
    before = synced(three, "m1")
    three.ask("crm_standby", "-v", "on", "-N", f"h{source}")
    now = three.until_at("m1", source)
    eventually(lambda: three.running("m1") == [now], "it runs once")
    assert now != at["m2"]
    assert json.loads(three.hosts.tinamou(now, "show", "--json", "m1"))["state"] == "running"
    assert float(three.hosts.tinamou(now, "exec", "m1", "--", "cut", "-d ", "-f1", "/proc/uptime")) > uptime
    eventually(lambda: synced(three, "m1") > before, "it writes on")
    assert "Failed" not in three.shows()
