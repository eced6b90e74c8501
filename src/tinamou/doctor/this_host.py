"""Puts the checks in touch with the host they run on."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence

from tinamou.doctor.inspection import Inspection
from tinamou.errors import ProbeError
from tinamou.facts import AccelFacts, QemuFacts
from tinamou.probe.accel import probe_accel
from tinamou.probe.firmware import FirmwareScan, probe_firmware
from tinamou.probe.host import probe_host
from tinamou.probe.permits import probe_permits
from tinamou.probe.qemu import find_binary, probe_qemu
from tinamou.probe.walls import probe_walls
from tinamou.system import reader_label, reader_profile
from tinamou.system.disk import examine as examine_folder
from tinamou.system.exec import CommandError, TimeoutExpired, find_tool, run
from tinamou.system.paths import state_dir
from tinamou.system.rooted import Rooted

__all__ = ["this_host"]

_SECONDS = 5.0


def this_host() -> Inspection:
    """Everything the checks ask is answered by this host, each thing when it is asked for."""
    return Inspection(
        Rooted(),
        probe_host(),
        command=_command,
        accel=_accel,
        qemu=_qemu,
        firmware=_firmware,
        folder=lambda: examine_folder(str(state_dir())),
        permits=lambda: probe_permits(queued=True, real_time=True),
        walls=lambda: probe_walls(cached=False),
        readers=_readers,
        openable=_openable,
    )


def _command(argv: Sequence[str]) -> str | None:
    path = find_tool(argv[0])
    if path is None:
        return None
    try:
        return run([path, *argv[1:]], timeout=_SECONDS)
    except (CommandError, TimeoutExpired, OSError):
        return None


def _readers() -> Mapping[str, str]:
    said = {"AppArmor profile": reader_profile.missing(), "SELinux label": reader_label.missing()}
    return {what: why for what, why in said.items() if why is not None}


def _qemu() -> QemuFacts | None:
    arch = os.uname().machine
    try:
        return probe_qemu(find_binary(arch), arch)
    except ProbeError:
        return None


def _accel() -> AccelFacts | None:
    qemu = _qemu()
    return probe_accel(qemu) if qemu else None


def _firmware() -> FirmwareScan:
    qemu = _qemu()
    return probe_firmware(data_dirs=qemu.data_dirs if qemu else ())


def _openable(path: str) -> bool | None:
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except FileNotFoundError:
        return None
    except OSError:
        return False
    return True
