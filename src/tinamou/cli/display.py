"""The verb ``display``: a viewer on a machine's screen."""

from __future__ import annotations

import os
import sys

from tinamou.cli import output
from tinamou.cli.grammar import Switch
from tinamou.cli.loop import leave_the_line
from tinamou.operations import by_hand
from tinamou.system.exec import find_tool

_VIEWERS = (("remote-viewer", ("vnc", "spice")), ("vncviewer", ("vnc",)))
"""Those that take a Unix socket: virt-viewer's its whole address, TigerVNC's its path."""


def command(name: str, /, *, print: Switch = False) -> None:
    """Open a machine's screen in a viewer; without one, or without a desktop, say where it is and how to get there.

    Parameters
    ----------
    print
        Print the address alone.
    """
    address = by_hand.display(name)
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
