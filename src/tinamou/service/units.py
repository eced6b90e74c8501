"""The systemd units of the service: a socket from the start, and the service behind it, begun when somebody connects."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tinamou.system import systemd

__all__ = ["units"]

_HARDENED = (
    "UMask=0077",
    "ProtectClock=yes",
    "ProtectHostname=yes",
    "ProtectKernelLogs=yes",
    "LockPersonality=yes",
    "RestrictSUIDSGID=yes",
    "RestrictAddressFamilies=AF_UNIX AF_INET AF_INET6 AF_NETLINK AF_PACKET AF_VSOCK",
    "SystemCallArchitectures=native",
)
"""What neither the service nor a QEMU needs: these hold for its machines too, which have walls of their own."""


def units(socket: Path, mode: int, command: Sequence[str], environment: Mapping[str, str]) -> dict[str, str]:
    """Name of each unit file → its text. Machines run on when the service ends: it alone is killed."""
    hardened = "\n".join(_HARDENED)
    return {
        "tinamou.socket": (
            "[Unit]\nDescription=Virtual machines for programs and browsers (tinamou)\n\n"
            f"[Socket]\nListenStream={systemd_path(socket)}\nSocketMode={mode:04o}\n\n[Install]\nWantedBy=sockets.target\n"
        ),
        "tinamou.service": (
            "[Unit]\nDescription=Virtual machines for programs and browsers (tinamou)\nRequires=tinamou.socket\n"
            "After=tinamou.socket network.target\n\n[Service]\nType=notify\n"
            f"{systemd.variables(environment)}{systemd.exec_start(command)}"
            f"Restart=on-failure\nRestartSec=2\nTimeoutStopSec=40\nKillMode=process\nDelegate=yes\n{hardened}\n\n"
            "[Install]\nWantedBy=default.target\n"
        ),
    }


def systemd_path(path: Path) -> str:
    """A path as a unit file has it (source: systemd.unit(5), specifiers)."""
    return str(path).replace("%", "%%")
