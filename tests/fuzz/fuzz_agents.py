"""What a sandbox's guest says of its files and of what it uses, read for E2B's clients."""

from __future__ import annotations

import json

from fuzzing import target

from tinamou.errors import GuestError
from tinamou.service.agents.e2b.control import metric_of
from tinamou.service.agents.e2b.filing import entry_of
from tinamou.service.agents.e2b.problems import RefusedError
from tinamou.service.agents.listing import parsed

LISTS = [
    b"/root/a\0/root/b c\0\081a4 5 0 0 root root 1795952776 1795952776 17\n41ed 40 0 0 UNKNOWN UNKNOWN 0 0 18\0",
    b"/bin\0\0a1ff 7 0 1000 UNKNOWN user 1 2 3\0/etc\n\0\041ed 0 0 0 root root 1 1 1\0",
]
USES = [
    b"1\ncpu  10 0 20 300 4 0 1 0 0 0\ncpu  12 0 21 310 4 0 1 0 0 0\n"
    b"MemTotal: 487364 kB\nMemFree: 400000 kB\nMemAvailable: 420000 kB\nCached: 3000 kB\nHugePages_Total: 0\n4096 1000 900\n"
]


@target(
    "list of a guest's files", seeds=lambda: LISTS, errors=[GuestError], words=["a1ff", "ffffffffff", "-1", "UNKNOWN", "\0"]
)
def listed(data: bytes) -> object:
    return json.dumps([entry_of(one, one.path) for one in parsed(data)])


@target(
    "what a guest uses", seeds=lambda: USES, errors=[RefusedError], words=["kB", "cpu ", "MemTotal:", "9" * 400, "-1", "\n"]
)
def used(data: bytes) -> object:
    return json.dumps(metric_of(data.decode(errors="replace")))
