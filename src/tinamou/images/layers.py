"""Images made in layers: each a file over the one before it, named after all that went into it; the last one is the image.

::

    images/web/x86_64/layer-6f1c…/disk.qcow2     rests on the layer before it; the first one is a name of the base's file
    images/web/x86_64/layer-6f1c…/facts.json     what it is
    images/web/x86_64/current                    link to the layer that is the image
"""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from tinamou.errors import ImageError
from tinamou.facts.image import ImageFacts
from tinamou.images import store
from tinamou.images.chain import read_chain
from tinamou.late import replace
from tinamou.system.paths import image_dir

__all__ = ["add_base", "filed", "folder_of", "layer", "point", "resting_on"]

_PREFIX = "layer-"
_BOOTS = ("kernel", "fast_kernel", "initrd")


def folder_of(name: str, arch: str) -> Path:
    """Where the layers of an image are."""
    return image_dir() / name / arch


def layer(name: str, arch: str, key: str = "") -> ImageFacts | None:
    """The image made in layers under that name, or the layer of a key; None where there is none."""
    folder = folder_of(name, arch)
    if key:
        return store.described(folder / f"{_PREFIX}{key}")
    try:
        target = os.readlink(folder / "current")  # noqa: PTH115
    except OSError:
        return None
    return store.described(folder / target) if target.startswith(_PREFIX) else None


def add_base(name: str, key: str, base: ImageFacts) -> ImageFacts:
    """The first layer: the base's own files under further names, copied where they lie on another file system."""
    folder = folder_of(name, base.arch)
    if (found := layer(name, base.arch, key)) is not None:
        return found
    with _work(folder) as work:
        for field, target in (("disk", "disk.qcow2"), *((one, one) for one in _BOOTS)):
            if source := getattr(base, field):
                _put(source, work / target)
        return _filed(work, name, key, base)


@contextlib.contextmanager
def filed(
    name: str, key: str, below: ImageFacts, became: Callable[[ImageFacts], ImageFacts] = lambda facts: facts
) -> Iterator[Path]:
    """The path at which the block makes the disk of the next layer; it is one once the block has ended.

    ``became`` says, when it has, what is known of the guest beside what was known of it below.
    """
    with _work(folder_of(name, below.arch)) as work:
        yield work / "disk.qcow2"
        for field in _BOOTS:
            if source := getattr(below, field):
                _put(source, work / field)
        _filed(work, name, key, became(below))


def resting_on(name: str, folders: Sequence[Path]) -> list[str]:
    """The names of other images whose layers read through files in those folders."""
    found = set()
    for facts in image_dir().glob(f"*/*/{_PREFIX}*/facts.json"):
        there = store.described(facts.parent)
        if there is None or there.name == name or there.name in found:
            continue
        with contextlib.suppress(ImageError):  # one that is damaged is nobody's reason
            if any(Path(one.path).parent in folders for one in read_chain(there.disk)):
                found.add(there.name)
    return sorted(found)


def point(name: str, arch: str, key: str) -> ImageFacts:
    """Have the image be that layer from now on; machines of an earlier one keep theirs."""
    store.point(folder_of(name, arch) / "current", f"{_PREFIX}{key}")
    found = layer(name, arch)
    assert found is not None
    return found


@contextlib.contextmanager
def _work(folder: Path) -> Iterator[Path]:
    """A folder that becomes the layer's, or nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    path = Path(tempfile.mkdtemp(prefix=".building-", dir=folder))
    try:
        path.chmod(0o755)
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _put(source: str, target: Path) -> None:
    try:
        try:
            os.link(os.path.realpath(source), target)
        except OSError:
            shutil.copyfile(source, target)
            target.chmod(0o444)
    except OSError as error:
        raise ImageError(f"{source} cannot be made a layer", why=error.strerror or str(error)) from error


def _filed(work: Path, name: str, key: str, like: ImageFacts) -> ImageFacts:
    boots: dict[str, Any] = {field: field if getattr(like, field) else "" for field in _BOOTS}
    store.describe(work, replace(like, name=name, disk="disk.qcow2", format="qcow2", built=True, **boots))
    (work / "disk.qcow2").chmod(0o444)
    target = work.parent / f"{_PREFIX}{key}"
    if not target.exists():
        work.rename(target)
    found = store.described(target)
    assert found is not None
    return found
