"""Who looks at a machine's screen from elsewhere: the port it is served on, and the password that opens it for a while."""

from __future__ import annotations

import secrets
import socket
import string

from tinamou.blueprint import Plan
from tinamou.control import connect_qmp
from tinamou.control import screen as console
from tinamou.errors import LaunchError, SpecError, StateError
from tinamou.late import dataclass
from tinamou.machine.connected import Connected
from tinamou.parts.display_tcp import SERVER
from tinamou.spec import load_spec
from tinamou.state.record import Record

__all__ = ["Viewing", "has_port", "let_in", "listen"]

_LETTERS = "".join(sorted({*string.ascii_letters, *string.digits} - {*"0O1lI"}))
_LENGTH = 8
"""VNC knows no longer passwords (RFC 6143, 7.2.2)."""
_LONGEST = 24 * 3600


@dataclass(frozen=True)
class Viewing:
    """Where a screen is reached by TCP, whether by TLS, and the password, which is good for ``seconds``."""

    address: str
    tls: bool
    password: str
    seconds: int


def has_port(plan: Plan) -> bool:
    """Whether its screen is to be served by TCP."""
    return any(flag.name == "vnc" and flag.options.get("id") == SERVER for flag in plan.flags)


async def listen(record: Record, *, patience: float) -> None:
    """Hand its QEMU the port of its screen, unless it has it. Raises LaunchError where the port cannot be had, ControlError.

    ``patience`` is how many seconds QEMU may take to answer.
    """
    display = load_spec(record.spec).display
    address = display.address
    async with await connect_qmp(record.directory, alive=lambda: record.running, timeout=patience) as session:
        if await console.served_on(session, SERVER) is not None:
            return
        family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        try:
            listener = socket.create_server(address, family=family)
        except OSError as error:
            why, fix = error.strerror or str(error), "choose another address or port: display.listen"
            raise LaunchError(f"the screen of {record.name} is not served on {display.listen}", why=why, fix=fix) from error
        with listener:
            await console.serves_on(session, listener.fileno())


async def let_in(machine: Connected, seconds: int) -> Viewing:
    """Make a password for its screen, good for so many seconds for whoever is not in yet; the one before is none any more.

    It is in nobody's record. Raises SpecError, StateError for a machine whose screen is not served by TCP, ControlError.
    """
    if not 1 <= seconds <= _LONGEST:
        raise SpecError(f"a password is not good for {seconds} seconds", fix=f"1 to {_LONGEST}")
    display, name = machine.spec.display, machine.name
    if not display.listen or not has_port(machine.plan):
        why = "it is on a socket that its owner alone can open, or it is not there"
        fix = f"tinamou set {name} display.listen=127.0.0.1:5901, and start it again"
        raise StateError(f"the screen of {name} has no password", why=why, fix=fix)
    password = "".join(secrets.choice(_LETTERS) for _ in range(_LENGTH))
    await console.let_in(await machine.session(), SERVER, password, seconds)
    return Viewing(display.listen, bool(display.tls), password, seconds)
