"""Virtual functions of NVMe controllers: each works once its primary gave it queues and interrupts, and put it online.

Source: NVM Express base specification 1.4, 5.15.2, 5.22, 8.5; Linux include/uapi/linux/nvme_ioctl.h.
"""

from __future__ import annotations

import ctypes
import fcntl
import os
import struct
from typing import Self

__all__ = ["put_offline", "put_online"]

_ADMIN = 0xC0484E41
_COMMAND = "<BBHIIIQQIIIIIIIIII"
_IDENTIFY, _MANAGE = 0x06, 0x1C
_PAGE = 4096
_CONTROLLER, _PRIMARY, _SECONDARY = 0x01, 0x14, 0x15
"""What is identified: the controller, what it can give away, and its secondary controllers."""
_CAN = 1 << 7
"""In OACS: virtualization management."""
_QUEUES, _INTERRUPTS = 0, 1
_OFFLINE, _ASSIGN, _ONLINE = 7, 8, 9


def put_online(device: str, count: int) -> int:
    """Share what a controller can give away among its first ``count`` virtual functions, and put them online; how many were.

    None is where a controller has nothing to give away: its virtual functions work as they are. Raises OSError with the
    controller's status.
    """
    with _Controller(device) as controller:
        if not controller.manages:
            return 0
        queues, interrupts = controller.shares(count)
        found = controller.secondary(count)
        for one in found:
            controller.manage(_OFFLINE, one)
            controller.manage(_ASSIGN, one, _QUEUES, queues)
            controller.manage(_ASSIGN, one, _INTERRUPTS, interrupts)
            controller.manage(_ONLINE, one)
        return len(found)


def put_offline(device: str, count: int) -> None:
    """Take back what `put_online` gave. Raises OSError."""
    with _Controller(device) as controller:
        for one in controller.secondary(count) if controller.manages else ():
            controller.manage(_OFFLINE, one)
            controller.manage(_ASSIGN, one, _QUEUES)
            controller.manage(_ASSIGN, one, _INTERRUPTS)


class _Controller:
    """A primary controller, by its file ``/dev/nvme0``; closed when the block ends."""

    def __init__(self, device: str) -> None:
        self._name: str = device
        self._file: int = os.open(device, os.O_RDWR | os.O_CLOEXEC)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._file)

    @property
    def manages(self) -> bool:
        """Whether it has the command that puts others online."""
        return bool(struct.unpack_from("<H", self._identify(_CONTROLLER), 256)[0] & _CAN)

    def shares(self, count: int) -> tuple[int, int]:
        """Queues and interrupts for each of so many, as many as one may have."""
        page = self._identify(_PRIMARY)
        return _share(page, 32, count), _share(page, 64, count)

    def secondary(self, count: int) -> list[int]:
        """The numbers of the secondary controllers that are the first ``count`` virtual functions."""
        page = self._identify(_SECONDARY)
        rows = [struct.unpack_from("<HHB3xH", page, 32 * (number + 1)) for number in range(page[0])]
        return [identity for identity, _, _, function in rows if 1 <= function <= count]

    def _identify(self, what: int) -> bytes:
        page = ctypes.create_string_buffer(_PAGE)
        self._command(_IDENTIFY, what, 0, page)
        return page.raw

    def manage(self, action: int, identity: int, resource: int = 0, count: int = 0) -> None:
        """One virtualization management command. Raises OSError."""
        self._command(_MANAGE, action | resource << 8 | identity << 16, count)

    def _command(self, code: int, first: int, second: int, page: ctypes.Array[ctypes.c_char] | None = None) -> None:
        address = ctypes.addressof(page) if page is not None else 0
        words = (first, second, 0, 0, 0, 0)
        command = bytearray(struct.pack(_COMMAND, code, 0, 0, 0, 0, 0, 0, address, 0, len(page or b""), *words, 0, 0))
        if status := fcntl.ioctl(self._file, _ADMIN, command, True):
            raise OSError(0, f"{self._name} answers command {code:#x} with status {status:#x}")


def _share(page: bytes, offset: int, count: int) -> int:
    """Of one kind of what can be given away: an even share, in steps of its granularity, no more than one may have."""
    total, most, step = (*struct.unpack_from("<I", page, offset), *struct.unpack_from("<HH", page, offset + 12))
    share = min(total // count, most)
    return int(share - share % max(step, 1))
