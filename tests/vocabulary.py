"""The words tinamou says to QEMU, gathered from its source and its plans, and what a QEMU says of them itself."""

from __future__ import annotations

import ast
import json
import shlex
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import recorded

from tinamou.probe.interview import ask
from tinamou.probe.questions import Question
from tinamou.probe.schema import option_names
from tinamou.snapshots import save
from tinamou.system.exec import run

SOURCE = Path(__file__).parent.parent / "src/tinamou"
PLANS = Path(__file__).parent / "golden/plans"
ADDED = {"object": "object-add", "netdev": "netdev_add", "blockdev": "blockdev-add"}
"""Options whose JSON is the arguments of a command."""

SUCCESSORS = {
    **{f"block-job-{verb}": f"job-{verb}" for verb in ("cancel", "complete", "dismiss", "finalize", "pause", "resume")},
    "drive-backup": "blockdev-backup",
    "drive-mirror": "blockdev-mirror",
    "nbd-server-add": "block-export-add",
    "nbd-server-remove": "block-export-del",
    "query-kvm": "query-accelerators",
    "block-commit base": "base-node",
    "block-commit top": "top-node",
    "block_set_io_throttle device": "id",
    "-async-teardown": "-run-with async-teardown=on",
    "-chroot": "-run-with chroot=",
    "-no-acpi": "-machine acpi=off",
    "-no-hpet": "-machine hpet=off",
    "-runas": "-run-with user=",
    "-singlestep": "-accel tcg,one-insn-per-tb=on",
    "-name debug-threads": "nothing, threads always have names",
    "-chardev reconnect": "reconnect-ms",
    "netdev_add reconnect": "reconnect-ms",
}
"""Source: about/deprecated.rst and about/removed-features.rst of QEMU."""


class Said(NamedTuple):
    """A command with what is known of its arguments, and where it is said."""

    command: str
    arguments: Mapping[str, Any]
    where: str


def commands() -> list[Said]:
    """Every command in the source: what ``execute`` is called with, and every text that has been the name of one."""
    known = {name for version in recorded.VERSIONS for name in recorded.qemu(version, "x86_64").commands}
    known = {name for name in known if "-" in name or "_" in name}
    found = [said for path in sorted(SOURCE.rglob("*.py")) for said in _said(path, known)]
    wanted = [{"capability": name, "state": True} for name in save.WHOLE]
    return [*found, Said("migrate-set-capabilities", {"capabilities": wanted}, "snapshots/save.py")]


def _said(path: Path, known: set[str]) -> Iterator[Said]:
    for node in ast.walk(ast.parse(path.read_text())):
        words: list[ast.expr] = []
        more: list[ast.keyword] = []
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            start = {"execute": 0, "execute_with_fd": 1}.get(node.func.attr)
            words, more = ([], []) if start is None else (node.args[start:], node.keywords)
        elif isinstance(node, ast.Tuple) and len(node.elts) == 2 and str(_literal(node.elts[0])) in known:
            words = node.elts
        elif isinstance(node, ast.Constant) and str(node.value) in known:
            words = [node]
        if not words or not isinstance(name := _literal(words[0]), str):
            continue
        arguments = _literal(words[1]) if len(words) > 1 else {}
        arguments = arguments if isinstance(arguments, dict) else {}
        arguments |= {one.arg.replace("_", "-"): _literal(one.value) for one in more if one.arg and one.arg != "timeout"}
        yield Said(name, arguments, f"{path.relative_to(SOURCE)}:{words[0].lineno}")


def _literal(node: ast.expr) -> Any:
    """The value of a literal; ``...`` for what is none."""
    if isinstance(node, ast.Dict):
        pairs = zip(node.keys, node.values, strict=True)
        return {key.value: _literal(value) for key, value in pairs if isinstance(key, ast.Constant)}
    if isinstance(node, ast.List):
        return [_literal(one) for one in node.elts]
    return node.value if isinstance(node, ast.Constant) else ...


def options(version: str, arch: str) -> Iterator[tuple[str, str, str]]:
    """Option without dash, its value, and the plan it stands in, of every recorded plan."""
    for path in sorted(PLANS.glob(f"*-{version}-{arch}-*.args")):
        lines = [line for line in path.read_text().splitlines() if not line.startswith(("#", "refused:"))]
        words = shlex.split("\n".join(lines))[1:]
        for word, value in zip(words, [*words[1:], ""], strict=True):
            if word.startswith("-") and len(word) > 1:
                yield word[1:], "" if value.startswith("-") else value, path.name


class Spoken:
    """What one binary understands: its schema, its options and their parameters, the properties of its devices."""

    def __init__(self, binary: str, types: set[str]) -> None:
        boards = {name for name in types if name.endswith("-machine")}
        asked = [Question(f"type:{name}", "qom-list-properties", {"typename": name}) for name in boards]
        asked += [Question(f"type:{name}", "device-list-properties", {"typename": name}) for name in types - boards]
        asked += [Question(name, name, {}) for name in ("query-qmp-schema", "query-command-line-options")]
        told: Mapping[str, Any] = ask(binary, asked).answers
        self._types = {entry["name"]: entry for entry in told["query-qmp-schema"]}
        self.options = option_names(run([binary, "-help"], timeout=20))
        self.parameters = {one["option"]: one["parameters"] for one in told["query-command-line-options"]}
        self.types = {name: {one["name"] for one in told.get(f"type:{name}", ())} for name in types}

    def of_command(self, name: str, arguments: Mapping[str, Any]) -> list[str]:
        """What is wrong with a command and its arguments: gone or deprecated, and what takes its place."""
        entry = self._types.get(name, {})
        if entry.get("meta-type") != "command":
            return [_gone(name)]
        old = [_old(name)] if _deprecated(entry) else []
        return old + ([] if name == "device_add" else self._of(entry["arg-type"], arguments, name))

    def _of(self, kind: str, value: Any, path: str) -> list[str]:
        entry = self._types[kind]
        if value is ...:
            return []
        if entry["meta-type"] == "array" and isinstance(value, list):
            return [one for inner in value for one in self._of(entry["element-type"], inner, path)]
        if entry["meta-type"] == "enum":
            return self._of_enum(entry, value, path)
        if entry["meta-type"] == "alternate":
            ways = [self._of(one["type"], value, path) for one in entry["members"] if self._suits(one["type"], value)]
            return min(ways, key=len, default=[])
        return self._of_object(entry, value, path) if entry["meta-type"] == "object" and isinstance(value, dict) else []

    def _suits(self, kind: str, value: object) -> bool:
        wanted = {dict: "object", list: "array", str: ("enum", "builtin"), bool: "builtin", int: "builtin"}[type(value)]
        return self._types[kind]["meta-type"] in wanted

    def _of_enum(self, entry: Mapping[str, Any], value: object, path: str) -> list[str]:
        if value not in entry["values"]:
            return [_gone(f"{path} {value}")]
        kept = [one for one in entry["members"] if one["name"] == value and _deprecated(one)]
        return [_old(f"{path} {value}")] if kept else []

    def _of_object(self, entry: Mapping[str, Any], value: Mapping[str, Any], path: str) -> list[str]:
        members, found = {one["name"]: one for one in entry["members"]}, []
        chosen = value.get(entry.get("tag"), ...)
        for variant in entry.get("variants", ()):
            if chosen in (variant["case"], ...):
                members |= {one["name"]: one for one in self._types[variant["type"]]["members"]}
        for key, inner in value.items():
            if key not in members:
                found.append(_gone(f"{path} {key}"))
            elif _deprecated(members[key]):
                found.append(_old(f"{path} {key}"))
            else:
                found += self._of(members[key]["type"], inner, f"{path} {key}")
        return found

    def of_option(self, name: str, value: str) -> list[str]:
        """The same of an option of the command line, with its value."""
        if name not in self.options:
            return [_gone(f"-{name}")]
        if value.startswith("{"):
            given = json.loads(value)
            if name == "audiodev":
                return self._of_audiodev(given)
            return self._of_device(given) if name == "device" else self.of_command(ADDED[name], given)
        known = {one["name"]: "deprecated" in one.get("help", "") for one in self.parameters.get(name, ())}
        keys = [word.partition("=")[0] for word in value.replace(",,", "").split(",") if "=" in word] if known else []
        of_type = self.types.get(f"{value.partition(',')[0]}-machine", set()) if name == "machine" else set()
        known = dict.fromkeys({"id", *of_type}, False) | known
        old = [_old(f"-{name} {key}") for key in keys if known.get(key)]
        return old + [_gone(f"-{name} {key}") for key in keys if key not in known]

    def _of_audiodev(self, given: Mapping[str, Any]) -> list[str]:
        """By what lists such objects, which 7.2 does not have."""
        lists = self._types.get("query-audiodevs")
        return self._of(self._types[lists["ret-type"]]["element-type"], given, "audiodev") if lists else []

    def _of_device(self, given: Mapping[str, Any]) -> list[str]:
        driver = str(given["driver"])
        if not self.types.get(driver):
            return [_gone(f"device {driver}")]
        return [_gone(f"{driver} {key}") for key in given.keys() - self.types[driver] - {"driver", "id", "bus"}]


def _deprecated(entry: Mapping[str, Any]) -> bool:
    return "deprecated" in entry.get("features", ())


def _gone(word: str) -> str:
    return f"{word} is unknown{_instead(word)}"


def _old(word: str) -> str:
    return f"{word} is deprecated{_instead(word)}"


def _instead(word: str) -> str:
    return f": {SUCCESSORS[word]} takes its place" if word in SUCCESSORS else ": see about/deprecated.rst of QEMU"
