"""Changes the program in one place at a time, and says which changes no test without a guest notices. Not a test itself.

usage: python tests/mutating.py [--sample N] [--seed WORD] [--like REGEX] [--reached] MODULE… -- TEST…

A MODULE is a file of src, a TEST what pytest takes. ``--like`` tries those alone whose line, as it is printed, has a match;
a sample of them is the same for the same seed. ``--reached`` leaves those out that are in functions no such test reaches.

Each change is made to a function that is loaded already, in a fork of this process, and only the tests that reach the
function run, the quickest first. A command that `typed.call` runs is a fork of it, too (`forked`); what else runs as a
process of its own sees no change; constants of modules are left alone.
"""

from __future__ import annotations

import argparse
import ast
import copy
import ctypes
import importlib
import inspect
import os
import pickle
import random
import re
import signal
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import CodeType, FrameType, FunctionType
from typing import IO, Any

import forked
import pytest

SOURCES = Path(__file__).parent.parent / "src"
SWAPS: dict[type[ast.AST], type[ast.AST]] = {
    ast.Lt: ast.LtE, ast.LtE: ast.Lt, ast.Gt: ast.GtE, ast.GtE: ast.Gt, ast.Eq: ast.NotEq, ast.NotEq: ast.Eq,
    ast.In: ast.NotIn, ast.NotIn: ast.In, ast.Is: ast.IsNot, ast.IsNot: ast.Is, ast.And: ast.Or, ast.Or: ast.And,
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.FloorDiv, ast.BitOr: ast.BitAnd, ast.BitAnd: ast.BitOr,
}  # fmt: skip
SECONDS = 120
"""A change that makes the tests take so long has been noticed."""


@dataclass(frozen=True)
class Mutant:
    """A change: of which file, function (``Class.method``) and line, what it is, and what comes where in the file's tree.

    ``where`` is the number of a node as `ast.walk` counts, the name of a field of it, and an index where that is a list.
    """

    file: Path
    function: str
    line: int
    what: str
    where: tuple[int, str, int]
    new: ast.AST

    def __str__(self) -> str:
        return f"{self.file.relative_to(SOURCES / 'tinamou')}:{self.line} {self.function}: {self.what}"


def changes(node: ast.AST) -> Iterator[tuple[str, ast.AST]]:
    """What can be put in a node's place."""
    new: Any = copy.deepcopy(node)
    if isinstance(node, ast.Compare) and type(node.ops[0]) in SWAPS:
        new.ops[0] = SWAPS[type(node.ops[0])]()
    elif isinstance(node, ast.BoolOp | ast.BinOp) and type(node.op) in SWAPS and not _is_a_type(node):
        new.op = SWAPS[type(node.op)]()
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.Not):
        new = node.operand
    elif isinstance(node, ast.If | ast.While | ast.IfExp):
        new.test = ast.UnaryOp(ast.Not(), node.test)
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool | int):
        new = ast.Constant(not node.value if isinstance(node.value, bool) else node.value + 1)
    elif isinstance(node, ast.Return) and node.value is not None and not isinstance(node.value, ast.Constant):
        new.value = ast.Constant(None)
    elif isinstance(node, ast.Expr) and isinstance(node.value, ast.Call | ast.Await):
        new = ast.Pass()
    else:
        return
    yield f"{ast.unparse(node).splitlines()[0][:60]} → {ast.unparse(new).splitlines()[0][:60]}", new


def _is_a_type(node: ast.AST) -> bool:
    """``X | None`` is a type."""
    return isinstance(node, ast.BinOp) and isinstance(node.right, ast.Constant) and node.right.value is None


def mutants(file: Path) -> Iterator[Mutant]:
    """Every change of the functions of a file."""
    tree = ast.parse(file.read_text())
    numbers = {id(node): number for number, node in enumerate(ast.walk(tree))}
    for function, top in functions(tree):
        for parent in ast.walk(top):
            for field, value in ast.iter_fields(parent):
                if field in ("annotation", "returns", "decorator_list") or isinstance(parent, ast.arguments):
                    continue
                for index, node in enumerate(value if isinstance(value, list) else [value]):
                    for what, new in changes(node) if isinstance(node, ast.AST) else ():
                        yield Mutant(file, function, node.lineno, what, (numbers[id(parent)], field, index), new)


def changed(mutant: Mutant) -> CodeType:
    """The code of the mutant's function."""
    tree = ast.parse(mutant.file.read_text())
    number, field, index = mutant.where
    there = list(ast.walk(tree))[number]
    if isinstance(getattr(there, field), list):
        getattr(there, field)[index] = mutant.new
    else:
        setattr(there, field, mutant.new)
    return code_in(compile(ast.fix_missing_locations(tree), str(mutant.file), "exec"), mutant.function.split("."))


def functions(tree: ast.Module) -> Iterator[tuple[str, ast.AST]]:
    """The functions of a module and the methods of its classes."""
    for one in tree.body:
        if isinstance(one, ast.FunctionDef | ast.AsyncFunctionDef):
            yield one.name, one
        elif isinstance(one, ast.ClassDef):
            inner = (ast.FunctionDef, ast.AsyncFunctionDef)
            yield from ((f"{one.name}.{method.name}", method) for method in one.body if isinstance(method, inner))


def loaded(mutant: Mutant) -> FunctionType:
    """The function as it is in this process, below what wraps it."""
    name = ".".join(mutant.file.relative_to(SOURCES).with_suffix("").parts).removesuffix(".__init__")
    found: Any = importlib.import_module(name)
    for word in mutant.function.split("."):
        found = inspect.getattr_static(found, word)
    found = getattr(found, "fget", None) or getattr(found, "__func__", None) or found
    return inspect.unwrap(found)


def code_in(code: CodeType, names: list[str]) -> CodeType:
    """The code of a function within a module's."""
    for name in names:
        code = next(one for one in code.co_consts if isinstance(one, CodeType) and one.co_name == name)
    return code


class Reached:
    """A plugin of pytest: which tests that pass call which functions of the package, by file and name; how long each takes.

    Every thread counts, and so do fixtures and forked commands.
    """

    def __init__(self, names: IO[bytes]) -> None:
        self.names = names
        """A file, not buffered, that forked commands append what they call to."""
        self.tests: dict[tuple[str, str], list[str]] = {}
        self.seconds: dict[str, float] = {}
        self.seen: set[tuple[str, str]] = set()

    def called(self, frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_code.co_filename.startswith(str(SOURCES)):
            self.seen.add((frame.f_code.co_filename, frame.f_code.co_qualname.split(".<locals>")[0]))

    def tell(self) -> None:
        """What a forked command has called, as it ends."""
        sys.setprofile(None)
        self.names.write("".join(f"{file}\t{name}\n" for file, name in set(self.seen)).encode())

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self) -> Iterator[None]:
        self.seen.clear()
        self.names.truncate(0)
        return (yield)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] = self.seconds.get(report.nodeid, 0) + report.duration
        if report.when == "call" and report.passed:
            self.names.seek(0)
            of_forks = (line.partition("\t") for line in self.names.read().decode().splitlines())
            for one in self.seen | {(file, name) for file, _, name in of_forks}:
                self.tests.setdefault(one, []).append(report.nodeid)


def reached(words: list[str]) -> Reached:
    """What the tests reach, found in a fork: this process has no threads and remembers nothing of them."""
    with tempfile.TemporaryFile() as answer, tempfile.TemporaryFile("ab+", buffering=0) as names:
        if not (pid := os.fork()):
            found = Reached(names)
            forked.at_end.append(found.tell)
            threading.setprofile(found.called)
            sys.setprofile(found.called)
            pytest.main(["-q", "-p", "no:cacheprovider", *words], plugins=[found])
            sys.setprofile(None)
            pickle.dump((found.tests, found.seconds), answer)
            answer.flush()
            os._exit(0)
        if waited(pid, 7200):
            raise SystemExit("no table of what the tests reach: their process ended before it was written")
        answer.seek(0)
        found = Reached(names)
        found.tests, found.seconds = pickle.load(answer)
        for tests in found.tests.values():
            tests.sort(key=lambda one: found.seconds[one])
        return found


def survives(mutant: Mutant | None, tests: list[str]) -> bool:
    """Whether all those tests pass with the change; what they leave running is ended."""
    pid = os.fork()
    if not pid:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        os.dup2(1, 2)
        if mutant:
            loaded(mutant).__code__ = changed(mutant)
        os._exit(int(pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests])))
    if (status := waited(pid, SECONDS)) is None:
        os.killpg(pid, signal.SIGKILL)
        waited(pid, SECONDS)
    end_children()
    return status == 0


def waited(pid: int, seconds: float) -> int | None:
    """How a child ended; None: not yet. Others that are this process' children by then are buried as they end (`load`)."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        one, status = os.waitpid(-1, os.WNOHANG)
        if one == pid:
            return status
        if not one:
            time.sleep(0.02)
    return None


def end_children() -> None:
    """End what the tests have left running, whose parent is this process then (`load`)."""
    while left := Path("/proc/thread-self/children").read_text().split():
        for one in left:
            os.kill(int(one), signal.SIGKILL)
            os.waitpid(int(one), 0)


def load(tests: list[str]) -> None:
    """Have this process ready for forks: the tests loaded, and the parent of what those below it leave running."""
    ctypes.CDLL(None).prctl(36, 1, 0, 0, 0)  # PR_SET_CHILD_SUBREAPER
    forked.instead()
    pytest.main(["--collect-only", "-qq", "-p", "no:cacheprovider", *tests])


def main() -> None:
    words = argparse.ArgumentParser(usage=__doc__)
    words.add_argument("--sample", type=int, default=0)
    words.add_argument("--seed", default="1")
    words.add_argument("--like", default="")
    words.add_argument("--reached", action="store_true")
    words.add_argument("files", nargs="+", type=Path)
    between = sys.argv.index("--")
    asked, tests = words.parse_args(sys.argv[1:between]), sys.argv[between + 1 :]
    load(tests)
    tests_of = reached(tests).tests
    every = [one for file in asked.files for one in mutants(file.resolve())]
    every = [one for one in every if re.search(asked.like, str(one))]
    if asked.reached:
        every = [one for one in every if (str(one.file), one.function) in tests_of]
    if asked.sample:
        every = sorted(random.Random(asked.seed).sample(every, min(asked.sample, len(every))), key=str)
    survivors = unreached = 0
    for mutant in every:
        found = tests_of.get((str(mutant.file), mutant.function), [])
        alive = bool(found) and survives(mutant, found)
        survivors, unreached = survivors + alive, unreached + (not found)
        if alive or not found:
            print("survived" if alive else "unreached", mutant, flush=True)
    print(f"{len(every)} changes, {unreached} in functions no such test reaches, {survivors} survived of the others")


if __name__ == "__main__":
    main()
