"""Open what the plan hands over, and put descriptors where the plan has paths."""

from __future__ import annotations

import contextlib
import os
import socket
import time
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Self

from tinamou import late
from tinamou.blueprint import Element, Flag, HandOver, OpenTap, Plan, Step, Value, Why
from tinamou.errors import LaunchError, Problem
from tinamou.system.direct import around_the_cache, is_direct

__all__ = [
    "FDSET",
    "Handed",
    "listening",
    "netdev",
    "open_all",
    "properties",
    "read_by_path",
    "with_descriptors",
]

_LISTEN_SECONDS = 5.0

_MEMORY, _ROM = "mem-path", "romfile"
_VHOST_FD = "vhostfd"
_OPENED = "fd"
"""What a device of the host, or the IOMMU, was opened as."""
FDSET = "/dev/fdset/"
"""What QEMU opens in place of a file it was handed, followed by the number of its set."""

_MODES = {"read": os.O_RDONLY, "write": os.O_RDWR, "device": os.O_RDWR}


TAP, VHOST = "tap:", "vhost:"
"""In front of an interface's name in `Handed`: its queues and their vhost channels, ``tap:NAME#0``."""


class Handed:
    """The open descriptors by path; closes them when the block ends, QEMU has its own by then."""

    def __init__(self, descriptors: Mapping[str, int]) -> None:
        self.descriptors: dict[str, int] = dict(descriptors)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for descriptor in self.descriptors.values():
            os.close(descriptor)


def open_all(
    steps: Iterable[Step],
    elements: Iterable[Element],
    given: Mapping[str, int] | None = None,
    copied: Collection[str] = (),
) -> Handed:
    """Open every `HandOver` that is not ``given``, by path, as the ``elements`` use it; of ``copied``, a copy in memory.

    Raises LaunchError naming all that cannot be.
    """
    descriptors, there = dict(given or {}), tuple(steps)
    problems = []
    for step in there:
        if isinstance(step, HandOver) and step.path not in descriptors:
            try:
                descriptors[step.path] = _copy(step.path) if step.path in copied else _take(step)
            except OSError as error:
                problems.append(Problem(step.path, None, f"cannot be opened ({step.access}): {error.strerror or error}"))
        elif isinstance(step, OpenTap) and f"{TAP}{step.name}#0" not in descriptors:
            try:
                descriptors |= _tap(step)
            except OSError as error:
                problems.append(Problem(step.name, None, f"cannot be opened: {error.strerror or error}"))
    for path in _uncached(elements) & descriptors.keys():
        with contextlib.suppress(OSError):  # QEMU says so too, with the disk it is
            around_the_cache(descriptors[path])
    handed = Handed(descriptors)
    if problems:
        from tinamou.prepare.helper_processes import words_of_dead

        handed.__exit__()
        said = words_of_dead(there)
        fix = "see what the helper said above" if said else "check the paths and their permissions"
        raise LaunchError("files of the machine cannot be opened", problems=problems, evidence=said, fix=fix)
    return handed


def _uncached(elements: Iterable[Element]) -> set[str]:
    """Files that are read and written around the host's page cache."""
    files = [one.props.get("file") for one in elements if one.kind == "blockdev"]
    return {str(file["filename"]) for file in files if isinstance(file, dict) and "filename" in file and is_direct(file)}


def _take(step: HandOver) -> int:
    if step.access == "listen":
        return listening(step.path)
    return _memory(step) if step.access == "memory" else _open(step)


def _memory(step: HandOver) -> int:
    from tinamou.system.ram import blank

    return blank(Path(step.path).name, step.size)


def _open(step: HandOver) -> int:
    if step.access == "secret":
        return _secret(step.path)
    if step.access == "connect":
        return _connect(step.path)
    path = _device(step.path) if step.access == "device" else step.path
    descriptor = os.open(path, _MODES[step.access] | os.O_CLOEXEC, 0o600)
    if step.locked:
        _lock(descriptor, write=step.access == "write")
    return descriptor


def _lock(descriptor: int, *, write: bool) -> None:
    """QEMU has the descriptor open as long as it runs, and with it the locks. Raises OSError; it is closed then."""
    from tinamou.system.image_locks import hold

    try:
        hold(descriptor, write=write)
    except OSError:
        os.close(descriptor)
        raise


def _device(folder: str) -> str:
    """The file of a device that is on vfio-pci now. Raises OSError where the kernel shows none."""
    names = os.listdir(folder)  # noqa: PTH208
    return f"/dev/vfio/devices/{names[0]}"


def _secret(path: str) -> int:
    """QEMU opens secrets by path, and under its own uid could not open the user's file that way."""
    return _copy(path)


def _copy(path: str) -> int:
    """A copy in memory."""
    descriptor = os.memfd_create("copy", os.MFD_CLOEXEC)
    with Path(path).open("rb") as file:
        while os.sendfile(descriptor, file.fileno(), None, 1 << 30):
            pass
    return descriptor


def _tap(step: OpenTap) -> dict[str, int]:
    """Every queue of the interface, and a vhost channel for each where it is wished."""
    from tinamou.system import tap

    queues = tap.open_queues(step.name, step.queues, offload=step.offload)
    if step.ours:
        tap.short_lived(queues[0])
    found = {f"{TAP}{step.name}#{number}": fd for number, fd in enumerate(queues)}
    if step.vhost:
        found |= {f"{VHOST}{step.name}#{n}": os.open("/dev/vhost-net", os.O_RDWR | os.O_CLOEXEC) for n in range(step.queues)}
    return found


def _connect(path: str) -> int:
    """A connected Unix socket: blocking, as QEMU wants to set that itself.

    A helper's socket has its name a moment before it listens: until then the connection is refused.
    """
    from tinamou.system.sockets import NotListeningError, connect_unix

    deadline = time.monotonic() + _LISTEN_SECONDS
    while True:
        try:
            connected = connect_unix(path)
        except NotListeningError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.002)
        else:
            break
    connected.setblocking(True)
    return connected.detach()


def listening(path: str) -> int:
    """A listening Unix socket only its owner can connect to; a socket left over from before is replaced."""
    if len(path.encode()) > 107:
        raise OSError(
            f"a Unix socket's path has at most 107 bytes, this one {len(path.encode())}: set TINAMOU_STATE shorter"
        )
    Path(path).unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        os.fchmod(listener.fileno(), 0o600)  # the file takes the socket's own mode: unix(7) has it from before bind(2) on
        listener.bind(path)
        listener.listen(16)
    except OSError:
        listener.close()
        raise
    return listener.detach()


def with_descriptors(plan: Plan, handed: Mapping[str, int]) -> Plan:
    """The same plan with descriptors in place of handed-over paths: pure.

    Files opened by QEMU's own I/O layer become ``/dev/fdset/N``, kernels, secrets and memory (opened as plain files)
    ``/dev/fd/N``, sockets ``fd=N``.
    """
    sockets = {step.path for step in plan.steps if isinstance(step, HandOver) and step.access in ("listen", "connect")}
    queues = {path for path in handed if path.startswith((TAP, VHOST))}
    plain = {*_of_flags(plan), *(element.props.get(name) for element in plan.elements for name in (_MEMORY, _ROM, _OPENED))}
    secrets = {step.path: handed[step.path] for step in plan.steps if isinstance(step, HandOver) and step.access == "secret"}
    others = [path for path in handed if path not in {*sockets, *queues, *plain, *secrets}]
    sets = {path: number for number, path in enumerate(others, 1)}
    names = {path: f"{FDSET}{number}" for path, number in sets.items()}
    names |= {path: f"/dev/fd/{descriptor}" for path, descriptor in secrets.items()}
    elements = tuple(late.replace(e, props=properties(e, handed, names)) for e in plan.elements)
    flags = tuple(_flag(flag, handed, names) for flag in plan.flags)
    why = Why("confinement", "an open file QEMU is handed")
    added = [Flag("add-fd", why, options={"fd": handed[path], "set": sets[path], "opaque": path}) for path in sets]
    return late.replace(plan, elements=elements, flags=(*flags, *added))


def _of_flags(plan: Plan) -> set[Value | None]:
    return {flag.value for flag in plan.flags}


def read_by_path(plan: Plan) -> set[str]:
    """Files that QEMU opens anew by their descriptors' names, to read them: kernels, initrds, option ROMs."""
    named = {*_of_flags(plan), *(element.props.get(_ROM) for element in plan.elements)}
    return {step.path for step in plan.steps if isinstance(step, HandOver) and step.access == "read" and step.path in named}


def _flag(flag: Flag, handed: Mapping[str, int], names: Mapping[str, str]) -> Flag:
    if any(value in names for value in flag.options.values() if isinstance(value, str)):
        return late.replace(flag, options={key: _value(value, names) for key, value in flag.options.items()})
    if flag.value is None or flag.value not in handed:
        return flag
    return late.replace(flag, value=f"/dev/fd/{handed[flag.value]}")


def properties(element: Element, handed: Mapping[str, int], names: Mapping[str, str]) -> dict[str, Value]:
    """An element's properties with descriptors (``handed``, by path) and other names in place of handed-over paths."""
    if element.kind == "netdev":
        return netdev(element.props, handed)
    props = {key: _value(value, names) for key, value in element.props.items() if key != "path" or value not in handed}
    if element.kind == "blockdev":
        props = _named(props)
    for name in (_MEMORY, _ROM):
        plain = element.props.get(name)
        if isinstance(plain, str) and plain in handed:
            props[name] = f"/dev/fd/{handed[plain]}"
    kernels = element.props.get(_VHOST_FD)
    if isinstance(kernels, str) and kernels in handed:
        props[_VHOST_FD] = str(handed[kernels])
    opened = element.props.get(_OPENED)
    if isinstance(opened, str) and opened in handed:
        props[_OPENED] = str(handed[opened])
        props.pop("host", None)
    path = element.props.get("path")
    if isinstance(path, str) and path in handed:
        props["fd"] = handed[path]
    return props


def _named(node: dict[str, Value]) -> dict[str, Value]:
    """The node of a handed-over file named after its set, so that QEMU's block graph tells which file it reads."""
    file = node.get("file")
    if not isinstance(file, dict) or not (number := str(file.get("filename")).removeprefix(FDSET)).isdecimal():
        return node
    return {**node, "file": {**file, "node-name": f"fd{number}-{node['node-name']}"}}


def _value(value: Value, names: Mapping[str, str]) -> Value:
    if isinstance(value, dict):
        return {key: _value(inner, names) for key, inner in value.items()}
    if isinstance(value, str) and value in names:
        return names[value]
    return value


def netdev(props: Mapping[str, Value], handed: Mapping[str, int | str]) -> dict[str, Value]:
    """A network backend on handed-over queues or sockets; over QMP ``handed`` holds names of descriptors instead."""
    address = props.get("addr")
    if isinstance(address, dict) and address.get("path") in handed:
        return {**props, "addr": {"type": "fd", "str": str(handed[str(address["path"])])}}
    name = f"{props.get('ifname')}#"
    queues = [str(fd) for key, fd in handed.items() if key.startswith(TAP + name)]
    if not queues:
        return dict(props)
    channels = [str(fd) for key, fd in handed.items() if key.startswith(VHOST + name)]
    found = {key: value for key, value in props.items() if key not in ("ifname", "script", "downscript", "queues")}
    found |= _joined("fd", queues)
    return found | (_joined("vhostfd", channels) if channels else {})


def _joined(key: str, values: list[str]) -> dict[str, Value]:
    return {key: values[0]} if len(values) == 1 else {f"{key}s": ":".join(values)}
