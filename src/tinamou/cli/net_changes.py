"""The verbs below ``net`` that change a machine's cards: add, rm, link, rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from cyclopts import Parameter

from tinamou.cli import output
from tinamou.cli.loop import run_until_done
from tinamou.machine import cards, life
from tinamou.state import machines

if TYPE_CHECKING:
    from tinamou.state.record import Record

__all__ = ["add", "change", "link", "rate", "restarted", "rm"]

Switch = Annotated[bool, Parameter(negative="")]
SETTLE_SECONDS = 5.0


def add(name: str, net: str, /, *, json: Switch = False) -> None:
    """Give a machine one more network card, while it runs as well; it stays over stop and start.

    Parameters
    ----------
    name
        The machine.
    net
        A network as for run, for example type=bridge,network=lab.
    """
    from tinamou.cli.described import table_of

    number, said = run_until_done(cards.add(name, table_of(net)))
    for text in said:
        output.warn(text)
    running = machines.find(name).running
    if json:
        output.print_json({"machine": name, "nic": number, "id": f"net{number}", "plugged": running})
    else:
        print(f"net{number}" if running else f"net{number}, from the next start on")


def change(name: str, nic: str, /, *fields: str, restart: Switch = False) -> None:
    """Describe a network card anew: tinamou net set NAME net0 model=virtio; it is so from the next start on.

    Parameters
    ----------
    name
        The machine.
    nic
        The card: net0.
    fields
        Fields of a network as in a machine file: queues=0, type=passt.
    restart
        Stop the machine and start it again at once.
    """
    from tinamou.cli.described import table_of

    table = table_of(",".join(fields))
    if not isinstance(table, dict):
        output.warn(f"{' '.join(fields) or 'nothing'} is not of the form field=value")
        raise SystemExit(2)
    run_until_done(cards.change(name, nic, table))
    record = machines.find(name)
    if restart and record.running:
        run_until_done(restarted(record))


async def restarted(record: Record) -> None:
    """Stop a machine and start it again; returns when its guest answers, and its network had a moment to come up."""
    import asyncio

    from tinamou.machine.booting import begun_again, until_up
    from tinamou.machine.connected import Connected

    await life.stop(Connected.visiting(record))
    started = await begun_again(machines.find(record.name))
    machine = Connected(started.record, started.plan)
    await until_up(machine)
    await machine.release()
    await asyncio.sleep(SETTLE_SECONDS)


def rm(name: str, nic: str, /) -> None:
    """Take a network card away from a machine; the others keep their numbers.

    A running guest must let go of it, and it must sit in a hot-plug slot: cards that were added while it ran do.

    Parameters
    ----------
    name
        The machine.
    nic
        The card: net1.
    """
    run_until_done(cards.remove(name, nic))


def link(name: str, state: str, /, *, nic: str = "net0") -> int:
    """Plug a card's virtual cable in or out: tinamou net link NAME up|down.

    Parameters
    ----------
    name
        The machine.
    state
        up or down.
    nic
        The card: net1.
    """
    from tinamou.control import connect_qmp
    from tinamou.network.attend import plug

    if state not in ("up", "down"):
        output.warn(f"{state} is neither up nor down")
        return 2
    record = life.running(name)
    number = cards.number_of(record, nic)

    async def work() -> None:
        async with await connect_qmp(record.directory, alive=lambda: record.running) as session:
            await plug(session, f"net{number}-dev", up=state == "up")

    run_until_done(work())
    return 0


def rate(
    name: str,
    /,
    *,
    nic: str = "net0",
    inward: Annotated[str | None, Parameter(name="--in")] = None,
    outward: Annotated[str | None, Parameter(name="--out")] = None,
    json: Switch = False,
) -> None:
    """Limit what a card may receive and send from now on; without a number, show the limits.

    Parameters
    ----------
    name
        The machine.
    nic
        The card: net1.
    inward
        What the guest may receive: 100Mbit a second; off lifts the limit.
    outward
        What the guest may send.
    """
    wishes = {field: value for field, value in (("rate_in", inward), ("rate_out", outward)) if value is not None}
    rates = {field: "" if value == "off" else value for field, value in wishes.items()}
    card = run_until_done(cards.set_rates(name, nic, rates)) if rates else cards.card_of(machines.find(name), nic)
    if json:
        output.print_json({"machine": name, "nic": nic, "in": card.rate_in, "out": card.rate_out})
    else:
        print(f"in {card.rate_in or 'unlimited'}, out {card.rate_out or 'unlimited'}")
