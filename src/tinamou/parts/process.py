"""What every QEMU process is given, whatever the machine is; and, last of all, what the user passes on to it unchecked."""

from __future__ import annotations

from tinamou.blueprint import Contribution, Flag, MakeDir, Note, Value, Why
from tinamou.parts.protocol import Part, Resolved

__all__ = ["ARGUMENTS", "PART", "ROOM", "room"]

ROOM = "run"


def contribute(resolved: Resolved) -> Contribution:
    """Its name, its sandbox, and nothing by default."""
    bare = Why("planner", "only the devices named here exist: none is added by default")
    config = Why("planner", "no configuration file of the host changes this machine")
    named = Why("spec name", "the process and its windows carry the machine's name")
    refused = "system calls a machine never needs are refused: obsolete ones, new privileges, new processes"
    denied: dict[str, Value] = dict.fromkeys(("obsolete", "elevateprivileges", "spawn", "resourcecontrol"), "deny")
    threads: dict[str, Value] = {"debug-threads": "on"} if resolved.facts.qemu.has("option:name.debug-threads") else {}
    return Contribution(
        flags=(
            Flag("name", named, f"guest={resolved.facts.place.name}", threads),
            Flag("no-user-config", config),
            Flag("nodefaults", bare),
            Flag("sandbox", Why("confinement", refused), "on", denied),
        ),
        steps=(room(resolved.facts.place.directory, resolved.owner),),
    )


def room(directory: str, owner: int | None) -> MakeDir:
    """The folder of the machine in ``directory`` that its QEMU may write in: for screens, and cables plugged in later."""
    return MakeDir(f"{directory}/{ROOM}", Why("confinement", "the one folder QEMU may create sockets in"), owner=owner)


def _arguments(resolved: Resolved) -> Contribution:
    """The escape hatch, and a word of warning."""
    words = resolved.spec.qemu_args
    if not words:
        return Contribution()
    why = Why("spec qemu_args", "passed on as it is; tinamou does not check it")
    used = Why("spec qemu_args", "the escape hatch was used")
    note = Note("warning", f"passed to QEMU unchecked: {' '.join(words)}", used)
    return Contribution(flags=tuple(Flag("", why, word) for word in words), notes=(note,))


ARGUMENTS = Part(_arguments)


PART = Part(contribute)
