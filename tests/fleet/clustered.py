"""A Pacemaker cluster on the hosts of `script/hosts`: corosync, fencing by a switch that cuts a host's power, the agent."""

from __future__ import annotations

import os
import re
import secrets
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from made_of_hosts import ROOT, Hosts
from typed import eventually

TOKEN = int(os.environ.get("TINAMOU_TOKEN", "4000"))
"""Milliseconds after which a host that says nothing is lost."""
COROSYNC = """
totem {{
  version: 2
  cluster_name: tinamou
  transport: knet
  crypto_cipher: aes256
  crypto_hash: sha256
  token: {token}
}}
system {{
  sched_rr: no
}}
nodelist {{
{nodes}
}}
quorum {{
  provider: corosync_votequorum
}}
logging {{
  to_logfile: yes
  logfile: /var/log/corosync.log
}}
"""
NODE = "  node {{\n    ring0_addr: 10.77.0.{n}\n    name: h{n}\n    nodeid: {n}\n  }}"
FENCE = r"""#!/bin/bash
action=off
while read -r line; do
    case $line in action=*) action=${line#*=} ;; plug=* | port=*) plug=${line#*=} ;; esac
done
case $action in
    metadata) cat <<'XML'
<?xml version="1.0"?>
<resource-agent name="fence_hosts" shortdesc="the power of script/hosts"><longdesc>x</longdesc><parameters>
<parameter name="action"><content type="string" default="off"/><shortdesc lang="en">action</shortdesc></parameter>
<parameter name="plug"><content type="string"/><shortdesc lang="en">host</shortdesc></parameter></parameters>
<actions><action name="on"/><action name="off"/><action name="reboot"/><action name="status"/><action name="list"/>
<action name="monitor"/><action name="metadata"/></actions></resource-agent>
XML
    exit 0 ;;
    monitor | list | start | stop | on) exit 0 ;;
esac
exec 3<>/dev/tcp/10.77.0.254/6230 || exit 1
echo "$action $plug" >&3
read -r said <&3
case $action.$said in status.on) exit 0 ;; status.off) exit 2 ;; *.done) exit 0 ;; *) exit 1 ;; esac
"""
CIB = """<cib crm_feature_set="3.16.1" validate-with="pacemaker-3.9" epoch="1" num_updates="0" admin_epoch="1">
<configuration><crm_config><cluster_property_set id="p"><nvpair id="p1" name="stonith-enabled" value="true"/>
<nvpair id="p2" name="dc-deadtime" value="5s"/><nvpair id="p3" name="stonith-action" value="off"/>
<nvpair id="p4" name="stonith-timeout" value="30s"/></cluster_property_set></crm_config><nodes/><resources/><constraints/>
</configuration><status/></cib>"""
BEGIN = r"""
for one in sbin lib/ocf/resource.d; do
    mkdir -p /run/over/$one.up /run/over/$one.work
    mount -t overlay overlay -o lowerdir=/usr/$one,upperdir=/run/over/$one.up,workdir=/run/over/$one.work /usr/$one
done
mkdir -p /usr/lib/ocf/resource.d/tinamou
cp /mnt/cluster/agent /usr/lib/ocf/resource.d/tinamou/machine
cp /mnt/cluster/fence_hosts /mnt/cluster/tinamou /usr/sbin
chmod 755 /usr/lib/ocf/resource.d/tinamou/machine /usr/sbin/fence_hosts /usr/sbin/tinamou
cp /mnt/cluster/corosync.conf /mnt/cluster/authkey /etc/corosync && chmod 400 /etc/corosync/authkey
install -o hacluster -g haclient -m 600 /mnt/cluster/cib.xml /var/lib/pacemaker/cib/cib.xml
setsid corosync -f </dev/null >/dev/null 2>&1 &
until corosync-cfgtool -s >/dev/null 2>&1; do sleep 0.1; done
setsid pacemakerd </dev/null >/dev/null 2>&1 &
until crm_mon -1 >/dev/null 2>&1; do sleep 0.1; done
"""


class Cluster:
    """Hosts that are one cluster; ``on`` is one that answers."""

    def __init__(self, hosts: Hosts, count: int) -> None:
        self.hosts = hosts
        self.count = count
        self.on = 1

    def ask(self, *words: str) -> str:
        """What a command says on the host that answers."""
        done = self.hosts.script("run", str(self.on), *words, check=False)
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def shows(self) -> str:
        """How the cluster sees itself."""
        return self.hosts.script("run", str(self.on), "crm_mon", "-1", "-r", check=False).stdout

    def where(self, name: str) -> list[int]:
        """The hosts on which the cluster has that resource."""
        found = re.search(rf"^\s*\* {name}\s.*?:\s+Started ([h\d ]+)$", self.shows(), re.M)
        return [int(one) for one in re.findall(r"h(\d)", found[1])] if found else []

    def load(self, lines: Sequence[str]) -> None:
        """Give these lines to the cluster's shell."""
        file = Path(self.shared, "lines.crm")
        file.write_text("\n".join(lines) + "\n")
        self.ask("crm", "--force", "configure", "load", "update", "/mnt/lines.crm")

    @property
    def folder(self) -> Path:
        """Where the hosts keep what they know."""
        return Path(self.hosts.environment["HOSTS_FOLDER"])

    @property
    def shared(self) -> str:
        """The folder that all hosts see, as it is reached from here."""
        return f"/proc/{(self.folder / 'switch.pid').read_text().strip()}/root{self.folder}/disks/shared"

    def running(self, name: str) -> list[int]:
        """Hosts on which a QEMU of that machine is alive, stopped ones too."""
        found = []
        for host in range(1, self.count + 1):
            group = next(Path("/sys/fs/cgroup").rglob(f"{self._group()}/h{host}"), None)
            pids = _pids(group) if group else []
            if any(_is_machine(pid, name) for pid in pids):
                found.append(host)
        return found

    def _group(self) -> str:
        summed = subprocess.run(["cksum"], input=f"{self.folder}\n", capture_output=True, text=True, check=True).stdout
        return f"hosts-{summed.split()[0]}"

    def until_at(self, name: str, other_than: int = 0) -> int:
        """Wait until it runs on one host, not on that one; which it is."""
        at: list[int] = []

        def moved() -> bool:
            at[:] = self.where(name)
            return len(at) == 1 and at[0] != other_than

        try:
            eventually(moved, f"{name} elsewhere than on h{other_than}", 240)
        except AssertionError:
            print(self.shows())
            raise
        return at[0]


def _pids(group: Path) -> list[str]:
    return [pid for one in [group, *group.rglob("*")] if one.is_dir() for pid in (one / "cgroup.procs").read_text().split()]


def _is_machine(pid: str, name: str) -> bool:
    try:
        words = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
    except OSError:
        return False
    return b"qemu-system" in words[0] and any(f"machines/{name}/".encode() in word for word in words)


@contextmanager
def cluster(hosts: Hosts, count: int) -> Iterator[Cluster]:
    """The cluster, with all its hosts online and fencing set up, for the block."""
    made = Cluster(hosts, count)
    nodes = "\n".join(NODE.format(n=n) for n in range(1, count + 1))
    given = Path(made.shared, "cluster")
    given.mkdir()
    (given / "corosync.conf").write_text(COROSYNC.format(token=TOKEN, nodes=nodes))
    (given / "authkey").write_bytes(secrets.token_bytes(256))
    (given / "cib.xml").write_text(CIB)
    (given / "fence_hosts").write_text(FENCE)
    (given / "agent").write_text((ROOT / "data/ocf/tinamou").read_text())
    (given / "tinamou").write_text(f'#!/bin/sh\nexec {" ".join(hosts.words)} "$@"\n')
    words = ["nsenter", "-t", (made.folder / "switch.pid").read_text().strip(), "-n", sys.executable]
    words += [str(Path(__file__).with_name("bmc.py")), str(ROOT / "script/hosts")]
    log = (made.folder / "bmc.log").open("wb")
    with subprocess.Popen(words, env=hosts.environment, stdout=log, stderr=log) as switch:
        try:
            eventually(lambda: b"listening" in (made.folder / "bmc.log").read_bytes(), "the power switch")
            for host in range(1, count + 1):
                hosts.script("run", str(host), "env", "-i", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "sh", "-ec", BEGIN)
                for other in set(range(1, count + 1)) - {host}:
                    hosts.know(host, other)
            eventually(lambda: len(re.findall(r"h\d", _online(made))) == count, "all hosts online", 180)
            listed = " ".join(f"h{n}" for n in range(1, count + 1))
            given_list = f'pcmk_host_list="{listed}" pcmk_host_check=static-list'
            made.load([f"primitive fence stonith:fence_hosts params {given_list} op monitor interval=60s"])
            made.until_at("fence")
            yield made
        finally:
            switch.terminate()
            log.close()


def _online(made: Cluster) -> str:
    found = re.search(r"Online: \[(.*)\]", made.shows())
    return found[1] if found else ""
