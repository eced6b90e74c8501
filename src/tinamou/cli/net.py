"""The verbs below ``net`` that look: ls, diagnose, compare, capture, stats; those that change are in net_changes."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from tinamou import late
from tinamou.cli import net_changes, output
from tinamou.cli.grammar import Group, Parameter, Switch
from tinamou.cli.loop import run_until_done
from tinamou.machine import life
from tinamou.state import machines, networks
from tinamou.state.record import Record
from tinamou.system.signals import heard

if TYPE_CHECKING:
    from tinamou.network.attend import Report
    from tinamou.network.speed import Speed

app: Group = Group()
for _change in (net_changes.add, net_changes.rm, net_changes.link, net_changes.rate):
    app.command(_change)
app.named("set")(net_changes.change)


@app.command
def ls(*, json: Switch = False) -> None:
    """List the interfaces of all machines, and the networks they are on."""
    rows = [row for record in machines.machines() for row in _rows(record)]
    if json:
        nets = [late.asdict(found) for name in networks.names() if (found := networks.read(name))]
        output.print_json({"interfaces": rows, "networks": nets})
        return
    output.table(rows, ("machine", "nic", "type", "network", "model", "mac", "address", "link", "state"))


def _rows(record: Record) -> list[dict[str, object]]:
    from tinamou.machine.parts_of import nics_of

    state = "up" if record.running else "stopped"
    shown = [late.asdict(one) for one in nics_of(record)]
    return [{"machine": record.name, "nic": int(row.pop("name")[3:]), **row, "state": state} for row in shown]


@app.command
def diagnose(
    name: str,
    /,
    *,
    fix: Switch = False,
    restart: Switch = False,
    measure: bool = True,
    json: Switch = False,
) -> int:
    """Find out what slows a machine's network down or stops it; ends with 1 when something does.

    Parameters
    ----------
    fix
        Do what can be done without risk: plug in, bring up, set MTU and MAC back, start the network's server again.
    restart
        With --fix: also change what takes a new start, and start the machine again.
    measure
        Measure latency and throughput between this host and the guest (some seconds).
    """
    from tinamou.operations import network

    found = run_until_done(
        network.diagnose(name, fix=fix, restarting=restart, measure=measure, progress=lambda text, _: output.warn(text))
    )
    speeds = [{"nic": one.nic, "when": one.when, **speed_row(one.speed)} for one in found.speeds]
    if json:
        data: dict[str, Any] = late.asdict(found.report)
        output.print_json({**data, "speed": speeds, "fixed": list(found.done)})
    else:
        _show(found.report, speeds, found.done)
    return 1 if found.hindered else 0


def speed_row(speed: Speed) -> dict[str, str]:
    """A measurement as texts for a table."""
    return {
        "median ms": f"{speed.median:.2f}",
        "p99 ms": f"{speed.p99:.2f}",
        "into Mbit/s": f"{speed.into:.0f}",
        "out Mbit/s": f"{speed.out_of:.0f}",
    }


def _show(report: Report, speeds: list[dict[str, Any]], done: Sequence[str]) -> None:
    for nic in report.nics:
        side = f", {nic.guest.driver} {nic.guest.name} in the guest" if nic.guest else ""
        link = f" {nic.link}" if nic.link else ""
        vhost = ", vhost" if nic.vhost else ""
        print(f"{nic.id}: {nic.model} on {nic.backend}{link}, {nic.queues} queue pairs{vhost}{side}")
    output.table(speeds, ("nic", "when", "median ms", "p99 ms", "into Mbit/s", "out Mbit/s"))
    for cause in done:
        print(f"put right: {cause}")
    for number, finding in enumerate(report.findings, 1):
        print(f"\n{number}. {finding.nic}: {finding.cause}")
        for word, text in (("seen", finding.evidence), ("cost", finding.cost), ("fix", finding.fix)):
            print(f"   {word}: {text}")
    if not report.findings:
        print("nothing slows it down")


@app.command
def compare(
    *,
    net: Annotated[tuple[str, ...], Parameter(negative="")] = ("user", "auto"),
    cpus: int = 1,
    json: Switch = False,
) -> None:
    """Measure networks side by side in throw-away guests; the first is what the others are compared with.

    Where the guest's CPUs are busy nearly all the while, they are the limit and not the network.

    Parameters
    ----------
    net
        A network as for run; may be repeated. Without: QEMU's own TCP/IP, and tinamou's default.
    cpus
        Virtual CPUs of each guest.
    """
    from tinamou.machine.assignments import table_of
    from tinamou.operations import network

    speeds = run_until_done(network.compare([table_of(text) for text in net], cpus=cpus, progress=output.progress))
    first, rows = speeds[0], []
    for text, speed in zip(net, speeds, strict=True):
        gain = f"{first.median / speed.median:.1f} x, {speed.into / first.into:.1f} x, {speed.out_of / first.out_of:.1f} x"
        busy = f"{max(speed.busy_into, speed.busy_out) / cpus:.0%}"
        rows.append({"net": text, **speed_row(speed), "gain": gain, "guest busy": busy})
    output.table(rows, ("net", "median ms", "p99 ms", "into Mbit/s", "out Mbit/s", "gain", "guest busy"), json=json)


@app.command
def stats(name: str, /, *, json: Switch = False) -> None:
    """Show what a machine's cards have carried and lost, as the guest, the host and the packet filter counted it."""
    from tinamou.network.counters import counted

    rows = run_until_done(counted(life.running(name)))
    if json:
        output.print_json(rows)
        return
    columns = ("nic", "seen", "received", "sent", "packets in", "packets out", "dropped in", "dropped out", "errors")
    output.table([row for row in rows if row["seen"] != "filter"], columns)
    for row in rows:
        if row["seen"] == "filter":
            reasons = ", ".join(f"{count} {reason}" for reason, count in row["dropped"].items())
            print(f"{row['nic']}: the packet filter dropped {reasons or 'nothing'}")


@app.command
def capture(
    name: str,
    /,
    *,
    nic: str = "net0",
    seconds: float = 10.0,
    out: Annotated[str, Parameter(name=["--out", "-o"])] = "",
) -> None:
    """Write a machine's packets to a file that tcpdump and Wireshark read, 1 GiB at most; Ctrl-C ends it early.

    Parameters
    ----------
    seconds
        How long.
    out
        The file; NAME-netN.pcap when left out.
    """
    from tinamou.operations import network

    target = Path(out or f"{name}-{nic}.pcap")

    async def work() -> int:
        stopped = asyncio.Event()
        with heard([signal.SIGINT], lambda _: stopped.set()):
            return await network.capture(name, nic, target, stopped=stopped, seconds=seconds)

    print(f"{target}: {run_until_done(work())} bytes")
