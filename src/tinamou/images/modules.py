"""Kernel modules for a guest: which files a list of names needs, and the index modprobe reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from tinamou.errors import ImageError
from tinamou.images.elf import Elf, ElfError
from tinamou.late import dataclass
from tinamou.system.codecs import CodecError, compression_of, decompress

__all__ = ["Module", "chosen", "index", "load", "load_order"]


@dataclass(frozen=True)
class Module:
    """One module: its name with underscores, path below /lib/modules/RELEASE, content, dependencies, aliases.

    ``wants`` are what it can do without (softdep), by name or alias.
    """

    name: str
    path: str
    content: bytes
    depends: tuple[str, ...]
    aliases: tuple[str, ...]
    wants: tuple[str, ...] = ()


def load(path: Path, root: Path) -> Module:
    """Read one module file, unpacked when it is compressed. Raises ImageError for a damaged one."""
    data = path.read_bytes()
    try:
        data = decompress(data) if compression_of(data) else data
        told = Elf(data).section(".modinfo").split(b"\0")
    except (CodecError, ElfError) as error:
        raise ImageError(f"the kernel module {path.name} is damaged", why=str(error)) from error
    info = [item.decode(errors="replace").partition("=") for item in told if item]
    depends = tuple(_plain(n) for key, _, value in info if key == "depends" for n in value.split(",") if n)
    soft = tuple(_plain(n) for key, _, value in info if key == "softdep" for n in _before(value))
    relative = str(path.relative_to(root)).split(".ko")[0] + ".ko"
    aliases = tuple(value for key, _, value in info if key == "alias")
    return Module(_name(path), relative, data, depends, aliases, soft)


def chosen(root: Path, names: Iterable[str]) -> dict[str, Module]:
    """The wanted modules with all they depend on, by name; names the kernel does not have as a module are left out.

    ``root`` is a folder /lib/modules/RELEASE. Raises ImageError when a dependency is missing.
    """
    files = {_name(path): path for path in root.rglob("*.ko*")}
    builtin = _builtin(root)
    found: dict[str, Module] = {}
    todo = [_plain(name) for name in names if _plain(name) in files]
    while todo:
        name = todo.pop()
        if name in found:
            continue
        if name not in files:
            raise ImageError(f"the kernel module {name} is missing from the kernel package")
        found[name] = load(files[name], root)
        todo += [n for n in found[name].depends if n in files or n not in builtin]
        todo += [n for n in found[name].wants if n in files]
    return dict(sorted(found.items()))


def index(modules: Mapping[str, Module]) -> dict[str, bytes]:
    """``modules.dep`` and ``modules.alias`` for exactly these modules (source: modules.dep(5))."""
    dep = [f"{m.path}: {' '.join(modules[n].path for n in _needs(m, modules))}".rstrip() for m in modules.values()]
    alias = [f"alias {a} {m.name}" for m in modules.values() for a in m.aliases]
    return {"modules.dep": _lines(dep), "modules.alias": _lines(alias)}


def load_order(names: Iterable[str], modules: Mapping[str, Module]) -> list[str]:
    """The named modules and their dependencies, each after what it depends on."""
    order: dict[str, None] = {}
    todo = [(name, False) for name in reversed(list(names))]
    begun: set[str] = set()
    while todo:
        name, ready = todo.pop()
        if ready:
            order[name] = None
        elif name in modules and name not in begun:
            begun.add(name)
            todo += [(name, True), *((n, False) for n in reversed(modules[name].depends))]
    return list(order)


def _needs(module: Module, modules: Mapping[str, Module]) -> list[str]:
    """The dependencies as modules.dep has them: what must be loaded first stands last."""
    return load_order(module.depends, modules)[::-1]


def _builtin(root: Path) -> frozenset[str]:
    listed = root / "modules.builtin"
    text = listed.read_text(errors="replace") if listed.exists() else ""
    return frozenset(_name(Path(line)) for line in text.split())


def _before(softdep: str) -> list[str]:
    words = softdep.replace("pre:", " pre: ").replace("post:", " post: ").split()
    found, active = [], False
    for word in words:
        if word in ("pre:", "post:"):
            active = word == "pre:"
        elif active:
            found.append(word)
    return found


def _lines(lines: list[str]) -> bytes:
    return "".join(f"{line}\n" for line in lines).encode()


def _name(path: Path) -> str:
    return _plain(path.name.split(".ko")[0])


def _plain(name: str) -> str:
    return name.replace("-", "_")
