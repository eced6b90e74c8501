"""From what the user names to files on this host: built guests, catalogue entries, local files."""

from __future__ import annotations

import os
import re
from collections.abc import Collection

from tinamou.errors import ImageError
from tinamou.facts.image import ImageFacts
from tinamou.images import store, tiny
from tinamou.images.progress import Progress, silent

__all__ = ["is_path", "names", "resolve"]

_PACKAGE = re.compile(r"[a-z0-9][a-z0-9.-]+")


_FILES = (".qcow2", ".img", ".raw", ".vmdk", ".vhdx", ".vdi", ".iso")
"""How names of files end: no image of another kind is called like that."""


def resolve(name: str, arch: str, *, progress: Progress = silent, build: bool = True, refresh: bool = False) -> ImageFacts:
    """The image of that name or path for an architecture (QEMU's name of it).

    A name is a built guest (``tiny``, ``debian``, ``debian:trixie``, ``debian+nginx+jq`` with packages), an imported image,
    or an entry of the catalogue; whatever has a slash in it, ends like a file, or is one here, is a path. With ``build``
    false nothing is built or downloaded: what is not there yet comes back with ``built=False`` and the paths it will have.
    ``refresh`` looks for something newer. Raises ImageError.
    """
    recipe = _recipe(name, arch)
    if recipe is not None:
        return _built(recipe, progress, build=build, refresh=refresh)
    if is_path(name):
        from tinamou.images.inspect import inspect_image

        return inspect_image(os.path.expanduser(name), arch=arch)  # noqa: PTH111
    from tinamou.images.importing import imported

    return (
        imported(name, arch) or _layered(name, arch) or _from_catalogue(name, arch, progress, build=build, refresh=refresh)
    )


def _layered(name: str, arch: str) -> ImageFacts | None:
    """An image made in layers (``web``), or the layer of a key (``web@6f1c…``)."""
    from tinamou.images.layers import layer

    stem, _, key = name.partition("@")
    return layer(stem, arch, key) if not (key and set(key) - set("0123456789abcdef")) else None


def is_path(name: str) -> bool:
    """Whether an image's name is the path of a file."""
    return os.sep in name or name.startswith("~") or name.endswith(_FILES) or os.path.isfile(name)  # noqa: PTH113 (measured)


def names() -> list[str]:
    """The guests built here; the catalogue has more."""
    from tinamou.images import debian

    return ["tiny", "mender", "debian", *(f"debian:{suite}" for suite in debian.SUITES)]


def _built(recipe: store.Recipe, progress: Progress, *, build: bool, refresh: bool) -> ImageFacts:
    found = None if refresh and build else store.cached(recipe)
    if found:
        return found
    return store.make(recipe, progress, refresh=refresh) if build else store.predicted(recipe)


def _from_catalogue(name: str, arch: str, progress: Progress, *, build: bool, refresh: bool) -> ImageFacts:
    from tinamou.images import catalog, pulled

    try:
        entry = catalog.find(name, arch)
    except ImageError as error:
        near = _near(name)
        fix = f"did you mean {near}? `tinamou image ls --all` shows every name" if near else error.fix
        raise ImageError(error.what, why=error.why, fix=f"{fix}; built here: {', '.join(names())}") from error
    found = pulled.cached(entry)
    if found and not (refresh and build):
        return found
    if not build:
        return pulled.predicted(entry)

    from tinamou.images.pull import pull_entry

    def report(done: int, total: int, rate: float) -> None:
        progress(f"downloading {entry.name}, {done >> 20} MiB, {rate / 1e6:.1f} MB/s", done / total if total else None)

    return pull_entry(entry, progress=report, notice=lambda text: progress(text, None))


def _near(name: str) -> str:
    import difflib

    return " or ".join(difflib.get_close_matches(name, names(), n=1, cutoff=0.6))


def _recipe(name: str, arch: str) -> store.Recipe | None:
    release, *packages = name.split("+")
    kind, _, suite = release.partition(":")
    if name == "tiny":
        return tiny.Tiny(_supported(name, arch, tiny.ARCHES))
    if name == "mender":
        from tinamou.images import mender

        return mender.recipe(_supported(name, arch, tiny.ARCHES))
    if name == "windows-mender":
        from tinamou.images import windows_mender

        return windows_mender.recipe(_supported(name, arch, tiny.ARCHES))
    if kind == "debian":
        from tinamou.images import debian

        if (suite or debian.SUITES[0]) in debian.SUITES:
            wrong = [package for package in packages if not _PACKAGE.fullmatch(package)]
            if wrong:
                raise ImageError(f"{wrong[0]!r} is not a package's name", fix="write debian+nginx, debian:trixie+nginx+jq")
            return debian.Debian(suite or debian.SUITES[0], _supported(name, arch, debian.ARCHES), tuple(packages))
    return None


def _supported(name: str, arch: str, arches: Collection[str]) -> str:
    if arch not in arches:
        raise ImageError(f"the guest {name} is not built for {arch}", fix=f"choose one of {', '.join(arches)}")
    return arch
