"""What a guest's kernel said on its console since the machine was started: processes it ended, and its own end."""

from __future__ import annotations

import re

from tinamou.late import dataclass

__all__ = ["Kill", "kills", "last_boot", "panic"]

_STAMP = re.compile(r"\[ {0,9}(\d{1,12}\.\d{1,9})\] ")
_KILL = re.compile(
    r"(?:\[ {0,9}(\d{1,12}\.\d{1,9})\] )?((?:Memory cgroup o|O)ut of memory): "
    r"Killed process (\d{1,9}) \((.{0,64}?)\)(?= total-vm|[ \t]{0,9}$)(.*)",
    re.MULTILINE,
)
_RSS = re.compile(r"anon-rss:(\d{1,15})kB")
_PANIC = re.compile(r"Kernel panic - not syncing.*")


@dataclass(frozen=True)
class Kill:
    """A process the guest's kernel ended for lack of memory: ``at`` in seconds of the guest's clock, None where it is not
    shown; ``group`` says that only a control group in the guest had run out; ``held`` is in bytes."""

    process: str
    number: int
    held: int
    at: float | None
    group: bool


def last_boot(text: str) -> str:
    """What follows the last place where the kernel's clock began anew."""
    before, begin = 0.0, 0
    for stamp in _STAMP.finditer(text):
        now = float(stamp[1])
        if now + 1 < before:
            begin = stamp.start()
        before = now
    return text[begin:]


def kills(text: str) -> list[Kill]:
    """Every process ended for lack of memory, in order (source: mm/oom_kill.c, ``__oom_kill_process``)."""
    found = []
    for stamp, what, number, name, rest in _KILL.findall(text):
        rss = _RSS.search(rest)
        held = int(rss[1]) << 10 if rss else 0
        found.append(Kill(name, int(number), held, float(stamp) if stamp else None, what.startswith("Memory")))
    return found


def panic(text: str) -> str:
    """The line in which the guest's kernel gave up; empty where it did not."""
    found = _PANIC.search(text)
    return found[0].strip() if found else ""
