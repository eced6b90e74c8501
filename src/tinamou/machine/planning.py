"""A machine that is only asked about: planned on this host, or told why it cannot be; nothing is built, taken or started."""

from __future__ import annotations

import os
from pathlib import Path

from tinamou import planner
from tinamou.blueprint import Plan
from tinamou.facts import Facts, Place
from tinamou.images.progress import silent
from tinamou.machine import named
from tinamou.machine.gather import Once, gather, resolve_image
from tinamou.machine.host_side import claims, leased
from tinamou.spec import MachineSpec
from tinamou.state import machines, uids

__all__ = ["check_only", "plan_only"]


def plan_only(spec: MachineSpec, *, throwaway: bool = False) -> Plan:
    """The plan for a request on this host."""
    return planner.plan(*_request(spec, throwaway, Once()))


def check_only(spec: MachineSpec, once: Once | None = None) -> None:
    """Raise what `plan_only` raises. ``once``: what is known of the host from before."""
    planner.check(*_request(spec, False, once or Once()))


def _request(spec: MachineSpec, throwaway: bool, ask: Once) -> tuple[MachineSpec, Facts]:
    """What is to be planned, with whole paths, and all that is known for it."""
    spec = named.absolute(spec)
    named.check(spec)
    asked = ("image", spec.image, spec.arch, spec.boot.kernel)
    image = ask(asked, lambda: resolve_image(spec, build=False, progress=silent))
    name = spec.name or Path(spec.image).stem.partition(":")[0]
    uid = uids.FIRST if os.geteuid() == 0 else None
    directory = str(ask(("home",), machines.machines_dir) / name)
    held, promised = dict(ask(("leased",), lambda: leased(""))), dict(ask(("claims",), lambda: claims("")))
    for own in (held, promised):
        own.pop(name, None)
    place = Place(name, directory, uid, 2222, held, promised, throwaway)
    return spec, gather(spec, image, place, ask)
