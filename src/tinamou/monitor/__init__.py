"""The watch over running machines: what they use, what is wrong with them, and how much memory their balloons take."""

from __future__ import annotations

from tinamou.monitor.examine import HOST_CHECKS, MACHINE_CHECKS, examine_host, examine_machine, wrong
from tinamou.monitor.observation import HostObservation, Observation

__all__ = ["HOST_CHECKS", "MACHINE_CHECKS", "HostObservation", "Observation", "examine_host", "examine_machine", "wrong"]
