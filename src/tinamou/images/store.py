"""Built guests on disk: one folder per build that never changes, a link to the one in use, builds that are whole or absent.

::

    images/tiny/x86_64/.lock                held while building
    images/tiny/x86_64/.building-XXXX/      a build under way; what a crash left is removed by the next build
    images/tiny/x86_64/3-6f1c…/             builder 3, digest of the packages: kernel, initrd, manifest.json, facts.json
    images/tiny/x86_64/current-3            link to the folder builder 3 uses: other versions of tinamou have other builders
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Protocol

from tinamou.digest import file_digest
from tinamou.errors import ImageError
from tinamou.facts.image import ImageFacts
from tinamou.images.progress import Progress
from tinamou.late import asdict, dataclass, fields, replace
from tinamou.system.lock import exclusive
from tinamou.system.paths import image_dir
from tinamou.system.replaced import replace_text
from tinamou.units import Size

__all__ = [
    "Kept",
    "Prepared",
    "Recipe",
    "builds_of",
    "by_content",
    "cached",
    "describe",
    "described",
    "digest_of",
    "held",
    "kept",
    "make",
    "point",
    "pointed_at",
    "predicted",
    "remove",
]


class Recipe(Protocol):
    """How one guest is built."""

    @property
    def facts(self) -> ImageFacts:
        """What it will be, with file names relative to its folder."""

    @property
    def builder(self) -> int:
        """Raised whenever the same packages give another guest."""

    @property
    def space(self) -> int:
        """Bytes needed in the image folder while building."""

    def prepare(self, work: Path, progress: Progress) -> Prepared:
        """Find out what would be built now, without the expensive part; ``work`` is an empty folder for it to use."""


@dataclass(frozen=True)
class Prepared:
    """A build ready to go: a digest of what goes in, and the function that puts all files into a folder.

    The function returns the facts with file names relative to that folder.
    """

    key: str
    build: Callable[[Path], ImageFacts]


@dataclass(frozen=True)
class Kept:
    """One built guest on disk; ``built`` in seconds since 1970."""

    name: str
    arch: str
    path: Path
    size: Size
    built: float
    current: bool


def builds_of(name: str, arch: str) -> Path:
    """Where the builds of a guest lie."""
    return image_dir() / name.replace(":", "-") / arch


def cached(recipe: Recipe) -> ImageFacts | None:
    """The guest as it was built before by this version of its builder, None when it was not."""
    return pointed_at(_link(recipe))


def _link(recipe: Recipe) -> Path:
    return builds_of(recipe.facts.name, recipe.facts.arch) / f"current-{recipe.builder}"


def pointed_at(link: Path) -> ImageFacts | None:
    """The guest in the folder that a link names, as `described`."""
    try:
        return described(link.parent / os.readlink(link))  # noqa: PTH115 (this path is measured)
    except OSError:
        return None


def described(folder: Path) -> ImageFacts | None:
    """The guest in that folder, with the paths of its files; None where there is none."""
    try:
        with open(folder / "facts.json", encoding="utf-8") as file:  # noqa: PTH123 (pathlib costs more than the read)
            return _absolute(_from_json(json.load(file)), folder)
    except (OSError, ValueError, TypeError):
        return None


def _by_another(recipe: Recipe) -> ImageFacts | None:
    """The guest as another version of its builder built it last."""
    links = builds_of(recipe.facts.name, recipe.facts.arch).glob("current*")
    newest = sorted(links, key=lambda link: link.lstat().st_mtime, reverse=True)
    return next((facts for link in newest if (facts := pointed_at(link))), None)


def predicted(recipe: Recipe) -> ImageFacts:
    """The facts and paths the guest will have once it is built."""
    return replace(_absolute(recipe.facts, _link(recipe)), built=False)


def make(recipe: Recipe, progress: Progress, *, refresh: bool = False) -> ImageFacts:
    """The cached guest, built first when there is none; ``refresh`` asks the archive for newer packages.

    Two processes that want the same guest build it once. Raises ImageError; nothing is left behind then.
    """
    name, arch = recipe.facts.name, recipe.facts.arch
    with held(name, arch, lambda: progress(f"another process builds {name}: waiting for it", None)) as place:
        found = None if refresh else cached(recipe)
        return found or _build(recipe, place, progress, refresh=refresh)


@contextlib.contextmanager
def held(name: str, arch: str, on_wait: Callable[[], None]) -> Iterator[Path]:
    """The folder of a guest's builds, which is nobody else's until the block ends. Raises ImageError."""
    place = builds_of(name, arch)
    try:
        place.mkdir(parents=True, exist_ok=True)
        with exclusive(place / ".lock", on_wait):
            yield place
    except PermissionError as error:
        fix = "set TINAMOU_CACHE to a folder you own"
        raise ImageError(f"{place} cannot be written", why=str(error), fix=fix) from error


def _build(recipe: Recipe, folder: Path, progress: Progress, *, refresh: bool) -> ImageFacts:
    import shutil
    import tempfile

    for stale in folder.glob(".building-*"):
        shutil.rmtree(stale)
    _require_space(folder, recipe)
    work = Path(tempfile.mkdtemp(prefix=".building-", dir=folder))
    work.chmod(0o755)
    try:
        try:
            prepared = recipe.prepare(work, progress)
        except ImageError as error:
            older = None if refresh else _by_another(recipe)
            if older is None:
                raise
            progress(f"warning: {error.what}: {error.why}; taking {recipe.facts.name} as an earlier version built it", None)
            return older
        name = f"{recipe.builder}-{prepared.key}"
        if not (folder / name / "facts.json").exists():
            out = work / "out"
            out.mkdir()
            facts = prepared.build(out)
            describe(out, facts)
            for file in out.iterdir():
                file.chmod(0o444)
            out.chmod(0o755)
            out.rename(folder / name)
        point(_link(recipe), name)
    except OSError as error:
        raise ImageError(f"{recipe.facts.name} cannot be built in {folder}", why=str(error)) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    done = cached(recipe)
    assert done is not None
    return done


def _require_space(folder: Path, recipe: Recipe) -> None:
    import shutil

    free = shutil.disk_usage(folder).free
    if free < recipe.space:
        raise ImageError(
            f"not enough space in {folder} to build {recipe.facts.name}",
            why=f"it takes {recipe.space >> 20} MiB while building, {free >> 20} MiB are free",
            fix="free some space there, or set TINAMOU_CACHE to a folder on a larger file system",
        )


def point(link: Path, target: str) -> None:
    """Have a link name another folder beside it, in one moment."""
    fresh = link.with_name(f".building-{os.getpid()}")
    fresh.unlink(missing_ok=True)
    fresh.symlink_to(target)
    fresh.replace(link)


def kept() -> list[Kept]:
    """All built guests on disk, by name, architecture and age."""
    found = []
    for facts in image_dir().glob("*/*/*/facts.json"):
        folder = facts.parent
        if folder.is_symlink():
            continue
        described = _from_json(json.loads(facts.read_text()))
        current = bool(_links(folder))
        size = Size(sum(f.stat().st_blocks * 512 for f in folder.iterdir()))
        found.append(Kept(described.name, described.arch, folder, size, facts.stat().st_mtime, current))
    return sorted(found, key=lambda k: (k.name, k.arch, k.built))


def _links(folder: Path) -> list[Path]:
    return [link for link in folder.parent.glob("current*") if link.resolve() == folder.resolve()]


def remove(item: Kept) -> None:
    """Delete a built guest. Machines whose disks rest on it no longer start; ask them first."""
    import shutil

    with exclusive(item.path.parent / ".lock"):
        for link in _links(item.path):
            link.unlink(missing_ok=True)
        shutil.rmtree(item.path)


def digest_of(path: Path) -> str:
    """The SHA-256 of a file of a built guest, which never changes: remembered beside it, where this user may."""
    known = path.parent / "sums.json"
    seen = path.stat()
    mark = [seen.st_size, seen.st_mtime_ns]
    try:
        kept = json.loads(known.read_text())
        if kept[path.name][:2] == mark:
            return str(kept[path.name][2])
    except (OSError, ValueError, KeyError, TypeError):
        kept = {}
    found = file_digest(path)
    if (path.parent / "facts.json").exists():
        with contextlib.suppress(OSError):
            replace_text(known, json.dumps({**kept, path.name: [*mark, found]}), mode=0o644)
    return found


def by_content(wanted: Collection[tuple[int, str]]) -> dict[str, tuple[Path, ImageFacts]]:
    """The files of guests here that are among these, told by size and SHA-256, by the latter; and whose each is.

    Only those of such a size are read, the newest guests' first, until each was found.
    """
    lacking, found, sizes = set(wanted), dict[str, tuple[Path, ImageFacts]](), {size for size, _ in wanted}
    folders = [one.parent for one in image_dir().glob("*/*/*/facts.json") if not one.parent.is_symlink()]
    for folder in sorted(folders, key=lambda one: one.stat().st_mtime, reverse=True) if lacking else ():
        if sizes.isdisjoint(_sizes(folder)) or (facts := described(folder)) is None:
            continue
        for name in filter(None, (facts.disk, facts.kernel, facts.fast_kernel, facts.initrd)):
            path = Path(name)
            size = path.stat().st_size
            if any(size == one for one, _ in lacking) and (size, sum := digest_of(path)) in lacking:
                found[sum] = path, facts
                lacking.discard((size, sum))
    return found


def _sizes(folder: Path) -> Iterator[int]:
    """Those of the files in a folder, which somebody may remove meanwhile."""
    with contextlib.suppress(OSError):
        for file in folder.iterdir():
            yield file.stat().st_size


def _absolute(facts: ImageFacts, folder: Path) -> ImageFacts:
    def place(name: str) -> str:
        return f"{folder}/{name}" if name else ""

    return replace(
        facts,
        disk=place(facts.disk),
        kernel=place(facts.kernel),
        fast_kernel=place(facts.fast_kernel),
        initrd=place(facts.initrd),
    )


def describe(folder: Path, facts: ImageFacts) -> None:
    """Write down what the guest in that folder is, with file names relative to it."""
    (folder / "facts.json").write_text(json.dumps(asdict(facts)))


def _from_json(data: dict[str, object]) -> ImageFacts:
    known = {field.name for field in fields(ImageFacts)}
    values = {name: tuple(v) if isinstance(v, list) else v for name, v in data.items() if name in known}
    values["size"] = Size(str(values.get("size", 0)))
    return ImageFacts(**values)  # type: ignore[arg-type]
