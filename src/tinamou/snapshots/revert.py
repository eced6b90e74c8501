"""Going back to a snapshot: the machine continues from its frozen files on fresh overlays; it must be off."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from tinamou import late
from tinamou.errors import StateError
from tinamou.snapshots import extras
from tinamou.snapshots.history import History, Intent, save
from tinamou.snapshots.machine_disks import Disks, fresh_name, write_overlay_part
from tinamou.system.durable import put_in_place

__all__ = ["finish", "revert"]


def revert(disks: Disks, history: History, name: str) -> History:
    """Make the state of a snapshot the machine's present one; what was written since its last snapshot is gone.

    Snapshots stay, those after the chosen one too. A disk the snapshot did not have keeps its present state. Raises
    StateError while the machine runs.
    """
    if disks.session is not None:
        fix = f"tinamou stop {disks.directory.name}, or: tinamou snapshot revert --restart"
        raise StateError("a running machine cannot go back in time under its guest", fix=fix)
    target = history.snapshot(name)
    number = history.counter + 1
    files = {disk: fresh_name(disk, number) for disk in target.files if disk in history.present}
    intent = Intent("revert", {"snapshot": target.number, "files": files})
    written = save(disks.directory, late.replace(history, counter=number, intent=intent))
    return finish(disks, written, intent.arguments)


def finish(disks: Disks, history: History, arguments: Mapping[str, object]) -> History:
    """Do all of it, again where it was cut short: the overlays are empty until the history names them."""
    target = history.snapshot(str(arguments["snapshot"]))
    files = cast("Mapping[str, str]", arguments["files"])
    tops = dict(history.disks)
    for disk, file in files.items():
        below = target.files[disk]
        write_overlay_part(disks, file, below, "" if below.endswith(".qcow2") else history.disks[disk].floor_format)
        tops[disk] = late.replace(history.disks[disk], top=file, format="qcow2")
    put_in_place(disks.directory, list(files.values()))
    extras.put_back(disks, target.number)
    return save(disks.directory, late.replace(history, disks=tops, current=target.number, intent=None))
