"""TOML of others: no key takes for ever to read, and what is no such key is read as it is."""

import time

import pytest

from tinamou.system.toml import toml_of

LONG = ".".join(["a"] * 200_000)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(
    "text", [f"[{LONG}]", f"[[{LONG}]]", f"x = 1\n  {LONG} = 1", ' "a" . ' * 100_000 + "b = 1", "[" + "'a'\t.\t" * 99 + "b]"]
)
def test_keys_of_many_parts(text):
    started = time.process_time()
    with pytest.raises(ValueError, match=r"a key of more than 32 parts \(at line \d\)"):
        toml_of(text)
    print(time.process_time() - started)


def test_texts_of_many_escapes():
    with pytest.raises(ValueError, match="more than 100000 escapes"):
        toml_of('x = "' + "\\n" * 500_000 + '"')
    assert toml_of("x = '" + "\\" * 9999 + "'")


@pytest.mark.timeout(20)
def test_the_square_of_what_is_let_through_is_small():
    key = ".".join(["a"] * 31)
    lines = "".join(f"[{key}.b{number}]\n" for number in range(12_000))
    assert toml_of(lines)["a"]


def test_what_is_no_key():
    text = f'x = """\n{LONG}\n{"." * 999} = 1\n# {LONG}\n{"10.0.0.1 " * 99}"""\ny = "{LONG}" # {LONG}\n[a.b]\nc.d = 1'
    with pytest.raises(ValueError, match="32 parts"):
        toml_of(text)  # a line of a text that looks like one is taken for one
    assert toml_of(text.replace(f'"""\n{LONG}\n', '"""\n'))["a"] == {"b": {"c": {"d": 1}}}
