"""Files and folders of the host a description names: found from everywhere, and looked for before anything is done."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any, TypeVar

from tinamou import late
from tinamou.errors import PrepareError, Problem
from tinamou.parts.display_tcp import CERTIFICATES
from tinamou.spec import MachineSpec
from tinamou.system.exec import find_tool

__all__ = ["VIRTIOFSD", "absolute", "check"]

_Part = TypeVar("_Part", bound=Any)
VIRTIOFSD = "virtiofsd"
"""The program that serves a folder to a guest."""


def absolute(spec: MachineSpec) -> MachineSpec:
    """The description with whole paths: a machine starts again from wherever it is told to."""
    return late.replace(
        spec,
        boot=_whole(spec.boot, "kernel", "initrd", "secure_keys"),
        disk=tuple(_whole(one, "path", "key") for one in spec.disk),
        pmem=tuple(_whole(one, "path") for one in spec.pmem),
        net=tuple(_whole(one, "socket") for one in spec.net),
        usb=tuple(_whole(one, "path") for one in spec.usb),
        pci=tuple(_whole(one, "rom_file") for one in spec.pci),
        windows=_whole(spec.windows, "drivers", "password_file"),
        display=_whole(spec.display, "tls"),
    )


def _whole(part: _Part, *fields: str) -> _Part:
    """A part of it, with whole paths in these fields."""
    paths = {name: os.path.abspath(path) for name in fields if (path := getattr(part, name))}  # noqa: PTH100 (links stay)
    return late.replace(part, **paths) if paths else part


def check(spec: MachineSpec) -> None:
    """Raises PrepareError, with every problem, for what this host does not have."""
    problems = [*_files(spec), *_shares(spec)]
    if problems:
        raise PrepareError("the machine needs what this host does not have", problems=problems)


def _files(spec: MachineSpec) -> Iterator[Problem]:
    """Those that nothing else looks at before QEMU starts: disks are read by whoever looks for what they rest on."""
    files = {"boot.kernel": spec.boot.kernel, "boot.initrd": spec.boot.initrd}
    for number, disk in enumerate(spec.disk):
        files |= {f"disk[{number}].key": disk.key, f"disk[{number}].path": disk.path if disk.interface == "cdrom" else ""}
    files |= {f"pmem[{number}].path": one.path for number, one in enumerate(spec.pmem)}
    files |= {f"usb[{number}].path": one.path for number, one in enumerate(spec.usb)}
    files |= {f"pci[{number}].rom_file": one.rom_file for number, one in enumerate(spec.pci)}
    files |= {f"windows.{name}": getattr(spec.windows, name) for name in ("drivers", "password_file")}
    listed = [*files.items(), *(("display.tls", f"{spec.display.tls}/{one}") for one in CERTIFICATES if spec.display.tls)]
    for field, path in listed:
        if path and not Path(path).is_file():
            reason = "is not a file" if Path(path).exists() else "there is no such file"
            yield Problem(field, path, reason, "check the path")


def _shares(spec: MachineSpec) -> Iterator[Problem]:
    for number, one in enumerate(spec.share):
        if not Path(one.host).is_dir():
            yield Problem(f"share[{number}].path", one.host, "is not a folder of this host", "make it first")
    if spec.share and os.geteuid() != 0:
        reason = (
            "virtiofsd must be started by root: the one of QEMU 7.2 starts as nobody else, and a later one gives what the"
            " guest's root makes another number, and refuses a chown to 0"
        )
        yield Problem("share", None, reason, "run tinamou as root, or copy: tinamou cp")
    if spec.share and find_tool(VIRTIOFSD) is None:
        fix = (
            "apt-get install qemu-system-common (Debian 12), virtiofsd (Debian 13, Ubuntu 24.04); beside a QEMU of Debian "
            "12's backports neither brings it: cargo install virtiofsd"
        )
        yield Problem("share", None, "there is no virtiofsd", fix)
