"""Looks at the host with a virtual machine's eyes: one finding per check, with evidence, severity and fix."""

from __future__ import annotations

from tinamou.doctor.examine import CHECKS, examine
from tinamou.doctor.finding import Finding, Remedy, Severity
from tinamou.doctor.inspection import Inspection
from tinamou.doctor.machine import examine_machine

__all__ = ["CHECKS", "Finding", "Inspection", "Remedy", "Severity", "examine", "examine_machine"]
