"""Plugging a part of a plan into a running QEMU and taking it out: the one engine behind cards, disks and shared folders."""

from __future__ import annotations

import base64
import contextlib
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from tinamou.blueprint import Contribution, Element, HandOver, Step
from tinamou.control.bounds import UNPLUG_SECONDS
from tinamou.control.commands import add_fd, device_del, getfd
from tinamou.control.session import RefusedError, Session
from tinamou.errors import ControlError
from tinamou.launch.handover import FDSET, TAP, VHOST, netdev, open_all, properties
from tinamou.system.loop_thread import in_thread

__all__ = ["plug", "quietly", "unplug"]

_ORDER = ("object", "chardev", "netdev", "blockdev", "device")
_ADD = {"object": "object-add", "netdev": "netdev_add", "blockdev": "blockdev-add", "device": "device_add"}
_REMOVE = {
    "object": ("object-del", "id"),
    "chardev": ("chardev-remove", "id"),
    "netdev": ("netdev_del", "id"),
    "blockdev": ("blockdev-del", "node-name"),
    "device": ("device_del", "id"),
}


async def plug(session: Session, part: Contribution, prefix: str) -> None:
    """Open what the part hands over, give it to QEMU, and create its elements, those first that others are made of.

    All of it is taken back in reverse where one fails. ``prefix`` begins the names under which QEMU is given descriptors.
    Raises LaunchError for a file that cannot be opened, ControlError.
    """
    async with contextlib.AsyncExitStack() as undo:
        opening = in_thread(open_all, [step for step in part.steps if not _is_secret(step)], part.elements)
        with await opening as handed:
            names = await _hand_over(session, part, handed.descriptors, prefix, undo)
        for kind in _ORDER:
            for element in (one for one in part.elements if one.kind == kind):
                await _create(session, element, names)
                command, key = _REMOVE[kind]
                undo.push_async_callback(quietly, session, command, {key: element.id})
        undo.pop_all()


async def unplug(session: Session, elements: Iterable[Element], seconds: float = UNPLUG_SECONDS) -> None:
    """Have the guest give devices back, within so many ``seconds``, and remove what was behind them. Raises ControlError."""
    there = list(elements)
    for kind in reversed(_ORDER):
        for element in (one for one in reversed(there) if one.kind == kind):
            command, key = _REMOVE[kind]
            if kind == "device":
                await device_del(session, element.id, seconds)
                continue
            try:
                await session.execute(command, {key: element.id})
            except RefusedError:
                if kind != "chardev":  # one goes with the vhost-user backend that was on it
                    raise


async def quietly(session: Session, command: str, arguments: Mapping[str, object]) -> None:
    """A command of which nobody needs to hear when it fails: what it would remove may be gone."""
    with contextlib.suppress(ControlError, TimeoutError):
        await session.execute(command, arguments, timeout=10.0)


def _is_secret(step: Step) -> bool:
    """Its text is told over QMP: no descriptor for it would ever be closed."""
    return isinstance(step, HandOver) and step.access == "secret"


async def _hand_over(
    session: Session, part: Contribution, descriptors: Mapping[str, int], prefix: str, undo: contextlib.AsyncExitStack
) -> dict[str, str]:
    """Give QEMU copies of open descriptors; what stands for each path from now on: a file's set, or a descriptor's name."""
    sockets = {step.path for step in part.steps if isinstance(step, HandOver) and step.access in ("listen", "connect")}
    names = {}
    for number, (path, descriptor) in enumerate(descriptors.items()):
        if path in sockets or path.startswith((TAP, VHOST)):
            names[path] = f"{prefix}-fd{number}"
            await getfd(session, descriptor, names[path])
        else:
            fdset = await add_fd(session, descriptor, note=path)
            names[path] = f"{FDSET}{fdset}"
            undo.push_async_callback(quietly, session, "remove-fd", {"fdset-id": fdset})
    return names


async def _create(session: Session, element: Element, names: Mapping[str, str]) -> None:
    if element.kind == "chardev":
        await session.execute("chardev-add", {"id": element.id, "backend": _socket(element.props, names)})
    elif element.kind == "netdev":
        await session.execute("netdev_add", _by_name(netdev(element.props, names)))
    else:
        props: dict[str, object] = dict(properties(element, {}, names))
        if props.get("qom-type") == "secret":
            data = base64.b64encode(Path(str(props.pop("file"))).read_bytes())  # noqa: ASYNC240
            props |= {"data": data.decode(), "format": "base64"}
        await session.execute(_ADD[element.kind], props)


def _socket(props: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    """The back end of a socket: one that was handed over, else one QEMU opens by its path."""
    path, server = str(props["path"]), "server" in props
    if path in names:
        return {"type": "socket", "data": {"addr": {"type": "fd", "data": {"str": names[path]}}, "server": False}}
    data: dict[str, Any] = {"addr": {"type": "unix", "data": {"path": path}}, "server": server}
    return {"type": "socket", "data": data | ({"wait": False} if server else {})}


def _by_name(props: Mapping[str, Any]) -> Mapping[str, Any]:
    """A connected ``stream`` as the ``socket`` that speaks the same.

    The one looks its descriptor up in a thread that has no monitor, and does not find it by name.
    """
    address = props.get("addr", {})
    if props["type"] == "stream" and address.get("type") == "fd":
        return {"type": "socket", "id": props["id"], "fd": address["str"]}
    return props
