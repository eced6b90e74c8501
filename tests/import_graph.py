"""Which module of a package imports which, however late, and the circles among them."""

from __future__ import annotations

import ast
import re
from collections import deque
from collections.abc import Collection, Iterator, Mapping
from functools import partial
from pathlib import Path

Graph = Mapping[str, Collection[str]]
ANY = r"\w+"


class UnseenImportError(Exception):
    """An import whose target cannot be told from the source."""


def read_graph(package: Path) -> dict[str, set[str]]:
    """Module → the modules of the package it imports: in functions too, by strings too, but not for types alone."""
    files = {".".join(path.relative_to(package.parent).with_suffix("").parts): path for path in package.rglob("*.py")}
    modules = {name.removesuffix(".__init__"): path for name, path in files.items()}
    return {name: set(_imports(name, ast.parse(path.read_text()), set(modules))) for name, path in modules.items()}


def _imports(own: str, tree: ast.Module, modules: set[str]) -> Iterator[str]:
    """Of each imported module the packages around it too, which run first; those around ``own`` ran already."""
    for node in _at_run_time(tree):
        for name in {*_by_statement(own, node, modules), *_by_string(own, tree, node, modules)} - {own}:
            if name in modules:
                yield name
            parents = {name[: dot.start()] for dot in re.finditer(r"\.", name)}
            yield from (one for one in parents & modules if not f"{own}.".startswith(f"{one}."))


def _at_run_time(tree: ast.AST) -> Iterator[ast.AST]:
    for node in ast.iter_child_nodes(tree):
        for_types = isinstance(node, ast.If) and ast.unparse(node.test).endswith("TYPE_CHECKING")
        parts = node.orelse if isinstance(node, ast.If) and for_types else [node]
        yield from (inner for part in parts for inner in (part, *_at_run_time(part)))


def _by_statement(own: str, node: ast.AST, modules: set[str]) -> Iterator[str]:
    if isinstance(node, ast.Import):
        yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
        if node.level:
            raise UnseenImportError(f"{own}:{node.lineno}: {ast.unparse(node)}")
        inner = (f"{node.module}.{alias.name}" for alias in node.names)
        yield from (name if name in modules else node.module for name in inner)


def _by_string(own: str, tree: ast.Module, node: ast.AST, modules: set[str]) -> Iterator[str]:
    """By what `import_module` is given, and by entry points as strings: ``package.module:name``."""
    if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in ("import_module", "__import__"):
        patterns = _patterns(node.args[0], tree)
        if all(set(pattern.replace(r"\.", "")) <= set(ANY) for pattern in patterns):
            raise UnseenImportError(f"{own}:{node.lineno}: {ast.unparse(node)}")
    elif isinstance(node, ast.Constant | ast.JoinedStr):
        inside = re.escape(own.partition(".")[0] + ".")
        points = (text.partition(":") for text in _patterns(node, tree) if text.startswith(inside))
        patterns = [name for name, colon, _ in points if colon]
    else:
        return
    yield from (name for name in modules for pattern in patterns if re.fullmatch(pattern, name))


def _patterns(node: ast.expr, tree: ast.Module) -> list[str]:
    """What a text may be, as patterns: a name a loop gives, or a look-up in a table, stands for all that is in the table."""
    if isinstance(node, ast.Constant):
        return [re.escape(node.value)] if isinstance(node.value, str) else []
    if isinstance(node, ast.JoinedStr):
        texts = [""]
        for part in node.values:
            inner = part.value if isinstance(part, ast.FormattedValue) else part
            texts = [text + more for text in texts for more in _patterns(inner, tree)]
        return texts
    loops = (one for one in ast.walk(tree) if isinstance(one, ast.For | ast.comprehension))
    if isinstance(node, ast.Name):
        over = [
            one.iter for one in loops if node.id in [part.id for part in ast.walk(one.target) if isinstance(part, ast.Name)]
        ]
        return [text for table in over for text in _texts(table, tree, keys=True)] or [ANY]
    return (_texts(node.value, tree, keys=False) if isinstance(node, ast.Subscript) else []) or [ANY]


def _texts(table: ast.expr, tree: ast.Module, *, keys: bool) -> list[str]:
    """The texts in a table that is written down in the module, ``TABLE`` or ``TABLE.items()``."""
    name = ast.unparse(table).removesuffix(".items()")
    found = [one.value for one in tree.body if isinstance(one, ast.Assign) and name in map(ast.unparse, one.targets)]
    listed = [(one.keys if keys else one.values) if isinstance(one, ast.Dict) else getattr(one, "elts", []) for one in found]
    return [
        re.escape(one.value)
        for some in listed
        for one in some
        if isinstance(one, ast.Constant) and isinstance(one.value, str)
    ]


def circles(graph: Graph) -> list[list[str]]:
    """The shortest way from every module back to itself, each circle once, the shortest first."""
    ways = [way for way in map(partial(_round, graph), sorted(graph)) if way]
    return sorted({frozenset(way): way for way in reversed(ways)}.values(), key=lambda way: (len(way), way))


def _round(graph: Graph, start: str) -> list[str]:
    came: dict[str, str] = {}
    queue = deque([start])
    while queue:
        at = queue.popleft()
        for other in sorted(set(graph.get(at, ())) - came.keys()):
            came[other] = at
            queue.append(other)
        if start in came:
            way = [start, came[start]]
            while way[-1] != start:
                way.append(came[way[-1]])
            return way[::-1]
    return []
