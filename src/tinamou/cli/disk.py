"""The verbs below ``disk``: ls, add, rm, resize, limit, insert, eject."""

from __future__ import annotations

from pathlib import Path

from tinamou.cli import output
from tinamou.cli.grammar import Group, Switch
from tinamou.cli.loop import run_until_done
from tinamou.control.bounds import UNPLUG_SECONDS
from tinamou.state import machines
from tinamou.units import Size

app: Group = Group()


@app.command
def ls(name: str, /, *, json: Switch = False) -> None:
    """List a machine's disks."""
    from tinamou.machine import disk_changes

    rows = run_until_done(disk_changes.listed(machines.find(name)))
    if json:
        output.print_json(rows)
        return
    shown = [{**row, "size": Size(int(str(row["size"]))), "used": f"{int(str(row['used'])) >> 10} KiB"} for row in rows]
    output.table(shown, ("name", "size", "used", "files", "file"))


@app.command
def add(name: str, disk: str, /, *, json: Switch = False) -> None:
    """Give a machine another disk, while it runs where it has a free hot-plug slot.

    Parameters
    ----------
    disk
        A file, or settings as --disk takes them: size=10G,interface=scsi
    """
    from tinamou.cli.described import disk_of
    from tinamou.machine import disk_plugging

    added = run_until_done(disk_plugging.plug(machines.find(name), disk_of(disk)))
    output.result({"name": added}, added, json=json)


@app.command
def rm(name: str, disk: str, /, *, timeout: float = UNPLUG_SECONDS, force: Switch = False) -> None:
    """Take a disk away from a machine; its data go with it, but for what snapshots hold and files of your own.

    Parameters
    ----------
    disk
        The disk, as tinamou disk ls names it.
    timeout
        Seconds a running guest may take to give it back.
    force
        Also where what was written to a file of your own since its first snapshot would be lost.
    """
    from tinamou.machine import disk_plugging

    run_until_done(disk_plugging.unplug(machines.find(name), disk, seconds=timeout, force=force))


@app.command
def resize(name: str, disk: str, size: str, /) -> None:
    """Make a disk larger; a running guest sees it at once.

    Parameters
    ----------
    disk
        The disk, as tinamou disk ls names it.
    size
        Its new size, for example 40G.
    """
    from tinamou.fields import size_of
    from tinamou.machine import disk_changes

    run_until_done(disk_changes.resize(machines.find(name), disk, size_of(size, "SIZE")))


@app.command
def limit(name: str, disk: str, /, *, iops: int = 0, bandwidth: str = "0") -> None:
    """Limit a running machine's disk; without numbers, lift the limit.

    Parameters
    ----------
    disk
        The disk.
    iops
        Most requests a second, read and write together.
    bandwidth
        Most bytes a second, for example 50M.
    """
    from tinamou.fields import size_of
    from tinamou.machine import disk_changes

    run_until_done(disk_changes.limit(machines.find(name), disk, iops=iops, bandwidth=size_of(bandwidth, "--bandwidth")))


@app.command
def insert(name: str, disk: str, image: Path, /) -> None:
    """Put another disc into a running machine's drive.

    Parameters
    ----------
    disk
        The drive.
    image
        The disc.
    """
    from tinamou.machine import disk_changes

    run_until_done(disk_changes.change_disc(machines.find(name), disk, image))


@app.command
def eject(name: str, disk: str, /) -> None:
    """Take the disc out of a running machine's drive.

    Parameters
    ----------
    disk
        The drive.
    """
    from tinamou.machine import disk_changes

    run_until_done(disk_changes.change_disc(machines.find(name), disk, None))
