"""Reads the examples out of Markdown and runs them: what a page shows is what happens.

A fenced block's first word is its language, the words after it say how it is run:

- ``console``: each ``$ `` line is run by one bash in an empty directory (``> `` continues it), the lines below it are what
  it prints on stdout; ``…`` alone on a line stands for any number of lines, within a line for any text. A command must
  succeed unless ``$ echo $?`` follows it.
- ``python`` is run, ``toml`` is loaded as a machine (``toml data`` only parsed), ``json`` is parsed, ``text`` only shown.
- ``file=NAME`` puts the block into the directory of every example of the page.
- ``continues`` runs a block after the one before it, in the same directory and on the same machines.
- ``vm``, ``slow``, ``root``: as the markers of the tests.
- ``skip: why`` (to the end of the line): not run, and listed with the reason.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

LANGUAGES = {"console", "python", "toml", "json", "text"}
WORDS = {"vm", "slow", "root", "continues", "data"}
FENCE = re.compile(r"^(?P<indent> *)(?P<fence>`{3,})(?P<info>[^`\n]*)\n(?P<body>.*?)^(?P=indent)(?P=fence) *$", re.M | re.S)


class ExampleError(AssertionError):
    """A page shows something else than what happens, or a block says nothing about how to run it."""


@dataclass(frozen=True)
class Block:
    """One fenced block: the page, the line of its fence, the language, the words after it, the text."""

    page: str
    line: int
    language: str
    words: frozenset[str]
    text: str
    file: str = ""
    skip: str = ""


def blocks(page: str, markdown: str) -> Iterator[Block]:
    for match in FENCE.finditer(markdown):
        line = markdown.count("\n", 0, match.start()) + 1
        info, _, skip = match["info"].strip().partition("skip:")
        language, *words = info.split() or [""]
        indent = len(match["indent"])
        text = "".join(row[indent:] if row.strip() else row for row in match["body"].splitlines(keepends=True))
        block = Block(page, line, language, frozenset(words), text, skip=skip.strip())
        yield _with_file(block)


def _with_file(block: Block) -> Block:
    names = [word.removeprefix("file=") for word in block.words if word.startswith("file=")]
    block = replace(block, file="".join(names), words=frozenset(w for w in block.words if not w.startswith("file=")))
    where = f"{block.page}:{block.line}"
    if block.language not in LANGUAGES:
        raise ExampleError(f"{where}: the language of a block is one of {sorted(LANGUAGES)}, not {block.language!r}")
    if unknown := block.words - WORDS:
        raise ExampleError(f"{where}: unknown words {sorted(unknown)}; there are {sorted(WORDS)}, file=… and skip: …")
    return block


def examples(page: str, markdown: str) -> Iterator[tuple[Block, ...]]:
    """The blocks of a page that stand alone, each with those that continue it."""
    chain: list[Block] = []
    for block in blocks(page, markdown):
        if "continues" not in block.words and chain:
            yield tuple(chain)
            chain = []
        if chain and chain[0].skip and not block.skip:
            raise ExampleError(f"{page}:{block.line}: it continues an example that is not run: {chain[0].skip}")
        chain.append(block)
    if chain:
        yield tuple(chain)


def files(page: str, markdown: str) -> dict[str, str]:
    return {block.file: block.text for block in blocks(page, markdown) if block.file}


def run(block: Block, cwd: Path) -> None:
    """Raises ExampleError where the block shows something else than what happens."""
    environment = {**os.environ, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}", "COLUMNS": "120"}
    if block.language == "console":
        _run_console(block, cwd, environment)
    elif block.language == "python":
        done = subprocess.run(
            [sys.executable, "-c", block.text], cwd=cwd, env=environment, capture_output=True, text=True, check=False
        )
        if done.returncode != 0:
            raise ExampleError(f"{block.page}:{block.line}: status {done.returncode}\n{done.stdout}{done.stderr}")
    elif block.language == "json":
        json.loads(block.text)
    elif block.language == "toml":
        data = tomllib.loads(block.text)
        if "data" not in block.words:
            from tinamou.spec import load_spec

            load_spec(data)


def commands(block: Block) -> list[tuple[str, list[str]]]:
    """Each command of a console block, with the lines expected of it."""
    found: list[tuple[str, list[str]]] = []
    for line in block.text.splitlines():
        if line.startswith("$ "):
            found.append((line[2:], []))
        elif line.startswith("> ") and found and not found[-1][1]:
            found[-1] = (f"{found[-1][0]}\n{line[2:]}", [])
        elif found:
            found[-1][1].append(line)
        elif line.strip():
            raise ExampleError(f"{block.page}:{block.line}: a console block opens with a line that starts with '$ '")
    return found


def _run_console(block: Block, cwd: Path, environment: Mapping[str, str]) -> None:
    shown = commands(block)
    mark = "\x1e"
    # The mark carries the status along; `(exit …)` gives it back to an `echo $?` that follows.
    script = "".join(f"{command}\nstatus=$?; printf '{mark}%s{mark}' $status; (exit $status)\n" for command, _ in shown)
    done = subprocess.run(
        ["bash", "-c", script],
        stdin=subprocess.DEVNULL,
        cwd=cwd,
        env=environment,
        capture_output=True,
        encoding="utf-8",
        errors="replace",
        check=False,
    )
    pieces = done.stdout.split(mark)
    for number, (command, expected) in enumerate(shown):
        where = f"{block.page}:{block.line}: $ {command}"
        if 2 * number + 1 >= len(pieces):
            raise ExampleError(f"{where}\nthe shell ended before it\n{done.stderr}")
        printed, status = pieces[2 * number], pieces[2 * number + 1]
        asked = number + 1 < len(shown) and shown[number + 1][0].strip() == "echo $?"
        if status != "0" and not asked:
            raise ExampleError(f"{where}\nended with status {status}\n{printed}{done.stderr}")
        if not matches(expected, printed.splitlines()):
            raise ExampleError(f"{where}\nshown:\n{chr(10).join(expected)}\nprinted:\n{printed}{done.stderr}")


def matches(expected: list[str], printed: list[str]) -> bool:
    """Whether the lines shown stand for the lines printed; nothing shown stands for anything."""
    wanted = [line.rstrip() for line in expected if line.strip()]
    if not wanted:
        return True
    pattern = "".join(
        r"(?:.*\n)*?" if line.strip() == "…" else ".*?".join(map(re.escape, line.split("…"))) + r" *\n" for line in wanted
    )
    return re.fullmatch(pattern, "".join(f"{line.rstrip()}\n" for line in printed if line.strip())) is not None
