"""A QEMU command line taken apart: its options, their keys, and the definitions that others refer to by id.

Source: QEMU docs/system/invocation, qemu-options.hx.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence

from tinamou.convert.result import Draft
from tinamou.late import dataclass, field

__all__ = ["Definition", "Line", "keys", "options", "pairs"]

_DEEPEST = 32
_BARE = frozenset(
    [
        "h",
        "help",
        "version",
        "nographic",
        "no-hpet",
        "no-reboot",
        "no-shutdown",
        "no-fd-bootchk",
        "no-quit",
        "snapshot",
        "S",
        "s",
        "daemonize",
        "enable-kvm",
        "no-kvm",
        "no-kvm-irqchip",
        "no-kvm-pit",
        "no-kvm-pit-reinjection",
        "no-kqemu",
        "kernel-kqemu",
        "localtime",
        "tdf",
        "std-vga",
        "no-acpi",
        "nodefconfig",
        "full-screen",
        "alt-grab",
        "ctrl-grab",
        "usb",
        "win2k-hack",
        "rtc-td-hack",
        "nodefaults",
        "no-user-config",
        "mem-prealloc",
        "only-migratable",
        "show-cursor",
        "portrait",
        "singlestep",
        "one-insn-per-tb",
        "old-param",
        "semihosting",
        "enable-fips",
        "enable-hax",
        "no-frame",
        "sdl",
        "curses",
        "preconfig",
        "xen-attach",
        "xen-domid-restrict",
        "audio-help",
        "enable-sync-profile",
        "jitdump",
        "perfmap",
    ]
)
"""Options without a value; all others have one."""


def options(words: Sequence[str]) -> list[tuple[str, str]]:
    """``["-m", "4G", "disk.img"]`` → ``[("m", "4G"), ("hda", "disk.img")]``; a lone word is the first disk."""
    found, rest = [], iter(words)
    for word in rest:
        if not word.startswith("-") or word == "-":
            found.append(("hda", word))
            continue
        name = word[2:] if word.startswith("--") else word[1:]
        found.append((name, "" if name in _BARE else next(rest, "")))
    return found


def pairs(text: str, implied: str = "") -> list[tuple[str, str]]:
    """``"virtio,id=n0"`` → ``[(implied, "virtio"), ("id", "n0")]``; a doubled comma is one, a bare word is on. JSON too."""
    if text.lstrip().startswith("{"):
        return _flat(text)
    found: list[tuple[str, str]] = []
    for number, piece in enumerate(text.replace(",,", "\0").split(",")):
        key, equals, value = piece.replace("\0", ",").partition("=")
        if equals:
            found.append((key, value))
        elif number == 0 and implied:
            found.append((implied, key))
        elif key:
            negated = key.startswith("no") and key[2:] in ("wait", "delay")
            found.append((key[2:], "off") if negated else (key, "on"))
    return found


def keys(text: str, implied: str = "") -> dict[str, str]:
    """The same by key; where one is repeated its last value holds."""
    return dict(pairs(text, implied))


def _flat(text: str) -> list[tuple[str, str]]:
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return [("", text)]
    found: list[tuple[str, str]] = []

    def walk(node: object, path: str, depth: int = 0) -> None:
        if depth > _DEEPEST:
            found.append((path, ""))
            return
        if isinstance(node, dict):
            for key, value in node.items():
                walk(value, f"{path}.{key}" if path else str(key), depth + 1)
        elif isinstance(node, list):
            for number, value in enumerate(node):
                walk(value, f"{path}.{number}", depth + 1)
        else:
            found.append((path, ("on" if node else "off") if isinstance(node, bool) else str(node)))

    walk(data, "")
    return found


@dataclass
class Definition:
    """Something with an id that a later option refers to: a drive, a netdev, a character device, an object."""

    option: str
    text: str
    keys: dict[str, str]
    used: bool = False


@dataclass
class Line:
    """One command line while it is read."""

    draft: Draft
    defined: dict[tuple[str, str], Definition] = field(default_factory=dict)
    devices: list[tuple[str, dict[str, str]]] = field(default_factory=list)
    passed: list[tuple[str, str]] = field(default_factory=list)
    hubs: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    seen: set[str] = field(default_factory=set)

    def define(self, kind: str, option: str, text: str, found: dict[str, str], name: str = "id") -> None:
        """Keep a definition until it is referred to."""
        self.defined[kind, found.get(name) or f"#{len(self.defined)}"] = Definition(option, text, found)

    def of(self, kind: str) -> list[Definition]:
        """Every definition of a kind."""
        return [one for (found, _), one in self.defined.items() if found == kind]

    def take(self, kind: str, name: str) -> Definition | None:
        """The definition of that id, which is used by now."""
        found = self.defined.get((kind, name))
        if found:
            found.used = True
        return found

    def pass_on(self, option: str, text: str, reason: str = "tinamou has no field for it") -> None:
        """Hand an option to QEMU as it is, and all it refers to."""
        self.passed.append((option, text))
        fix = "see whether the machine needs it; what is in qemu_args is not checked"
        self.draft.check(f"-{option}", text, f"{reason}; kept in qemu_args", fix)

    def referred(self) -> list[tuple[str, str]]:
        """What is passed on, each after the definitions it needs."""
        words: list[tuple[str, str]] = []
        known: dict[str, list[Definition]] = {}
        for (_, name), one in self.defined.items():
            known.setdefault(name, []).append(one)
        for option, text in self.passed:
            for _, value in pairs(text):
                words += _needed(value, known)
            words.append((option, text))
        return words


def _needed(name: str, known: Mapping[str, Sequence[Definition]]) -> Iterator[tuple[str, str]]:
    """The definitions of that name that nothing has used, each after those it refers to itself."""
    todo = [(one, False) for one in reversed(known.get(name, ()))]
    while todo:
        one, ready = todo.pop()
        if ready:
            yield (one.option, one.text)
        elif not one.used:
            one.used = True
            todo.append((one, True))
            values = [value for key, value in one.keys.items() if key not in ("id", "node-name")]
            todo += [(other, False) for value in reversed(values) for other in reversed(known.get(value, ()))]
