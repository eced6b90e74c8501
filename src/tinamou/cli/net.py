"""The verbs below ``net`` that look: ls, diagnose, compare, capture, stats; those that change are in net_changes."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from cyclopts import App, Parameter

from tinamou.cli import output
from tinamou.cli.loop import run_until_done
from tinamou.machine import cards, life
from tinamou.state import machines, networks

if TYPE_CHECKING:
    from tinamou.network.attend import Report
    from tinamou.network.speed import Speed
    from tinamou.state.record import Record

app: App = App(
    name="net", help="Look at machines' networks, find what slows them down, capture.", result_action="return_value"
)
Switch = Annotated[bool, Parameter(negative="")]
CHANGES = {
    "add": "Give a machine one more network card, while it runs as well.",
    "set": "Describe a network card anew, from the next start on, or starting at once.",
    "rm": "Take a network card away from a machine.",
    "link": "Plug a card's virtual cable in or out.",
    "rate": "Limit what a card may receive and send, at once.",
}
for _verb, _help in CHANGES.items():
    app.command(f"tinamou.cli.net_changes:{_verb if _verb != 'set' else 'change'}", name=_verb, help=_help)


@app.command
def ls(*, json: Switch = False) -> None:
    """List the interfaces of all machines, and the networks they are on."""
    rows = [row for record in machines.machines() for row in _rows(record)]
    if json:
        nets = [dataclasses.asdict(found) for name in networks.names() if (found := networks.read(name))]
        output.print_json({"interfaces": rows, "networks": nets})
        return
    output.table(rows, ("machine", "nic", "type", "network", "model", "mac", "address", "link", "state"))


def _rows(record: Record) -> list[dict[str, object]]:
    from tinamou.machine.parts_of import nics_of

    state = "up" if record.running else "stopped"
    shown = [dataclasses.asdict(one) for one in nics_of(record)]
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
    name
        The machine.
    fix
        Do what can be done without risk: plug in, bring up, set MTU and MAC back, start the network's server again.
    restart
        With --fix: also change what takes a new start, and start the machine again.
    measure
        Measure latency and throughput between this host and the guest (some seconds).
    """
    from tinamou.cli.net_changes import restarted

    record = life.running(name)
    report, speeds, done = run_until_done(_diagnosed(record, fix=fix, measuring=measure))
    if fix and restart and (changes := _changes(report)):
        for nic, fields in changes:
            run_until_done(cards.change(name, nic, fields))
            done.append(f"{nic}: {', '.join(f'{key} = {value}' for key, value in fields.items())}")
        run_until_done(restarted(record))
        report, again, _ = run_until_done(_diagnosed(life.running(name), fix=False, measuring=measure))
        speeds = [*speeds, *({**row, "when": "after"} for row in again)]
    if json:
        data: dict[str, Any] = dataclasses.asdict(report)
        output.print_json({**data, "speed": speeds, "fixed": done})
    else:
        _show(report, speeds, done)
    return 1 if any(finding.weight >= 30 for finding in report.findings) else 0


def _changes(report: Report) -> list[tuple[str, dict[str, object]]]:
    """What the findings would have changed in the machine's description, by card."""
    wanted = [finding for finding in report.findings if finding.remedy[:1] == ("spec",)]
    return [(one.wire.removesuffix("-dev"), dict(_field(word) for word in one.remedy[1:])) for one in wanted]


def _field(word: str) -> tuple[str, object]:
    key, _, value = word.partition("=")
    return key, int(value) if value.isdecimal() else value


async def _diagnosed(record: Record, *, fix: bool, measuring: bool) -> tuple[Report, list[dict[str, Any]], list[str]]:
    from tinamou.control import connect_qmp
    from tinamou.errors import TinamouError
    from tinamou.guest.agent import Agent
    from tinamou.guest.ready import SETTLED
    from tinamou.network import attend
    from tinamou.system.exec import CommandError

    agent = Agent(str(record.file("agent.sock")))
    async with await connect_qmp(record.directory, alive=lambda: record.running) as session:
        with contextlib.suppress(TinamouError):
            await agent.run(["sh", "-c", SETTLED], timeout=15)
        report = await attend.examine(record, session, agent)
        speeds = await _speeds(report, agent, "before" if fix else "now") if measuring else []
        done: list[str] = []
        for finding in report.findings if fix else ():
            try:
                if await attend.put_right(record, session, agent, finding):
                    done.append(finding.cause)
            except (TinamouError, CommandError, OSError) as error:
                output.warn(f"not put right: {finding.cause}: {error}")
        if done:
            report = await attend.examine(record, session, agent)
            speeds += await _speeds(report, agent, "after") if measuring else []
    return report, speeds, done


async def _speeds(report: Report, agent: Any, when: str) -> list[dict[str, Any]]:
    from tinamou.errors import TinamouError
    from tinamou.network.attend import speed_of
    from tinamou.network.diagnose import DEAD

    rows = []
    dead = {finding.wire for finding in report.findings if finding.weight > DEAD}
    for wire in (one for one in report.wires if one.id not in dead):
        try:
            speed = await speed_of(wire, agent)
        except (TinamouError, OSError, TimeoutError) as error:
            output.warn(f"{wire.id} was not measured: {str(error) or type(error).__name__}")
            continue
        if speed:
            rows.append({"nic": wire.id, "when": when, **speed_row(speed)})
    return rows


def speed_row(speed: Speed) -> dict[str, str]:
    """A measurement as texts for a table."""
    return {
        "median ms": f"{speed.median:.2f}",
        "p99 ms": f"{speed.p99:.2f}",
        "into Mbit/s": f"{speed.into:.0f}",
        "out Mbit/s": f"{speed.out_of:.0f}",
    }


def _show(report: Report, speeds: list[dict[str, Any]], done: list[str]) -> None:
    for wire in report.wires:
        side = f", {wire.guest.driver} {wire.guest.name} in the guest" if wire.guest else ""
        link = f" {wire.link}" if wire.link else ""
        vhost = ", vhost" if wire.vhost else ""
        print(f"{wire.id}: {wire.model} on {wire.backend}{link}, {wire.queues} queue pairs{vhost}{side}")
    output.table(speeds, ("nic", "when", "median ms", "p99 ms", "into Mbit/s", "out Mbit/s"))
    for cause in done:
        print(f"put right: {cause}")
    for number, finding in enumerate(report.findings, 1):
        print(f"\n{number}. {finding.wire}: {finding.cause}")
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
    from tinamou.cli.described import table_of
    from tinamou.machine.net_trial import trial

    rows: list[dict[str, Any]] = []
    first: Speed | None = None
    for text in net:
        speed = run_until_done(trial(table_of(text), cpus=cpus))
        first = first or speed
        gain = f"{first.median / speed.median:.1f} x, {speed.into / first.into:.1f} x, {speed.out_of / first.out_of:.1f} x"
        busy = f"{max(speed.busy_into, speed.busy_out) / cpus:.0%}"
        rows.append({"net": text, **speed_row(speed), "gain": gain, "guest busy": busy})
    if json:
        output.print_json(rows)
    else:
        output.table(rows, ("net", "median ms", "p99 ms", "into Mbit/s", "out Mbit/s", "gain", "guest busy"))


@app.command
def stats(name: str, /, *, json: Switch = False) -> None:
    """Show what a machine's cards have carried and lost, as the guest, the host and the packet filter counted it.

    Parameters
    ----------
    name
        The machine.
    """
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
    """Write a machine's packets to a file that tcpdump and Wireshark read; Ctrl-C ends it early.

    Parameters
    ----------
    name
        The machine.
    nic
        The card: net1.
    seconds
        How long.
    out
        The file; NAME-netN.pcap when left out.
    """
    import asyncio

    from tinamou.control import connect_qmp
    from tinamou.network import attend

    record = life.running(name)
    number = cards.number_of(record, nic)
    target = Path(out or f"{name}-net{number}.pcap")

    async def work() -> int:
        import signal

        stopped = asyncio.Event()
        asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stopped.set)
        async with await connect_qmp(record.directory, alive=lambda: record.running) as session:
            return await attend.capture(record, session, number, target, stopped, seconds)

    print(f"{target}: {asyncio.run(work())} bytes")
