"""Checkers of the shape of the source: each takes parsed modules and yields one line for everything that is wrong."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from statistics import median, quantiles

from tinamou.facts import files

LONGEST_FUNCTION = 60
LONGEST_FILE = 400
# The field's own word for a process that serves QEMU (swtpm, passt, virtiofsd).
FIELD_TERMS = {"StartHelper"}
ARCHES = {"x86_64", "i386", "aarch64", "arm", "riscv64", "riscv32", "ppc64", "ppc64le", "s390x", "loongarch64"}

# What concerns the whole process, and where alone it may stand.
PLACES = {
    "os.umask": "(nowhere)",  # it is that of all threads
    "asyncio.run": r"cli/.*|machine/keeper\.py|guest/resident/sharing\.py",  # below, a caller's loop may run already
}

MACHINE_FILES = (".sock", ".log", ".json", ".jsonl", ".lock", ".fd", ".iso", "checkpointing")

FunctionNode = ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True)
class Module:
    """One source file: its path inside the package (``facts/qemu.py``) and its text."""

    path: str
    text: str

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.text, self.path)

    @property
    def package(self) -> str:
        return self.path.split("/")[0] if "/" in self.path else ""

    def functions(self) -> Iterator[FunctionNode]:
        return (node for node in ast.walk(self.tree) if isinstance(node, FunctionNode))


def read_package(root: Path) -> list[Module]:
    return [Module(str(path.relative_to(root)), path.read_text()) for path in sorted(root.rglob("*.py"))]


def body_lines(function: FunctionNode) -> int:
    """Lines from ``def`` to the end, without the docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    if ast.get_docstring(function) is not None:
        text = function.body[0]
        lines -= (text.end_lineno or text.lineno) - text.lineno + 1
    return lines


def long_functions(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        for function in module.functions():
            if (lines := body_lines(function)) > LONGEST_FUNCTION:
                yield f"{module.path}:{function.lineno}: {function.name} has {lines} lines, {LONGEST_FUNCTION} are allowed"


def spread_of_functions(modules: Sequence[Module]) -> Iterator[str]:
    lengths = [body_lines(function) for module in modules for function in module.functions()]
    if len(lengths) < 2:
        return
    ninth = quantiles(lengths, n=10, method="inclusive")[-1]
    if ninth > 30:
        yield f"the 90th percentile of function lengths is {ninth:.0f} lines, 30 are allowed"
    if median(lengths) > 12:
        yield f"the median function has {median(lengths):.0f} lines, about 9 are wanted, 12 allowed"


def long_files(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        if (lines := module.text.count("\n")) > LONGEST_FILE:
            yield f"{module.path}: {lines} lines, {LONGEST_FILE} are allowed"


def modules_without_sentence(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        if not module.text.strip():
            continue
        opening = (ast.get_docstring(module.tree) or "").split("\n\n")[0].strip()
        if not opening:
            yield f"{module.path}: no docstring; open with one sentence that says what belongs here"
        elif not re.search(r"[.:]$", opening) or not opening[0].isalnum():
            yield f"{module.path}: the docstring does not open with a whole sentence"


def vague_names(modules: Sequence[Module]) -> Iterator[str]:
    vague = re.compile(r"(Manager|Helper|Utils?|Misc)$")
    for module in modules:
        if re.search(r"(^|/|_)(manager|helpers?|utils?|misc|common)(\.py|/)", module.path):
            yield f"{module.path}: the name does not say what is inside"
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef) and vague.search(node.name) and node.name not in FIELD_TERMS:
                yield f"{module.path}:{node.lineno}: {node.name} does not say what it is"


def _mentions_arch(node: ast.expr) -> bool:
    name = node.attr if isinstance(node, ast.Attribute) else node.id if isinstance(node, ast.Name) else ""
    return name in {"arch", "architecture", "machine"} or name.endswith("_arch")


def _names_arch(node: ast.expr | ast.pattern) -> bool:
    return any(isinstance(part, ast.Constant) and part.value in ARCHES for part in ast.walk(node))


def arch_decisions(modules: Sequence[Module]) -> Iterator[str]:
    told = "what depends on the architecture belongs in its table in arch/"
    for module in modules:
        if module.package == "arch":
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Compare):
                sides = [node.left, *node.comparators]
                if any(map(_mentions_arch, sides)) and any(map(_names_arch, sides)):
                    yield f"{module.path}:{node.lineno}: compares the architecture; {told}"
            elif isinstance(node, ast.Match) and any(_names_arch(case.pattern) for case in node.cases):
                yield f"{module.path}:{node.lineno}: matches on the architecture; {told}"


def version_comparisons(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        if module.package == "facts":
            continue
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Compare):
                continue
            text = ast.unparse(node)
            ordered = any(isinstance(op, ast.Lt | ast.LtE | ast.Gt | ast.GtE) for op in node.ops)
            numbers = ordered and any(isinstance(side, ast.Tuple) for side in node.comparators)
            if re.search(r"\bversion\b", text) and (numbers or "qemu" in text):
                yield f"{module.path}:{node.lineno}: compares a version ({text}); ask facts.qemu.has(...)"


def undocumented(modules: Sequence[Module]) -> Iterator[str]:
    """Public classes, functions and methods without a docstring; overloads and nested functions need none."""
    for module in modules:
        if module.path.rsplit("/", 1)[-1].startswith("_") and not module.path.endswith("__init__.py"):
            continue
        yield from _undocumented_in(module, module.tree.body)


def _undocumented_in(module: Module, body: list[ast.stmt]) -> Iterator[str]:
    for node in body:
        if not isinstance(node, FunctionNode | ast.ClassDef) or node.name.startswith("_"):
            continue
        decorators = {ast.unparse(decorator).split(".")[-1] for decorator in node.decorator_list}
        if ast.get_docstring(node) is None and not decorators & {"overload", "override", "setter", "deleter"}:
            yield f"{module.path}:{node.lineno}: {node.name} is public and has no docstring"
        if isinstance(node, ast.ClassDef):
            yield from _undocumented_in(module, node.body)


def open_ends(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        for number, line in enumerate(module.text.splitlines(), 1):
            if re.search(r"#.*\b(TODO|FIXME|XXX|HACK)\b(?!\(\S+\))", line):
                yield f"{module.path}:{number}: an open end that names no decision or issue: TODO(docs/decisions/0000)"


def qmp_elsewhere(modules: Sequence[Module]) -> Iterator[str]:
    """Who sends and takes apart QMP messages outside of control, where everything QEMU says is bounded."""
    wire = "tinamou.control.wire"
    for module in (one for one in modules if not one.path.startswith("control/")):
        for node in ast.walk(module.tree):
            names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and node.module:
                names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
            if wire in names:
                yield f"{module.path}:{node.lineno}: only control speaks QMP: use a session of tinamou.control"


def files_by_other_names(modules: Sequence[Module]) -> Iterator[str]:
    """A machine's files are named in `tinamou.facts.files` alone; those whose name is also a plain word are left out."""
    named = [one for one in vars(files).values() if isinstance(one, str) and one.endswith(MACHINE_FILES)]
    exempt = ("facts/files.py", "machine/exporting.py")  # the manifest in an exported machine is called so, too
    for module in (one for one in modules if one.path not in exempt):
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                word = node.value.rsplit("/", 1)[-1].removesuffix(".lock")
                if node.value.lstrip("/") in (word, f"{word}.lock") and word in named:
                    yield f"{module.path}:{node.lineno}: {word} is named in facts/files.py"


def misplaced_calls(modules: Sequence[Module]) -> Iterator[str]:
    for module in modules:
        for node in ast.walk(module.tree):
            names = [f"{node.module}.{alias.name}" for alias in node.names] if isinstance(node, ast.ImportFrom) else []
            for name in (*names, *([ast.unparse(node)] if isinstance(node, ast.Attribute) else [])):
                if name in PLACES and not re.fullmatch(PLACES[name], module.path):
                    yield f"{module.path}: {name} concerns the whole process; it may stand in {PLACES[name]}"


def shared_names(modules: Sequence[Module]) -> Iterator[str]:
    """For tests: pytest imports every file by its bare name, so that two of one name stop the whole run."""
    seen: dict[str, str] = {}
    for path in (module.path for module in modules if not module.path.endswith(("conftest.py", "__init__.py"))):
        if (other := seen.setdefault(path.rsplit("/", 1)[-1], path)) != path:
            yield f"{path}: {other} has the same file name"


def asserted_durations(modules: Sequence[Module]) -> Iterator[str]:
    """For tests: asserting that something was fast enough fails on a slower machine; waiting until a deadline does not."""
    for module in modules:
        for node in ast.walk(module.tree):
            if not isinstance(node, ast.Assert):
                continue
            compared = [part for part in ast.walk(node.test) if isinstance(part, ast.Compare)]
            ordered = [part for part in compared if any(isinstance(op, ast.Lt | ast.LtE) for op in part.ops)]
            texts = [ast.unparse(part) for part in ordered]
            if any(re.search(r"\b(elapsed|took)\b|\b(monotonic|perf_counter|time)\(\) - ", text) for text in texts):
                yield f"{module.path}:{node.lineno}: asserts a duration; timings belong in bench/"
