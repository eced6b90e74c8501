"""Try KVM in a child process: what the kernel did with a few instructions, as plain data."""

from __future__ import annotations

import json
import sys
from pathlib import Path

from tinamou.late import dataclass, fields

__all__ = ["DEVICE", "KvmOutcome", "try_kvm"]

DEVICE = "/dev/kvm"


@dataclass(frozen=True)
class KvmOutcome:
    """How far the trial got.

    ``stage``: ``open``, ``version``, ``vm``, ``vcpu``, ``run`` (where it stopped, with ``errno`` or ``exit``), ``created``
    (a virtual machine could be made; no code is known for this processor), ``done``, or ``child`` (the child process died
    or hung). ``steps`` are the letters the guest sent: a = code runs, b = POPCNT, c = PXOR, d = a loop of a million, ! = a
    wrong result. ``exit`` and ``suberror`` are KVM's numbers, ``late`` means the guest was still running at the end.
    """

    stage: str
    errno: int = 0
    steps: str = ""
    late: bool = False
    version: int = 0
    exit: int = 0
    suberror: int = 0
    instruction: str = ""
    milliseconds: float = 0.0
    message: str = ""


def try_kvm(device: str = DEVICE, seconds: float = 0.1) -> KvmOutcome:
    """Run the trial on ``device``; the guest code may take ``seconds``, the whole child ten times that and ten more."""
    from tinamou.system.exec import CommandError, TimeoutExpired, run

    program = str(Path(__file__).with_name("kvm_trial.py"))
    try:
        said = run([sys.executable, "-I", "-S", program, device, str(seconds)], timeout=seconds * 10 + 10)
        report = json.loads(said)
    except TimeoutExpired:
        return KvmOutcome("child", late=True, message="the kernel did not come back from an ioctl")
    except CommandError as died:
        return KvmOutcome("child", message=str(died))
    except (OSError, ValueError) as odd:
        return KvmOutcome("child", message=f"the trial could not be run: {odd}")
    known = {field.name for field in fields(KvmOutcome)}
    return KvmOutcome(**{name: value for name, value in report.items() if name in known})
