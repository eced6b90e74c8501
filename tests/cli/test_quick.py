"""The quick reader reads what the parser reads, and leaves it all else; no plain line needs the parser's library."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinamou.cli import quick
from tinamou.cli.app import app
from tinamou.cli.grammar import Argument, arguments
from tinamou.cli.options import MachineOptions
from tinamou.cli.verbs import GROUPS, VERBS, function_of, module_of

LINES = [
    line
    for verb in VERBS
    if verb != "completion"
    for line in ([[verb, below] for below in module_of(verb).app.verbs] if verb in GROUPS else [[verb]])
]
TEXTS = """
debian tiny a.qcow2 web 2 -d --detach --timings --warm --json --no-detach --help --name --name=a --cpus --cpus=2 --memory 2G
--disk --set cpu.model=host --net none --timeout --time-limit 3.5 1e3 -1 -- --user-data --tpm --secure-boot --pin 0-3 --what
size=1G,format=raw é auto instant -n --force -f --out -o 007
"""
WORDS = st.sampled_from([*TEXTS.split(), "", "a b"])


def _by_parser(words: list[str]) -> tuple[object, tuple[object, ...], dict[str, object]]:
    """What the parser makes of it: the function, and what it is called with; or that it refuses."""
    function, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    return function, bound.args, bound.kwargs


def _same(words: list[str]) -> bool:
    """Whether the quick reader reads the line; it reads it as the parser does."""
    asked = quick.read(words)
    if asked is not None:
        assert (asked.function, (*asked.words,), asked.options) == _by_parser(words)
    return asked is not None


@settings(deadline=None)
@given(st.sampled_from(LINES), st.lists(WORDS, max_size=6))
def test_same_as_parser(line, words):
    _same([*line, *words])


def _value(one: Argument) -> str:
    return one.choices[0] if one.choices else {int: "3", float: "2.5"}.get(one.kind, "web")


@pytest.mark.parametrize("line", LINES, ids=" ".join)
def test_every_word_and_option_is_read(line):
    """Each option alone and all of them at once, in every spelling."""
    function, _ = function_of(line)
    known = arguments(function)
    places = [one for one in known if one.place != "option"]
    taken = {option for one in places for option in one.options}
    options = [one for one in known if one.place == "option" and not taken & set(one.options)]
    assert all(one.kind for one in known)

    def spelled(one: Argument, option: str = "") -> list[str]:
        return [option or one.options[0], *([] if one.kind is bool else [_value(one)])]

    words = [_value(one) for one in places]
    words += [word for one in options if one.default is ... for word in spelled(one)]
    assert _same([*line, *words])
    for one in (one for one in options if one.default is not ...):
        assert all(_same([*line, *words, *spelled(one, option)]) for option in one.options)
        assert not one.off or _same([*line, *words, one.off]), one.off
    assert _same([*line, *words, *(word for one in options if one.default is not ... for word in spelled(one))])


@pytest.mark.parametrize(
    "words",
    """run --help
run debian tiny
run --cpus x
run --name
run --name -d
run --name a --name b
run --timeout 1 --timeout 2
run --detach=yes
run --unknown x
checkpoint web --kind odd
logs web -n -1
show
snapshot
snapshot frob
completion bash
frob""".splitlines(),
)
def test_left_to_parser(words):
    assert quick.read(words.split()) is None
    assert quick.read([]) is None


def test_plain_runs_are_read():
    words = ["run", "debian", "--cpus", "2", "--disk", "a.raw", "--disk", "b.raw", "-d", "--timeout", "2.5", "--no-wait"]
    asked = quick.read(words)
    assert (asked.function.__module__, asked.words) == ("tinamou.cli.run", ["debian"])
    machine = MachineOptions(cpus=2, disk=("a.raw", "b.raw"))
    assert asked.options == {"options": machine, "detach": True, "timeout": 2.5, "wait": False}


PLAIN = ["--version", "--help", "run --help", "ls", "ls -q", "show web", "snapshot ls web", "host", "rm", "cp a"]
HEAVY = {"dataclasses", "cyclopts", "rich", "markdown_it", "docstring_parser", "attrs", "httpx2", "pyroute2", "psutil"}


@pytest.mark.parametrize("line", PLAIN)
def test_plain_lines_load_no_library(line, state):
    code = f"""
import os, sys
sys.argv = ["tinamou", *{line.split()!r}]
os._exit = lambda status: (print("loaded:", *sorted(set(sys.modules) & {HEAVY!r})), sys.stdout.flush(), sys.exit(status))
from tinamou.cli.main import main
main()
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, cwd=Path(__file__).parent
    )
    assert done.stdout.splitlines()[-1] == "loaded:", done.stderr


def test_a_loop_loads_no_tls_and_leaves_it_to_who_wants_it():
    code = """
import sys
from tinamou.system.seldom import lean_asyncio
lean_asyncio()  # as the command does
from tinamou.cli.loop import run_until_done

async def work():
    import asyncio
    await asyncio.sleep(0)
    return sorted({"ssl", "_ssl"} & set(sys.modules))

print(run_until_done(work()))
import ssl
print(ssl.create_default_context().verify_mode)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == ["[]", "2"]
