"""What QEMU starts under: a filter of system calls, an AppArmor profile, cores of its own; the words before its own."""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator
from typing import cast

from tinamou.blueprint import Calls, Confinement
from tinamou.errors import LaunchError
from tinamou.launch.syscall_numbers import Arch
from tinamou.launch.syscalls import program
from tinamou.system.jail import BY_DESCRIPTOR
from tinamou.system.own_programs import own_program

__all__ = ["filtered"]


@contextlib.contextmanager
def filtered(confinement: Confinement) -> Iterator[tuple[list[str], list[int]]]:
    """The words that load the filter and become what follows them, and the descriptors they need, open in the block.

    None of both where there is nothing to load, to enter or to ask for. The program is run by a descriptor, as QEMU's user
    may not get at its path; it closes both. Raises LaunchError where there is none for this host.
    """
    calls, profile = confinement.calls, confinement.profile
    if not calls and not profile and not confinement.own_cores:
        yield [], []
        return
    with contextlib.ExitStack() as stack:
        try:
            loader = os.open(own_program("filtered"), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            fix = "compile it with tinamou/images/programs/build"
            raise LaunchError("QEMU's filter of system calls cannot be loaded", why=str(error), fix=fix) from error
        stack.callback(os.close, loader)
        words = [f"{BY_DESCRIPTOR}{loader}", "-", str(loader), profile or "-", "own" if confinement.own_cores else "-"]
        if not calls:
            yield words, [loader]
            return
        file = os.memfd_create("filter", os.MFD_CLOEXEC)
        stack.callback(os.close, file)
        os.write(file, _filter(calls, os.uname().machine))
        words[1] = str(file)
        yield words, [loader, file]


def _filter(calls: tuple[Calls, ...], arch: str) -> bytes:
    """The program, and the key to the one execve it allows."""
    key = os.urandom(24)
    first, second, third = struct.unpack("<3Q", key)
    return program(cast("Arch", arch), tuple(one.group for one in calls), (first, second, third)) + key
