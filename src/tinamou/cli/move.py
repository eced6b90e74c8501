"""The verb ``move``: a running machine to another host."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tinamou import late
from tinamou.cli import output
from tinamou.cli.grammar import Switch
from tinamou.cli.loop import run_until_done
from tinamou.errors import Problem, SpecError
from tinamou.units import Size

if TYPE_CHECKING:
    from tinamou.fleet.moving import Moved


def command(
    name: str,
    host: str,
    /,
    *,
    limit: str = "",
    downtime: int = 300,
    slow: Switch = False,
    cut: Switch = False,
    line: str = "auto",
    json: Switch = False,
) -> None:
    """Move a running machine to another host, which it goes on on: its memory and disks, and who it is on the network.

    Its guest runs while they are copied, and stands still for a moment at the end. Whatever fails before that, and Ctrl-C,
    leave it running here.

    Parameters
    ----------
    limit
        Bytes a second that go over the line, 100M; no limit when left out.
    downtime
        Milliseconds it may stand still: the last of the memory goes over in that.
    slow
        Slow its guest down where that writes to its memory faster than the line carries.
    cut
        Move also what has connections in another process of this host (passt); they end, and new ones are made there.
    line
        What carries it: tls, connections of QEMU's own to ports 49152 to 49215 there, encrypted by a key for this move; ssh;
        packed, ssh that compresses; auto, tls where that can be, packed where the link was measured to be slow.
    json
        Where it is now, and how that went, as JSON.
    """
    how = (limit_of(limit), downtime, slow, cut, line_of(line))
    moved = run_until_done(_moved(name, host, how))
    output.warn(*moved.notes)
    if json:
        output.print_json(late.asdict(moved))
    else:
        output.say(f"{name} runs on {host}: stood still for {moved.downtime * 1000:.0f} ms, {moved.total:.1f} s in all")


async def _moved(name: str, host: str, how: tuple[int, int, bool, bool, str]) -> Moved:
    """Call that host, and load what moves a machine while ssh logs in there."""
    from tinamou.fleet import calling, hosts

    async with calling.called(hosts.find(host)) as call:
        from tinamou.fleet.moving import How, move

        return await move(name, host, How(*how), progress=output.progress, call=call)


def limit_of(text: str) -> int:
    """Bytes a second of what was written, 0 for no limit. Raises SpecError."""
    try:
        return int(Size.parse(text)) if text else 0
    except ValueError as error:
        raise SpecError("there is no such limit", problems=[Problem("limit", text, str(error), "100M")]) from error


def line_of(text: str) -> str:
    """What is to carry a machine. Raises SpecError for what is none of `LINES`."""
    if text == "auto":  # known without loading them
        return text
    from tinamou.fleet.lines import LINES

    if text not in LINES:
        raise SpecError("there is no such line", problems=[Problem("line", text, f"is none of {', '.join(LINES)}", "auto")])
    return text
