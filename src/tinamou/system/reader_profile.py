"""The AppArmor profile of programs that were shut in (shut_in.py): one for all, loaded by the first that finds it missing.

It stays in the kernel until the host restarts, a few KiB without a file. Whether it is there is read from the kernel each
time; the parser runs where it is not, and once in a process where it fails.
Source: apparmor.d(5), Documentation/admin-guide/LSM/apparmor.rst.
"""

from __future__ import annotations

import functools
import os

from tinamou.digest import sha256
from tinamou.system import apparmor
from tinamou.system.apparmor import APPARMOR, PARSER, remove
from tinamou.system.exec import CommandError, TimeoutExpired, find_tool, run
from tinamou.system.jail import Jail, JailError, spawn
from tinamou.system.own_programs import own_program

__all__ = ["entered", "missing", "named", "text"]

_SECONDS = 60

_HEAD = """abi <abi/3.0>,
"""
_FRAME = """
profile "{name}" flags=(attach_disconnected) {{
  capability dac_read_search,
  signal (receive) peer=unconfined,
  /{{,**}} mrwk,
  deny /{{,usr/}}{{bin,sbin,lib,lib32,lib64,libexec}}/** w,
  deny /{{boot,etc,proc,sys}}/** w,
{more}}}
"""
"""Which files there are, its root says, and names begin there: no rule can tell an image from another file of the host's."""
_SCRIPT = "  /** ix,\n"
"""A script is read by one program and starts others, all of them under the same profile."""


def _whole(name: str) -> str:
    return _HEAD + _FRAME.format(name=name, more="") + _FRAME.format(name=f"{name}-script", more=_SCRIPT)


@functools.cache
def named() -> str:
    """Its name, which tells its text; that of scripts has ``-script`` behind it."""
    return f"tinamou-reader-{sha256(_whole('').encode()).hexdigest()[:12]}"


def text() -> str:
    """Both profiles, as the parser takes them."""
    return _whole(named())


def entered(*, script: bool) -> str:
    """The profile to start a reader under, which is loaded then; empty where there is none."""
    return "" if missing() != "" else f"{named()}-script" if script else named()


def missing() -> str | None:
    """Why no reader gets the profile, empty where each does; None where AppArmor is not active, or not root's to load."""
    if os.geteuid():
        return None
    try:
        with open(APPARMOR / "profiles", "rb", buffering=0) as file:  # noqa: PTH123
            known = file.readall().decode(errors="replace")
    except OSError:
        return None
    if why := apparmor.held():
        return why
    if {named(), f"{named()}-script"} <= {line.rpartition(" (")[0] for line in known.splitlines()}:
        return ""
    why = _load()
    if not why:
        _load.cache_clear()  # a failure is remembered; what was loaded may be removed by somebody else
    return why


@functools.cache
def _load() -> str:
    """Load it and start a program under it; why that failed, and then it is not there."""
    parser = find_tool(PARSER[0])
    if parser is None:
        return "apparmor_parser is not installed (package apparmor)"
    try:
        run([parser, *PARSER[1:]], input=text(), timeout=_SECONDS)
        if why := _tried():
            for name in (named(), f"{named()}-script"):
                remove(name)
        return why
    except CommandError as error:
        return f"it cannot be loaded: {' '.join(error.stderr.split())[:300]}"
    except (TimeoutExpired, OSError) as error:
        return f"it cannot be loaded: {error}"


def _tried() -> str:
    """Why our own launcher cannot start under the profile, without anything to do; empty when it can."""
    said = os.memfd_create("said", os.MFD_CLOEXEC)
    try:
        process = spawn(Jail(profile=named()), [own_program("jail"), "--"], log=said)
        status = os.waitstatus_to_exitcode(os.waitpid(process.pid, 0)[1])
        words = os.pread(said, 300, 0).decode(errors="replace").strip()
    except (JailError, OSError) as error:
        return f"no program starts under it: {error}"
    finally:
        os.close(said)
    return f"no program starts under it: {words or f'status {status}'}" if status else ""
