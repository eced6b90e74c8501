"""Getting the resident into a guest that has none yet, through its agent."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinamou.errors import GuestError
from tinamou.guest.resident.line import PORT, Line, LineError
from tinamou.images.programs import program

if TYPE_CHECKING:
    from tinamou.guest.agent import Agent

__all__ = ["install"]

_SECONDS = 60.0

_SCRIPT = f"""
for port in /sys/class/virtio-ports/*; do
    read -r name <"$port/name" || continue
    [ "$name" = {PORT} ] || continue
    for folder in /dev/shm /run /tmp /var/tmp; do
        program=$folder/.tinamou-resident
        [ -d "$folder" ] || continue
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


async def install(agent: Agent, path: str, arch: str) -> Line:
    """A line to the machine's resident on socket ``path``, which is pushed into the guest when it does not answer.

    Raises GuestError when the guest's agent may not run commands, or the guest cannot run the program.
    """
    import base64

    line = Line(path)
    try:
        try:
            await line.hello(timeout=0.3)
        except LineError:
            script = _SCRIPT.replace("@PROGRAM@", base64.encodebytes(_program(arch)).decode())
            done = await agent.run(["/bin/sh"], input=script.encode(), timeout=_SECONDS)
            if done.status:
                why = done.stderr.decode(errors="replace").strip() or f"its shell ended with status {done.exit_status}"
                raise GuestError("The guest cannot be given the program that forks need", why=why) from None
            await line.hello(timeout=_SECONDS)
        await line.run(["true"], timeout=_SECONDS)
    except BaseException:
        line.close()
        raise
    return line
