"""SELinux labels of one machine: what its QEMU and its helper processes may do, whatever their user could.

The policy, ``facts/tinamou.cil``, is the same for all machines, and an administrator loads it once. A process has
a type by what it is, and two categories by whose machine it is; files keep the labels they have. Source: the MCS chapter of
the SELinux Notebook; docs/decisions/0074-mandatory-access-control.md.
"""

from __future__ import annotations

import math
import zlib

from tinamou import late
from tinamou.blueprint import Plan, StartHelper
from tinamou.facts.labels import CATEGORIES, TYPES

__all__ = ["confined", "label", "of_network", "with_label"]

_PAIRS = math.comb(CATEGORIES, 2)


def label(whose: str, kind: str, number: int) -> str:
    """The context of a process: ``whose`` is the user and role it keeps (``system_u:system_r``), ``number`` the machine's.

    Two machines whose numbers differ by less than 523,776, as user ids lent by tinamou do, share no pair of categories.
    """
    place = number % _PAIRS
    high = (1 + math.isqrt(1 + 8 * place)) // 2
    return f"{whose}:tinamou_{kind}_t:s0:c{place - math.comb(high, 2)},c{high}"


def confined(plan: Plan, whose: str, directory: str, uid: int | None) -> Plan:
    """The same plan with labels. Machines of one user, who has no other ids, are told apart by their folders."""
    number = uid if uid is not None else zlib.crc32(directory.encode())
    around = late.replace(plan.confinement, label=label(whose, _kind(plan), number))
    steps = tuple(with_label(step, around.label) if isinstance(step, StartHelper) else step for step in plan.steps)
    return late.replace(plan, confinement=around, steps=steps)


def _kind(plan: Plan) -> str:
    """Making code is for emulation, speaking for QEMU's own network; both where the calls it makes are not listed."""
    groups = {one.group for one in plan.confinement.calls}
    kind = "tcg" if plan.accel != "kvm" or not groups else "qemu"
    return f"{kind}_net" if "internet" in groups or not groups else kind


def with_label(helper: StartHelper, machine: str) -> StartHelper:
    """The helper with the label of its kind and the categories of its machine, whose QEMU's label that is; none for none."""
    kind = helper.name.partition("-")[0]
    if not machine or kind not in TYPES:
        return helper
    user, role, _, level = machine.split(":", 3)
    return late.replace(helper, label=f"{user}:{role}:tinamou_{kind}_t:{level}")


def of_network(whose: str, bridge: str) -> str:
    """The label of the one process that serves a network's names and addresses."""
    return label(whose, "dnsmasq", zlib.crc32(bridge.encode()))
