"""The disks of checkpoints and forks: frozen files linked where nobody rewrites them, an overlay in front for each fork."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import cast

from tinamou import late
from tinamou.blueprint import Element, HandOver, Plan, Value, Why
from tinamou.facts import files
from tinamou.images.chain import Layer, read_chain
from tinamou.snapshots.extras import FILES, copy_files, owners_of
from tinamou.snapshots.history import DiskEntry, Frozen, History, save
from tinamou.snapshots.layers import named_below
from tinamou.snapshots.machine_disks import Disks, crypto_header, encryption
from tinamou.system.qcow2 import write_overlay

__all__ = ["give_disks", "give_files", "keep_files", "keep_frozen", "with_disks"]

_WHY = Why("fork", "what the guest writes goes to a file of its own; what was saved is shared with all other forks")
_SHARED = Why("fork", "the disk as it was saved, never written")


def keep_frozen(disks: Disks, before: History, directory: Path) -> dict[str, Frozen]:
    """Link the frozen files of every disk into the checkpoint's folder, under their names. Raises OSError, ImageError.

    They are this user's from now on: the user id of the machine's QEMU will be that of another, which may be a fork.
    """
    kept = {}
    for name, disk in before.present.items():
        for layer in read_chain(disks.path(disk.top), format=disk.format, trusted=[Path(disk.floor)]):
            path = Path(layer.path)
            if path.parent == disks.directory and not (directory / path.name).exists():
                (directory / path.name).hardlink_to(path)
                os.chown(path, os.geteuid(), os.getegid(), follow_symlinks=False)
        kept[name] = Frozen(disk.device, disk.top, disk.format, disk.floor)
    return kept


def keep_files(machine: Path, directory: Path, owner: int | None) -> list[str]:
    """Copy the machine's files beside its disks (UEFI variables, seed, ssh key); returns their names. Raises StateError."""
    return copy_files(machine, directory, FILES, owners_of(owner))


def give_files(names: Sequence[str], source: Path, directory: Path, owner: int | None) -> None:
    """Copy a checkpoint's files to a fork's folder, and hand it those its QEMU opens. Raises StateError."""
    for name in copy_files(source, directory, set(names) & set(FILES), owners_of(None)):
        if owner is not None and name in (files.SEED, files.UEFI_VARS):
            os.chown(directory / name, owner, owner)


def give_disks(disks: Mapping[str, Frozen], source: Path, directory: Path, owner: int | None) -> None:
    """An overlay over every frozen disk in the fork's folder, and the history that says so. Raises OSError, ImageError.

    Over an encrypted one it is encrypted with the same key. Raises StateError for one whose header is cut off.
    """
    if not disks:
        return
    entries = {}
    for name, frozen in disks.items():
        chain = _chain(frozen, source)
        below = chain[0]
        floor = named_below(chain[-2]) if chain[1:] else below.path
        top = directory / f"{name}.qcow2"
        size = int(below.header.size) if below.header else below.length
        write_overlay(top, size, below.path, below.format, crypto=crypto_header(below))
        if owner is not None:
            os.chown(top, owner, owner)
        entries[name] = DiskEntry(frozen.device, top.name, "qcow2", floor, chain[-1].format)
    save(directory, History(disks=entries))


def _chain(frozen: Frozen, source: Path) -> tuple[Layer, ...]:
    trusted = [Path(frozen.floor)] if frozen.floor else []
    return read_chain(source / frozen.file, trusted=trusted, format=frozen.format)


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
    return late.replace(plan, elements=tuple(elements), steps=tuple(steps))


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
    return late.replace(element, props=props)


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
        props |= cast("Mapping[str, Value]", encryption(name, layer))
        if index + 1 < len(below):
            props["backing"] = f"{name}-base{index + 1}"
        opened: dict[str, Value] = {**shared, "filename": layer.path, "read-only": True, "locking": "off"}
        yield Element("blockdev", {**props, "file": opened}, _SHARED)
    own: dict[str, Value] = {**top.props, "driver": "qcow2", "node-name": name, "backing": f"{name}-base0"}
    yield Element("blockdev", {**own, "file": {**access, "filename": file}}, _WHY)
