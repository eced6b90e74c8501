"""A host in a file: what planning reads of its /proc and /sys, without names, addresses and identities; and reading it."""

from __future__ import annotations

import contextlib
import io
import lzma
import os
import re
import tarfile
import tempfile
import zlib
from collections.abc import Iterator
from pathlib import Path

from tinamou.errors import ProbeError
from tinamou.probe.host import probe_host
from tinamou.probe.pci import probe_pci
from tinamou.probe.usb import probe_usb
from tinamou.system.rooted import Rooted

__all__ = ["opened", "record"]

_MOST_FILES, _MOST_BYTES = 400_000, 256 << 20
_PROCESS = re.compile(r"/proc/\d+(/|$)")
_OWN = "/proc/self/"
"""This process by a name that is another's in each: what is read there is known by it, and not by where it leads."""
_KEPT = ("/proc/", "/sys/", "/dev/", "/etc/group", "/usr/", "/bin/", "/sbin/")
"""Where what is recorded lies: no home folders, though programs may be there."""
_PROCESSOR = ("processor", "vendor_id", "model name", "address sizes", "CPU implementer", "cpu\t", "isa")
_GROUPS = ("kvm", "vfio", "disk", "render", "video")
_DAMAGED = (
    *(tarfile.TarError, zlib.error, lzma.LZMAError, OSError, EOFError),
    *(AttributeError, ValueError, OverflowError, TypeError),
)
"""What a damaged archive raises in the standard library, which does not check all that a header says before it uses it."""
_FIX = "make one there with: tinamou host record FILE"


class _Recorder(Rooted):
    """This host, and every path that was asked for; ``texts`` has what was read."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: dict[str, str] = {}
        self.asked: dict[str, None] = {}

    def read(self, path: str, limit: int = 1 << 20) -> str | None:
        text = super().read(path, limit)
        if text is not None:
            self.texts[path if path.startswith(_OWN) else os.path.realpath(path)] = text
            self.asked[path] = None
        return text

    def names(self, path: str, start: str = "") -> list[str]:
        found = [name for name in super().names(path, start) if not _PROCESS.match(f"{path}/{name}")]
        self.asked |= dict.fromkeys([path, *(f"{path}/{name}" for name in found)])
        return found

    def target(self, path: str) -> str:
        self.asked[path] = None
        return super().target(path)

    def exists(self, path: str) -> bool:
        self.asked[path] = None
        return super().exists(path)

    def path(self, path: str) -> str:
        self.asked[path] = None
        return super().path(path)


def record(target: Path) -> int:
    """Write this host to a file, and tell how many files of it are in there. Raises FileExistsError."""
    files = _Recorder()
    probe_host(files)
    probe_pci(files, {})
    probe_usb(files, {})
    for path in ("/proc/version", "/proc/cpuinfo"):
        files.read(path)
    members: dict[str, tarfile.TarInfo] = {}
    for path in files.asked:
        _member(path, members)
    with target.open("xb") as out, tarfile.open(fileobj=out, mode="w:gz") as archive:
        for name, member in sorted(members.items()):
            text = _scrubbed(f"/{name}", files.texts.get(f"/{name}", "")) if member.isfile() else ""
            member.size = len(text.encode())
            archive.addfile(member, io.BytesIO(text.encode()))
    return len(members)


def _member(path: str, members: dict[str, tarfile.TarInfo], depth: int = 0) -> None:
    """The file itself, each folder above it, and each link on the way, with what that leads to."""
    if not path.startswith(_KEPT):
        return
    parts = Path(path).parts[1:]
    for count in range(1, len(parts) + 1):
        here = "/" + "/".join(parts[:count])
        if here.lstrip("/") in members and count < len(parts) and not members[here.lstrip("/")].issym():
            continue
        if not os.path.lexists(here) or _PROCESS.match(here) or depth > 40:
            return
        member = members.setdefault(here.lstrip("/"), tarfile.TarInfo(here.lstrip("/")))
        member.mode = 0o755
        if Path(here).is_symlink() and here != "/proc/self":
            member.type = tarfile.SYMTYPE
            leads = os.path.normpath(Path(here).parent / Path(here).readlink())
            member.linkname = os.path.relpath(leads, Path(here).parent)
            _member(os.path.join(leads, *parts[count:]), members, depth + 1)  # noqa: PTH118
            return
        member.type = tarfile.DIRTYPE if Path(here).is_dir() else tarfile.REGTYPE


def _scrubbed(path: str, text: str) -> str:
    """What is read, without who is logged in, where things are mounted, who is in which group, and serial numbers."""
    lines = text.splitlines()
    if path.endswith("/status"):
        lines = [line for line in lines if line.startswith(("Cpus_allowed", "Mems_allowed"))]
    elif path == "/proc/cmdline":
        lines = [word for word in text.split() if word.startswith("pcie_acs_override=")]
    elif path.endswith("/mountinfo"):
        rows = [line.split() for line in lines]
        kept = [(*row[:3], "/", row[4] if row[4] == "/" else "/mounted") for row in rows if len(row) > 4]
        lines = [" ".join((*row, "rw - none none rw")) for row in kept if not row[2].startswith("0:")]
    elif path.startswith(f"{_OWN}net/"):
        lines = [" ".join(_without_addresses(path, line.split())) for line in lines]
    elif path.startswith(_OWN):
        lines = []
    elif path == "/etc/group":
        rows = [line.split(":") for line in lines]
        lines = [f"{row[0]}:x:{row[2]}:" for row in rows if row[0] in _GROUPS and len(row) > 2]
    elif path == "/proc/cpuinfo":
        lines = [line for line in lines if line.startswith(_PROCESSOR)]
    elif path == "/proc/version":
        lines = [" ".join(text.split()[:3])]
    return "\n".join([*lines, ""])


def _without_addresses(path: str, row: list[str]) -> list[str]:
    """A line of the kernel's tables of routes, addresses and packet sockets, with what planning reads of it alone."""
    if path.endswith("/route"):
        return row[:1]
    kept = {"if_inet6": (3, 5), "ipv6_route": (9,), "packet": (2, 3, 4)}[path.rpartition("/")[2]]
    told = [word if number in kept else "0" for number, word in enumerate(row)]
    if path.endswith("/ipv6_route") and row and row[0].startswith(("fe80", "ff00")):
        told[0] = row[0][:4]
    return told


@contextlib.contextmanager
def opened(recording: Path) -> Iterator[str]:
    """The root of a recorded host: a folder with its sys and proc, or a file of `record`, unpacked while the block lasts.

    Raises ProbeError for anything else.
    """
    with contextlib.ExitStack() as stack:
        root = recording
        if recording.is_file():
            root = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="tinamou-host-")))
            try:
                _unpack(recording, root)
            except _DAMAGED as error:
                raise ProbeError(f"{recording} is no recording of a host", why=str(error)[:200], fix=_FIX) from error
        if not (root / "sys/devices/system/cpu").is_dir():
            raise ProbeError(f"{recording} is no recording of a host", why="it has no /sys/devices/system/cpu", fix=_FIX)
        yield str(root.resolve())


def _unpack(recording: Path, root: Path) -> None:
    """Files and folders first, links last and only such as stay inside: nothing is written or read through one."""
    links: list[tuple[Path, str]] = []
    left, count = _MOST_BYTES, 0
    with tarfile.open(recording, "r|*") as archive:
        for member in archive:
            count += 1
            place = Path(os.path.normpath(root / member.name))
            left -= member.size
            if count > _MOST_FILES or left < 0 or not place.is_relative_to(root) or member.size < 0:
                raise ValueError(f"{member.name[:100]!r} has no place in one")
            if member.issym():
                links.append((place, member.linkname))
            elif member.isdir():
                place.mkdir(parents=True, exist_ok=True)
            elif member.isreg() and not member.issparse() and (data := archive.extractfile(member)) is not None:
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_bytes(data.read())
    for place, leads in links:
        if os.path.isabs(leads) or not Path(os.path.normpath(place.parent / leads)).is_relative_to(root):  # noqa: PTH117
            raise ValueError(f"{place.name[:100]!r} leads out of it")
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(leads)
