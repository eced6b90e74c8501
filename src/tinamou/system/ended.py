"""How a process ended; which system call its filter ended it for, as the kernel's log or that of auditd tells."""

from __future__ import annotations

import re
import time

from tinamou.system.jail import STATUS
from tinamou.system.spawn import exit_code
from tinamou.system.syscall_numbers import name_of

__all__ = ["refused_call", "status_of"]

_SIGSYS, _LOGGED_SECONDS = 31, 1.0
_SIGNALS = {
    9: ": it was killed, by hand or for lack of memory",
    **dict.fromkeys((5, 11), ": it crashed, or gave up: as the first process of its namespace it cannot end by SIGABRT"),
}

_REFUSED = re.compile(r"\bpid=(\d+) .*\bsig=31 arch=([0-9a-f]+) syscall=(\d+)")
"""A line of type 1326 (SECCOMP) of either log (source: kernel/auditsc.c, audit_seccomp)."""

_IN_VAIN = "the kernel's log says which one, to root and where it audits: dmesg"
"""What to do where no log tells."""
_LEFT_OUT = 'security.syscalls = "qemu" leaves the list of calls out'
"""How to find out whether the list was too short."""


def refused_call(line: str, pid: int) -> str:
    """The call that a line of a log says the process was ended for; empty where it says no such thing."""
    found = _REFUSED.search(line)
    if found is None or int(found[1]) != pid:
        return ""
    return name_of(int(found[3]), int(found[2], 16))


def _logged(pid: int, seconds: float) -> str:
    """The call it was ended for, as a log says, which a thread of the kernel writes; empty where none does for so long."""
    from tinamou.system.kernel_log import lately_audited

    deadline = time.monotonic() + seconds
    while not (call := next(filter(None, (refused_call(line, pid) for line in lately_audited())), "")):
        if time.monotonic() >= deadline:
            break
        time.sleep(0.1)
    return call


def status_of(pid: int) -> str:
    """How a child of ours ended, in words; empty where it is none, and when asked again."""
    code = exit_code(pid)
    if code in (None, -_SIGSYS) and (call := _logged(pid, 0.0 if code is None else _LOGGED_SECONDS)):
        return f"signal {_SIGSYS}: its filter refused a system call: {call}; {_LEFT_OUT}"
    if code is None:
        return ""
    if code == -_SIGSYS:
        return f"signal {_SIGSYS}: its filter refused a system call; {_IN_VAIN}; {_LEFT_OUT}"
    if code < 0:
        return f"signal {-code}" + _SIGNALS.get(-code, "")
    return f"exit status {code}" + (": a wall around it could not be built" if code == STATUS else "")
