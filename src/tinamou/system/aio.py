"""Asks the kernel whether it lets a program queue file requests: io_uring(7), io_setup(2), and O_DIRECT (open(2))."""

from __future__ import annotations

import ctypes
import errno
import os

from tinamou.system.rooted import Rooted

__all__ = ["direct_refusal", "native_refusal", "uring_refusal"]

_IO_URING_SETUP, _IO_SETUP, _IO_DESTROY = 425, {"x86_64": 206, "aarch64": 0, "riscv64": 0}, {"x86_64": 207}
_PARAMS_BYTES = 120
_libc = ctypes.CDLL(None, use_errno=True)


def uring_refusal(files: Rooted | None = None) -> str:
    """Why a QEMU without rights cannot use io_uring; empty when a ring could be made and nothing forbids it to others.

    The number of the system call is the same on every architecture.
    """
    setting = (files or Rooted()).integer("/proc/sys/kernel/io_uring_disabled")
    if setting:
        return f"kernel.io_uring_disabled is {setting}"
    ring = _libc.syscall(_IO_URING_SETUP, 4, ctypes.create_string_buffer(_PARAMS_BYTES))
    if ring < 0:
        number = ctypes.get_errno()
        hint = " (a system-call filter, as container engines set)" if number == errno.EPERM else ""
        return f"the kernel refuses a ring: {os.strerror(number)}{hint}"
    os.close(ring)
    return ""


def native_refusal() -> str:
    """Why Linux's own asynchronous requests cannot be had; empty when a context could be made."""
    machine = os.uname().machine
    setup = _IO_SETUP.get(machine)
    if setup is None:
        return f"not tried on {machine}"
    context = ctypes.c_ulong(0)
    if _libc.syscall(setup, 128, ctypes.byref(context)) < 0:
        number = ctypes.get_errno()
        full = ": fs.aio-max-nr is used up" if number == errno.EAGAIN else ""
        return f"the kernel refuses a context: {os.strerror(number)}{full}"
    _libc.syscall(_IO_DESTROY.get(machine, setup + 1), context)
    return ""


def direct_refusal(path: str) -> str:
    """Why a file cannot be read around the page cache: a folder stands for files that will be made in it."""
    folder = os.path.isdir(path)  # noqa: PTH112
    flags = os.O_DIRECT | os.O_CLOEXEC | (os.O_TMPFILE | os.O_RDWR if folder else os.O_RDONLY)
    try:
        os.close(os.open(path, flags, 0o600))
    except OSError as error:
        if error.errno == errno.EINVAL:
            return "its filesystem does not read and write around the page cache (O_DIRECT)"
        if error.errno == errno.EOPNOTSUPP and folder:
            return ""
        return "" if error.errno in (errno.ENOENT, errno.EACCES) else f"{error.strerror}"
    return ""
