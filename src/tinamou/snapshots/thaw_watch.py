"""Watches over a frozen guest as a process of its own: ``thaw_watch.py PIPE AGENT_SOCKET SECONDS``.

It ends without a word when a byte comes through the pipe. When the pipe closes (the freezer was killed) or the time is up,
it tells the guest agent to thaw, again and again until the agent agrees. It imports nothing of tinamou, to start fast.
"""

import os
import select
import socket
import sys
import time

_TRIES = 600


def thaw(path: str) -> bool:
    """Whether the agent at ``path`` has said that it thawed (source: guest-fsfreeze-thaw of the agent's protocol)."""
    line = socket.socket(socket.AF_UNIX)
    try:
        line.settimeout(5)
        line.connect(path)
        line.sendall(b'\xff{"execute": "guest-fsfreeze-thaw"}\n')
        answer = b""
        while b"\n" not in answer:
            piece = line.recv(4096)
            if not piece:
                return False
            answer += piece
        return b'"return"' in answer
    except OSError:
        return False
    finally:
        line.close()


def watch(pipe: int, path: str, seconds: float) -> None:
    """Wait for the pipe, then thaw unless all went well."""
    ready, _, _ = select.select([pipe], [], [], seconds)
    if ready and os.read(pipe, 1):
        return
    for _ in range(_TRIES):
        if not os.path.exists(path) or thaw(path):  # noqa: PTH110
            return
        time.sleep(0.1)


if __name__ == "__main__":
    watch(int(sys.argv[1]), sys.argv[2], float(sys.argv[3]))
