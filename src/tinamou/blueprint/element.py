"""What QEMU is given: elements (objects with an id that can also be hot-plugged) and flags, each with its reason."""

from __future__ import annotations

from collections.abc import Mapping

from tinamou.late import dataclass, field

Value = str | int | bool | list["Value"] | dict[str, "Value"]
"""What a property of an element can be: what JSON can say, without null and floats."""

JSON_KINDS = frozenset({"object", "device", "netdev", "blockdev", "audiodev", "display", "compat"})
"""Options that take JSON on QEMU 7.2 and later; the others take ``key=value`` lists."""


@dataclass(frozen=True)
class Why:
    """The reason for one decision: who asked (``spec cpu.count``, ``default``, ``host``) and one sentence."""

    asked_by: str
    reason: str

    def __post_init__(self) -> None:
        if not self.asked_by.strip() or not self.reason.strip():
            raise ValueError("a Why needs both who asked and the reason")


@dataclass(frozen=True)
class Element:
    """One QEMU object: ``-KIND {props}`` on the command line, the same props over QMP when hot-plugged.

    ``kind`` is the option's name without dash. For kinds outside ``JSON_KINDS`` (``chardev``, ``numa``, …) ``head`` is the
    leading word (``socket`` in ``-chardev socket,id=…``).
    """

    kind: str
    props: Mapping[str, Value]
    why: Why
    head: str = ""

    @property
    def id(self) -> str:
        """The element's name inside QEMU, empty where it has none."""
        return str(self.props.get("id", self.props.get("node-name", "")))


@dataclass(frozen=True)
class Flag:
    """A command-line option that is not an object: ``-name value,option=…``; ``value`` None for a bare switch."""

    name: str
    why: Why
    value: str | None = None
    options: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Note:
    """Something the user must hear about the plan: ``level`` is ``info``, ``warning``, or ``remark`` for who asks why.

    ``of_host`` is what holds for every machine here: once a day is enough for who does not ask why.
    """

    level: str
    text: str
    why: Why
    of_host: bool = False
