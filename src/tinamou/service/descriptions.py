"""Descriptions of machines from outside: whose names of host files, ports and devices are a right of its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from tinamou.errors import Problem, SpecError
from tinamou.images.resolve import is_path
from tinamou.late import fields, replace
from tinamou.parts.net import NetSpec
from tinamou.service.auth import Caller
from tinamou.spec import MachineSpec, dump_spec, load_spec
from tinamou.state import machines

__all__ = ["HARMLESS", "described", "reaching"]

HARMLESS = frozenset(
    (
        *("name", "image", "os", "arch", "accel", "memory.size", "memory.forkable", "memory.floor"),
        *("cpu.count", "cpu.sockets", "cpu.cores", "cpu.threads", "cpu.max", "cpu.plugged", "cpu.model", "cpu.hyperv"),
        *("limits.cpu", "limits.memory", "limits.pids", "limits.read", "limits.write"),
        *("placement.spread", "placement.together", "placement.near"),
        *("boot.firmware", "boot.secure", "boot.order", "boot.menu", "boot.cmdline"),
        *("disk.size", "disk.interface", "disk.block_size", "disk.discard", "disk.on_full", "disk.iops", "disk.bandwidth"),
        *("net.type", "net.model", "net.mac", "net.allow_out", "net.rate_out", "net.rate_in", "net.mtu", "net.ipv6"),
        "net.isolated",
        *("display.type", "tpm.enabled", "clock.base", "clock.offset"),
        *("devices.rng", "devices.balloon", "devices.panic", "devices.sound", "devices.watchdog", "devices.hotplug"),
        *("seed.user", "seed.ssh_keys", "seed.hostname", "seed.packages", "seed.user_data", "seed.ignition"),
        *("seed.combustion", "seed.password_hash", "seed.shell", "seed.agent", "seed.locale", "seed.timezone"),
    )
)
"""Fields that reach nothing of the host but its processors, memory and room on its disk. A new field is none of them."""
_NETWORKS = ("auto", "passt", "user", "none")
"""Networks that name nothing of the host. On QEMU's own 10.0.2.2 is the host's loopback, unless it is isolated."""


def described(data: Mapping[str, Any], caller: Caller, verb: str = "create") -> MachineSpec:
    """The description with a name, as this caller may have it made, or may ``verb`` it. Raises SpecError, NotAllowedError.

    For whoever may not name things of the host ``auto`` networks are passt.
    """
    spec = load_spec(data)
    if not spec.name:
        spec = replace(spec, name=machines.throwaway_name(spec.image))
    caller.need(verb, spec.name)
    if not caller.may("host"):
        spec = replace(spec, net=tuple(_apart(one, forkable=spec.memory.forkable) for one in spec.net))
        problems = reaching(spec, "leave it out, or use a token with the verb host")
        problems += _to_the_host(spec)
        if problems:
            raise SpecError(f"{caller.name} may not have this machine made", problems=problems)
    return spec


def _apart(net: NetSpec, *, forkable: bool) -> NetSpec:
    """The network, by passt where the planner might take QEMU's own; a forkable machine's is part of what is forked."""
    return replace(net, type="passt") if net.type == "auto" and not net.isolated and not forkable else net


def _to_the_host(spec: MachineSpec) -> Iterator[Problem]:
    """The networks that are, or would be, QEMU's own and lead to what listens on the host's loopback."""
    for number, one in enumerate(spec.net):
        if one.type in ("auto", "user") and not one.isolated:
            what = "QEMU's own network" if one.type == "user" else "the network of a forkable machine"
            fix = "set isolated = true, use type passt, or use a token with the verb host"
            yield Problem(f"net[{number}].type", one.type, f"{what} reaches services on the host's loopback", fix)


def reaching(spec: MachineSpec, fix: str) -> list[Problem]:
    """A problem for each field with which it reaches the host, and what else to do about it."""
    return [Problem(field, None, "names something of the host", fix) for field in dict.fromkeys(_beyond(spec))]


def _beyond(spec: MachineSpec) -> Iterator[str]:
    """The fields with which it reaches the host."""
    if is_path(spec.image):
        yield "image"
    if any(one.type not in _NETWORKS for one in spec.net):
        yield "net.type"
    parts = {one.name for one in fields(MachineSpec)}
    for name, value in dump_spec(spec).items():
        assert name in parts
        for field in _named(name, value):
            if field not in HARMLESS:
                yield field


def _named(name: str, value: object) -> Iterator[str]:
    """The fields that a part of a description says something of."""
    if isinstance(value, Mapping):
        yield from (f"{name}.{key}" for key in value)
    elif isinstance(value, list | tuple) and any(isinstance(one, Mapping) for one in value):
        for one in value:
            yield from _named(name, one)
    elif value not in ([], ()):
        yield name
