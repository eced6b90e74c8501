"""No module of the package imports itself by a way round, not even late, inside a function or by a name in a string."""

from __future__ import annotations

from pathlib import Path

import pytest
from import_graph import UnseenImportError, circles, read_graph

PACKAGE = Path(__file__).parent.parent / "src/tinamou"


def test_no_circle():
    assert [" -> ".join(circle) for circle in circles(read_graph(PACKAGE))] == []


def _made(folder: Path, **modules: str) -> Path:
    package = folder / "made"
    for name, text in {"": "", **modules}.items():
        path = package.joinpath(*filter(None, name.split("__")))
        if any(other.startswith(f"{name}__") for other in modules) or not name:
            path /= "__init__"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.with_suffix(".py").write_text(text)
    return package


BACK = "import made.a"
CLOSED = {
    "at the top": ("from made import b", BACK),
    "in a function": ("from made import b", "def f():\n    from made.a import x"),
    "by a string": ("from made import b", "import_module('made.a')"),
    "by a string with a gap": ("from made import b", "def f(x):\n    importlib.import_module(f'made.{x}')"),
    "by a table": ("from made import b", "T = {'x': 'made.a'}\nimport_module(T[what])"),
    "by a loop over names": ("from made import b", "T = ('a',)\n[import_module(f'made.{x}') for x in T]"),
    "by an entry point": ("T = {'b': 'help'}\nfor x, _ in T.items():\n    command(f'made.{x}:run')", BACK),
    "where types are not meant": ("if TYPE_CHECKING: pass\nelse: import made.b", BACK),
}


@pytest.mark.parametrize("how", CLOSED)
def test_circle_is_found(tmp_path, how):
    a, b = CLOSED[how]
    assert circles(read_graph(_made(tmp_path, a=a, b=b))) == [["made.a", "made.b", "made.a"]]


OPEN = {
    "for types": ("from made import b", f"if TYPE_CHECKING:\n    {BACK}"),
    "a command line": ("words = ['-m', 'made.b']", BACK),
    "a text": ("print(f'made {x}: made.b')", BACK),
    "a loop over other names": ("T = ('c',)\n[import_module(f'made.{x}') for x in T]", BACK),
}


@pytest.mark.parametrize("how", OPEN)
def test_no_circle_is_made_up(tmp_path, how):
    a, b = OPEN[how]
    assert circles(read_graph(_made(tmp_path, a=a, b=b, c=""))) == []


def test_circle_through_a_package(tmp_path):
    """A module that wants a neighbour's module runs the neighbouring package first, and all that imports."""
    made = _made(
        tmp_path, a="from made.inner.leaf import x", inner="from made.inner import user", inner__user=BACK, inner__leaf=""
    )
    assert circles(read_graph(made)) == [["made.a", "made.inner", "made.inner.user", "made.a"]]


def test_shortest_circle_is_shown_first(tmp_path):
    made = _made(tmp_path, a="import made.b", b="import made.c", c="import made.a, made.d", d="import made.c")
    assert circles(read_graph(made)) == [["made.c", "made.d", "made.c"], ["made.a", "made.b", "made.c", "made.a"]]


@pytest.mark.parametrize("text", ["import_module(name)", "__import__(f'{a}.{b}')", "import_module(1)", "from . import b"])
def test_unseen_import_is_refused(tmp_path, text):
    with pytest.raises(UnseenImportError, match=r"made\.a:1: "):
        read_graph(_made(tmp_path, a=text, b=""))
