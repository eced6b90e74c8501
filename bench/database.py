"""Forks of a running database: PostgreSQL under pgbench, forked at ten moments, every fork checked, the source as well.

usage: python bench/database.py [--forks 10] [--cpus 1] [--memory 1G] [--clients 4] [--rate 50]

A checkpoint of the source is taken while pgbench runs in it, and beside it a loop that inserts numbers and writes down
each one that was acknowledged. In the machine forked from it both run on. They are stopped; then the balances of accounts,
tellers and branches must agree with the history, and every number written down must be there. Then all of the server is
killed and recovers, pg_amcheck must find nothing, and all of that must hold again. At the end the same is asked of the
source.
"""

from __future__ import annotations

import argparse
import asyncio
import dataclasses
import os
import tempfile
import time
from pathlib import Path

from tinamou.aio import Machine
from tinamou.machine.connected import Connected
from tinamou.machine.forking import fork_many
from tinamou.snapshots.resting import discard

IMAGE = "debian+postgresql"

_PREPARE = """
set -e
for _ in $(seq 300); do runuser -u postgres -- psql -qtc 'select 1' >/dev/null 2>&1 && break; sleep 1; done
cd /var/lib/postgresql
runuser -u postgres -- createdb bench
runuser -u postgres -- pgbench -q -i -s 1 bench 2>&1
runuser -u postgres -- psql -q bench -c 'create extension amcheck' -c 'create table counted (n int primary key)'
"""
_LOAD = """
cd /var/lib/postgresql
cat >count.sh <<'END'
n=0
while [ ! -e stop ]; do
    n=$((n + 1)); psql -qc "insert into counted values ($n)" bench && echo $n >>counted
done
END
bench="pgbench -n -c {clients} -j 1 -R {rate} -T 86400 -l --log-prefix=log bench"
setsid runuser -u postgres -- sh -c "$bench & exec sh count.sh" >load.out 2>&1 </dev/null &
"""
_STOP = """
touch stop; pkill -TERM -x pgbench
for _ in $(seq 300); do pgrep -x pgbench >/dev/null || pgrep -f 'count[.]sh' >/dev/null || break; sleep 0.2; done
"""
_ASK = """
cd /var/lib/postgresql
{before}
{amcheck}
slowest=$(awk '$3 > m {{ m = $3 }} END {{ print m + 0 }}' log.*)
(echo "create temp table known (n int);"; echo "copy known from stdin;"; cat counted; echo '\\.'
 echo "select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers),
     (select sum(bbalance) from pgbench_branches), (select coalesce(sum(delta), 0) from pgbench_history),
     (select count(*) from pgbench_history), (select count(*) from known),
     (select count(*) from known where n not in (select n from counted)), $damaged, $slowest;"
) | runuser -u postgres -- psql -qAt bench
"""
_AMCHECK = """
check="/usr/lib/postgresql/15/bin/pg_amcheck --heapallindexed -t pgbench_* -t counted bench"
runuser -u postgres -- $check >amcheck.out 2>&1; damaged=$?; [ $damaged = 0 ] || cat amcheck.out >&2
"""
_CRASH = """
pkill -KILL -x postgres; sleep 1; systemctl reset-failed; systemctl restart postgresql@15-main
for _ in $(seq 300); do runuser -u postgres -- psql -qtc 'select 1' >/dev/null 2>&1 && break; sleep 0.2; done
"""


@dataclasses.dataclass(frozen=True)
class Books:
    """What a database says of itself: the four sums, rows of the history, acknowledged insertions and those that are lost.

    ``damaged`` is pg_amcheck's status, ``slowest`` pgbench's slowest transaction in microseconds.
    """

    accounts: int
    tellers: int
    branches: int
    deltas: int
    rows: int
    acknowledged: int
    lost: int
    damaged: int
    slowest: int

    @property
    def faults(self) -> list[str]:
        """Everything that is wrong with it."""
        found = []
        if not self.accounts == self.tellers == self.branches == self.deltas:
            found.append(f"the sums differ: {self.accounts} {self.tellers} {self.branches} {self.deltas}")
        if self.lost or not self.acknowledged or not self.rows:
            found.append(f"of {self.acknowledged} acknowledged insertions {self.lost} are lost; {self.rows} transactions")
        if self.damaged:
            found.append("pg_amcheck found damage")
        return found


@dataclasses.dataclass(frozen=True)
class Outcome:
    """The forks' books before and after a crash of the server, the source's, and how long it stood still, in seconds."""

    forks: list[tuple[Books, Books]]
    source: Books
    pauses: list[float]
    took: list[float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--forks", type=int, default=10)
    parser.add_argument("--cpus", type=int, default=1)
    parser.add_argument("--memory", default="1G")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rate", type=int, default=50, help="transactions a second")
    wish = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tb-", dir="/tmp") as state:
        Path(state).chmod(0o755)
        os.environ["TINAMOU_STATE"] = state
        outcome = asyncio.run(measure(wish.forks, wish.cpus, wish.memory, wish.clients, wish.rate))
    show(outcome, wish.cpus)
    faults = [fault for pair in outcome.forks for books in pair for fault in books.faults] + outcome.source.faults
    raise SystemExit("\n".join(faults))


async def measure(forks: int, cpus: int = 1, memory: str = "1G", clients: int = 4, rate: int = 50) -> Outcome:
    books, pauses, took = [], [], []
    began = time.monotonic()
    async with Machine(IMAGE, forkable=True, cpus=cpus, memory=memory, net=[], timeout=600.0) as source:
        print(f"up, {time.monotonic() - began:.0f} s", flush=True)
        await source.run(_PREPARE, timeout=900)
        await source.run(_LOAD.format(clients=clients, rate=rate))
        await asyncio.sleep(10)
        for number in range(forks):
            checkpoint = await source.checkpoint(f"moment{number}")
            pauses.append(checkpoint.pause)
            took.append(checkpoint.took)
            try:
                books.append(await checked(checkpoint))
            finally:
                discard(Path(checkpoint.directory))
            said = f"stood still {pauses[-1] * 1000:.0f} ms, {books[-1][0].rows} transactions, faults {books[-1][1].faults}"
            print(f"fork {number} at {time.monotonic() - began:.0f} s: {said}", flush=True)
        ended = await ask(source, _STOP, _AMCHECK)
    return Outcome(books, ended, pauses, took)


async def checked(checkpoint: object) -> tuple[Books, Books]:
    """A fork's books as it was taken, and once more after its server was crashed."""
    [restored] = await fork_many(checkpoint, 1)  # type: ignore[arg-type]
    fork = Machine.around(Connected.of_fork(restored))
    try:
        return await ask(fork, _STOP), await ask(fork, _CRASH, _AMCHECK)
    finally:
        await fork.kill()


async def ask(machine: Machine, before: str, amcheck: str = "damaged=0") -> Books:
    done = await machine.run(_ASK.format(before=before, amcheck=amcheck), timeout=600)
    print(done.stderr.decode(errors="replace"), end="", flush=True)
    return Books(*(int(word) for word in done.text.splitlines()[-1].split("|")))


def show(outcome: Outcome, cpus: int) -> None:
    pauses = sorted(outcome.pauses)
    print(f"{len(outcome.forks)} forks of PostgreSQL under pgbench, {cpus} vCPUs")
    print(f"  checks: {sum(not b.faults for pair in outcome.forks for b in pair)} of {2 * len(outcome.forks)} passed")
    print(f"  the source stood still: median {pauses[len(pauses) // 2] * 1000:.0f} ms, longest {pauses[-1] * 1000:.0f} ms")
    print(f"  slowest transaction pgbench saw in the source: {outcome.source.slowest / 1000:.0f} ms")
    source = outcome.source
    print(f"  the source: {source.rows} transactions, {source.acknowledged} counted insertions, {source.lost} of them lost")


if __name__ == "__main__":
    main()
