"""A ``dataclass`` decorator that does its work when a class gets its first instance: in one command most never do.

The standard library compiles six methods for each class, a third of a millisecond and most of all that starting tinamou
took. Here the fields are its own, so that ``fields``, ``replace``, ``asdict`` and subclasses work as ever, and the methods
are functions over them. ``slots`` are left out: they would need another class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    import operator
    from _thread import RLock

    _LOCK = RLock()

    def dataclass(*, frozen=False, order=False):
        """The decorator; its options are those of `dataclasses.dataclass`."""

        def later(cls):
            def complete():
                with _LOCK:
                    if isinstance(cls.__dict__["__dataclass_fields__"], _Fields):
                        _complete(cls, frozen, order)

            def first(self, *values, **named):
                complete()
                cls.__init__(self, *values, **named)

            cls.__init__ = first
            cls.__dataclass_fields__ = _Fields(complete)
            return cls

        return later

    class _Fields:
        """Stands where a dataclass keeps its fields until somebody asks for them."""

        def __init__(self, complete):
            self.complete = complete

        def __get__(self, instance, owner):
            self.complete()
            return owner.__dataclass_fields__

    def _complete(cls, frozen, order):
        """Fields as the standard library makes them, at once; ``__init__`` last: who calls it sooner waits for the lock."""
        import dataclasses

        dataclasses.dataclass(init=False, repr=False, eq=False)(cls)
        fields = [one for one in cls.__dataclass_fields__.values() if one._field_type is dataclasses._FIELD]
        methods = {"__repr__": _repr(fields), **_compared(fields, frozen, order)}
        if frozen:
            methods |= _frozen(cls, fields, dataclasses.FrozenInstanceError)
        for name, method in methods.items():
            if name not in cls.__dict__ or (name == "__hash__" and cls.__hash__ is None):
                setattr(cls, name, method)
        cls.__init__ = _init(cls, fields, dataclasses.MISSING)

    def _init(cls, fields, missing):
        names = tuple(one.name for one in fields)
        known = frozenset(names)
        plain = {one.name: one.default for one in fields if one.default is not missing}
        made = [(one.name, one.default_factory) for one in fields if one.default_factory is not missing]
        after = hasattr(cls, "__post_init__")

        def init(self, *values, **named):
            state = self.__dict__
            state.update(plain)
            if values:
                given = dict(zip(names, values, strict=False))
                if len(given) < len(values) or given.keys() & named.keys():
                    raise TypeError(
                        f"{cls.__name__}() takes {', '.join(names)}, each once: {len(values)} were given and {[*named]}"
                    )
                named |= given
            state.update(named)
            for name, factory in made:
                if name not in named:
                    state[name] = factory()
            if not known.issuperset(named):
                raise TypeError(f"{cls.__name__}() got an unexpected keyword argument {sorted(named.keys() - known)[0]!r}")
            if len(state) < len(names):
                raise TypeError(f"{cls.__name__}() is missing {', '.join(one for one in names if one not in state)}")
            if after:
                self.__post_init__()

        return init

    def _repr(fields):
        def shown(self):
            said = ", ".join(f"{one.name}={getattr(self, one.name)!r}" for one in fields if one.repr)
            return f"{type(self).__qualname__}({said})"

        return shown

    def _compared(fields, frozen, order):
        names = [one.name for one in fields if one.compare]
        values = operator.attrgetter(*names) if names else lambda _: ()

        def by(compare):
            return lambda self, other: (
                compare(values(self), values(other)) if other.__class__ is self.__class__ else NotImplemented
            )

        def hashed(self):
            return hash(values(self))

        ordered = (
            {f"__{one.__name__}__": by(one) for one in (operator.lt, operator.le, operator.gt, operator.ge)} if order else {}
        )
        return {"__eq__": by(operator.eq), "__hash__": hashed if frozen else None, **ordered}

    def _frozen(cls, fields, refusal):
        names = frozenset(one.name for one in fields)

        def assign(self, name, value):
            if type(self) is cls or name in names:
                raise refusal(f"cannot assign to field {name!r}")
            super(cls, self).__setattr__(name, value)

        def delete(self, name):
            if type(self) is cls or name in names:
                raise refusal(f"cannot delete field {name!r}")
            super(cls, self).__delattr__(name)

        return {"__setattr__": assign, "__delattr__": delete}
