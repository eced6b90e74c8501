"""Each single value of a source dropped or changed, one at a time: what the accounting of every reader is tried with."""

from __future__ import annotations

import copy
import json
import plistlib
import re
from collections.abc import Callable, Iterator
from xml.etree import ElementTree

from tinamou.convert import kinds
from tinamou.convert.account import HIDDEN, hidden
from tinamou.convert.assemble import assemble
from tinamou.errors import TinamouError

PARTS = ("domain", "bus", "slot", "function")
"""Of an address: 0 where they are left out."""


def outcome(text: str) -> str:
    """All that comes out of a source: machine and notes, or the refusal."""
    try:
        result = assemble(kinds.read(text), {})
    except TinamouError as error:
        return str(error)
    return repr((result.machine, result.notes))


def other(value: str) -> str:
    """Another value of the same kind."""
    if re.fullmatch(r"\d+", value):
        return str(int(value) * 2 + 1)
    if re.fullmatch(r"0x[0-9a-f]+", value):
        return hex(int(value, 0) + 1)
    words = {
        "yes": "no",
        "no": "yes",
        "on": "off",
        "off": "on",
        "TRUE": "FALSE",
        "FALSE": "TRUE",
        "true": "false",
        "false": "true",
    }
    return words.get(value, f"{value}x")


def secret(key: str) -> bool:
    """Whether a note would not show the value of this key."""
    return hidden(key, "value") == HIDDEN


DEFAULTS = {
    "memory@unit": "KiB",
    "currentMemory@unit": "KiB",
    "maxMemory@unit": "KiB",
    "page@unit": "KiB",
    "cell@unit": "KiB",
    "clock@offset": "utc",
    "disk@device": "disk",
    "disk@type": "file",
    "domain@type": "kvm",
    "sysinfo@type": "smbios",
    "feature@policy": "require",
    "filesystem@type": "mount",
    "graphics@type": "vnc",
    "graphics@listen": "127.0.0.1",
    "portForward@proto": "tcp",
    "cpu@mode": "custom",
    "cpu@match": "exact",
    "topology@sockets": "1",
    "topology@dies": "1",
    "topology@clusters": "1",
    "topology@cores": "1",
    "topology@threads": "1",
    "hyperv@mode": "custom",
    "vlan@trunk": "no",
    "cpu@check": "none",
    "timer@present": "yes",
    "HardDisk@type": "Normal",
    "Adapter@enabled": "false",
}
"""What a value means where it is left out: the source says the same with it and without."""


def of_xml(text: str) -> Iterator[tuple[str, str]]:
    """What was done, and the document after it."""
    for prefix, uri in re.findall(r'xmlns:(\w*[a-z])=["\']([^"\']+)', text):
        ElementTree.register_namespace(prefix, uri)
    root = ElementTree.fromstring(text)
    count = len(list(root.iter()))

    def changed(at: int, how: Callable[[ElementTree.Element], object]) -> str:
        tree = copy.deepcopy(root)
        how(list(tree.iter())[at])
        return ElementTree.tostring(tree, encoding="unicode")

    parents = {child: parent for parent in root.iter() for child in parent}
    order = list(root.iter())
    empty = {"devices": "", "vcpu": "1"}
    for at, node in enumerate(order[:count]):
        where = f"{node.tag.rpartition('}')[2]}"
        for key, value in node.attrib.items():
            if secret(f"{where}/{key}"):
                continue
            if (
                DEFAULTS.get(f"{where}@{key}") != value
                and f"{where}@{key}" != "range@to"
                and (key, value) != ("state", "on")
                and not (key in PARTS and where == "address" and int(value, 16) == 0)
            ):
                yield f"{where}@{key} dropped", changed(at, lambda one, key=key: one.attrib.pop(key))
            yield f"{where}@{key} changed", changed(at, lambda one, key=key, value=value: one.set(key, other(value)))
        if (node.text or "").strip() and not secret(where):
            yield f"{where} text changed", changed(at, lambda one: setattr(one, "text", other(one.text.strip())))
        if node in parents and (len(node) or empty.get(where) != (node.text or "").strip() or node.attrib):
            parent, index = order.index(parents[node]), list(parents[node]).index(node)
            yield f"{where} dropped", changed(parent, lambda one, index=index: one.remove(one[index]))


def of_lines(text: str) -> Iterator[tuple[str, str]]:
    """``key = "value"`` lines: each dropped, each value changed."""
    lines = text.splitlines()
    for at, line in enumerate(lines):
        key, equals, value = line.partition("=")
        if not equals or line.lstrip().startswith("#"):
            continue
        if not re.fullmatch(r'.*\.present = "TRUE"|guest_os="linux"|boot="efi"', line):  # the same as nothing
            yield f"{line} dropped", "\n".join([*lines[:at], *lines[at + 1 :]])
        if secret(key):
            continue
        bare = value.strip().strip("\"'")
        new = value.replace(bare, other(bare)) if bare else ' "x"'
        yield f"{line} changed", "\n".join([*lines[:at], f"{key}={new}", *lines[at + 1 :]])


def of_settings(text: str) -> Iterator[tuple[str, str]]:
    """``key: value`` or ``key = value`` lines: each dropped, each piece of a value between commas dropped and changed."""
    lines = text.splitlines()
    for at, line in enumerate(lines):
        match = re.fullmatch(r"""(\s*[\w-]+\s*[:=]\s*|\s*)(.*?)([\s\],]*)""", line)
        if not match or not match[2] or line.lstrip().startswith("#"):
            continue
        key, value, end = match.groups()
        if value.startswith("["):
            continue
        if key.strip() and line != "sockets: 1":  # the same as nothing
            yield f"{line} dropped", "\n".join([*lines[:at], *lines[at + 1 :]])
        quote = value[0] if value[0] in "\"'" else ""
        pieces = value.strip("\"'").split(",")
        for number, piece in enumerate(pieces):
            name, equals, inside = piece.rpartition("=")
            if secret(key) or (len(pieces) > 1 and secret(name)) or not piece.strip():
                continue
            new = ",".join([*pieces[:number], f"{name}{equals}{other(inside)}", *pieces[number + 1 :]])
            yield f"{line}: {piece} changed", "\n".join([*lines[:at], f"{key}{quote}{new}{quote}{end}", *lines[at + 1 :]])


ABSENT = [
    ("is_read_only", False), ("is_root_device", False), ("track_dirty_pages", False), ("readonly", False),
    ("mergeable", False), ("hugepages", False), ("writable", "false"),
    ("huge_pages", "None"), ("secureBoot", "true"), ("bus", "virtio"), ("disk", {"bus": "virtio"}), ("description", ""),
    ("Backend", "QEMU"), ("ReadOnly", False), ("hda_disk_interface", "ide"),
]  # fmt: skip
"""Values that say what is so without them."""


def of_tree(text: str) -> Iterator[tuple[str, str]]:
    """YAML or JSON: each value dropped, each single one changed."""
    import yaml

    data: object
    written: Callable[[object], str]
    if text.startswith("<?xml"):
        data, written = plistlib.loads(text.encode()), lambda tree: plistlib.dumps(tree).decode()
    elif text.lstrip().startswith("{"):
        data, written = json.loads(text), json.dumps
    else:
        data, written = list(yaml.load_all(text, yaml.BaseLoader)), yaml.safe_dump_all

    def walk(node: object, path: tuple[object, ...]) -> Iterator[tuple[object, ...]]:
        for key, value in node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ():
            yield (*path, key)
            yield from walk(value, (*path, key))

    for path in list(walk(data, ())):
        tree = copy.deepcopy(data)
        holder = tree
        for step in path[:-1]:
            holder = holder[step]
        value = holder[path[-1]]
        if value is None or secret(".".join(map(str, path))):
            continue
        if not isinstance(value, dict | list):
            holder[path[-1]] = (
                (not value) if isinstance(value, bool) else value * 2 + 1 if isinstance(value, int) else other(value)
            )
            yield f"{path} changed", written(tree)
        if (path[-1], value) not in ABSENT:
            del holder[path[-1]]
            yield f"{path} dropped", written(tree)


def of_install(text: str) -> Iterator[tuple[str, str]]:
    """A line of virt-install's, of several options a line: each dropped, each piece of its value dropped and changed."""
    words = text.replace("\\\n", " ").split()
    starts = [at for at, word in enumerate(words) if word.startswith("--")]
    for at, end in zip(starts, [*starts[1:], len(words)], strict=True):
        yield f"{words[at]} dropped", " ".join([*words[1:at], *words[end:]])
        pieces = words[at + 1].split(",") if end > at + 1 else []
        for number, piece in enumerate(pieces):
            key, equals, inside = piece.rpartition("=")
            new = f"{key}={other(inside)}" if equals else other(piece)
            for what, put in (("changed", [new]), ("dropped", [])):
                joined = ",".join([*pieces[:number], *put, *pieces[number + 1 :]])
                if joined and piece not in ("format=qcow2", "bus=virtio", "4"):
                    yield f"{words[at]} {piece} {what}", " ".join([*words[1 : at + 1], joined, *words[end:]])


def of_words(text: str) -> Iterator[tuple[str, str]]:
    """A command line, an option in each line: each option dropped, each value of one dropped and changed."""
    lines = text.splitlines()
    for at, line in enumerate(lines[1:], 1):
        option, _, value = line.rstrip("\\ ").strip().partition(" ")
        if not option.startswith("-"):
            continue
        yield f"{option} {value} dropped", "\n".join([*lines[:at], *lines[at + 1 :]])
        pieces = value.strip("'").split(",")
        for number, piece in enumerate(pieces if value else []):
            key, equals, inside = piece.partition("=")
            if secret(key) or (option, piece) == ("-smp", "4"):  # the product of the others
                continue
            new = f"{key}={other(inside)}" if equals else other(piece)
            for what, put in (("changed", [new]), ("dropped", [])):
                joined = ",".join([*pieces[:number], *put, *pieces[number + 1 :]])
                if joined:
                    yield (
                        f"{option} {value}: {piece} {what}",
                        "\n".join([*lines[:at], f"  {option} '{joined}' \\", *lines[at + 1 :]]),
                    )
