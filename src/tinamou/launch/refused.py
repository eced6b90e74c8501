"""Which system call a QEMU was ended for by its filter, as the kernel's log or that of auditd tells."""

from __future__ import annotations

import re

from tinamou.system.syscall_numbers import name_of

__all__ = ["IN_VAIN", "LEFT_OUT", "refused_call"]

_REFUSED = re.compile(r"\bpid=(\d+) .*\bsig=31 arch=([0-9a-f]+) syscall=(\d+)")
"""A line of type 1326 (SECCOMP) of either log (source: kernel/auditsc.c, audit_seccomp)."""

IN_VAIN = "the kernel's log says which one, to root and where it audits: dmesg"
"""What to do where no log tells."""
LEFT_OUT = 'security.syscalls = "qemu" leaves the list of calls out'
"""How to find out whether the list was too short."""


def refused_call(line: str, pid: int) -> str:
    """The call that a line of a log says the process was ended for; empty where it says no such thing."""
    found = _REFUSED.search(line)
    if found is None or int(found[1]) != pid:
        return ""
    return name_of(int(found[3]), int(found[2], 16))
