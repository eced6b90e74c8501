"""Dataclasses that are made when the first instance is: like those of the standard library in all that is used of them."""

import copy
import dataclasses
import threading

import pytest

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
