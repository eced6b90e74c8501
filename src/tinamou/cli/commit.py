"""The verb ``commit``: make an image of a machine's disk."""

from __future__ import annotations

from tinamou import late
from tinamou.cli import output
from tinamou.cli.grammar import Switch
from tinamou.cli.loop import run_until_done
from tinamou.operations import keeping


def command(name: str, image: str, /, *, disk: str = "", json: Switch = False) -> None:
    """Make an image of the disk of a machine that is off or paused: tinamou run IMAGE starts others from it.

    Parameters
    ----------
    image
        The name of the image.
    disk
        The disk, as tinamou disk ls names it; its first one when left out.
    json
        What is known about the image as JSON.
    """
    made = run_until_done(keeping.commit(name, image, disk=disk, progress=output.progress))
    output.result(late.asdict(made), made.name, json=json)
