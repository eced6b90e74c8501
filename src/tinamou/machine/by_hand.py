"""QEMU's monitor in a person's hands: what is said, by whom, and what became of it, is written down in the machine's folder.

What tinamou itself keeps account of (devices, disks, states) has a verb of its own; said here it is refused unless forced:
the account would be wrong afterwards.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

from tinamou.control import commands
from tinamou.errors import Problem, SpecError, StateError, TinamouError
from tinamou.facts import files
from tinamou.late import dataclass
from tinamou.machine.connected import Connected
from tinamou.system.closing import Closing

__all__ = ["Said", "ask", "qmp_line"]

_OURS = {
    "device_": "tinamou disk, tinamou net",
    "netdev_": "tinamou net",
    "drive": "tinamou disk, tinamou backup",
    "blockdev_": "tinamou disk, tinamou snapshot",
    "block_resize": "tinamou disk resize",
    "block_set_io_throttle": "tinamou set",
    "block_": "tinamou snapshot",
    "commit": "tinamou snapshot",
    "snapshot": "tinamou snapshot, tinamou checkpoint",
    "transaction": "tinamou snapshot",
    "object": "tinamou disk, tinamou net",
    "chardev_": "a verb of its own",
    "migrate": "tinamou checkpoint, tinamou suspend",
    "savevm": "tinamou checkpoint",
    "loadvm": "tinamou checkpoints restore",
    "delvm": "tinamou checkpoints rm",
}
"""How commands of QMP and the human monitor begin, with _ for -, that change what tinamou keeps account of → its verb."""

_HARMLESS = ("block_dirty_bitmap", "block_latency", "migrate_set", "object_print")
_LINE = "human-monitor-command"
_MOST_LOG = 1 << 20


@dataclass(frozen=True)
class Said:
    """One command for QEMU: a QMP command with its arguments, or a line of the human monitor."""

    command: str = ""
    arguments: Mapping[str, Any] | None = None
    line: str = ""

    @property
    def word(self) -> str:
        """What it does, as QEMU names that."""
        line = str((self.arguments or {}).get("command-line", "")) if self.command == _LINE else self.line
        return (line.split() or [self.command])[0]


def qmp_line(words: Sequence[str]) -> Said:
    """``block_resize node-name=disk0 size=1073741824``, or the JSON of QMP; values are JSON, text where they are not.

    A dot in a name leads into an object. Raises SpecError.
    """
    if len(words) == 1 and words[0].lstrip().startswith("{"):
        return _whole(words[0])
    arguments: dict[str, Any] = {}
    for word in words[1:]:
        name, equals, value = word.partition("=")
        if not equals or not name:
            problem = Problem("argument", word, "is not NAME=VALUE", "or say the whole command as JSON; lines: --hmp")
            raise SpecError(f"the arguments of {words[0]} are not understood", problems=[problem])
        *outer, last = name.split(".")
        within: Any = arguments
        for one in outer:
            within = within.setdefault(one, {}) if isinstance(within, dict) else None
        if not isinstance(within, dict) or last in within:
            problem = Problem("argument", word, "is said twice, or lies in what is no object", "say each once")
            raise SpecError(f"the arguments of {words[0]} are not understood", problems=[problem])
        within[last] = _value(value)
    return Said(words[0], arguments)


def _whole(text: str) -> Said:
    try:
        said = json.loads(text)
        if not isinstance(said["execute"], str) or not isinstance(said.get("arguments", {}), dict):
            raise ValueError("execute is a text, arguments an object")
    except (ValueError, KeyError, RecursionError) as error:
        fix = '{"execute": "query-status"}'
        raise SpecError("this is no command of QMP", why=f"{error!r}: {text[:200]}", fix=fix) from error
    return Said(said["execute"], said.get("arguments", {}))


def _value(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return text


async def ask(machine: Connected, said: Said, *, force: bool = False) -> object:
    """Say it, and return QEMU's answer: JSON data, of a line what it prints. Raises StateError, ControlError."""
    _refuse(said, force=force)
    session = await machine.session()
    _note(machine, said, "asked")
    try:
        if said.line:
            answer: object = await commands.monitor(session, said.line)
        else:
            answer = await session.execute(said.command, said.arguments or {})
    except TinamouError as error:
        _note(machine, said, f"{error.what}: {error.why}")
        raise
    _note(machine, said, "done")
    return answer


def _refuse(said: Said, *, force: bool) -> None:
    word = said.word
    plain = word.replace("-", "_").removeprefix("x_")  # what is experimental in QMP
    verb = next((verb for begins, verb in _OURS.items() if plain.startswith(begins)), "")
    if verb and not force and not plain.startswith(_HARMLESS):
        why = "tinamou keeps account of that, and would not know: snapshots, checkpoints and the next start go by it"
        raise StateError(f"{word} is not said to QEMU by hand", why=why, fix=f"{verb}; or all the same: --force")


def _note(machine: Connected, said: Said, became: str) -> None:
    """Add a line to the machine's log of such commands, before QEMU is told and after; one that is long begins anew."""
    path = machine.record.file(files.MONITOR_LOG)
    entry = {"at": round(time.time(), 3), "uid": os.getuid(), "pid": os.getpid(), "said": said.line or said.command}
    entry |= {"arguments": dict(said.arguments)} if said.arguments else {}
    flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_NOFOLLOW | os.O_CLOEXEC
    if path.exists() and path.stat().st_size > _MOST_LOG:
        path.replace(path.with_name(f"{path.name}.old"))
    with Closing(os.open(path, flags, 0o600)) as descriptor:
        os.write(descriptor, (json.dumps({**entry, "became": became}) + "\n").encode())
