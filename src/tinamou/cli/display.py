"""The verb ``display``: a viewer on a machine's screen."""

from __future__ import annotations

import os
import sys
from typing import Annotated

from tinamou.cli import output
from tinamou.cli.grammar import Parameter, Switch
from tinamou.cli.loop import leave_the_line, run_until_done
from tinamou.errors import SpecError
from tinamou.operations import by_hand
from tinamou.system.exec import find_tool

_VIEWERS = (("remote-viewer", ("vnc", "spice")), ("vncviewer", ("vnc",)))
"""Those that take a Unix socket: virt-viewer's its whole address, TigerVNC's its path."""
_SECONDS = 300


def command(
    name: str,
    /,
    *,
    print: Switch = False,
    password: Switch = False,
    seconds: Annotated[int | None, Parameter(least=1)] = None,
    json: Switch = False,
) -> None:
    """Open a machine's screen in a viewer; without one, or without a desktop, say where it is and how to get there.

    Parameters
    ----------
    print
        Print the address alone.
    password
        Let somebody in from elsewhere: make a password for the screen's TCP port (display.listen), and print both.
    seconds
        How long a viewer can begin with the password, 300 when left out; who is in by then stays.
    """
    if seconds is not None and not password:
        raise SpecError("--seconds would do nothing", fix="it goes with --password")
    if print and (password or json):
        raise SpecError("--print would do nothing", fix="it goes with no other option")
    if password:
        return _let_in(name, seconds or _SECONDS, json=json)
    address = by_hand.display(name)
    if json:
        return output.print_json({"address": address})
    kind, path = address.split("+unix://")
    desktop = os.environ.get("WAYLAND_DISPLAY") or os.environ.get("DISPLAY")
    viewers = [(found, one) for one, kinds in _VIEWERS if kind in kinds and (found := find_tool(one))]
    if viewers and desktop and not print:
        program, which = viewers[0]
        leave_the_line()
        os.execv(program, [which, address if which == "remote-viewer" else path])  # noqa: S606  it is the viewer from here on
    if not print:
        without = "there is no desktop here" if viewers else "no viewer is installed (virt-viewer, tigervnc-viewer)"
        output.say(f"{without}; from your own: ssh -L 5900:{path} {os.uname().nodename}, then {kind}://localhost:5900")
    sys.stdout.write(f"{address}\n")
    return None


def _let_in(name: str, seconds: int, *, json: bool) -> None:
    made = run_until_done(by_hand.let_in(name, seconds))
    if json:
        return output.print_json(
            {"address": made.address, "tls": made.tls, "password": made.password, "seconds": made.seconds}
        )
    how = "by TLS (X509Vnc)" if made.tls else "on this host's loopback alone"
    output.say(f"good for {made.seconds} seconds, {how}; who is in by then stays")
    sys.stdout.write(f"vnc://{made.address} {made.password}\n")
    return None
