"""The verbs below ``net`` that change a machine's cards: add, rm, link, rate."""

from __future__ import annotations

from typing import Annotated

from tinamou.cli import output
from tinamou.cli.grammar import Parameter, Switch
from tinamou.cli.loop import run_until_done

__all__ = ["add", "change", "link", "rate", "rm"]


def add(name: str, net: str, /, *, json: Switch = False) -> None:
    """Give a machine one more network card, while it runs as well; it stays over stop and start.

    Parameters
    ----------
    net
        A network as for run, for example type=bridge,network=lab.
    """
    from tinamou.machine.assignments import table_of
    from tinamou.operations import network

    added = run_until_done(network.add(name, table_of(net)))
    output.warn(*added.notes)
    if json:
        output.print_json({"machine": name, "nic": int(added.nic[3:]), "id": added.nic, "plugged": added.plugged})
    else:
        print(added.nic if added.plugged else f"{added.nic}, from the next start on")


def change(name: str, nic: str, /, *fields: str, restart: Switch = False) -> None:
    """Describe a network card anew: tinamou net set NAME net0 model=virtio; it is so from the next start on.

    Parameters
    ----------
    nic
        The card: net0.
    fields
        Fields of a network as in a machine file: queues=0, type=passt.
    restart
        Stop the machine and start it again at once.
    """
    from tinamou.machine.assignments import table_of
    from tinamou.operations import network

    table = table_of(",".join(fields))
    if not isinstance(table, dict):
        output.warn(f"{' '.join(fields) or 'nothing'} is not of the form field=value")
        raise SystemExit(2)
    run_until_done(network.change(name, nic, table, restarting=restart))


def rm(name: str, nic: str, /) -> None:
    """Take a network card away from a machine; the others keep their numbers.

    A running guest must let go of it, and it must sit in a hot-plug slot: cards that were added while it ran do.
    """
    from tinamou.operations import network

    run_until_done(network.remove(name, nic))


def link(name: str, state: str, /, *, nic: str = "net0") -> int:
    """Plug a card's virtual cable in or out: tinamou net link NAME up|down.

    Parameters
    ----------
    state
        up or down.
    """
    from tinamou.operations import network

    if state not in ("up", "down"):
        output.warn(f"{state} is neither up nor down")
        return 2
    run_until_done(network.link(name, nic, up=state == "up"))
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
    inward
        What the guest may receive: 100Mbit a second; off lifts the limit.
    outward
        What the guest may send.
    """
    from tinamou.operations import network

    requests = {field: value for field, value in (("rate_in", inward), ("rate_out", outward)) if value is not None}
    rates = {field: "" if value == "off" else value for field, value in requests.items()}
    card = run_until_done(network.rate(name, nic, rates))
    if json:
        output.print_json({"machine": name, "nic": nic, "in": card.rate_in, "out": card.rate_out})
    else:
        print(f"in {card.rate_in or 'unlimited'}, out {card.rate_out or 'unlimited'}")
