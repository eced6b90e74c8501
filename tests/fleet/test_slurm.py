"""Debian's Slurm on a host: a user's job is a machine, and the scripts of the guide give back what a killed one leaves."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from made_of_hosts import ROOT, Hosts, up
from typed import eventually

pytestmark = [
    pytest.mark.root,
    pytest.mark.slow,
    pytest.mark.vm,
    pytest.mark.timeout(900),
    pytest.mark.skipif(
        not all(shutil.which(one, path="/usr/sbin:/usr/bin") for one in ("sshd", "slurmctld", "slurmd", "munged", "sbatch")),
        reason="no sshd, slurmctld, slurmd, sbatch or munge (script/packages cluster)",
    ),
]
CONF = """
ClusterName=tinamou
SlurmctldHost=h1
SlurmUser=root
ProctrackType=proctrack/linuxproc
TaskPlugin=task/none
SelectType=select/cons_tres
StateSaveLocation=/var/lib/slurm/state
SlurmdSpoolDir=/var/lib/slurm/spool
SlurmctldLogFile=/var/log/slurm/ctld.log
SlurmdLogFile=/var/log/slurm/d.log
SlurmctldPidFile=/run/slurmctld.pid
SlurmdPidFile=/run/slurmd.pid
ReturnToService=2
{hooks}
NodeName=h1 NodeAddr=10.77.0.1 CPUs=1 State=UNKNOWN
PartitionName=all Nodes=ALL Default=YES MaxTime=INFINITE State=UP
"""
BEGIN = r"""
useradd -d /srv/worker -m -s /bin/sh worker
mkdir -p /run/over/up /run/over/work /run/munge /var/lib/slurm/state /var/lib/slurm/spool /var/log/slurm /etc/slurm
mount -t overlay overlay -o lowerdir=/usr/bin,upperdir=/run/over/up,workdir=/run/over/work /usr/bin
install -m 755 /mnt/slurm/tinamou /usr/bin/tinamou
install -m 755 /mnt/slurm/*.sh /mnt/slurm/slurm.conf /etc/slurm
mkdir -p /srv/worker/.cache/tinamou/images
cp -a /var/cache/tinamou/facts /srv/worker/.cache/tinamou
cp -a /var/cache/tinamou/images/tiny* /srv/worker/.cache/tinamou/images
chown -R worker: /srv/worker
chown munge: /run/munge
[ -e /etc/munge/munge.key ] || { head -c 1024 /dev/urandom >/etc/munge/munge.key; chown munge: /etc/munge/munge.key; }
chmod 400 /etc/munge/munge.key
runuser -u munge -- munged
setsid slurmctld </dev/null >/dev/null 2>&1
for plugin in disabled cgroup/v1 cgroup/v2; do  # which of them there is depends on the release and on this host
    echo "CgroupPlugin=$plugin" >/etc/slurm/cgroup.conf
    setsid slurmd </dev/null >/dev/null 2>&1 || continue
    sleep 1
    ! pgrep -x slurmd >/dev/null || break
done
"""
JOB = """#!/bin/sh
ls "$TINAMOU_STATE/machines" 2>/dev/null | sed 's/^/was there: /'
echo "as $(id -un)"
exec tinamou run --memory 160M --net none -- sh -c 'echo in the guest; sleep 3000'
"""
MACHINES = "/var/lib/tinamou-jobs/worker/machines"


def scripts() -> dict[str, str]:
    """The scripts of the guide, and its lines for slurm.conf."""
    blocks = re.findall(r"^```text\n(.*?)^```$", Path(ROOT, "docs/guides/hosts.md").read_text(), re.M | re.S)
    found = {match[1]: block for block in blocks if (match := re.search(r"^# /etc/slurm/([\w.-]+): ", block, re.M))}
    (hooks,) = [block for block in blocks if block.startswith("Prolog=")]
    return {**found, "slurm.conf": CONF.format(hooks=hooks)}


class Slurm:
    """A host that is a cluster of one node, and its user."""

    def __init__(self, hosts: Hosts) -> None:
        self.hosts = hosts

    def run(self, *words: str, check: bool = True) -> str:
        done = self.hosts.script("run", "1", *words, check=False)
        assert not check or done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
        return done.stdout

    def user(self, script: str) -> str:
        own = ("env", "-i", "PATH=/usr/bin:/bin", "HOME=/srv/worker")
        return self.run("runuser", "-u", "worker", "--", *own, "sh", "-c", f"cd && {script}")

    def begun(self) -> str:
        """A job whose machine's guest runs its command; its number."""
        number = self.user(f"rm -f out; cat >job <<'E'\n{JOB}E\nsbatch --parsable -o out job").strip()
        eventually(lambda: "in the guest" in self.user("cat out 2>/dev/null || true"), "the guest's command", 240)
        return number

    def killed(self, number: str) -> None:
        """The job's command is killed, and the job has ended."""
        self.run("pkill", "-KILL", "-u", "worker", "-f", "tinamou run")
        self.ended(number, "FAILED")

    def ended(self, number: str, how: str) -> None:
        eventually(lambda: f"JobState={how}" in self.run("scontrol", "show", "job", number), "the job's end", 120)
        eventually(lambda: self.run("squeue", "-h") == "" and self.idle(), "the epilog", 120)

    def idle(self) -> bool:
        return "idle" in self.run("sinfo", "-h", "-o", "%T", check=False)

    def machines(self) -> list[str]:
        return self.run("ls", MACHINES, check=False).split()


@pytest.fixture
def slurm() -> Iterator[Slurm]:
    for hosts in up(1):
        hosts.tinamou(1, "run", "--memory", "160M", "--net", "none", "--", "true")  # which builds its image
        made = Slurm(hosts)
        words = [word for word in hosts.words if not word.startswith("HOME=")]
        words[1] = '-i HOME="$HOME" TINAMOU_STATE="$TINAMOU_STATE" TINAMOU_RUN="$TINAMOU_RUN"'
        if subprocess.run(["runuser", "-u", "nobody", "--", "test", "-r", ROOT / "src"], check=False).returncode:
            pytest.skip("another user may not read this checkout")
        for name, text in {**scripts(), "tinamou": f'#!/bin/sh\nexec {" ".join(words)} "$@"\n'}.items():
            given = "mkdir -p /mnt/slurm && cat >/mnt/slurm/\"$1\" <<'END-OF-IT'\n" + text + "END-OF-IT"
            made.run("sh", "-ec", given, "sh", name)
        made.run("sh", "-ec", BEGIN)
        eventually(made.idle, "the node")
        yield made


def test_what_a_job_leaves_is_given_back_by_the_scripts_of_the_guide(slurm: Slurm) -> None:
    first = slurm.begun()
    assert "as worker" in slurm.user("cat out")
    (left,) = slurm.machines()
    slurm.run("mv", "/etc/slurm/tinamou.sh", "/etc/slurm/kept.sh")
    slurm.run("cp", "/bin/true", "/etc/slurm/tinamou.sh")
    slurm.killed(first)
    assert slurm.machines() == [left]  # without an epilog
    slurm.run("mv", "-f", "/etc/slurm/kept.sh", "/etc/slurm/tinamou.sh")
    second = slurm.begun()
    assert "was there" not in slurm.user("cat out")  # by the prolog
    assert slurm.machines() not in ([], [left])
    slurm.killed(second)
    assert slurm.machines() == []  # by the epilog
    third = slurm.begun()
    slurm.user(f"scancel {third}")
    slurm.ended(third, "CANCELLED")
    assert slurm.machines() == []
    assert "ended by SIGTERM" in slurm.user("cat out")
    assert slurm.run("pgrep", "-u", "worker", check=False) == ""
