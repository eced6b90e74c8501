"""A power switch for the hosts of `script/hosts`: ``bmc.py SCRIPT`` listens beside them, one line for each wish: ``off h2``.

With a file ``lie`` in the folder of the hosts it says that it did, and does nothing: such fencing devices exist. Of a host
that has a file ``h2.storage``, the number of what serves it its disks, it leaves the power on, and serves it no more: such
fencing devices exist as well (fence_scsi, a switch of the storage's network).
"""

from __future__ import annotations

import os
import signal
import socketserver
import subprocess
import sys
from pathlib import Path

STATES = {True: "on", False: "off"}


class Wish(socketserver.StreamRequestHandler):
    """One connection."""

    def handle(self) -> None:
        """Do it, and say how the host is then."""
        what, name = self.rfile.readline().decode().split()
        folder = Path(os.environ["HOSTS_FOLDER"])
        served, fenced = folder / f"{name}.storage", what in ("off", "reboot")
        if fenced and served.exists():
            os.kill(int(served.read_text()), signal.SIGKILL)
            served.rename(folder / f"{name}.unserved")
        elif fenced and not (folder / "lie").exists():
            subprocess.run([sys.argv[1], "kill", name[1:]], check=False, capture_output=True)
        is_on = (folder / f"{name}.pid").exists() and not (folder / f"{name}.unserved").exists()
        print(what, name, STATES[is_on], flush=True)
        self.wfile.write(f"{STATES[is_on] if what == 'status' else 'done'}\n".encode())


if __name__ == "__main__":
    socketserver.TCPServer.allow_reuse_address = True
    with socketserver.ThreadingTCPServer(("10.77.0.254", 6230), Wish) as server:
        print("listening", flush=True)
        server.serve_forever()
