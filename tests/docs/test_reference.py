"""The reference says what the source says: fields, verbs, exit codes, variables, markers."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tinamou import errors
from tinamou.cli.app import app
from tinamou.cli.verbs import VERBS

ROOT = Path(__file__).parent.parent.parent
REFERENCE = ROOT / "docs/reference"


def test_generated_pages_are_up_to_date():
    """Wherever and by whomever they are made."""
    argv = [sys.executable, ROOT / "script/reference", "--check"]
    environment = {**os.environ, "NOBODY": "knows"}
    done = subprocess.run(argv, capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr


def test_check_notices_a_stale_page(tmp_path):
    """The generator, in a copy of the checkout in which one page is changed."""
    for folder in ("src", ".venv"):
        (tmp_path / folder).symlink_to(ROOT / folder)
    for folder in ("script", "docs/reference"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    generate = [sys.executable, tmp_path / "script/reference"]
    subprocess.run(generate, check=True)
    assert subprocess.run([*generate, "--check"], check=False).returncode == 0
    page = tmp_path / "docs/reference/spec.md"
    page.write_text(page.read_text().replace("\n| `count` |", "\n| `cuont` |"))
    done = subprocess.run([*generate, "--check"], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.split()[-1:] == ["docs/reference/spec.md"]


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_exists(verb):
    assert app[verb].help


@pytest.mark.parametrize("name", errors.__all__)
def test_exit_codes(name):
    error = getattr(errors, name)
    if isinstance(error, type) and issubclass(error, errors.TinamouError):
        assert re.search(rf"^\| {error.code} \|.*`{name}` \|$", (REFERENCE / "exit-codes.md").read_text(), re.M)


def test_variables():
    """Every TINAMOU_… variable that is read is in the reference, and the other way round."""
    sources = [*ROOT.glob("src/**/*.py"), *(p for p in ROOT.glob("script/*") if p.is_file()), ROOT / "tests/conftest.py"]
    sources.append(ROOT / "tests/host_trees.py")
    sources.remove(ROOT / "src/tinamou/service/journal.py")  # its TINAMOU_… are fields of the journal
    used = {name for path in sources for name in re.findall(r"TINAMOU_[A-Z0-9_]+", path.read_text())}
    documented = set(re.findall(r"^\| `(TINAMOU_[A-Z0-9_]+)`", (REFERENCE / "environment.md").read_text(), re.M))
    assert used <= documented
    in_tests = {name for path in ROOT.glob("tests/**/*.py") for name in re.findall(r"TINAMOU_[A-Z0-9_]+", path.read_text())}
    assert documented <= used | in_tests


def test_markers():
    listed = re.findall(r'^  "(\w+): ', (ROOT / "pyproject.toml").read_text(), re.M)
    documented = re.findall(r"^\| `(\w+)` \|", (ROOT / "CONTRIBUTING.md").read_text(), re.M)
    assert set(documented) == set(listed)


def test_glossary_is_in_order():
    rows = re.findall(r"^\| ([^|]+) \| ([^|]+) \| ([^|]*)\|$", (REFERENCE / "glossary.md").read_text(), re.M)[1:]
    terms = [term for term, _, _ in rows]
    assert len(terms) > 40
    assert terms == sorted(set(terms), key=str.lower)
    assert [term for term, meaning, _ in rows if not meaning.endswith((".", ")."))] == []
