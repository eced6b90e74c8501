"""What can be said in requests: a class for each, whose fields are read, checked and documented by `tinamou.fields`."""

from __future__ import annotations

from typing import Any, Literal

from tinamou.errors import Problem
from tinamou.fields import option
from tinamou.late import dataclass, fields

__all__ = [
    "Checkpointing",
    "Creating",
    "Diagnosing",
    "Forking",
    "LettingIn",
    "Linking",
    "Listing",
    "Logs",
    "Numbers",
    "Planning",
    "Removing",
    "Running",
    "Since",
    "SnapshotTaking",
    "Starting",
    "Stopping",
    "Transfer",
    "Waiting",
]

_LONGEST = 86400.0


class _Timed:
    """Its numbers of seconds are ones that can be waited for."""

    def problems(self) -> list[Problem]:
        """Numbers that are none, less than nothing, or more than a day."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}  # type: ignore[arg-type]
        odd = {key: value for key, value in values.items() if isinstance(value, float) and not 0 <= value <= _LONGEST}
        return [Problem(key, str(value), "no number of seconds up to a day") for key, value in odd.items()]


@dataclass(frozen=True)
class Listing:
    """Which of many are wanted."""

    limit: int = option(100, "how many at most", minimum=1, maximum=1000)
    after: str = option("", "only what comes after this one, which is the last one's name (or id) of the page before")


@dataclass(frozen=True)
class Waiting(_Timed):
    """How long the answer may take."""

    wait: float = option(0.0, "seconds to wait for the operation's end before it is answered as it is then")


@dataclass(frozen=True)
class LettingIn:
    """For how long a viewer may begin."""

    seconds: int = option(300, "how long the password is good; who is in by then stays", minimum=1, maximum=86400)


@dataclass(frozen=True)
class Planning:
    """What is to be planned."""

    spec: dict[str, Any] = option(dict, "the fields of a machine file: see /v1/schema")


@dataclass(frozen=True)
class Starting(_Timed):
    """How a machine is started."""

    until_up: bool = option(True, "the operation ends when the guest answers, not when QEMU runs")
    timeout: float = option(300.0, "seconds the guest may take; one that takes longer is left running")


@dataclass(frozen=True)
class Creating(Starting):
    """What is to be made."""

    spec: dict[str, Any] = option(dict, "the fields of a machine file: see /v1/schema")


@dataclass(frozen=True)
class Stopping(_Timed):
    """How a machine is stopped."""

    grace: float = option(30.0, "seconds the guest may take before its power is cut")


@dataclass(frozen=True)
class Removing(Waiting):
    """How a machine is removed."""

    force: bool = option(False, "cut the power of one that runs")


@dataclass(frozen=True)
class Forking:
    """Which copies are wanted."""

    count: int = option(1, "how many", minimum=1, maximum=256)
    names: tuple[str, ...] = option((), "the names of the first ones")


@dataclass(frozen=True)
class Checkpointing:
    """Which checkpoint is wanted."""

    name: str = option("", "its name; made up when left out", pattern=r"[a-z0-9](?:[a-z0-9-]{0,62}[a-z0-9])?")
    kind: Literal["auto", "instant", "portable"] = option("auto", "auto takes an instant one where that can be")


@dataclass(frozen=True)
class SnapshotTaking(_Timed):
    """Which snapshot is wanted."""

    name: str = option("", "its name; a number when left out", pattern=r"[A-Za-z0-9_.][A-Za-z0-9_. -]{0,99}")
    note: str = option("", "a note on it")
    quiesce: float = option(0.0, "seconds the guest may hold its file systems still for it; 0 does not ask it")


@dataclass(frozen=True)
class Since:
    """From where on events are told."""

    after: str = option("", "the number of the last event that is known", pattern=r"\d{1,18}")


@dataclass(frozen=True)
class Linking:
    """What becomes of a card's cable."""

    up: bool = option(True, "plugged in")


@dataclass(frozen=True)
class Diagnosing:
    """How a network is diagnosed."""

    fix: bool = option(False, "put right what can be put right without risk")
    measure: bool = option(True, "measure speeds, which takes some seconds")


@dataclass(frozen=True)
class Running(_Timed):
    """A command for a guest."""

    argv: tuple[str, ...] = option((), "the command and its arguments, as they are")
    input: str = option("", "what it reads, as text")
    env: dict[str, Any] = option(dict, "variables added to its environment")
    cwd: str = option("", "the folder it begins in; the user's home when left out")
    user: str = option("", "whom it runs as; root when left out")
    timeout: float = option(30.0, "seconds to wait until the guest answers")
    time_limit: float = option(60.0, "seconds it may take; it is killed then")

    def problems(self) -> list[Problem]:
        """Nothing to run, odd seconds, variables that are no text."""
        found = super().problems()
        if not self.argv or not self.argv[0]:
            found.append(Problem("argv", None, "there is nothing to run", 'for example ["uname", "-a"]'))
        odd = [key for key, value in self.env.items() if not isinstance(value, str)]
        return found + [Problem(f"env.{key}", None, "no text") for key in odd]


@dataclass(frozen=True)
class Logs:
    """Which log is wanted."""

    source: Literal["guest", "qemu"] = option("guest", "what the guest said on its console, or QEMU's own messages")
    tail: int = option(200, "so many lines from the end", minimum=1, maximum=100_000)


@dataclass(frozen=True)
class Numbers:
    """How numbers are called."""

    names: Literal["tinamou", "libvirt", "both"] = option(
        "tinamou", "libvirt: as its exporter does, for boards made for that"
    )


@dataclass(frozen=True)
class Transfer:
    """Which file of a guest."""

    path: str = option("", "the path in the guest, from / on", pattern=r"/.*")
    archive: bool = option(False, "a folder, as a tar archive")
