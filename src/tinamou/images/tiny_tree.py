"""What lies where in the tiny guest: its kernel files, and the tree its initrd unpacks to."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from tinamou.errors import ImageError
from tinamou.images import cpio, modules
from tinamou.images.elf import Elf, ElfError
from tinamou.images.kernel import write_kernel
from tinamou.images.programs import program

__all__ = ["extract_kernel", "initrd"]

_SCRIPTS = {
    "lib/tinamou/init": "init",
    "lib/tinamou/agent": "agent",
    "lib/tinamou/ports": "ports",
    "lib/tinamou/later": "later",
    "lib/tinamou/hotplug": "hotplug",
    "lib/tinamou/network": "network",
    "lib/tinamou/dhcp": "dhcp",
    "lib/tinamou/console": "console",
    "sbin/shutdown": "shutdown",
    "etc/profile": "profile",
    "etc/acpi/PWRF/00000080": "powerbutton",
}


_MERGED = {"bin": "usr/bin", "sbin": "usr/sbin", "lib": "usr/lib", "lib64": "usr/lib64"}
_LIBRARY = re.compile(r"[\w./+-]*[\w+-]")
_MOST_LINKS = 40
"""As many as the kernel follows (source: path_resolution(7))."""
_PROGRAMS = {
    "usr/bin/busybox": ("bin/busybox", "usr/bin/busybox"),
    "usr/sbin/qemu-ga": ("usr/sbin/qemu-ga", "usr/bin/qemu-ga"),
}


def extract_kernel(root: Path, out: Path) -> bool:
    """Write ``vmlinuz``, and ``vmlinux`` where the kernel has a PVH entry point; tell whether it has."""
    found = [*sorted(root.glob("boot/vmlinu[xz]-*")), *sorted(root.glob("usr/lib/modules/*/vmlinu[xz]"))]
    if not found:
        raise ImageError("the kernel package holds no kernel")
    return write_kernel(found[0].read_bytes(), out)


def initrd(
    root: Path,
    arch: str,
    wanted: Iterable[str],
    first: Mapping[str, Iterable[str]],
    more: Mapping[str, tuple[str, ...]] | None = None,
) -> bytes:
    """The guest's initrd out of unpacked packages: ``wanted`` modules, ``first`` lists of those loaded before it answers.

    ``more`` are further programs: the place in the guest, places in the packages.
    """
    entries = {name: cpio.link(target) for name, target in _MERGED.items()}
    entries |= {f"usr/{name.rpartition('/')[2]}": cpio.directory() for name in _MERGED.values()}
    entries |= {name: cpio.directory() for name in ("proc", "sys", "dev", "run", "root", "mnt", "var", "etc/modprobe.d")}
    entries |= {"tmp": cpio.directory(0o1777), "var/run": cpio.link("../run"), "dev/console": cpio.node(5, 1)}
    entries |= _accounts() | _programs(root, {**_PROGRAMS, **(more or {})}) | _modules(root, wanted, first)
    entries["init"] = cpio.file(program("first", arch), 0o755)
    for name in ("resident", "attended"):
        entries[_merged(f"lib/tinamou/{name}")] = cpio.file(program(name, arch), 0o755)
    scripts = Path(__file__).parent / "rootfs"
    for target, name in _SCRIPTS.items():
        entries[_merged(target)] = cpio.file((scripts / name).read_bytes(), 0o755)
    return cpio.archive(entries)


def _merged(path: str) -> str:
    """A path with /bin, /sbin and /lib resolved to their place in /usr."""
    first, slash, rest = path.partition("/")
    return _MERGED[first] + slash + rest if first in _MERGED else path


def _accounts() -> dict[str, cpio.Entry]:
    return {
        "etc/passwd": cpio.file(b"root::0:0:root:/root:/bin/sh\nnobody:*:65534:65534:nobody:/nonexistent:/bin/sh\n"),
        "etc/group": cpio.file(b"root:x:0:\ntty:x:5:\nnogroup:x:65534:\n"),
        "etc/resolv.conf": cpio.file(b""),
        "etc/fstab": cpio.file(b"proc /proc proc\nsysfs /sys sysfs\ndev /dev devtmpfs\n"),
        "etc/hosts": cpio.file(b"127.0.0.1 localhost\n"),
    }


def _programs(root: Path, wanted: Mapping[str, tuple[str, ...]]) -> dict[str, cpio.Entry]:
    """Busybox, the agent, what else is wanted, and the shared libraries it asks for, at their merged places."""
    found: dict[str, cpio.Entry] = {}
    todo: list[str] = []
    for target, candidates in wanted.items():
        source = next((root / name for name in candidates if (root / name).is_file()), None)
        if source is None:
            raise ImageError(f"the packages hold no {target}")
        found[target] = cpio.file(source.read_bytes(), 0o755)
        todo += _needed(target, found[target].content)
    found |= {f"usr/bin/{name}": cpio.link("busybox") for name in _applets(found["usr/bin/busybox"].content)} | found
    found["usr/sbin/modprobe"] = cpio.link("../bin/busybox")  # where the kernel looks for it, to load what is asked of it
    while todo:
        name = todo.pop()
        path, data = _library(root, name)
        if path not in found:
            found[path] = cpio.file(data, 0o755)
            todo += _needed(path, data)
    return found


def _needed(path: str, program: bytes) -> list[str]:
    try:
        return Elf(program).needed()
    except ElfError as error:
        raise ImageError(f"{path} of the packages is damaged", why=str(error)) from error


def _library(root: Path, name: str) -> tuple[str, bytes]:
    """Where a library or the program interpreter belongs, and its content; links are followed within the packages."""
    if not _LIBRARY.fullmatch(name) or ".." in name.split("/"):
        raise ImageError(f"a program of the packages asks for the library {name!r}", why="that is no name of one")
    patterns = [name.lstrip("/"), f"usr/{name.lstrip('/')}", f"lib/*/{name}", f"usr/lib/*/{name}"]
    for pattern in patterns if "/" in name else patterns[2:]:
        for path in sorted(root.glob(pattern)):
            return _merged(str(path.relative_to(root))), _followed(root, path).read_bytes()
    raise ImageError(f"no package holds the library {name}")


def _followed(root: Path, path: Path) -> Path:
    """The file a link of the packages leads to, which is one of theirs. Raises ImageError."""
    for _ in range(_MOST_LINKS):
        if not path.is_symlink():
            break
        target = str(path.readlink())
        path = root / target.lstrip("/") if target.startswith("/") else path.parent / target
        if not path.exists() and not path.is_symlink():
            path = root / _merged(os.path.relpath(path, root))
    if not path.is_file() or not path.resolve().is_relative_to(root.resolve()):
        raise ImageError(f"a link in the packages leads to no file of theirs: {os.path.relpath(path, root)}")
    return path


def _applets(busybox: bytes) -> list[str]:
    """The names busybox answers to: its own table of names ended by NUL, which begins with ``[`` and ``[[``."""
    start = busybox.find(b"[\0[[\0")
    end = busybox.find(b"\0\0", start)
    if start < 0 or end < 0:
        raise ImageError("this busybox does not tell its applets")
    return busybox[start:end].decode(errors="replace").split("\0")


def _modules(root: Path, wanted: Iterable[str], first: Mapping[str, Iterable[str]]) -> dict[str, cpio.Entry]:
    """The modules, the index modprobe reads, and lists of the paths of those to load first, in order."""
    folders = [*root.glob("lib/modules/*"), *root.glob("usr/lib/modules/*")]
    if not folders:
        raise ImageError("the kernel package holds no modules")
    found = modules.chosen(folders[0], wanted)
    base = f"usr/lib/modules/{folders[0].name}"
    entries = {f"{base}/{module.path}": cpio.file(module.content) for module in found.values()}
    entries |= {f"{base}/{name}": cpio.file(data) for name, data in modules.index(found).items()}
    for name, those in first.items():
        paths = [f"/{base}/{found[module].path}\n" for module in modules.load_order(those, found)]
        entries[f"usr/lib/tinamou/{name}"] = cpio.file("".join(paths).encode())
    return entries
