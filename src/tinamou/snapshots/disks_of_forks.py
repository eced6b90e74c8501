"""The disks of checkpoints and forks: frozen files linked where nobody rewrites them, an overlay in front for each fork."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from tinamou.blueprint import Element, HandOver, Plan, Value, Why
from tinamou.images.chain import Layer, read_chain
from tinamou.late import dataclass
from tinamou.snapshots.history import Disk, History, save
from tinamou.snapshots.machine_disks import Disks
from tinamou.system.qcow2 import write_overlay

__all__ = ["Frozen", "give_disks", "keep_files", "keep_frozen", "with_disks"]

_WHY = Why("fork", "what the guest writes goes to a file of its own; what was saved is shared with all other forks")
_SHARED = Why("fork", "the disk as it was saved, never written")


@dataclass(frozen=True)
class Frozen:
    """One disk as it was: its device in QEMU, the frozen file on top (a name in the checkpoint's folder, or a path)."""

    device: str
    file: str
    format: str


def keep_frozen(disks: Disks, before: History, directory: Path) -> dict[str, Frozen]:
    """Link the frozen files of every disk into the checkpoint's folder, under their names. Raises OSError, ImageError."""
    kept = {}
    for name, disk in before.present.items():
        for layer in read_chain(disks.path(disk.top), format=disk.format, trusted=[Path(disk.floor)]):
            path = Path(layer.path)
            if path.parent == disks.directory and not (directory / path.name).exists():
                (directory / path.name).hardlink_to(path)
        kept[name] = Frozen(disk.device, disk.top, disk.format)
    return kept


def keep_files(plan: Plan, machine: Path, directory: Path, ours: Mapping[str, Frozen]) -> list[str]:
    """Copy the machine's other files QEMU was handed (UEFI variables, seed) and its ssh key; returns their names."""
    tops = {Path(frozen.file).name for frozen in ours.values()}
    paths = [Path(s.path) for s in plan.steps if isinstance(s, HandOver) and s.access in ("read", "write")]
    names = {path.name for path in paths if path.parent == machine and path.suffix != ".qcow2"} - tops
    kept = sorted({*names, "image.json", "id_ed25519", "id_ed25519.pub"})
    for name in kept:
        with contextlib.suppress(FileNotFoundError):
            shutil.copy(machine / name, directory / name)
    return [name for name in kept if (directory / name).exists()]


def give_disks(disks: Mapping[str, Frozen], source: Path, directory: Path, owner: int | None) -> None:
    """An overlay over every frozen disk in the fork's folder, and the history that says so. Raises OSError, ImageError."""
    if not disks:
        return
    entries = {}
    for name, frozen in disks.items():
        below = _chain(frozen, source)[0]
        top = directory / f"{name}.qcow2"
        size = int(below.header.size) if below.header else below.length
        write_overlay(top, size, below.path, below.format)
        if owner is not None:
            os.chown(top, owner, owner)
        entries[name] = Disk(frozen.device, top.name, "qcow2", below.path, below.format)
    save(directory, History(disks=entries))


def _chain(frozen: Frozen, source: Path) -> tuple[Layer, ...]:
    return read_chain(source / frozen.file, format=frozen.format)


def with_disks(plan: Plan, disks: Mapping[str, Frozen], source: Path, directory: str) -> Plan:
    """The plan with the chains of a fork in place of those its machine was started with."""
    for name, frozen in disks.items():
        plan = _with_disk(plan, name, frozen.device, _chain(frozen, source), f"{directory}/{name}.qcow2")
    return plan


def _with_disk(plan: Plan, name: str, device: str, below: tuple[Layer, ...], file: str) -> Plan:
    nodes = {str(e.props["node-name"]): e for e in plan.elements if e.kind == "blockdev"}
    old = next(str(e.props["drive"]) for e in plan.elements if e.kind == "device" and e.id == device)
    while isinstance(inner := nodes[old].props["file"], str):
        old = inner
    replaced = set(_backing(nodes, old))
    gone = {_filename(nodes[node]) for node in replaced}
    fresh = list(_nodes(nodes[old], name, below, file))
    elements: list[Element] = []
    for element in plan.elements:
        node = str(element.props.get("node-name", ""))
        if node == old:
            elements += fresh
        elif node not in replaced:
            elements.append(_renamed(element, old, name))
    steps = [step for step in plan.steps if getattr(step, "path", "") not in gone]
    steps += [HandOver(file, "write", _WHY), *(HandOver(layer.path, "read", _SHARED) for layer in below)]
    return dataclasses.replace(plan, elements=tuple(elements), steps=tuple(steps))


def _backing(nodes: Mapping[str, Element], top: str) -> Iterator[str]:
    node: object = top
    while isinstance(node, str) and node in nodes:
        yield node
        node = nodes[node].props.get("backing")


def _filename(node: Element) -> str:
    file = node.props.get("file")
    return str(file.get("filename", "")) if isinstance(file, dict) else ""


def _renamed(element: Element, old: str, new: str) -> Element:
    props = {key: new if key in ("drive", "file") and value == old else value for key, value in element.props.items()}
    return dataclasses.replace(element, props=props)


def _nodes(top: Element, name: str, below: tuple[Layer, ...], file: str) -> Iterator[Element]:
    """Bottom first: the frozen files, and the fork's own in front.

    The machine that was saved may hold a frozen file open for writing, although it never writes to it again: no lock.
    """
    access = top.props["file"]
    assert isinstance(access, dict)
    shared: dict[str, Value] = {key: value for key, value in access.items() if key != "discard"}
    cache: dict[str, Value] = {"cache": top.props["cache"]} if "cache" in top.props else {}
    for index in reversed(range(len(below))):
        layer = below[index]
        props: dict[str, Value] = {"driver": layer.format, "node-name": f"{name}-base{index}", "read-only": True, **cache}
        if index + 1 < len(below):
            props["backing"] = f"{name}-base{index + 1}"
        opened: dict[str, Value] = {**shared, "filename": layer.path, "read-only": True, "locking": "off"}
        yield Element("blockdev", {**props, "file": opened}, _SHARED)
    own: dict[str, Value] = {**top.props, "driver": "qcow2", "node-name": name, "backing": f"{name}-base0"}
    yield Element("blockdev", {**own, "file": {**access, "filename": file}}, _WHY)
