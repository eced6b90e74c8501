"""The vocabulary of a plan: elements and flags QEMU is given, steps the host is taken through, and why each is there."""

from __future__ import annotations

from tinamou.blueprint.element import JSON_KINDS, Element, Flag, Note, Value, Why
from tinamou.blueprint.net_steps import (
    JoinBridge,
    JoinNetwork,
    JoinOvs,
    MakeMacvtap,
    MakeTap,
    OpenTap,
    ReservePort,
    SetRules,
)
from tinamou.blueprint.plan import Contribution, Pinning, Plan
from tinamou.blueprint.steps import (
    BuildIso,
    CopyFile,
    CreateImage,
    CreateOverlay,
    HandOver,
    HostStep,
    LendCpus,
    MakeCgroup,
    MakeDir,
    MakeSshKey,
    ReserveHugepages,
    SetKernelValue,
    StartHelper,
    Step,
    WriteFile,
)

__all__ = [
    "JSON_KINDS",
    "BuildIso",
    "Contribution",
    "CopyFile",
    "CreateImage",
    "CreateOverlay",
    "Element",
    "Flag",
    "HandOver",
    "HostStep",
    "JoinBridge",
    "JoinNetwork",
    "JoinOvs",
    "LendCpus",
    "MakeCgroup",
    "MakeDir",
    "MakeMacvtap",
    "MakeSshKey",
    "MakeTap",
    "Note",
    "OpenTap",
    "Pinning",
    "Plan",
    "ReserveHugepages",
    "ReservePort",
    "SetKernelValue",
    "SetRules",
    "StartHelper",
    "Step",
    "Value",
    "Why",
    "WriteFile",
]
