"""What a guest's kernel said on its console since the machine was started: processes it ended, and its own end."""

from __future__ import annotations

import re
from pathlib import Path

from tinamou.guest.diagnose import clean
from tinamou.late import dataclass
from tinamou.system.logs import Followed, older

__all__ = ["Kill", "kills", "panic", "since"]

_TAIL = 64 << 10
_STAMP = re.compile(r"\[ *(\d+\.\d+)\] ")
_KILL = re.compile(
    r"(?:\[ *(\d+\.\d+)\] )?((?:Memory cgroup o|O)ut of memory): Killed process (\d+) \((.*?)\)(?= total-vm|\s*$)(.*)",
    re.MULTILINE,
)
_RSS = re.compile(r"anon-rss:(\d+)kB")
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


def since(path: Path, start: int) -> str:
    """The end of the log from its byte ``start`` on, without what an earlier boot printed."""
    begun_anew = older(path).exists()  # since the machine was started: then all of it is from this boot
    return _last_boot(clean(Followed(path, 0 if begun_anew else start).more(_TAIL)))


def _last_boot(text: str) -> str:
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
