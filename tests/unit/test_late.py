"""Dataclasses that are made when the first instance is: like those of the standard library in all that is used of them."""

import copy
import dataclasses
import re
import threading
from pathlib import Path

import pytest

from tinamou import late
from tinamou.late import dataclass


def made():
    @dataclass(frozen=True)
    class Base:
        name: str
        parts: tuple[int, ...] = dataclasses.field(default=(), metadata={"doc": "numbers"})

    @dataclass(frozen=True)
    class Upper(Base):
        size: int = 4

    return Base, Upper


def test_like_the_standard_library():
    base, upper = made()
    one = upper("a", size=5)
    assert [field.name for field in dataclasses.fields(upper)] == ["name", "parts", "size"]
    assert one == upper("a", (), 5) != base("a")
    assert hash(one) == hash(copy.copy(one))
    assert repr(one).endswith("Upper(name='a', parts=(), size=5)")
    assert dataclasses.replace(one, name="b").name == "b"
    assert dataclasses.asdict(one) == {"name": "a", "parts": (), "size": 5}
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.size = 6
    with pytest.raises(TypeError):
        upper()


def test_fields_before_there_is_an_instance():
    base, upper = made()
    assert dataclasses.is_dataclass(base)
    assert dataclasses.fields(upper)[1].metadata == {"doc": "numbers"}
    assert upper.__match_args__ == ("name", "parts", "size")


def test_nothing_is_done_before():
    base, _ = made()
    assert "__eq__" not in vars(base)
    base("a")
    assert "__eq__" in vars(base)


def test_many_threads_make_the_first():
    for _ in range(50):
        _, upper = made()
        found = []
        start = threading.Barrier(4)

        def make(upper=upper, start=start, found=found):
            start.wait()
            found.append(upper("a"))

        threads = [threading.Thread(target=make) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert found == [upper("a")] * 4


def test_no_method_is_compiled():
    """Which takes the standard library longer than everything else a short command does."""
    _, upper = made()
    upper("a")
    sources = {method.__code__.co_filename for method in vars(upper).values() if hasattr(method, "__code__")}
    assert {Path(one).name for one in sources} == {"late.py"}


@pytest.mark.parametrize(("values", "named"), [((), {}), ((1,), {"what": 2}), ((1, (), 3, 4), {}), ((1,), {"name": 2})])
def test_what_a_class_is_not_given_is_refused(values, named):
    _, upper = made()
    with pytest.raises(TypeError, match="Upper"):
        upper(*values, **named)


def test_made_defaults_are_each_ones_own():
    @dataclass()
    class Held:
        parts: list[int] = dataclasses.field(default_factory=list)

    one, other = Held(), Held()
    one.parts.append(1)
    assert (one.parts, other.parts, Held([1]) == one) == ([1], [], True)
    with pytest.raises(TypeError):
        hash(one)


def test_ordered():
    @dataclass(frozen=True, order=True)
    class Number:
        value: int

    assert sorted([Number(3), Number(1)]) == [Number(1), Number(3)]
    assert Number(1) < Number(2) >= Number(2)
    with pytest.raises(TypeError):
        _ = Number(1) < 2


def test_answers_as_the_standard_library():
    """Also of classes it made, and of such within others."""

    @dataclasses.dataclass(frozen=True)
    class Plain:
        size: int = 3

    @dataclass(frozen=True)
    class Holder:
        name: str
        inner: object
        many: tuple[object, ...] = ()
        table: dict[str, object] = late.field(default_factory=dict, metadata={"doc": "a table"})

    one = Holder("a", Plain(), (Plain(4), [5]), {"x": Plain(6)})
    for ask in ("asdict", "astuple"):
        assert getattr(late, ask)(one) == getattr(dataclasses, ask)(one)
    assert late.replace(one, name="b") == dataclasses.replace(one, name="b")
    assert late.replace(Plain(), size=4) == Plain(4)
    assert [field.name for field in late.fields(Holder)] == [field.name for field in dataclasses.fields(one)]
    assert late.fields(Holder)[3].metadata == dict(dataclasses.fields(Holder)[3].metadata) == {"doc": "a table"}
    assert late.fields(one)[3].default_factory is dict
    assert [late.is_dataclass(what) for what in (one, Holder, Plain, Plain(), "a", str)] == [True] * 4 + [False] * 2
    with pytest.raises(TypeError):
        late.fields("a")
    assert Holder("a", 1).table is not Holder("a", 1).table


def test_no_module_loads_the_standard_librarys():
    package = Path(late.__file__).parent
    wrong = [path for path in package.rglob("*.py") if re.search(r"^\s*(import|from) dataclasses\b", path.read_text(), re.M)]
    assert [path.name for path in wrong] == ["late.py"]
