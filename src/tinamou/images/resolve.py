"""From what the user names to files on this host: built guests, catalogue entries, local files."""

from __future__ import annotations

from collections.abc import Collection

from tinamou.errors import ImageError
from tinamou.facts.image import ImageFacts
from tinamou.images import debian, store, tiny
from tinamou.images.progress import Progress, silent

__all__ = ["names", "resolve"]


def resolve(name: str, arch: str, *, progress: Progress = silent, build: bool = True, refresh: bool = False) -> ImageFacts:
    """The image of that name or path for an architecture (QEMU's name of it).

    With ``build`` false nothing is built: a guest not built yet comes back with ``built=False`` and the paths it will have.
    Raises ImageError for a name nobody knows, and when building fails.
    """
    recipe = _recipe(name, arch)
    if recipe is None:
        raise ImageError(
            f"there is no image called {name!r}", fix=f"there are: {', '.join(names())}; or give the path of a disk image"
        )
    found = None if refresh else store.cached(recipe)
    if found:
        return found
    return store.make(recipe, progress, refresh=refresh) if build else store.predicted(recipe)


def names() -> list[str]:
    """The names ``resolve`` knows, besides paths."""
    return ["tiny", "debian", *(f"debian:{suite}" for suite in debian.SUITES)]


def _recipe(name: str, arch: str) -> store.Recipe | None:
    kind, _, suite = name.partition(":")
    if name == "tiny":
        return tiny.Tiny(_supported(name, arch, tiny.ARCHES))
    if kind == "debian" and (suite or debian.SUITES[0]) in debian.SUITES:
        return debian.Debian(suite or debian.SUITES[0], _supported(name, arch, debian.ARCHES))
    return None


def _supported(name: str, arch: str, arches: Collection[str]) -> str:
    if arch not in arches:
        raise ImageError(f"the guest {name} is not built for {arch}", fix=f"choose one of {', '.join(arches)}")
    return arch
