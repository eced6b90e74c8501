"""What was meant by a line tinamou does not know: the words of other tools, and a guest's command without its dashes."""

from __future__ import annotations

from collections.abc import Collection, Sequence

__all__ = ["SAME", "dashes", "option", "spelled", "verb"]

SAME: dict[str, tuple[str, ...]] = {
    "ps": ("ls",),
    "list": ("ls",),
    "inspect": ("show", "--json"),
    "info": ("show",),
    "attach": ("console",),
    "shell": ("ssh",),
    "shutdown": ("stop",),
    "destroy": ("kill",),
    "unpause": ("resume",),
    "managedsave": ("suspend",),
    "undefine": ("rm",),
    "delete": ("rm",),
    "domrename": ("rename",),
    "domdisplay": ("display",),
    "vncdisplay": ("display",),
    "qemu-monitor-command": ("monitor",),
    "images": ("image", "ls"),
    "pull": ("image", "pull"),
    "build": ("image", "build"),
    "rmi": ("image", "rm"),
    "nodedev-list": ("pci", "ls"),
}
"""Verbs of docker, virsh and their kin, and the words that do the same here."""

_SHORT = {"-p": "--publish", "-v": "--share", "--volume": "--share", "-m": "--memory", "-h": "--help"}
"""Options of docker run, and what they are called here."""

_NOT_RECORDED = (
    "a machine is not recorded and replayed instruction by instruction: QEMU's own way does not bear virtio devices "
    "(docs/decisions/0115-record-and-replay.md); tinamou checkpoint NAME and fork go back to one state as often as is wished"
)
_NO_OPTION = {"--record": _NOT_RECORDED, "--replay": _NOT_RECORDED}
"""Options of run that do not exist, and why."""

_CHANGES = {"start": 0, "restart": 0, "resume": 0, "set": 0, "edit": 0, "clone": 1}
"""Verbs that are given options of ``run``, to change a machine that is there; and which of their words names it."""

_MEANT = {
    "record": f"{_NOT_RECORDED}; tinamou logs NAME has what its guest printed",
    "replay": _NOT_RECORDED,
    "save": "tinamou suspend NAME saves a machine and ends it, tinamou checkpoint NAME saves it while it goes on",
    "restore": "tinamou resume NAME, tinamou checkpoints restore NAME, tinamou snapshot revert, or tinamou backup restore",
    "create": "tinamou run -d --name NAME IMAGE starts a machine that stays; tinamou plan IMAGE only shows what it would be",
    "define": "tinamou run -d FILE.toml; tinamou convert makes such a file of a libvirt machine",
    "dumpxml": "tinamou show NAME, or tinamou plan NAME --why",
    "qmp": "tinamou monitor NAME says something to its QEMU",
    "migrate": "tinamou move NAME HOST, of one that is off tinamou copy NAME HOST; by a file tinamou export and import",
    "setmem": "tinamou set NAME memory=2G",
    "setmaxmem": "tinamou set NAME memory=2G",
    "setvcpus": "tinamou set NAME cpus=4",
    "update": "tinamou set NAME FIELD=VALUE, or tinamou edit NAME",
    "vol-clone": "tinamou clone NAME NEW",
    "port": "tinamou net ls, and net.forward in tinamou show NAME",
    "events": "tinamou watch NAME",
    "history": "tinamou snapshot tree NAME, tinamou checkpoints tree",
    "network": "tinamou net",
    "volume": "tinamou disk, and tinamou run --share HOST:GUEST",
    "compose": "one machine file for each machine: tinamou run -d FILE.toml",
    "up": "tinamou run -d FILE.toml, tinamou start NAME",
    "down": "tinamou stop NAME, tinamou rm NAME",
    "domifaddr": "tinamou net ls",
    "dommemstat": "tinamou stats NAME",
    "version": "tinamou --version",
    "help": "tinamou --help",
}
"""Verbs of other tools that no single verb stands for here, and what does."""

_ALIKE = 0.75
"""How much alike two words must be spelled for one to be taken for the other's slip."""


def spelled(words: Sequence[str]) -> list[str]:
    """The line in tinamou's own words: ``["inspect", "web"]`` → ``["show", "--json", "web"]``.

    A machine without ``-d`` is thrown away when it ends: ``--rm`` asks for what is so anyway.
    """
    if words and words[0] in SAME:
        return [*SAME[words[0]], *words[1:]]
    if not words or words[0] not in ("run", "plan"):
        return list(words)
    thrown_away = not {"-d", "--detach"} & set(words)
    return [_SHORT.get(word, word) for word in words if word != "--rm" or not thrown_away]


def verb(word: str, known: Collection[str]) -> str:
    """The answer to a verb that does not exist."""
    import difflib

    if word in _MEANT:
        return f"there is no verb {word} here: {_MEANT[word]}"
    near = difflib.get_close_matches(word, [*known, *SAME], 1, _ALIKE)
    hint = f"did you mean {near[0]}?" if near else "tinamou --help lists the verbs"
    return f"there is no verb {word}: {hint}"


def option(words: Sequence[str]) -> str:
    """The answer to an option that a verb has not: of ``run`` one missed for a reason, of others one that is a field.

    Empty where there is none.
    """
    names = (word.partition("=")[0] for word in words if words[0] == "run")
    missed = next((f"there is no {name}: {_NO_OPTION[name]}" for name in names if name in _NO_OPTION), "")
    return missed or (_changed(words) if words[0] in _CHANGES else "")


def _changed(words: Sequence[str]) -> str:
    """The answer to a line that would change a machine by options of ``run``, or by fields; empty where it does not."""
    from tinamou.cli.settings import settings

    said, fields, places = settings([_SHORT.get(word, word) for word in words])
    if not said:
        return ""
    at = _CHANGES[words[0]]
    name = places[at] if at < len(places) else "NAME"
    lines = [f"tinamou rename {name} {field.removeprefix('name=')}" for field in fields if field.startswith("name=")]
    if changed := [field for field in fields if not field.startswith("name=")]:
        lines.insert(0, " ".join(["tinamou set", name, *changed]))
    return f"{words[0]} takes no {', '.join(said)}; what a machine is, is changed by: {' and '.join(lines)}"


def dashes(words: Sequence[str], first: str) -> str:
    """The answer to a line whose words from ``first`` on are the guest's, and do not say so."""
    import shlex

    at = list(words).index(first)
    line = shlex.join(["tinamou", *words[:at], "--", *words[at:]])
    return f"{first} is one word too many; a command for the guest stands behind --: {line}"
