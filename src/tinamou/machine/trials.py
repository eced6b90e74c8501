"""Measures choices instead of believing in them: the same work in throw-away twins of a machine, with and without each."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

from tinamou.errors import GuestError, PlanError, TinamouError
from tinamou.late import dataclass
from tinamou.machine.booting import started, until_up
from tinamou.spec import load_spec

__all__ = ["CHOICES", "Choice", "Measured", "Verdict", "judge", "measure", "merged", "named", "twin"]

_COMPUTE = "i=0; while [ $i -lt 60000 ]; do i=$((i+1)); done"
_MEMORY = "dd if=/dev/zero of=/tmp/x$k bs=1M count=32 2>/dev/null && md5sum /tmp/x$k >/dev/null && rm /tmp/x$k"
_DISK = (
    "dd if=/dev/zero of=$disk bs=16k count=$((4096/n)) seek=$((4096/n*k)) oflag=direct conv=notrunc 2>/dev/null && "
    "dd if=$disk of=/dev/null bs=16k count=$((4096/n)) skip=$((4096/n*k)) iflag=direct 2>/dev/null"
)
_FIND_DISK = """
tries=0
until [ "$disk" ] || [ $tries -gt 200 ]; do
    for d in /sys/block/*; do [ "$(cat $d/size)" = 131072 ] && disk=/dev/${d##*/}; done
    [ -b "$disk" ] || { disk=; tries=$((tries+1)); sleep 0.1; }
done
[ "$disk" ] || { echo "the disk did not appear"; exit 1; }
"""
"""A twin's disk is known by its size, 64 MiB in sectors; some guests answer before their disks appear."""

_SCRIPT = """
{find}
n=$(nproc); k=0; workers=
read a _ </proc/uptime
while [ $k -lt $n ]; do ( {work} ) & workers="$workers $!"; k=$((k+1)); done
for worker in $workers; do wait $worker || {{ echo "the work failed"; exit 1; }}; done
read b _ </proc/uptime
echo $a $b
"""
"""The same work on every virtual CPU at once, timed by the guest's own clock (hundredths of a second)."""


@dataclass(frozen=True)
class Choice:
    """One thing to try: the ways it can be, as changes to a spec, and the work that shows the difference."""

    name: str
    ways: Mapping[str, Mapping[str, Any]]
    work: str
    disk: bool = False


_KEPT = ("cache", "aio", "iothread", "queues", "interface", "discard", "detect_zeroes")
"""What a twin's disk has from the machine's first one."""

_ROUNDS = 3
"""Fewer rounds than these show no spread to judge by."""

CHOICES = (
    Choice("pinning", {"off": {"cpu": {"pin": "off"}}, "auto": {"cpu": {"pin": "auto"}}}, _COMPUTE),
    Choice("hugepages", {"off": {"memory": {"hugepages": "off"}}, "2M": {"memory": {"hugepages": "2M"}}}, _MEMORY),
    Choice(
        "aio",
        {
            "threads": {"disk": {"aio": "threads"}},
            "io_uring": {"disk": {"aio": "io_uring"}},
            "native, cache none": {"disk": {"aio": "native", "cache": "none"}},
        },
        _DISK,
        disk=True,
    ),
    Choice("cache", {way: {"disk": {"aio": "auto", "cache": way}} for way in ("writeback", "none")}, _DISK, disk=True),
    Choice("iothread", {"off": {"disk": {"iothread": False}}, "on": {"disk": {"iothread": True}}}, _DISK, disk=True),
    Choice("queues", {"1": {"disk": {"queues": 1}}, "per CPU": {"disk": {}}}, _DISK, disk=True),
)
"""What is tried when nothing is named."""


@dataclass(frozen=True)
class Measured:
    """One way of one choice: seconds of each round, or why it could not be measured."""

    choice: str
    way: str
    seconds: tuple[float, ...] = ()
    failed: str = ""


@dataclass(frozen=True)
class Verdict:
    """Which way won, by how much (``gain`` 0.2: a fifth less time than ``second``), and whether beyond the spread."""

    choice: str
    winner: str
    second: str
    gain: float
    clear: bool


def merged(spec: Mapping[str, Any], change: Mapping[str, Any]) -> dict[str, Any]:
    """A spec's plain data with a change laid over it, table by table; a change of ``disk`` is for every disk."""
    found: dict[str, Any] = dict(spec)
    for key, value in change.items():
        if key == "disk":
            found["disk"] = [_table(one) | dict(value) for one in spec.get("disk", [])]
        else:
            table: dict[str, Any] = dict(spec.get(key) or {})
            found[key] = table | dict(value)
    return found


def _table(value: object) -> dict[str, Any]:
    """A table of a spec as it is; a bare value of a disk is its path."""
    return dict(value) if isinstance(value, Mapping) else {"path": value}


def twin(spec: Mapping[str, Any], choice: Choice, change: Mapping[str, Any]) -> dict[str, Any]:
    """The spec of a throw-away machine like this one: no name, no network, its disks replaced by an empty one to work on."""
    plain = {key: value for key, value in spec.items() if key not in ("name", "disk", "net")}
    own = spec.get("disk", [])
    model: dict[str, Any] = _table(own[0]) if own else {}
    kept: dict[str, Any] = {key: model[key] for key in _KEPT if key in model}
    disks: list[dict[str, Any]] = [{"format": "raw", **kept, "size": "64M"}] if choice.disk else []
    return merged({**plain, "net": [], "disk": disks}, change)


async def measure(
    spec: Mapping[str, Any], choices: Sequence[Choice], rounds: int, say: Callable[[str], None]
) -> list[Measured]:
    """Works through the choices, the ways of each in turn, ``rounds`` times, so that a busy moment hits all ways alike."""
    found = []
    for choice in choices:
        seconds: dict[str, list[float]] = {way: [] for way in choice.ways}
        failed: dict[str, str] = {}
        for number in range(rounds):
            for way in (way for way in choice.ways if way not in failed):
                say(f"{choice.name} {way}, round {number + 1} of {rounds}")
                try:
                    seconds[way].append(await _once(twin(spec, choice, choice.ways[way]), choice))
                except TinamouError as error:
                    failed[way] = error.what
        found += [Measured(choice.name, way, tuple(seconds[way]), failed.get(way, "")) for way in choice.ways]
    return found


async def _once(settings: Mapping[str, Any], choice: Choice) -> float:
    """Seconds the work took. Raises GuestError when it did not get done."""
    async with started(load_spec(settings)) as vm:
        await until_up(vm)
        done = await vm.run(_SCRIPT.format(find=_FIND_DISK if choice.disk else "", work=choice.work))
    words = done.stdout.split()
    if done.status or len(words) != 2:
        said = done.stdout.decode(errors="replace").strip() or f"it printed {words!r}"
        raise GuestError(f"{choice.name} could not be measured: {said}", fix="try another image")
    return float(words[1]) - float(words[0])


def judge(measured: Sequence[Measured]) -> Iterator[Verdict]:
    """One verdict per choice of which at least two ways were measured: clear when three rounds or more do not overlap."""
    for name in dict.fromkeys(one.choice for one in measured):
        ways = sorted((one for one in measured if one.choice == name and one.seconds), key=lambda one: median(one.seconds))
        if len(ways) > 1:
            best, rest = ways[0], ways[1:]
            gain = 1 - median(best.seconds) / max(median(rest[0].seconds), 1e-9)
            clear = all(max(best.seconds) < min(other.seconds) for other in rest) and len(best.seconds) >= _ROUNDS
            yield Verdict(name, best.way, rest[0].way, gain, clear)


def named(names: Sequence[str]) -> tuple[Choice, ...]:
    """The choices of these names, all when there are none. Raises PlanError for a name nobody knows."""
    unknown = [name for name in names if name not in {choice.name for choice in CHOICES}]
    if unknown:
        known = ", ".join(choice.name for choice in CHOICES)
        raise PlanError(f"there is no choice named {unknown[0]}", fix=f"choose among {known}")
    return tuple(choice for choice in CHOICES if not names or choice.name in names)
