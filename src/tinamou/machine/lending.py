"""What a machine's interfaces need to know about the host's network, and the addresses they are leased there."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from tinamou.facts import NetFacts, Place
from tinamou.parts.net import NetSpec, interfaces
from tinamou.probe import net as probe
from tinamou.state import networks

__all__ = ["net_facts"]


def net_facts(specs: Sequence[NetSpec], place: Place) -> NetFacts:
    """Only what these interfaces need is asked; a machine that is only planned is leased nothing."""
    there = interfaces(specs)
    types = {spec.type for spec in there.values()}
    named = any(spec.bridge or spec.interface for spec in there.values())
    dpdk = any(spec.type == "vhost-user" and spec.bridge for spec in there.values())
    bridges, problem = probe.ovs_bridges() if "ovs" in types or dpdk else ({}, "")
    leased, subnets = _lent(there, place)
    made = any(spec.type == "bridge" and not spec.bridge for spec in there.values())
    passt = bool(types & {"auto", "passt"})
    return NetFacts(
        default_route=probe.has_default_route() if passt else True,
        user_namespaces=probe.may_make_user_namespace() if passt else True,
        resolver=probe.resolver() if passt else "",
        links=probe.probe_links() if named else {},
        ovs=bridges,
        ovs_problem=problem,
        ovs_dpdk=dpdk and not problem and probe.ovs_has_dpdk(),
        hears_routers=probe.hears_routers() if made else (),
        leased=leased,
        subnets=subnets,
    )


def _lent(specs: Mapping[int, NetSpec], place: Place) -> tuple[dict[int, str], dict[str, str]]:
    addresses: dict[int, str] = {}
    subnets: dict[str, str] = {}
    for number, spec in specs.items():
        if spec.type != "bridge" or spec.bridge:
            continue
        from tinamou.parts.net.network import name_of, subnet_for

        name = name_of(spec)
        if Path(place.directory).is_dir():
            request = spec.address.partition("/")[0]
            subnets[name], addresses[number] = networks.lease(name, subnet_for(spec), f"{place.name}.{number}", request)
        elif (network := networks.read(name)) is not None:
            subnets[name] = network.subnet
    return addresses, subnets
