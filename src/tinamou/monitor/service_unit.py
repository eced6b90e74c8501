"""The systemd unit under which the watch runs for good."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from tinamou.system import systemd

__all__ = ["service_unit"]


def service_unit(command: Sequence[str], environment: Mapping[str, str]) -> str:
    """The text of a service that runs ``command`` until it is stopped; ``environment`` is what that needs.

    The host's kernel is told to spare it when memory runs out: it is the one that says so.
    """
    return (
        "[Unit]\nDescription=Watch over virtual machines (tinamou)\n\n[Service]\n"
        f"{systemd.variables(environment)}{systemd.exec_start(command)}"
        "Restart=on-failure\nRestartSec=5\nOOMScoreAdjust=-500\n\n[Install]\nWantedBy=default.target\n"
    )
