"""Machines as resources of a Pacemaker cluster: the lines for its shells, and whether it may restart them elsewhere.

Sources: Pacemaker Explained (utilization, rules, colocation), pcs(8), crm(8). The agent itself is ``data/ocf/tinamou``.
"""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal

from tinamou.errors import HostError, PlanError
from tinamou.facts import HostFacts
from tinamou.facts.pci import PciFacts
from tinamou.fleet.placement import Need
from tinamou.fleet.room import room_of
from tinamou.late import dataclass
from tinamou.system import exec_async
from tinamou.system.exec import clean_environment
from tinamou.units import Size

__all__ = ["Fencing", "Machine", "Shell", "fencing", "node_lines", "resource_lines"]

Shell = Literal["crm", "pcs"]
AGENT = "ocf:tinamou:machine"
_UNSET = 105
"""What Pacemaker's commands end with where there is no such thing (source: crm/common/results.h, CRM_EX_NOSUCH)."""
_SECONDS = 20.0
_OPERATIONS = {
    "start": {"timeout": "300s"},
    "stop": {"timeout": "120s"},
    "monitor": {"interval": "10s", "timeout": "60s"},
    "migrate_to": {"timeout": "600s"},
    "migrate_from": {"timeout": "120s"},
}
_GUEST = {"interval": "60s", "timeout": "60s", "OCF_CHECK_LEVEL": "10"}
"""How often the guest itself is asked, where that is wanted (source: the depths in the agent's own metadata)."""


@dataclass(frozen=True)
class Fencing:
    """Whether the cluster fences a node it has lost: it may (``stonith-enabled``), and it has devices for it."""

    enabled: bool
    devices: bool

    @property
    def missing(self) -> str:
        """What keeps it from fencing; empty where nothing does."""
        if not self.enabled:
            return "stonith-enabled is false"
        return "" if self.devices else "it has no fencing device (no resource of class stonith)"


@dataclass(frozen=True)
class Machine:
    """A machine that shall be a resource: what it needs, and the machine file it is made of where it is not known yet."""

    need: Need
    file: str = ""


async def fencing() -> Fencing:
    """Ask the cluster this host is in. Raises HostError where none answers."""
    asked = ["crm_attribute", "--type", "crm_config", "--name", "stonith-enabled", "--query", "--quiet"]
    status, said, why = await _ask(asked)
    if status not in (0, _UNSET):
        raise _silent(why)
    found, _, why = await _ask(["cibadmin", "--query", "--xpath", "//primitive[@class='stonith']"])
    if found not in (0, _UNSET):
        raise _silent(why)
    return Fencing(status == _UNSET or said.strip().lower() in (b"true", b"yes", b"on", b"1", b"y"), found == 0)


async def _ask(argv: Sequence[str]) -> tuple[int, bytes, bytes]:
    kept = {name: os.environ[name] for name in ("CIB_file",) if name in os.environ}
    try:
        return await exec_async.communicate(argv, environment=clean_environment(kept), timeout=_SECONDS)
    except FileNotFoundError:
        raise _silent(f"there is no {argv[0]}".encode()) from None
    except TimeoutError:
        raise _silent(f"{argv[0]} did not end within {_SECONDS:g} s".encode()) from None


def _silent(why: bytes) -> HostError:
    fix = "do this on a node of the cluster, while Pacemaker runs; packages: pacemaker, pacemaker-cli-utils"
    return HostError("no cluster says whether it fences its nodes", why=why.decode(errors="replace").strip()[-500:], fix=fix)


def resource_lines(
    machines: Sequence[Machine], shell: Shell, fences: Fencing, *, only_on: str = "", guest: bool = False
) -> list[str]:
    """What makes these machines resources, with what they use, and the rules among them.

    Without fencing a node that is only cut off goes on, and what it runs would be started a second time elsewhere: then a
    machine is bound to one node (``only_on``). With ``guest`` the guests are asked too. Raises PlanError.
    """
    if fences.missing and not only_on:
        fix = "set up fencing (a stonith device, and stonith-enabled=true), or bind the machines to a node: --only-on NODE"
        raise PlanError("machines are not restarted elsewhere by a cluster that does not fence", why=fences.missing, fix=fix)
    lines = [_property(shell)]
    for one in machines:
        if addresses := [kind for kind in one.need.devices if "." in kind]:
            fix = "name them by kind, VENDOR:DEVICE"
            raise PlanError(
                f"{one.need.name} asks for devices by their address on one host", why=", ".join(addresses), fix=fix
            )
        lines += _resource(one, shell, guest=guest)
        if one.need.near:
            lines.append(_rule(shell, one.need.name, "near", f"not_defined {_near(one.need.near)}"))
        if only_on:
            lines.append(_rule(shell, one.need.name, "only-on", f"#uname ne {only_on}"))
    return [*lines, *_groups([one.need for one in machines], shell)]


def _property(shell: Shell) -> str:
    return "property placement-strategy=balanced" if shell == "crm" else "pcs property set placement-strategy=balanced"


def _resource(one: Machine, shell: Shell, *, guest: bool) -> Iterator[str]:
    params = _pairs({"name": one.need.name, **({"file": one.file} if one.file else {})})
    operations = [*_OPERATIONS.items(), *([("monitor", _GUEST)] if guest else [])]
    every = [f"op {name} {_pairs({'interval': '0s', **times})}" for name, times in operations]
    uses = _pairs(_utilization(one.need))
    if shell == "crm":
        yield " ".join(
            [f"primitive {one.need.name} {AGENT} params {params}", *every, f"meta allow-migrate=true utilization {uses}"]
        )
        return
    said = " ".join(text if number == 0 else text.removeprefix("op ") for number, text in enumerate(every))
    yield f"pcs resource create {one.need.name} {AGENT} {params} {said} meta allow-migrate=true"
    yield f"pcs resource utilization {one.need.name} {uses}"


def _utilization(need: Need) -> dict[str, str]:
    uses = {"cpu": need.cpus, "memory": -(-need.memory >> 20)}
    if need.page:
        uses[_pages(need.page)] = need.pages
    return {name: str(count) for name, count in (uses | {_kind(kind): n for kind, n in need.devices.items()}).items()}


def _pages(page: int) -> str:
    return f"pages-{Size(page)}"


def _kind(kind: str) -> str:
    return f"pci-{kind.replace(':', '-')}"


def _near(kind: str) -> str:
    """The attribute of nodes that have such a device."""
    return f"beside-{kind.replace(':', '-')}"


def _pairs(said: Mapping[str, str]) -> str:
    return " ".join(shlex.quote(f"{name}={value}") for name, value in said.items())


def _rule(shell: Shell, name: str, what: str, rule: str) -> str:
    if shell == "crm":
        return f"location {name}-{what} {name} rule -inf: {rule}"
    return f"pcs constraint location {name} rule score=-INFINITY {shlex.join(rule.split())}"


def _groups(needs: Sequence[Need], shell: Shell) -> Iterator[str]:
    """Each pair of a group that is spread is apart; of one that is together each is with the one before it."""
    for number, one in enumerate(needs):
        for other in needs[:number]:
            if one.spread and one.spread == other.spread:
                yield _pair(shell, other.name, one.name, "apart")
        before = [other for other in needs[:number] if one.together and other.together == one.together]
        if before:
            yield _pair(shell, one.name, before[-1].name, "with")


def _pair(shell: Shell, one: str, other: str, how: Literal["apart", "with"]) -> str:
    if shell == "crm":
        return f"colocation {one}-{how}-{other} {'inf' if how == 'with' else '-inf'}: {one} {other}"
    return f"pcs constraint colocation add {one} with {other} score={'' if how == 'with' else '-'}INFINITY"


def node_lines(node: str, host: HostFacts, pci: PciFacts, shell: Shell) -> list[str]:
    """What a node has for machines, none of which runs: utilization attributes, and the kinds of devices it is beside."""
    has: dict[str, int] = {"cpu": len(host.usable_cpus), "memory": (host.memory - host.memory // 32) >> 20}
    for one in host.nodes:
        for page, (total, _) in one.hugepages.items():
            if total:
                has[_pages(page)] = has.get(_pages(page), 0) + total
                has["memory"] -= page * total >> 20
    room = room_of(node, host, pci)
    for left in room.nodes:
        for kind, count in left.devices.items():
            has[_kind(kind)] = has.get(_kind(kind), 0) + count
    beside = {_near(kind): "1" for left in room.nodes for kind in sorted(left.beside)}
    uses = _pairs({name: str(count) for name, count in has.items()})
    if shell == "crm":
        return [f"node {node} {f'attributes {_pairs(beside)} ' if beside else ''}utilization {uses}"]
    attributes = [f"pcs node attribute {node} {_pairs(beside)}"] if beside else []
    return [f"pcs node utilization {node} {uses}", *attributes]
