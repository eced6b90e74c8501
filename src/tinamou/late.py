"""Dataclasses that are made when the first instance is, and without the standard library's module: most never are.

The standard library compiles six methods for each class, a third of a millisecond and most of all that starting tinamou
took, and loads the module that reads Python's source. Here the methods are functions over the fields, and what is asked of
the fields is answered here. Who asks the standard library (``dataclasses.fields``, a subclass) finds a dataclass as ever.
``slots`` are left out: they would need another class.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

__all__ = ["MISSING", "Field", "asdict", "astuple", "dataclass", "field", "fields", "is_dataclass", "replace"]

if TYPE_CHECKING:
    from dataclasses import MISSING, Field, asdict, astuple, dataclass, field, fields, is_dataclass, replace
else:
    import operator
    from _thread import RLock

    _LOCK = RLock()
    MISSING = object()

    class Field:
        """One field: its name and kind, its default or what makes one, and what else is said of it."""

        def __init__(self, default=MISSING, default_factory=MISSING, metadata=None):
            self.default, self.default_factory, self.metadata = default, default_factory, metadata or {}
            self.name = self.type = ""

    def field(*, default=MISSING, default_factory=MISSING, metadata=None):
        """As `dataclasses.field`."""
        return Field(default, default_factory, metadata)

    def dataclass(cls=None, /, *, frozen=False, order=False):
        """The decorator; its options are those of `dataclasses.dataclass`."""

        def later(cls):
            def first(self, *values, **named):
                _fields_of(cls)
                cls.__init__(self, *values, **named)

            cls.__init__ = first
            cls.__late__ = _Waiting(frozen, order)
            cls.__frozen__ = frozen
            cls.__dataclass_fields__ = _Standard()
            return cls

        return later if cls is None else later(cls)

    class _Waiting:
        """Stands where the fields of a class will be."""

        def __init__(self, frozen, order):
            self.frozen, self.order = frozen, order

    def _fields_of(cls):
        """Name → field of a class, which has its methods from now on; nothing for one that is no dataclass."""
        if (known := cls.__dict__.get("__late__")).__class__ is dict:
            return known
        home = next((one for one in cls.__mro__ if "__late__" in one.__dict__), None)
        if home is None:
            return _foreign(cls)
        if isinstance(home.__dict__["__late__"], _Waiting):
            with _LOCK:
                waiting = home.__dict__["__late__"]
                if isinstance(waiting, _Waiting):
                    _complete(home, waiting.frozen, waiting.order)
        return home.__dict__["__late__"]

    def _foreign(cls):
        """The same of a class that the standard library made."""
        found = {}
        for name, one in getattr(cls, "__dataclass_fields__", {}).items():
            found[name] = _from_standard(one)
            found[name].name, found[name].type = name, one.type
        return found

    def _from_standard(one):
        import dataclasses

        values = (one.default, one.default_factory)
        return Field(*(MISSING if value is dataclasses.MISSING else value for value in values), one.metadata)

    def _complete(cls, frozen, order):
        """``__init__`` and the fields come last: who wants them sooner waits for the lock."""
        every = {}
        for base in cls.__mro__[:0:-1]:
            if {"__late__", "__dataclass_fields__"} & base.__dict__.keys():
                every |= _fields_of(base)
        for name, kind in cls.__annotations__.items():
            if "ClassVar" not in str(kind):
                every[name] = _own(cls, name)
                every[name].name, every[name].type = name, kind
        names = tuple(every)
        methods = {"__repr__": _repr(names), "__match_args__": names, **_compared(names, frozen, order)}
        if frozen:
            methods |= _frozen(cls, frozenset(names))
        for name, method in methods.items():
            if name not in cls.__dict__ or (name == "__hash__" and cls.__hash__ is None):
                setattr(cls, name, method)
        cls.__init__ = _init(cls, every)
        cls.__late__ = every

    def _own(cls, name):
        """The field of that name, whose default the class has from now on as any attribute."""
        given = cls.__dict__.get(name, MISSING)
        if not isinstance(given, Field) and type(given).__module__ == "dataclasses":
            given = _from_standard(given)
        elif not isinstance(given, Field):
            return Field(given)
        if given.default is MISSING:
            delattr(cls, name)
        else:
            setattr(cls, name, given.default)
        return given

    class _Standard:
        """Stands where the standard library looks for the fields: it makes its own then, and finds the methods there."""

        def __get__(self, instance, owner):
            import dataclasses

            with _LOCK:
                home = next(one for one in owner.__mro__ if "__dataclass_fields__" in one.__dict__)
                if home.__dict__["__dataclass_fields__"] is self:
                    every = _fields_of(home)
                    for name in home.__annotations__.keys() & every.keys():
                        if every[name].default_factory is not MISSING or every[name].metadata:
                            setattr(home, name, dataclasses.field(**_said(every[name])))
                    dataclasses.dataclass(init=False, repr=False, eq=False)(home)
            return owner.__dataclass_fields__

    def _said(one):
        said = {"default": one.default, "default_factory": one.default_factory}
        return {"metadata": one.metadata, **{key: value for key, value in said.items() if value is not MISSING}}

    def _init(cls, every):
        names = tuple(every)
        known = frozenset(names)
        plain = {one.name: one.default for one in every.values() if one.default is not MISSING}
        factories = {one.name: one.default_factory for one in every.values() if one.default_factory is not MISSING}
        waiting = {name for name, factory in factories.items() if _unchanging(factory)}
        """Defaults that nobody can change, until they are made: once, for all."""
        own = [(name, factory) for name, factory in factories.items() if name not in waiting]
        after = hasattr(cls, "__post_init__")

        def init(self, *values, **named):
            if values:
                first = names[: len(values)]
                if len(first) < len(values) or not named.keys().isdisjoint(first):
                    raise TypeError(
                        f"{cls.__name__}() takes {', '.join(names)}, each once: {len(values)} and {[*named]} were given"
                    )
                named.update(zip(first, values, strict=True))
            for name in waiting.difference(named) if waiting else ():
                if name not in plain:
                    plain[name] = factories[name]()
                waiting.discard(name)
            state = self.__dict__
            state.update(plain)
            state.update(named)
            for name, factory in own:
                if name not in state:
                    state[name] = factory()
            if not known.issuperset(named):
                raise TypeError(f"{cls.__name__}() got an unexpected keyword argument {sorted(named.keys() - known)[0]!r}")
            if len(state) < len(names):
                raise TypeError(f"{cls.__name__}() is missing {', '.join(one for one in names if one not in state)}")
            if after:
                self.__post_init__()

        return init

    def _unchanging(factory):
        """Whether instances of a class cannot be changed, nor can what is in them by default."""
        if not (isinstance(factory, type) and factory.__dict__.get("__frozen__")):
            return False
        kinds = [one.default_factory for one in _fields_of(factory).values() if one.default_factory is not MISSING]
        return all(map(_unchanging, kinds))

    def _repr(names):
        def shown(self):
            return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

        return shown

    def _compared(names, frozen, order):
        values = operator.attrgetter(*names) if names else lambda _: ()

        def by(compare):
            def compared(self, other):
                return compare(values(self), values(other)) if other.__class__ is self.__class__ else NotImplemented

            return compared

        def hashed(self):
            return hash(values(self))

        ordered = (operator.lt, operator.le, operator.gt, operator.ge) if order else ()
        equal = {"__eq__": by(operator.eq), "__hash__": hashed if frozen else None}
        return equal | {f"__{one.__name__}__": by(one) for one in ordered}

    def _frozen(cls, names):
        def refuse(self, name, done):
            if type(self) is cls or name in names:
                from dataclasses import FrozenInstanceError

                raise FrozenInstanceError(f"cannot {done} field {name!r}")

        def assign(self, name, value):
            refuse(self, name, "assign to")
            super(cls, self).__setattr__(name, value)

        def delete(self, name):
            refuse(self, name, "delete")
            super(cls, self).__delattr__(name)

        return {"__setattr__": assign, "__delattr__": delete}

    def is_dataclass(what):
        """As `dataclasses.is_dataclass`."""
        cls = what if isinstance(what, type) else type(what)
        return hasattr(cls, "__late__") or hasattr(cls, "__dataclass_fields__")

    def fields(what):
        """As `dataclasses.fields`."""
        if not is_dataclass(what):
            raise TypeError(f"not a dataclass: {what!r}")
        return tuple(_fields_of(what if isinstance(what, type) else type(what)).values())

    def replace(one, /, **changes):
        """As `dataclasses.replace`."""
        cls = type(one)
        known, state = _fields_of(cls), getattr(one, "__dict__", {})
        if known.keys() == state.keys():
            return cls(**{**state, **changes})
        return cls(**{**{name: getattr(one, name) for name in known}, **changes})

    def asdict(one):
        """As `dataclasses.asdict`, but that values which are no dataclass, list, tuple or dict are not copied."""
        return {field.name: _within(getattr(one, field.name), asdict) for field in fields(one)}

    def astuple(one):
        """As `dataclasses.astuple`, with the same difference."""
        return tuple(_within(getattr(one, field.name), astuple) for field in fields(one))

    def _within(value, inner):
        if is_dataclass(value) and not isinstance(value, type):
            return inner(value)
        if isinstance(value, list | tuple):
            return type(value)(_within(item, inner) for item in value)
        return {key: _within(item, inner) for key, item in value.items()} if isinstance(value, dict) else value
