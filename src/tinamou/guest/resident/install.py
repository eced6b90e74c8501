"""Getting the resident into a guest that has none yet, through its agent."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import TYPE_CHECKING

from tinamou.errors import GuestError
from tinamou.guest.resident.line import PORT, Line, LineError
from tinamou.guest.resident.sharing import connect
from tinamou.images.programs import program
from tinamou.system.closing import IfFailed

if TYPE_CHECKING:
    from tinamou.guest.agent import Agent

__all__ = ["install"]

_INSTALL_SECONDS = 60.0

_SCRIPT = f"""
for port in /sys/class/virtio-ports/*; do
    read -r name <"$port/name" || continue
    [ "$name" = {PORT} ] || continue
    for folder in /dev/shm /run /tmp /var/tmp; do
        program=$folder/.tinamou/resident
        rm -rf "$folder/.tinamou"
        mkdir -m 700 "$folder/.tinamou" 2>/dev/null || continue
        base64 -d >"$program" <<END || continue
@PROGRAM@
END
        chmod 700 "$program"
        "$program" 2>/dev/null; [ $? = 1 ] || continue
        setsid "$program" "/dev/${{port##*/}}" </dev/null >/dev/null 2>&1 &
        exit 0
    done
    echo "no folder to run a program from" >&2; exit 3
done
echo "no port {PORT}" >&2; exit 2
"""


def _program(arch: str) -> bytes:
    try:
        return program("resident", arch)
    except FileNotFoundError:
        raise GuestError(f"there is no resident for {arch} guests", fix="fork x86_64, aarch64 or riscv64 guests") from None


async def install(
    agent: Agent, path: str, arch: str, reach: Callable[[str], Line] = connect, *, patience: float = 30.0
) -> Line:
    """A line to the machine's resident on socket ``path``, which is pushed into the guest when it does not answer.

    ``reach`` makes the line; a guest that still boots has ``patience`` seconds to answer. Raises GuestError when the
    guest's agent may not run commands, or the guest cannot run the program, HeldError.
    """
    line = reach(path)
    with IfFailed(line.close):
        if not await _answers(line):
            await agent.wait(patience)
            if not await _answers(line):  # one that the guest brings comes up while it boots
                await _push(agent, arch)
                await line.hello(timeout=_INSTALL_SECONDS)
        await line.run(["true"], timeout=_INSTALL_SECONDS)
    return line


async def _answers(line: Line) -> bool:
    try:
        await line.hello(timeout=0.3)
    except LineError:
        return False
    return True


async def _push(agent: Agent, arch: str) -> None:
    script = _SCRIPT.replace("@PROGRAM@", base64.encodebytes(_program(arch)).decode())
    done = await agent.run(["/bin/sh"], input=script.encode(), timeout=_INSTALL_SECONDS, bare=True)
    if done.status:
        why = done.stderr.decode(errors="replace").strip() or f"its shell ended with status {done.exit_status}"
        raise GuestError("The guest cannot be given the program that forks and terminals need", why=why)
