"""QEMU's filter of system calls on its way into the process: what is put before QEMU's words, and handed to it."""

from __future__ import annotations

import contextlib
import os
import secrets
import struct
from collections.abc import Iterator
from typing import cast

from tinamou.blueprint import Calls
from tinamou.errors import LaunchError
from tinamou.images.programs import path
from tinamou.launch.syscall_numbers import Arch
from tinamou.launch.syscalls import program

__all__ = ["filtered"]


@contextlib.contextmanager
def filtered(calls: tuple[Calls, ...]) -> Iterator[tuple[list[str], list[int]]]:
    """The words that load the filter and become what follows them, and the descriptors they need, open in the block.

    None of both where there are no ``calls``. The program is run by a descriptor, as QEMU's user may not get at its path; it
    closes both. Raises LaunchError where there is none for this host.
    """
    if not calls:
        yield [], []
        return
    arch = os.uname().machine
    key = (secrets.randbits(64), secrets.randbits(64), secrets.randbits(64))
    code = program(cast("Arch", arch), [one.group for one in calls], key)
    with contextlib.ExitStack() as stack:
        try:
            loader = os.open(path("filtered", arch), os.O_RDONLY | os.O_CLOEXEC)
        except OSError as error:
            fix = "compile it with tinamou/images/programs/build"
            raise LaunchError("QEMU's filter of system calls cannot be loaded", why=str(error), fix=fix) from error
        stack.callback(os.close, loader)
        file = os.memfd_create("filter", os.MFD_CLOEXEC)
        stack.callback(os.close, file)
        os.write(file, code + struct.pack("<3Q", *key))
        yield [f"/proc/self/fd/{loader}", str(file), str(loader)], [loader, file]
