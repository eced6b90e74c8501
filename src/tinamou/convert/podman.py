"""Reader of Podman's machines (``~/.config/containers/podman/machine/qemu/NAME.json``), with or without a line.

Source: Podman's pkg/machine/qemu (version 4), pkg/machine/vmconfigs (version 5).
"""

from __future__ import annotations

from tinamou.convert import foreign, qemu
from tinamou.convert.account import Rules, report
from tinamou.convert.result import Disk, Draft
from tinamou.convert.tree import of_json
from tinamou.convert.values import whole
from tinamou.units import Size

__all__ = ["read"]

_RULES: Rules = (
    (
        r"(CPUs|Memory|DiskSize|ImagePath|Name|PidFilePath|QMPMonitor|ReadySocket|VMPidFilePath|Port)(\..*)?",
        "done",
        "the command line has it",
        "",
    ),
    (r"Mounts\[.*", "lost", "a folder a description from elsewhere names is not given to the guest unasked", "share = …"),
    (
        r"(SSH|Port|IdentityPath|RemoteUsername|Rootful|UID|HostUser|User-.*)(\..*)?",
        "changed",
        "the guest is reached by a key of the machine's own",
        "tinamou ssh; [seed]",
    ),
    (r"(Resources\.USBs|USBs).*", "lost", "devices of the host's USB are not given to a machine", ""),
    (r".*", "done", "how Podman runs the machine, not what it is", ""),
)


def read(text: str) -> Draft:
    """The machine. Raises SpecError."""
    root = of_json(text, "the Podman machine")
    words = [one.text for one in root.at("CmdLine").items()] or [one.text for one in root.at("CmdLine.QemuCmd").items()]
    if words:
        draft = qemu.read_words(words)
        draft.source = "a Podman machine"
    else:
        draft = Draft("a Podman machine")
        root.put(draft, "Resources.CPUs", "cpu.count", whole)
        root.put(
            draft, "Resources.Memory", "memory.size", lambda one: str(Size(number << 20)) if (number := whole(one)) else None
        )
        if path := root.text_at("ImagePath.Path"):
            draft.disks.append(Disk("ImagePath", path, order=0))
        if amount := root.text_at("Resources.DiskSize"):
            draft.done("DiskSize", amount, "the disk is there, of that size")
        foreign.uefi(draft, "firmware", secure=False)
    foreign.named(draft, "Name", root.text_at("Name"))
    report(draft, root.unread(), _RULES)
    return draft
