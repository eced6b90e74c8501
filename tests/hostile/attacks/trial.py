"""Every attack of the list by one process, and what became of each way."""

from __future__ import annotations

import dataclasses
import errno
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from attacks import files, kernel, network, processes, resources
from attacks.attacker import ATTACKS, Attack, Attacker, House, Try, Walled
from attacks.puppet import Killed, Puppet, Refused, Stuck

__all__ = ["ATTACKS", "BY_DESIGN", "Outcome", "tried"]

_ = (files, kernel, network, processes, resources)

NEEDED: dict[str, str] = {
    "passt": "it is the guest's way to the host's network, by sockets of the host",
    "dnsmasq": "it answers the guests of a network, by sockets of the host",
}
BY_DESIGN: dict[str, dict[str, str]] = {
    role: dict.fromkeys(("services", "datagrams", "listening", "netlink", "kinds-of-sockets/netlink route"), why)
    for role, why in NEEDED.items()
}


def _forks(why: str) -> dict[str, str]:
    """As glibc and musl do it."""
    return {f"new-processes/{way}": why for way in ("fork", "clone", "clone as the C library does")}


BY_DESIGN["logwriter"] = {"own-folder/rename": "it makes logs in the machine's folder, and puts full ones aside"}
BY_DESIGN["virtiofsd"] = {
    "rights/setresuid": "it makes files of the shared folder under the user ids the guest says",
    "rights/setgroups": "1.13 keeps the right to make them under groups the guest says; that of QEMU 7.2 gives it up",
    **_forks("it becomes two as it starts; the machine's control group bounds them"),
}
BY_DESIGN["dnsmasq"] |= _forks("it has a process for whoever asks by TCP, 32 at most")
BY_DESIGN["qemu"] = {
    "io-uring": "its disk's requests are queued in a ring (disk.aio); who has no such disk has no such call"
}
"""What a helper is there to do, and would not be one without: by attack, or attack and way."""

State = Literal["refused", "succeeded", "by design", "void"]


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What became of one way of an attack."""

    attack: str
    way: str
    state: State
    by: str
    """What refused it: an errno, a signal, or in words; why it is void or by design."""


def tried(process: int, house: House, role: str, attacks: Iterable[Attack] = ATTACKS, control: int = 0) -> list[Outcome]:
    """Every way of these attacks by the process. What a process behind no wall, ``control``, does not get is void."""
    house = dataclasses.replace(house, process=process)
    puppet = Puppet(process)
    free = Puppet(control) if control else None
    try:
        return [
            _judged(puppet, free, one, way, house, role, call) for one in attacks for way, call in one.tries(house).items()
        ]
    finally:
        puppet.release()
        if free:
            free.release()


def _judged(puppet: Puppet, free: Puppet | None, one: Attack, way: str, house: House, role: str, call: Try) -> Outcome:
    by = _refusal(puppet, house, call)
    if by is None:
        known = BY_DESIGN.get(role, {})
        allowed = known.get(one.name) or known.get(f"{one.name}/{way}")
        return Outcome(one.name, way, "by design", allowed) if allowed else Outcome(one.name, way, "succeeded", "")
    if free and one.control and (also := _refusal(free, dataclasses.replace(house, process=free.pid), call)):
        return Outcome(one.name, way, "void", f"nobody can here: {also}")
    return Outcome(one.name, way, "refused", by)


def _refusal(puppet: Puppet, house: House, call: Try) -> str | None:
    """What refused it, None where nothing did."""
    with puppet.copy() as copy:
        try:
            call(Attacker(copy, house))
        except Refused as error:
            return errno.errorcode.get(error.number, str(error.number))
        except Killed as error:
            return signal.Signals(error.number).name
        except Stuck:
            return "no answer"
        except Walled as error:
            return str(error)
        except FileNotFoundError as error:
            return f"nothing of it on the host ({Path(str(error.filename)).name})"
    return None
