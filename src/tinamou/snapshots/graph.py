"""What QEMU itself says of a running machine's disks: which files each device reads through; opening and closing them.

QEMU's list of nodes and edges is asked for, not its description of devices: that spells out the whole chain for every node,
holds the guest up while it does, and cuts names off after 4,096 letters.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tinamou.control import RefusedError, Session
from tinamou.control.answers import member, number, record, records, text
from tinamou.errors import ControlError
from tinamou.late import dataclass, field
from tinamou.system.direct import around_the_cache, is_direct

__all__ = [
    "Attached",
    "BlockGraph",
    "Opening",
    "attached",
    "block_graph",
    "close_unused",
    "driver_of",
    "node_of",
    "open_overlays",
]

_FDSET = "/dev/fdset/"
_MOST_STEPS = 100_000
"""Nodes of all chains together; 64 disks on 200 files each have an eighth of that."""

_LEAF = re.compile(r"fd(\d{1,9})-")
"""How the nodes of files are named that QEMU was handed (launch/handover.py): the number of their set comes first."""


@dataclass(frozen=True)
class Attached:
    """One device's chain: ``node`` is what the device reads (a limiter where there is one), ``files`` the paths top first.

    ``top`` is the node of the first file.
    """

    device: str
    node: str
    top: str
    files: tuple[str, ...]
    readonly: bool


@dataclass(frozen=True)
class BlockGraph:
    """Everything at one moment: ``devices`` that have a medium by id, ``files`` the path each format node reads.

    ``descriptors`` are the resolved paths behind what QEMU was handed, by number of their set.
    """

    devices: Mapping[str, Attached]
    files: Mapping[str, str]
    descriptors: Mapping[int, str]

    def nodes(self, disk: str = "") -> dict[str, str]:
        """The format node that reads each open file, by path; where several disks share a file, the node of ``disk``."""
        found: dict[str, str] = {}
        for node, path in self.files.items():
            mine = disk and (node == disk or node.startswith(f"{disk}-"))
            if mine or path not in found:
                found[path] = node
        return found

    @property
    def in_use(self) -> frozenset[str]:
        """The paths some device reads through."""
        return frozenset(file for one in self.devices.values() for file in one.files)


def _no_graph(why: str) -> ControlError:
    return ControlError("QEMU answered what is no block graph", why=why)


@dataclass()
class _Edges:
    """The nodes and edges as QEMU lists them, by number."""

    names: dict[int, str] = field(default_factory=dict)
    below: dict[int, dict[str, int]] = field(default_factory=dict)
    roots: list[tuple[str, int, bool]] = field(default_factory=list)

    def name(self, node: int) -> str:
        """What a node is called. Raises ControlError for one that QEMU did not list."""
        if node not in self.names:
            raise _no_graph(f"an edge leads to node {node}, which is not in it")
        return self.names[node]

    def leaf(self, node: int) -> int | None:
        """The file a format node reads; None for a node that only passes requests on."""
        child = self.below.get(node, {}).get("file")
        return child if child is not None and not self.below.get(child) else None

    def formats(self, node: int) -> Iterator[tuple[int, int]]:
        """The format nodes of a chain with the files they read, top first. Raises ControlError for one without an end."""
        at: int | None = node
        seen: set[int] = set()
        while at is not None:
            if at in seen:
                raise _no_graph(f"below node {at} comes node {at} again")
            seen.add(at)
            child, below = self.leaf(at), self.below.get(at, {})
            if child is not None:
                yield at, child
                at = below.get("backing")
            else:
                at = below.get("file", below.get("backing"))


async def block_graph(session: Session) -> BlockGraph:
    """Ask QEMU for its nodes, edges and descriptors."""
    graph, sets = await asyncio.gather(session.execute("x-debug-query-block-graph"), session.execute("query-fdsets"))
    edges, descriptors = _edges(record(graph)), _descriptors(sets)
    leaves = {leaf for node in edges.names if (leaf := edges.leaf(node)) is not None}
    paths = await _paths(session, {leaf: edges.name(leaf) for leaf in leaves}, descriptors)
    devices = {}
    left = _MOST_STEPS
    for device, root, writes in edges.roots:
        chain = list(edges.formats(root))
        if (left := left - len(chain)) < 0:
            raise _no_graph(f"its chains have more than {_MOST_STEPS} nodes together")
        files = tuple(dict.fromkeys(paths.get(leaf, "") for _, leaf in chain))
        top = edges.name(chain[0][0]) if chain else ""
        devices[device] = Attached(device, edges.name(root), top, files, not writes)
    read = {edges.names[node]: paths[leaf] for node in edges.names if (leaf := edges.leaf(node)) is not None}
    return BlockGraph(devices, read, descriptors)


async def attached(session: Session) -> Mapping[str, Attached]:
    """Every block device that has a medium, by device id."""
    return (await block_graph(session)).devices


def _edges(graph: Mapping[str, object]) -> _Edges:
    found, devices = _Edges(), {}
    for node in records(member(graph, "nodes")):
        found.names[number(node, "id")] = text(node, "name")
        if text(node, "type") == "block-backend":
            devices[number(node, "id")] = _device_id(text(node, "name"))
    for edge in records(member(graph, "edges")):
        parent, child = number(edge, "parent"), number(edge, "child")
        perm = member(edge, "perm")
        if parent not in devices:
            found.below.setdefault(parent, {})[text(edge, "name")] = child
        elif devices[parent] and isinstance(perm, list):
            found.roots.append((devices[parent], child, "write" in perm))
    return found


def _descriptors(answer: object) -> dict[int, str]:
    sets, folders = {}, dict[str, str]()
    for fdset in records(answer):
        names = [text(fd, "opaque", "") for fd in records(member(fdset, "fds"))]
        sets[number(fdset, "fdset-id")] = _resolved(next(filter(None, names), ""), folders)
    return sets


async def _paths(session: Session, leaves: Mapping[int, str], descriptors: Mapping[int, str]) -> dict[int, str]:
    """The path each file node reads: told by its name, else QEMU is asked (a node of the user's own)."""
    paths, strange = {}, {}
    for leaf, name in leaves.items():
        if match := _LEAF.match(name):
            paths[leaf] = descriptors.get(int(match[1]), "")
        else:
            strange[leaf] = name
    if strange:
        every = records(await session.execute("query-named-block-nodes", flat=True))
        by_name = {text(one, "node-name", ""): text(one, "file", "") for one in every}
        paths |= {leaf: _path(by_name.get(name, ""), descriptors) for leaf, name in strange.items()}
    return paths


async def driver_of(session: Session, node: str) -> str:
    """The format driver of a node. Raises ControlError when there is no such node."""
    for one in records(await session.execute("query-named-block-nodes", flat=True)):
        if one.get("node-name") == node:
            return text(one, "drv")
    raise ControlError(f"QEMU has no node {node}")


@dataclass(frozen=True)
class Opening:
    """A file to be opened as ``node``, over the node ``backing`` or with nothing behind it yet.

    ``options`` are the file node's: cache, aio, discard; ``more`` the format node's own. ``descriptor`` is that of a
    file that is open already, and yet to get its name; it stays open.
    """

    path: Path
    node: str
    options: Mapping[str, object]
    backing: str | None = None
    more: Mapping[str, object] = field(default_factory=dict)
    descriptor: int | None = None


async def open_overlays(session: Session, openings: Iterable[Opening]) -> None:
    """Hand QEMU qcow2 files and open them. Raises ControlError, OSError; a file that could not be opened is given up."""
    sets = [(await _hand(session, opening), opening) for opening in openings]
    requests = (session.execute("blockdev-add", _node(opening, fdset)) for fdset, opening in sets)
    answers = await asyncio.gather(*requests, return_exceptions=True)
    for (fdset, _), answer in zip(sets, answers, strict=True):
        if isinstance(answer, ControlError):
            await session.execute("remove-fd", fdset_id=fdset)
    for answer in answers:
        if isinstance(answer, BaseException):
            raise answer


async def _hand(session: Session, opening: Opening) -> int:
    ours = os.open(opening.path, os.O_RDWR | os.O_CLOEXEC) if opening.descriptor is None else opening.descriptor
    try:
        if is_direct(opening.options):
            around_the_cache(ours)
        answer = record(await session.execute_with_fd(ours, "add-fd", opaque=str(opening.path)))
    finally:
        if opening.descriptor is None:
            os.close(ours)
    return number(answer, "fdset-id")


def _node(opening: Opening, fdset: int) -> dict[str, object]:
    name = f"fd{fdset}-{opening.node}"
    file = {"driver": "file", "node-name": name, "filename": f"{_FDSET}{fdset}", **opening.options}
    shared = {key: value for key, value in opening.options.items() if key != "aio"}
    node = {"driver": "qcow2", "node-name": opening.node, "backing": opening.backing, "file": file}
    return {**node, **shared, **opening.more}


async def close_unused(session: Session, directory: Path) -> None:
    """Close every node of the machine's own files that no device reads through, and give up their descriptors.

    A node that is still in use (a job, a backup) stays.
    """
    graph = await block_graph(session)
    stay = graph.in_use
    for path, node in graph.nodes().items():
        if Path(path).parent == directory and path not in stay:
            with contextlib.suppress(RefusedError):
                await session.execute("blockdev-del", node_name=node)
    for fdset, path in graph.descriptors.items():
        if path.endswith(".qcow2") and Path(path).parent == directory and path not in stay:
            await session.execute("remove-fd", fdset_id=fdset)


def node_of(path: str) -> str:
    """The name a machine's own file is opened under: the file's name without its ending."""
    return Path(path).stem


def _resolved(path: str, folders: dict[str, str]) -> str:
    """The path without links; ``folders`` remembers those of folders, which many files share."""
    if not path.startswith("/"):
        return path
    folder, name = os.path.split(path)
    if folder not in folders:
        folders[folder] = os.path.realpath(folder)
    found = os.path.join(folders[folder], name)  # noqa: PTH118
    return os.path.realpath(found) if os.path.islink(found) else found  # noqa: PTH114


def _path(name: str, descriptors: Mapping[int, str]) -> str:
    """The path behind a file name as QEMU prints it: plain, or a set of descriptors."""
    if not name.startswith(_FDSET):
        return name
    number = name.removeprefix(_FDSET)
    return descriptors.get(int(number), "") if re.fullmatch(r"\d{1,9}", number) else ""


def _device_id(qdev: str) -> str:
    """``/machine/peripheral/disk0-dev/virtio-backend`` and ``disk0-dev`` are both ``disk0-dev``."""
    if qdev.startswith("/machine/peripheral/"):
        return qdev.split("/")[3]
    return "" if qdev.startswith("/") else qdev
