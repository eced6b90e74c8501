"""The command behind script/bench: finds the tables, measures them one after the other, prints them."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import pkgutil
import sys
import tempfile
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path

import bench
from bench.framework import Result, Table, measure
from bench.report import as_json, as_text

Tables = Callable[[ExitStack, Path], list[Table]]


def tables() -> dict[str, Tables]:
    """The modules of this package that have a function ``tables(stack, scratch)``, by name.

    It sets up what its ways need, registers on the stack how that is taken away, and may use the folder ``scratch``.
    """
    found: dict[str, Tables] = {}
    for module in pkgutil.iter_modules(bench.__path__):
        if not module.name.startswith("_"):
            function = getattr(importlib.import_module(f"bench.{module.name}"), "tables", None)
            if function is not None:
                found[module.name] = function
    return found


def main() -> int:
    """Measure what was asked for; the status is 1 when a way failed in every round."""
    known = tables()
    parser = argparse.ArgumentParser(prog="script/bench", description="Tinamou and its peers side by side.")
    parser.add_argument("names", nargs="*", metavar="TABLE", help=f"of: {', '.join(known)} (without: all)")
    parser.add_argument("--rounds", type=int, default=10, help="how often every way has its turn (10)")
    parser.add_argument("--seconds", type=float, default=600.0, help="begin no round that would end later (600)")
    parser.add_argument("--only", default="", metavar="WORDS", help="only ways whose name has one of these, by commas")
    parser.add_argument("--json", action="store_true", help="print JSON, every sample included")
    given = parser.parse_args()
    unknown = [name for name in given.names if name not in known]
    if unknown:
        parser.error(f"no table {', '.join(unknown)}; there are: {', '.join(known)}")
    results = [result for name in given.names or known for result in _measured(known[name], given)]
    print(json.dumps([as_json(result) for result in results], indent=1) if given.json else "", end="")
    return int(any(len(reasons) >= result.rounds for result in results for reasons in result.failures.values()))


def _measured(function: Tables, given: argparse.Namespace) -> list[Result]:
    results = []
    with ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tb", dir="/tmp")))
        scratch.chmod(0o755)
        os.environ["TINAMOU_STATE"] = str(scratch / "state")
        for table in function(stack, scratch):
            words = [word for word in given.only.split(",") if word]
            chosen = replace(table, ways=[w for w in table.ways if not words or any(word in w.name for word in words)])
            if not chosen.ways:
                continue
            results.append(measure(chosen, rounds=given.rounds, seconds=given.seconds, said=_progress))
            _progress("")
            if not given.json:
                print(as_text(results[-1]), end="\n\n", flush=True)
    return results


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{text}", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
