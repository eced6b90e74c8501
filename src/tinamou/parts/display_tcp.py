"""A guest's screen on a TCP port, by VNC with TLS, for whoever has the password of the hour.

QEMU serves it as a second VNC server beside the one on the machine's socket. It cannot be handed a listening socket when
it starts, and may make none behind its walls: it is served on a socket in the machine's folder first, without a password
that would let anybody in, and is handed the port once its monitor answers (`tinamou.machine.viewing`).
Source: QEMU ui/vnc.c, qapi/ui.json (display-update, set_password), crypto/tlscredsx509.c.
"""

from __future__ import annotations

from tinamou.blueprint import Contribution, CopyFile, Element, Flag, MakeDir, Value, Why
from tinamou.errors import Problem
from tinamou.facts import files
from tinamou.parts.process import ROOM
from tinamou.parts.protocol import Part, Resolved
from tinamou.parts.security import has_labels

__all__ = ["CERTIFICATES", "PART", "SERVER", "TLS"]

SERVER = "tcp"
"""The name of that server in QEMU."""
CERTIFICATES = ("ca-cert.pem", "server-cert.pem", "server-key.pem")
"""What QEMU looks for in a folder of TLS."""
TLS = "tls-creds-x509"
"""The object by which QEMU finds them, whose ``dir`` it reads and cannot write."""
_NEEDED = ("command:display-update", "command:set_password")


def check(resolved: Resolved) -> list[Problem]:
    """What cannot have a port of its own, and a QEMU that cannot be handed one."""
    display, qemu = resolved.spec.display, resolved.facts.qemu
    if not display.listen:
        return []
    found = []
    if resolved.spec.memory.forkable:
        reason = "a fork would have the same port"
        found.append(Problem("display.listen", display.listen, reason, "leave it or memory.forkable out"))
    if not all(qemu.has(one) for one in _NEEDED):
        reason = f"{qemu.binary} cannot be handed a port for its screen: QEMU 7.1 and later can"
        found.append(Problem("display.listen", display.listen, reason, "use another QEMU, or leave it out"))
    if display.tls and has_labels(resolved):
        reason = "its QEMU opens no file by a name under its SELinux label, and takes a certificate no other way"
        fix = 'listen on 127.0.0.1 and reach that by ssh -L, or set security.selinux = "off"'
        found.append(Problem("display.tls", display.tls, reason, fix))
    if display.tls and not qemu.has(f"type:{TLS}"):
        found.append(Problem("display.tls", display.tls, f"{qemu.binary} has no TLS", "use another QEMU, or leave it out"))
    return found


def contribute(resolved: Resolved) -> Contribution:
    """The second server, which asks for a password; its certificate and key, in copies of QEMU's own."""
    display = resolved.spec.display
    if not display.listen:
        return Contribution()
    why = Why("spec display.listen", f"the screen on {display.listen}: QEMU is handed the port when it runs")
    options: dict[str, Value] = {"id": SERVER, "password": "on"}
    if resolved.spec.devices.sound != "none":
        options["audiodev"] = "audio0"
    if not display.tls:
        return Contribution(flags=(Flag("vnc", why, _socket(resolved), options),))
    how = Why("spec display.tls", "what is shown and typed is encrypted, and the viewer knows whose screen it is")
    folder = resolved.file(files.TLS)
    creds: dict[str, Value] = {
        **{"qom-type": TLS, "id": "screen-tls", "dir": folder},
        **{"endpoint": "server", "verify-peer": False},
    }
    copies = (
        CopyFile(f"{folder}/{name}", f"{display.tls}/{name}", how, 0o400, resolved.owner, anew=True) for name in CERTIFICATES
    )
    return Contribution(
        (Element("object", creds, how),),
        (Flag("vnc", why, _socket(resolved), {**options, "tls-creds": "screen-tls"}),),
        (MakeDir(folder, how, 0o700 if resolved.owner is None else 0o711), *copies),
    )


def _socket(resolved: Resolved) -> str:
    return f"unix:{resolved.file(f'{ROOM}/vnc-{SERVER}.sock')}"


PART = Part(contribute, check=check)
