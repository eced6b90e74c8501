"""Reader of QEMU command lines: the words themselves, or a shell script that holds one; nothing of it is run."""

from __future__ import annotations

import itertools
import re
from collections.abc import Sequence

from tinamou.arch import ARCHES
from tinamou.convert import beside, qemu_cpu, qemu_devices, qemu_disks, qemu_extra, qemu_nets, qemu_rest
from tinamou.convert.account import HIDDEN, hidden
from tinamou.convert.qemu_line import Line, options
from tinamou.convert.result import Draft, Note
from tinamou.convert.shell import Command, commands
from tinamou.errors import SpecError

__all__ = ["is_script", "read", "read_words"]

_HANDLERS: dict[str, qemu_cpu.Handler] = {
    **qemu_rest.HANDLERS,
    **qemu_cpu.HANDLERS,
    **qemu_disks.HANDLERS,
    **qemu_nets.HANDLERS,
    **qemu_extra.HANDLERS,
    "device": qemu_devices.device,
}
_BINARY = re.compile(r"(?:.*/)?(?:qemu-system-(?P<arch>[a-z0-9_]+)|(?:qemu-)?kvm|qemu)(?:\.exe)?")
_STARTED = re.compile(r"^[ \t]*(?:[\w./-]+[ \t]+){0,4}(?:[\w./-]*/)?qemu-system-\w+[ \t]+(?:-|\\$)", re.MULTILINE)
"""A line that starts QEMU, in a text that is no shell's."""
_UNRESOLVED = re.compile(r"\$[\w@*#({]|`")
_PLACEHOLDER = re.compile(r"\.{3}|…|\[[^\]=]*\]|<[^>=]*>")
_PAIR = re.compile(r"(?<![\w.-])([\w.-]{1,64})=([^,\s]+)")
_WORDS = ("on", "off", "yes", "no", "true", "false")
_MOST_WORDS = 4096
_NEAR = {"i386": "x86_64"}


def is_script(text: str) -> bool:
    """Whether a text has a QEMU command line in it, or is one without its first word."""
    try:
        found = commands(text)
    except SpecError:
        return bool(_STARTED.search(text))
    return bool(_machines(found)) or (bool(found) and all(beside.known(one) for one in found))


def _machines(found: Sequence[Command]) -> list[tuple[Command, ...]]:
    """The QEMU lines of a script, each of one command; where the binary stands alone, of the lines of options behind it.

    A text without the name of a binary is one where it begins with an option and most of it are options: other texts name
    QEMU too, or have switches of the same letters.
    """
    lines: list[tuple[Command, ...]] = []
    for number, one in enumerate(found):
        if (at := _at(one)) is None:
            continue
        behind = itertools.takewhile(lambda other: _option(other.words[0]), found[number + 1 :])
        rest = one.words[at + 1 :]
        group: tuple[Command, ...] = (one,) if rest else (one, *behind)
        named = _BINARY.fullmatch(one.words[at])
        if any(map(_option, rest)) or len(group) > 1 or len(found) == 1 or (rest and named and named["arch"]):
            lines.append(group)
    if lines or not found or not _option(found[0].words[0]):
        return lines
    pieces: list[tuple[Command, ...]] = [(one,) for one in found if _option(one.words[0])]
    return pieces if len(pieces) * 2 >= len(found) else []


def read(text: str) -> Draft:
    """A script's machine: its first QEMU command, and what the commands around it do for it. Raises SpecError."""
    found = commands(text)
    lines = _machines(found)
    draft = Draft("a QEMU command line", whole=bool(lines) and _at(lines[0][0]) is not None)
    if lines:
        first = lines[0]
        _read(draft, Command(first[0].line, tuple(word for one in first for word in one.words), first[-1].target))
    taken, others = {id(one) for one in (lines[0] if lines else ())}, {id(one[0]) for one in lines}
    for one in found:
        if id(one) in taken:
            continue
        if id(one) in others:
            reason = "a second machine in the same file"
            draft.lost(
                f"line {one.line}", " ".join(one.words)[:80], reason, "convert its line on its own: tinamou convert -- …"
            )
        else:
            beside.read(draft, one)
    _hide(draft, found)
    return draft


def _hide(draft: Draft, found: Sequence[Command]) -> None:
    """Take secrets out of the notes: what an option's key says is one."""
    pairs = [match for one in found for word in one.words for match in _PAIR.finditer(word)]
    secret = [one for one in pairs if one[1] == "data" or hidden(one[1], one[2]) == HIDDEN]
    shown = {one[0]: f"{one[1]}={HIDDEN}" for one in secret if one[2] not in _WORDS}
    for number, note in enumerate(draft.notes):
        value = note.value
        for text, instead in shown.items():
            value = value.replace(text, instead)
        draft.notes[number] = Note(note.rank, note.where, value, note.reason, note.fix)


def read_words(words: Sequence[str]) -> Draft:
    """The machine of one command line, as a shell gives it: with or without the name of the binary. Raises SpecError."""
    command = Command(1, tuple(words))
    at = _at(command)
    draft = Draft("a QEMU command line", whole=at is not None)
    if at is None and not _option(words[0] if words else ""):
        if not beside.known(command):
            raise SpecError(
                "this is no QEMU command line",
                why=f"it begins with {words[0] if words else 'nothing'}",
                fix="a script: tinamou convert FILE",
            )
        beside.read(draft, command)
        return draft
    _read(draft, command)
    _hide(draft, [command])
    return draft


def _option(word: str) -> bool:
    name = word.lstrip("-")
    return word.startswith("-") and name in _HANDLERS


def _at(command: Command) -> int | None:
    """Where the binary's name stands: first, or behind words such as sudo and taskset, and the dash of a list."""
    words = command.words
    before = (at for at, word in enumerate(words[: beside.MOST_WRAPPERS + 1]) if _BINARY.fullmatch(word))
    return next((at for at in before if beside.precedes([one for one in words[:at] if one != "-"])), None)


def _read(draft: Draft, command: Command) -> None:
    at = _at(command)
    line = Line(draft)
    if at is not None:
        _arch(draft, command.words[at])
        beside.before(draft, command.words[:at])
    words = [word for word in command.words[at + 1 if at is not None else 0 :] if word]
    if len(words) > _MOST_WORDS:
        raise SpecError(f"the command line has {len(words)} words", why=f"more than {_MOST_WORDS} are no machine's")
    for option, text in options(words):
        if _PLACEHOLDER.fullmatch(text):
            draft.check(f"-{option}", text, "it stands for what the reader shall put there", "put the value there")
            if option == "hda":
                continue
        if _UNRESOLVED.search(text):
            reason = "it holds what only a shell can fill in, and nothing is run here"
            draft.check(f"-{option}", text, reason, "put the value there, and convert again")
            if option == "hda" and text.startswith("$"):
                continue
        if handler := _HANDLERS.get(option):
            handler(line, option, text)
        else:
            line.pass_on(option, text)
    _complete(line)


def _complete(line: Line) -> None:
    draft = line.draft
    qemu_rest.firmware(line)
    qemu_cpu.memory_objects(line)
    qemu_cpu.numa_nodes(line)
    qemu_disks.gather(line)
    qemu_nets.gather(line)
    qemu_devices.joined(line)
    qemu_extra.joined(line)
    _boot_order(line)
    words = line.referred()
    if words:
        draft.put("qemu_args", [word for option, text in words for word in (f"-{option}", text) if word])
    qemu_rest.nothing_uses(line)
    if draft.nets is None and "nodefaults" in line.seen:
        draft.nets = []
    if draft.whole:
        _defaults(line)


def _defaults(line: Line) -> None:
    draft = line.draft
    if draft.get("memory.size") is None:
        draft.changed(
            "-m", "", "QEMU's default is 128 MiB, too little for most guests; tinamou's is 512 MiB", "set memory = …"
        )
    if "screen" not in line.seen:
        draft.put("display.type", "vnc")
        reason = "without -nographic QEMU would have opened a window; the screen is on a VNC socket of the machine"
        draft.changed("-display", "", reason, "leave display out for a guest that is used by its console or ssh")


def _boot_order(line: Line) -> None:
    order = "".join(word.removeprefix("boot=") for word in line.seen if word.startswith("boot="))
    if order.startswith("d"):
        for disk in line.draft.disks:
            if disk.cdrom and disk.order is None:
                disk.order = -1


def _arch(draft: Draft, word: str) -> None:
    match = _BINARY.fullmatch(word)
    name = match["arch"] if match else None
    if name is None:
        return
    arch = _NEAR.get(name, name)
    if arch not in ARCHES:
        known = ", ".join(f"qemu-system-{one}" for one in ARCHES)
        raise SpecError(f"tinamou has no machines of {name}", why=f"the line starts {word}", fix=f"it has those of {known}")
    draft.put("arch", arch)
    if arch != name:
        draft.changed(word, "", f"{arch} runs everything {name} does")
