"""The verb ``monitor``: QMP and the human monitor, said by hand and written down."""

from __future__ import annotations

import sys

from tinamou.cli import output
from tinamou.cli.grammar import Force, Switch
from tinamou.cli.loop import run_until_done
from tinamou.errors import TinamouError
from tinamou.operations import by_hand
from tinamou.operations.by_hand import Said
from tinamou.system.shown import visible


def command(
    name: str,
    /,
    *words: str,
    hmp: Switch = False,
    force: Force = False,
) -> int:
    """Say something to a machine's QEMU; monitor.log in its folder keeps what was said, by whom, and what became of it.

    Parameters
    ----------
    words
        A command of QMP and its arguments, node-name=disk0 size=1073741824, or its JSON; without words, lines of stdin.
    hmp
        Lines of the human monitor instead: info block.
    force
        Also what tinamou keeps account of, which is wrong from then on: devices, disks, states.
    """
    if words:
        said = Said(line=" ".join(words)) if hmp else by_hand.qmp_line(words)
        _answer(name, said, force=force)
        return 0
    return _lines(name, hmp=hmp, force=force)


def _answer(name: str, said: Said, *, force: bool) -> None:
    answer = run_until_done(by_hand.monitor(name, said, force=force))
    if said.line:
        sys.stdout.write(visible(str(answer).replace("\r\n", "\n")))
    else:
        output.print_json(answer)


def _lines(name: str, *, hmp: bool, force: bool) -> int:
    """Each line of stdin; one that is refused is told, and the next one taken. The status is that of the last refusal."""
    status = 0
    if sys.stdin.isatty():
        output.say(f"QEMU of {name}: {'lines of the human monitor' if hmp else 'commands of QMP'}; Ctrl-D ends")
    for line in sys.stdin:
        text = line.strip()
        if not text:
            continue
        try:
            said = Said(line=text) if hmp else by_hand.qmp_line([text] if text.startswith("{") else text.split())
            _answer(name, said, force=force)
        except TinamouError as error:
            output.warn(str(error))
            status = error.code
    return status
