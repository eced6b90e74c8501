"""A power switch for the hosts of `script/hosts`: ``bmc.py SCRIPT`` listens beside them, one line for each wish: ``off h2``.

With a file ``lie`` in the folder of the hosts it says that it did, and does nothing: such fencing devices exist.
"""

from __future__ import annotations

import os
import socketserver
import subprocess
import sys

STATES = {True: "on", False: "off"}


class Wish(socketserver.StreamRequestHandler):
    """One connection."""

    def handle(self) -> None:
        """Do it, and say how the host is then."""
        what, name = self.rfile.readline().decode().split()
        if what in ("off", "reboot") and not os.path.exists(os.environ["HOSTS_FOLDER"] + "/lie"):  # noqa: PTH110
            subprocess.run([sys.argv[1], "kill", name[1:]], check=False, capture_output=True)
        is_on = os.path.exists(f"{os.environ['HOSTS_FOLDER']}/{name}.pid")  # noqa: PTH110
        print(what, name, STATES[is_on], flush=True)
        self.wfile.write(f"{STATES[is_on] if what == 'status' else 'done'}\n".encode())


if __name__ == "__main__":
    socketserver.TCPServer.allow_reuse_address = True
    with socketserver.ThreadingTCPServer(("10.77.0.254", 6230), Wish) as server:
        print("listening", flush=True)
        server.serve_forever()
