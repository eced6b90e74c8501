"""Every example in README, CONTRIBUTING and docs/ is run; the runner itself refuses what it must."""

from __future__ import annotations

from pathlib import Path

import examples
import pytest
from examples import Block, ExampleError

ROOT = Path(__file__).parent.parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])


def _parameters():
    for page in PAGES:
        name = str(page.relative_to(ROOT))
        try:
            chains = list(examples.examples(name, page.read_text()))
        except ExampleError as error:
            yield pytest.param(error, id=f"{name}:unreadable")
            continue
        for chain in chains:
            marks = [getattr(pytest.mark, word) for word in ("vm", "slow", "root") if any(word in b.words for b in chain)]
            if reason := next((block.skip for block in chain if block.skip), None):
                marks.append(pytest.mark.skip(reason=reason))
            yield pytest.param(chain, id=f"{name}:{chain[0].line}", marks=marks)


@pytest.mark.parametrize("chain", list(_parameters()))
def test_example(chain, tmp_path):
    if isinstance(chain, ExampleError):
        raise chain
    for name, text in examples.files(chain[0].page, (ROOT / chain[0].page).read_text()).items():
        (tmp_path / name).write_text(text)
    for block in chain:
        examples.run(block, tmp_path)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page):
    """A relative link leads to a file that exists."""
    import re

    text = page.read_text()
    targets = re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", text)
    missing = [t for t in targets if "://" not in t and not t.startswith("mailto:") and not (page.parent / t).exists()]
    assert missing == []


def _block(language: str, text: str, *words: str) -> Block:
    return Block("page.md", 1, language, frozenset(words), text)


@pytest.mark.parametrize(
    "block",
    [
        _block("console", "$ echo one\ntwo\n"),
        _block("console", "$ printf 'one\\ntwo\\n'\none\n"),
        _block("console", "$ false\n"),
        _block("console", "$ exit 3\n$ echo later\n"),
        _block("console", "no dollar\n"),
        _block("python", "assert 1 == 2\n"),
        _block("json", "{'a': 1}\n"),
        _block("toml", "a = \n", "data"),
    ],
)
def test_refused(block, tmp_path):
    with pytest.raises((ExampleError, ValueError)):
        examples.run(block, tmp_path)


@pytest.mark.parametrize(
    "block",
    [
        _block("console", "$ echo one\none\n$ echo two; echo three\ntwo\nthree\n"),
        _block("console", "$ printf 'a\\nb\\nc 12 d\\n'\na\n…\nc … d\n"),
        _block("console", "$ false\n$ echo $?\n1\n"),
        _block("console", "$ cd /\n$ pwd\n/\n"),
        _block("console", "$ echo one \\\n> two\none two\n"),
        _block("console", "$ echo anything\n"),
        _block("python", "print(1)\n"),
        _block("toml", "a = 1\n", "data"),
        _block("text", "anything\n"),
    ],
)
def test_allowed(block, tmp_path):
    examples.run(block, tmp_path)


@pytest.mark.parametrize("info", ["", "bash", "sh", "console vms", "python run"])
def test_block_that_does_not_say_how_it_is_run(info):
    with pytest.raises(ExampleError, match=r"page\.md:2"):
        list(examples.blocks("page.md", f"text\n```{info}\n$ true\n```\n"))


def test_what_continues_an_example_that_is_not_run():
    with pytest.raises(ExampleError, match=r"p\.md:4.*no card"):
        list(examples.examples("p.md", "```console skip: no card\n$ a\n```\n```console continues\n$ b\n```\n"))


def test_reading():
    table = "```toml data file=a.toml\nx = 1\n```\n"
    item = "1. list\n   ```console vm\n   $ a\n   ```\n   ```console continues skip: no card\n   $ b\n   ```\n"
    page = f"\n{table}{item}"
    first, second = examples.examples("p.md", page)
    assert (first[0].file, first[0].text, first[0].line) == ("a.toml", "x = 1\n", 2)
    assert [b.text for b in second] == ["$ a\n", "$ b\n"]
    assert second[0].words == {"vm"}
    assert second[1].skip == "no card"
    assert examples.files("p.md", page) == {"a.toml": "x = 1\n"}
