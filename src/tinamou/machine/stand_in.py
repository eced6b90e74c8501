"""A machine's stand-in: the same hardware for a QEMU that never runs a guest, with nothing of the machine behind it.

Its disks are empty, its network leads nowhere, its memory is blank, its TPM is a new one: what the state of devices looks
like depends on none of them. It shows whether one QEMU takes what another has saved, and harms nothing.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from tinamou import late
from tinamou.blueprint import Calls, Element, Flag, HandOver, OpenTap, Plan, StartHelper, Step, Value, Why
from tinamou.errors import StateError
from tinamou.launch.argv import keyval
from tinamou.prepare.apply import undo
from tinamou.prepare.journal import Journal
from tinamou.probe.qemu import is_script, probe_qemu
from tinamou.probe.walls import probe_walls
from tinamou.state import machines
from tinamou.tuning import walls

__all__ = ["folder", "reason_against", "stand_in", "tapped"]

_DISK = 64 << 20
"""Bytes of a disk that nothing is read from."""
_SCREENS = ("vnc", "spice", "display")
_COMING = ("incoming", "S")
_WITHOUT = ("authz", "tls")
_OUTSIDE = re.compile(r"vfio|vhost-|ivshmem|usb-host|memory-backend-epc")
_WHY = Why("stand-in", "nothing of the machine is behind it")


@contextlib.contextmanager
def folder() -> Iterator[tuple[Path, int | None]]:
    """A machine's folder that is gone after the block, with what was taken for it, and the user id it has."""
    with machines.making(f"trial-{secrets.token_hex(3)}") as directory:
        try:
            yield directory, machines.lease_uid(directory)
        finally:
            Journal(directory).give_back(undo)
            machines.remove(directory)


def reason_against(plan: Plan) -> str:
    """Why the machine has no stand-in; empty where it has: a device of the host, or one whose other end is a process."""
    for element in plan.elements:
        if element.kind == "device" and _OUTSIDE.search(str(element.props.get("driver", ""))):
            return f"its {element.id or element.props['driver']} has a part outside of QEMU"
    return ""


def stand_in(plan: Plan, directory: Path, uid: int | None, binary: str, *, shared: bool, kept: Path | None = None) -> Plan:
    """The plan of the stand-in in that folder, for that QEMU.

    ``shared`` memory can be left out of its state. ``kept`` is a checkpoint's folder, which has the machine's files. Raises
    StateError where a file that tells a size is gone.
    """
    made = _Made(plan, directory, uid, kept, shared=shared)
    elements = tuple(one for element in plan.elements if (one := made.element(element)) is not None)
    around = late.replace(
        plan.confinement, uid=uid, gid=uid, locked=None, profile="", label="", reads=probe_qemu(binary).loads, file_size=None
    )
    if around.calls and is_script(binary):
        wrapped = Calls("wrapper", Why("stand-in", "the QEMU that is tried is a script, which becomes it"))
        around = late.replace(around, calls=(*(one for one in around.calls if one.group != "wrapper"), wrapped))
    changed = late.replace(
        plan,
        name=directory.name,
        binary=binary,
        elements=elements,
        flags=tuple(left for flag in plan.flags if (left := made.flag(flag)) is not None),
        steps=tuple(made.steps()),
        confinement=around,
        pinning=None,
        notes=(),
    )
    return walls.confined(changed, probe_walls(), ())


class _Made:
    """What takes the place of each part."""

    def __init__(self, plan: Plan, directory: Path, uid: int | None, kept: Path | None, *, shared: bool) -> None:
        self._plan, self._kept, self._shared = plan, kept, shared
        listens = [step.path for step in plan.steps if isinstance(step, HandOver) and step.access == "listen"]
        self._old, self._new = f"{Path(listens[0]).parent}/", f"{directory}/"
        self._reads = {step.path for step in plan.steps if isinstance(step, HandOver) and step.access == "read"}
        self._owner = uid
        self._hubs = 0
        drives = {str(e.props["drive"]) for e in plan.elements if e.kind == "device" and "drive" in e.props}
        words = [word for flag in plan.flags if flag.name == "machine" for word in keyval(flag.options)]
        words += [word for flag in plan.flags if flag.name == "machine" for word in (flag.value or "").split(",")]
        self._flash = {word.partition("=")[2] for word in words if word.startswith("pflash")}
        self._nodes = drives | self._flash

    def element(self, element: Element) -> Element | None:
        """What stands there instead; None where nothing does."""
        kind, driver = element.kind, str(element.props.get("qom-type", ""))
        if kind == "blockdev":
            return self._disk(element)
        if kind == "netdev":
            if element.props.get("type") == "user":  # QEMU's own network is part of its state
                kept = {key: value for key, value in element.props.items() if key not in ("hostfwd", "guestfwd")}
                return late.replace(element, props=kept, why=_WHY)
            self._hubs += 1
            return late.replace(element, props={"type": "hubport", "id": element.id, "hubid": self._hubs}, why=_WHY)
        if kind == "chardev" and element.head == "spicevmc":
            return late.replace(element, props={"id": element.id}, why=_WHY, head="null")
        if kind == "audiodev":
            return late.replace(element, props={"id": element.id, "driver": "none"}, why=_WHY)
        if driver.startswith("memory-backend-"):
            props: dict[str, Value] = {"qom-type": "memory-backend-ram", "id": element.id, "size": element.props["size"]}
            return late.replace(element, props={**props, "share": self._shared}, why=_WHY)
        if driver == "secret" or driver.startswith(_WITHOUT):
            return None
        return late.replace(element, props={key: self._moved(value) for key, value in element.props.items()})

    def _disk(self, element: Element) -> Element | None:
        name = element.id
        if name not in self._nodes:
            return None
        props: dict[str, Value] = {"driver": "null-co", "node-name": name, "read-zeroes": True}
        if "read-only" in element.props:
            props["read-only"] = element.props["read-only"]
        return late.replace(
            element, props={**props, "size": self._size(element) if name in self._flash else _DISK}, why=_WHY
        )

    def _size(self, element: Element) -> int:
        """Bytes of a flash chip: those of its file."""
        found = re.findall(r'"filename": "([^"]+)"', json.dumps(dict(element.props)))
        backing = element.props.get("file")
        if isinstance(backing, str):
            below = next((one for one in self._plan.elements if one.id == backing), None)
            found += re.findall(r'"filename": "([^"]+)"', json.dumps(dict(below.props))) if below else []
        kept = [str(self._kept / Path(path).name) for path in found] if self._kept else []
        for path in (*kept, *found):
            with contextlib.suppress(OSError):
                return os.stat(path).st_size  # noqa: PTH116
        raise StateError(f"the file of its flash chip {element.id} is not there", why=", ".join(found))

    def flag(self, flag: Flag) -> Flag | None:
        """A screen is served to nobody; what a fork was started from is loaded already; the name is that of the stand-in."""
        if flag.name in _COMING:
            return None
        if flag.name in _SCREENS:
            return Flag("display", _WHY, "none") if flag.name == "display" else None
        if flag.name == "name":
            return late.replace(flag, value=f"guest={Path(self._new).name}")
        options = {key: self._moved(value) for key, value in flag.options.items()}
        return late.replace(flag, value=str(self._moved(flag.value)) if flag.value else flag.value, options=options)

    def _moved(self, value: Value) -> Value:
        if isinstance(value, str):
            return value if value in self._reads else value.replace(self._old, self._new)
        if isinstance(value, dict):
            return {key: self._moved(inner) for key, inner in value.items()}
        return [self._moved(inner) for inner in value] if isinstance(value, list) else value

    def steps(self) -> Iterator[Step]:
        """Sockets and logs of its own, the files a direct boot reads, and a TPM."""
        tpm = [step for step in self._plan.steps if isinstance(step, StartHelper) and step.name == "swtpm"]
        for helper in tpm:
            words = tuple(str(self._moved(word)) for word in helper.argv)
            former = self._plan.confinement.uid or 0
            owner = None if self._owner is None or helper.owner is None else helper.owner - former + self._owner
            yield late.replace(helper, argv=words, socket=str(self._moved(helper.socket)), owner=owner)
        sockets = {helper.socket for helper in tpm}
        for step in self._plan.steps:
            if isinstance(step, HandOver) and (step.access in ("read", "listen", "append") or step.path in sockets):
                yield late.replace(step, path=str(self._moved(step.path)))


def tapped(plan: Plan) -> bool:
    """Whether the machine's cards are on tap interfaces, whose headers are part of what a guest agreed to."""
    return any(isinstance(step, OpenTap) for step in plan.steps)
