"""A wire between two network namespaces that delays, loses and limits: for kernels without netem, by `script/hosts`.

usage: hosts_wire.py PID NAME PID NAME DELAY LOSS RATE

The interface NAME of each process's network namespace is an end of it. DELAY is in milliseconds, LOSS in percent, RATE in
megabits a second (0: no limit), each way. What would wait for more than 100 ms for its turn is lost.
"""

from __future__ import annotations

import ctypes
import fcntl
import heapq
import os
import random
import select
import struct
import sys
import time

SETIFF, SETOFFLOAD, TAP_RAW_VNET = 0x400454CA, 0x400454D0, 0x0002 | 0x1000 | 0x4000
CSUM_TSO4_TSO6 = 0x01 | 0x02 | 0x04
"""Linux's if_tun.h; with these a frame of 64 KiB goes through as one."""
CLONE_NEWNET = 0x40000000
QUEUE_SECONDS = 0.1


def tap(pid: int, name: str) -> int:
    """An interface in that process's network namespace, and what goes through it as a descriptor."""
    with open(f"/proc/{pid}/ns/net") as namespace:  # noqa: PTH123
        if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"the namespace of {pid}")
    descriptor = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(descriptor, SETIFF, struct.pack("16sH22x", name.encode(), TAP_RAW_VNET))
    fcntl.ioctl(descriptor, SETOFFLOAD, CSUM_TSO4_TSO6)
    return descriptor


def main(delay: float, loss: float, rate: float, ends: tuple[int, int]) -> None:
    """Carry frames for ever."""
    free, waiting, count = dict.fromkeys(ends, 0.0), list[tuple[float, int, int, bytes]](), 0
    other = {ends[0]: ends[1], ends[1]: ends[0]}
    while True:
        now = time.monotonic()
        ready = select.select(ends, [], [], max(0.0, waiting[0][0] - now) if waiting else None)[0]
        now = time.monotonic()
        for end in ready:
            frame = os.read(end, 70000)
            packets = max(1, len(frame) // 1448)
            lost = random.random() < 1 - (1 - loss / 100) ** packets  # noqa: S311
            if lost or free[end] - now > QUEUE_SECONDS:
                continue
            free[end] = max(now, free[end]) + (len(frame) * 8 / (rate * 1e6) if rate else 0.0)
            count += 1
            heapq.heappush(waiting, (free[end] + delay / 1000, count, other[end], frame))
        while waiting and waiting[0][0] <= now:
            _, _, end, frame = heapq.heappop(waiting)
            try:
                os.write(end, frame)
            except OSError:  # the interface is down
                continue


if __name__ == "__main__":
    pids, names = (int(sys.argv[1]), int(sys.argv[3])), (sys.argv[2], sys.argv[4])
    opened = (tap(pids[0], names[0]), tap(pids[1], names[1]))
    print("ready", flush=True)
    delay, loss, rate = map(float, sys.argv[5:8])
    main(delay, loss, rate, opened)
