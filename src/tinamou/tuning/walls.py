"""Which walls stand around QEMU and its helpers, and why one does not: all that the kernel allows and the machine bears.

Source: namespaces(7), landlock(7), docs/decisions/0080-walls-around-qemu.md.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from tinamou import late
from tinamou.blueprint import Element, MakeDir, Note, Plan, ReachSocket, StartHelper, TakePart, TakePciGroup, Why
from tinamou.blueprint.plan import Confinement, Wall
from tinamou.facts.encryption import DEVICE
from tinamou.facts.walls import WallFacts
from tinamou.late import dataclass
from tinamou.parts.display_tcp import TLS
from tinamou.tuning.syscalls import HELPERS

__all__ = ["confined", "with_walls"]


@dataclass(frozen=True)
class _Kind:
    """A wall that is a namespace; ``held`` is what it does, ``open`` what is so without it."""

    namespace: str
    held: str
    open: str


_KINDS = {
    "files": _Kind("mount", "an empty root with what it is loaded from, and a /tmp of its own", "sees this host's files"),
    "processes": _Kind("pid", "sees and signals no process but its own", "sees this host's processes"),
    "ipc": _Kind("ipc", "shares no System V memory or POSIX queue with anybody", "shares this host's queues and memory"),
    "hostname": _Kind("uts", "has a host name of its own", "knows this host's name"),
    "cgroups": _Kind("cgroup", "does not see where its control group hangs", "sees the names of control groups"),
    "network": _Kind("net", "a network of its own, without a card or a socket of this host", "reaches this host's network"),
}  # fmt: skip
_FILES = {1: (1 << 13) - 1, 2: 1 << 13, 3: 1 << 14, 5: 1 << 15}
"""What Landlock can refuse of files by version: all of the first one, moving elsewhere, cutting off, commands to devices."""
_TCP, _SCOPES = 3, 3
"""Binding and connecting, since the fourth version; others' abstract sockets and signals, since the sixth."""
_OF_NAMES = ("/etc/resolv.conf", "/run/systemd/resolve", "/run/resolvconf", "/run/NetworkManager")
"""Where QEMU's own TCP/IP finds the name servers it asks for the guest; of a plain file it does not see a later one."""
_OF_PASSTHROUGH = ("/sys/bus/pci", "/sys/devices", "/sys/kernel/iommu_groups")


def confined(plan: Plan, facts: WallFacts, without: Sequence[str]) -> Plan:
    """The plan with every wall decided, around QEMU and its helpers; what the kernel refuses is in its notes."""
    confinement = _around(plan, facts, without)
    listed = bool(plan.confinement.calls)
    steps = tuple(with_walls(step, facts, listed=listed) if isinstance(step, StartHelper) else step for step in plan.steps)
    notes = (*plan.notes, *_notes(confinement, facts))
    return late.replace(plan, confinement=confinement, steps=steps, notes=notes)


def _around(plan: Plan, facts: WallFacts, without: Sequence[str]) -> Confinement:
    refused = {name: _refused(name, plan, facts, without) for name in _KINDS}
    kinds = tuple(_KINDS[name].namespace for name, why in refused.items() if not why)
    open_ = {name for name, why in refused.items() if why and name not in without}
    landlock = _landlock(open_, facts, network=not _uses_network(plan))
    walls = (*_always(plan.confinement), *(_wall(name, why, landlock) for name, why in refused.items()))
    taken = [step.group for step in plan.steps if isinstance(step, TakePciGroup | TakePart)]
    groups = [] if any(one.props.get("qom-type") == "iommufd" for one in plan.elements) else taken
    sockets = [step.path for step in plan.steps if isinstance(step, ReachSocket)]
    rooms = [step.path for step in plan.steps if isinstance(step, MakeDir) and step.why.asked_by == "confinement"]
    return late.replace(
        plan.confinement,
        walls=walls,
        namespaces=(*(("user",) if facts.user and kinds else ()), *kinds),
        landlock=landlock,
        reads=(
            *plan.confinement.reads,
            *sockets,
            *(str(one.props["dir"]) for one in plan.elements if one.props.get("qom-type") == TLS),
            *(_OF_PASSTHROUGH if taken else ()),
            *(_OF_NAMES if _inner(plan) else ()),
        ),
        writes=tuple(rooms),
        devices=(
            *(("/dev/kvm",) if plan.accel == "kvm" else ()),
            *(("/dev/vfio/vfio",) if groups else ()),
            *(f"/dev/vfio/{group}" for group in groups),
            *((DEVICE,) if any(str(one.props.get("qom-type")).startswith("sev-") for one in plan.elements) else ()),
        ),
    )


def _always(base: Confinement) -> tuple[Wall, ...]:
    who = "a user id no other process of this host has"
    alone = Wall("identity", base.uid is not None, who if base.uid is not None else "QEMU runs as the user who starts it")
    rights = Wall("rights", True, "no capability, no new privileges, no core dumps, an environment of its own")
    own = "QEMU refuses itself those a machine never needs (-sandbox)"
    listed = f"it may make those listed for this machine alone; on top of that {own}" if base.calls else own
    return (alone, rights, Wall("system calls", True, listed))


def _refused(name: str, plan: Plan, facts: WallFacts, without: Sequence[str]) -> str:
    """Why there is no namespace for that wall; empty where there is one."""
    if name in without:
        return "confine.without names it"
    if name == "network" and (user := _uses_network(plan)):
        return user
    return facts.refused.get(_KINDS[name].namespace, "")


def _inner(plan: Plan) -> list[Element]:
    return [one for one in plan.elements if one.kind == "netdev" and one.props.get("type") == "user"]


def _uses_network(plan: Plan) -> str:
    if cards := [one.id for one in _inner(plan) if not one.props.get("restrict") or "hostfwd" in one.props]:
        return f"{', '.join(cards)} is QEMU's own TCP/IP, which speaks by this host's sockets (net.type = passt does not)"
    passed_on = any(not flag.name for flag in plan.flags)
    return "qemu_args may use this host's network: tinamou does not read them" if passed_on else ""


def _landlock(open_: Collection[str], facts: WallFacts, *, network: bool) -> tuple[int, int, int]:
    """What Landlock refuses for these walls, for which there is no namespace: masks of files, network, scopes."""
    rights = sum(right for version, right in _FILES.items() if version <= facts.landlock) if "files" in open_ else 0
    ports = _TCP if "network" in open_ and network and facts.landlock >= 4 else 0
    return rights, ports, _SCOPES if {"network", "processes"} & set(open_) and facts.landlock >= 6 else 0


def _wall(name: str, refused: str, landlock: tuple[int, int, int]) -> Wall:
    kind = _KINDS[name]
    if not refused:
        return Wall(name, True, kind.held)
    files, network, scopes = landlock
    if name == "files" and files:
        return Wall(name, True, f"Landlock: opens nothing but what it is loaded from; no root of its own: {refused}")
    if name == "network" and network:
        more = ", no socket of this host without a path" if scopes else ""
        return Wall(name, True, f"Landlock: binds and connects no TCP port{more}; no network of its own: {refused}")
    held = {"processes": "signals none of them (Landlock)", "network": "but no socket without a path (Landlock)"}
    more = f", {held[name]}" if scopes and name in held else ""
    return Wall(name, False, f"{kind.open}{more}: {refused}")


def _notes(confinement: Confinement, facts: WallFacts) -> tuple[Note, ...]:
    """What must be said: walls the kernel refuses."""
    missing = [wall for wall in confinement.walls if not wall.stands and wall.name in _KINDS]
    refused = [wall for wall in missing if _KINDS[wall.name].namespace in facts.refused]
    return tuple(
        Note("warning", f"QEMU {wall.why}", Why("host", "a wall the kernel does not let stand")) for wall in refused
    )


_BEARS: dict[str, tuple[str, ...]] = {
    "swtpm": ("mount", "pid", "ipc", "uts", "cgroup", "net"),
    "passt": (),
}
"""Namespaces each helper bears: passt makes its own, in which it keeps no more than its sockets, but for the network's."""
_OTHERS = ("ipc", "uts")
"""virtiofsd, started by root, makes itself a root, process numbers and a network of its own."""


def with_walls(helper: StartHelper, facts: WallFacts, *, listed: bool) -> StartHelper:
    """The helper with the namespaces it bears, of those the kernel allows; a list of system calls where QEMU has one; and
    Landlock for what is open: no files of a helper that mounts, for it could not then."""
    bears = _BEARS.get(helper.name, () if facts.user else _OTHERS)
    kinds = tuple(kind for kind in bears if kind not in facts.refused)
    calls = HELPERS[helper.name.partition("-")[0]] if listed else ()
    spaces = (*(("user",) if facts.user and kinds else ()), *kinds)
    open_ = {name for name, kind in _KINDS.items() if kind.namespace not in kinds}
    landlock = _landlock(open_ if helper.name == "swtpm" else open_ - {"files"}, facts, network=helper.name == "swtpm")
    return late.replace(helper, namespaces=spaces, calls=calls, landlock=landlock)
