"""Tap and macvtap interfaces: make one that lasts, open its queues, have one stand in for another.

Source: Documentation/networking/tuntap.rst, rtnetlink(7).
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct

from tinamou.late import dataclass
from tinamou.system.closing import Closing, IfFailed

__all__ = ["StandIn", "make", "open_queues", "short_lived", "stand_in"]

_TUNSETIFF, _TUNSETPERSIST = 0x400454CA, 0x400454CB
_CLONE_NEWNET = 0x40000000
_RTM_DELLINK, _REQUEST, _ACK = 17, 1, 4
_STANDS_IN = "stands-in"
_TAP, _MULTI_QUEUE, _NO_PI, _VNET_HDR = 0x0002, 0x0100, 0x1000, 0x4000


def make(name: str, queues: int) -> None:
    """A tap interface that stays when nobody holds it open. Raises OSError."""
    with Closing(_attach(name, many=queues > 1, offload=True)) as descriptor:
        fcntl.ioctl(descriptor, _TUNSETPERSIST, 1)


def short_lived(descriptor: int) -> None:
    """From now on the interface ends with the last process that holds it open."""
    fcntl.ioctl(descriptor, _TUNSETPERSIST, 0)


def open_queues(name: str, count: int, *, offload: bool = True) -> list[int]:
    """Descriptors of ``count`` queues; ``offload`` puts a header before each packet that says what is unfinished in it."""
    opened: list[int] = []
    try:
        while len(opened) < count:
            opened.append(_macvtap(name) if _is_macvtap(name) else _attach(name, many=count > 1, offload=offload))
    except OSError:
        for descriptor in opened:
            os.close(descriptor)
        raise
    return opened


@dataclass(frozen=True)
class StandIn:
    """An interface in a network of its own, which nobody sees, and ends with its queues; ``rtnetlink`` is there too."""

    queues: list[int]
    index: int
    rtnetlink: socket.socket

    def remove(self) -> None:
        """It ends now: who waits for one of its queues is told, and looks again at what has its number. Raises OSError."""
        link = struct.pack("=BxHiII", 0, 0, self.index, 0, 0)
        self.rtnetlink.send(struct.pack("=IHHII", 16 + len(link), _RTM_DELLINK, _REQUEST | _ACK, 1, 0) + link)
        (error,) = struct.unpack_from("=i", self.rtnetlink.recv(4096), 16)
        if error:
            raise OSError(-error, f"the interface that stood in cannot be removed: {os.strerror(-error)}")


def stand_in(count: int) -> StandIn:
    """Of so many queues, as `open_queues` opens them. Root alone may. Raises OSError."""
    import ctypes
    import threading

    made, failed = list[StandIn](), list[OSError]()

    def apart() -> None:
        try:
            libc = ctypes.CDLL(None, use_errno=True)
            if libc.unshare(_CLONE_NEWNET):  # this thread alone, which ends at once
                raise OSError(ctypes.get_errno(), f"no network of its own: {os.strerror(ctypes.get_errno())}")
            rtnetlink = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
            queues = open_queues(_STANDS_IN, count)
            made.append(StandIn(queues, socket.if_nametoindex(_STANDS_IN), rtnetlink))
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=apart)
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


def _attach(name: str, *, many: bool, offload: bool) -> int:
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    flags = _TAP | _NO_PI | (_VNET_HDR if offload else 0)
    with IfFailed(os.close, descriptor):
        try:
            _set(descriptor, name, flags | (_MULTI_QUEUE if many else 0))
        except OSError as error:
            if error.errno != 22:
                raise
            _set(descriptor, name, flags | (0 if many else _MULTI_QUEUE))
    return descriptor


def _set(descriptor: int, name: str, flags: int) -> None:
    fcntl.ioctl(descriptor, _TUNSETIFF, struct.pack("16sH22x", name.encode(), flags))


def _is_macvtap(name: str) -> bool:
    from tinamou.system import iproute

    return iproute.kind(name) == "macvtap"


def _macvtap(name: str) -> int:
    """The character device of a macvtap interface, numbered like the interface."""
    number = socket.if_nametoindex(name)
    descriptor = os.open(f"/dev/tap{number}", os.O_RDWR | os.O_CLOEXEC | os.O_NONBLOCK)
    _set(descriptor, name, _TAP | _NO_PI | _VNET_HDR | _MULTI_QUEUE)
    return descriptor
