"""Attacks on what comes after: a machine that is ended, its owner's death, the next machine."""

from __future__ import annotations

import contextlib
import fcntl
import time
from pathlib import Path

from attacks.attacker import House
from attacks.house import RUN, Owner
from attacks.puppet import Killed, Puppet, Refused, Stuck
from attacks.trial import Outcome

WHAT = {
    "outlive-its-owner": "stay when the process that owns it is killed, having taken back the signal that comes with that",
    "locks-on-its-files": "hold leases and locks on all it was handed, so that no other machine starts of the same image",
    "outlive-kill": "stay after `tinamou kill`: every signal blocked, another name, other words in ps",
    "uid-again": "be started once more under the user id of a machine that was just removed",
}


def _gone(pid: int, seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except OSError:
            return True
        time.sleep(0.05)
    return False


def _outcome(attack: str, refusal: str | None) -> Outcome:
    return Outcome(attack, "", "refused" if refusal else "succeeded", refusal or "")


def outlives_its_owner(owner: Owner) -> Outcome:
    """A machine in the foreground, whose QEMU clears its parent-death signal before the command is killed."""
    command = owner.start("run", "--name", "owned", "--", "sleep", "600")
    deadline = time.monotonic() + 120
    while (
        "qemu" not in owner.processes(f"{owner.machine('owned')}/")
        or not (owner.machine("owned") / "resident.sock").exists()
    ):
        if time.monotonic() > deadline:
            raise RuntimeError("the machine owned did not start")
        time.sleep(0.1)
    time.sleep(2)
    pid = owner.qemu("owned")
    puppet = Puppet(pid, free=False)
    refused = None
    try:
        puppet.call("prctl", 1, 0, 0, 0, 0)
    except (Refused, Killed, Stuck) as error:
        refused = str(error)
    with contextlib.suppress(OSError):
        puppet.release()
    command.kill()
    command.wait()
    if _gone(pid, 3):
        return _outcome("outlive-its-owner", refused or "it ended with its owner")
    owner.tinamou("ls")
    return _outcome("outlive-its-owner", None)


def locks_on_its_files(owner: Owner, house: House) -> Outcome:
    """A copy of QEMU holds what it can while another machine of the image starts."""
    puppet = Puppet(house.process)
    with puppet.copy() as copy:
        for entry in Path(f"/proc/{house.process}/fd").iterdir():
            number = int(entry.name)
            for call in (("fcntl", number, 1024, fcntl.F_RDLCK), ("flock", number, fcntl.LOCK_EX | fcntl.LOCK_NB)):
                with contextlib.suppress(Refused, Stuck):
                    copy.call(*call)
        try:
            owner.tinamou(*RUN, "--name", "locked", "--no-wait", seconds=120)  # how long a guest boots is another thing
            refusal = "nobody waits for them"
        except RuntimeError:
            refusal = None
    puppet.release()
    with contextlib.suppress(RuntimeError):
        owner.tinamou("rm", "-f", "locked")
    return _outcome("locks-on-its-files", refusal)


def outlives_kill(owner: Owner, house: House) -> Outcome:
    """The real QEMU blocks every signal, names itself otherwise and writes over its words; its machine is killed."""
    puppet = Puppet(house.process, free=False)
    with contextlib.suppress(Refused):
        puppet.call("rt_sigprocmask", 2, b"\xff" * 8, 0, 8)
        puppet.call("prctl", 15, "sleep", 0, 0, 0)
    start = int(Path(f"/proc/{house.process}/stat").read_text().rpartition(")")[2].split()[45])
    puppet.poke(start, b"sleep\0" + b"1" * 40)
    puppet.release()
    owner.tinamou("kill", house.own.name)
    return _outcome("outlive-kill", "SIGKILL, by its number and start time" if _gone(house.process, 10) else None)


def uid_again(owner: Owner, house: House) -> Outcome:
    """The machine is removed, and the next one is made."""
    owner.tinamou("rm", "-f", house.own.name)
    owner.tinamou(*RUN, "--name", "next")
    uid = Path(f"/proc/{owner.qemu('next')}").stat().st_uid
    owner.tinamou("rm", "-f", "next")
    if owner.uid:
        return Outcome("uid-again", "", "void", "machines of a user have the user's own id")
    return _outcome("uid-again", None if uid == house.own_uid else "numbers go round")


def all_lasting(owner: Owner, house: House) -> list[Outcome]:
    """All of them; the machine of the house is gone afterwards."""
    return [
        outlives_its_owner(owner),
        locks_on_its_files(owner, house),
        outlives_kill(owner, house),
        uid_again(owner, house),
    ]
