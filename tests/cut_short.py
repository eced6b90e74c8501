"""An upgrade that is killed at a moment that matters: before the record names the new QEMU, or after; as a program."""

from __future__ import annotations

CUT_SHORT = """
import os, signal, sys
from tinamou import Machine
from tinamou.machine.upgrading import Upgraded
from tinamou.machine import upgrading
def die(*_, **__): os.kill(os.getpid(), signal.SIGKILL)
if sys.argv[2] == "before": upgrading._is_now = die
else: upgrading.cont = die
Machine.open(sys.argv[1]).upgrade()
"""
