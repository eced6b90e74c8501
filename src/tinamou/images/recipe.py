"""An image described in a file: a base, packages, files, commands. Each step is a layer, known by all that went into it.

::

    name = "web"
    base = "debian"
    packages = ["nginx"]
    files = ["site:/var/www/html", "nginx.conf:/etc/nginx/nginx.conf"]
    commands = ["systemctl enable nginx"]
"""

from __future__ import annotations

import hashlib
import os
import re
import stat
from collections.abc import Iterator
from pathlib import Path

from tinamou import fields
from tinamou.errors import ImageError, Problem, SpecError
from tinamou.facts.image import ImageFacts
from tinamou.fields import option
from tinamou.late import dataclass, replace
from tinamou.system.toml import toml_file
from tinamou.units import Size

__all__ = ["ImageSpec", "Step", "load_recipe", "read_recipe", "steps_of"]

_PACKAGE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.+:_@/~=-]*")
_INSTALL = """set -e
if command -v apt-get >/dev/null; then export DEBIAN_FRONTEND=noninteractive; apt-get -q update
    apt-get -q install -y --no-install-recommends -- {names}; apt-get clean; rm -rf /var/lib/apt/lists/*
elif command -v dnf >/dev/null; then dnf -y install -- {names}; dnf clean all
elif command -v zypper >/dev/null; then zypper -n install -- {names}; zypper clean -a
elif command -v apk >/dev/null; then apk add --no-cache -- {names}
elif command -v pacman >/dev/null; then pacman -Sy --noconfirm -- {names}; pacman -Scc --noconfirm
else echo 'there is no package manager known here: apt-get, dnf, zypper, apk, pacman' >&2; exit 69
fi"""
_SEAL = """! command -v cloud-init >/dev/null || cloud-init clean --logs
rm -f /etc/ssh/ssh_host_*_key /etc/ssh/ssh_host_*_key.pub /var/lib/systemd/random-seed
[ ! -e /etc/machine-id ] || : >/etc/machine-id
[ ! -f /var/lib/dbus/machine-id ] || rm -f /var/lib/dbus/machine-id
sync"""
"""What each machine made of the image has of its own goes: it is made anew at the first start, as in the vendor's image."""


@dataclass(frozen=True)
class ImageSpec:
    """An image to be made. Nothing of the machine it is made in (memory, CPUs, network) is part of it."""

    name: str = option("", "the image's name: tinamou run NAME", pattern=r"[a-z0-9][a-z0-9._-]{0,63}")
    base: str = option("debian", "the image it is made of: a name, or the path of a file")
    arch: str = option("", "the guest's architecture; the host's when left out")
    packages: tuple[str, ...] = option((), "packages of the guest's distribution, by its own package manager")
    files: tuple[str, ...] = option((), "files and folders of this host, HERE:/THERE; HERE lies beside the image file")
    commands: tuple[str, ...] = option((), "commands for the guest's shell, as root; each one is a layer")
    memory: Size = option(Size(2 << 30), "the memory of the machine it is made in")
    cpus: int = option(2, "the virtual CPUs of the machine it is made in", minimum=1)
    network: bool = option(True, "whether the machine it is made in reaches the network")
    timeout: int = option(3600, "seconds that a step may take", minimum=1)


@dataclass(frozen=True)
class Step:
    """One step: ``kind`` is ``packages``, ``files``, ``command`` or ``seal``; ``key`` names the layer it ends in.

    ``script`` runs in the guest; of files, ``copies`` are the pairs (path here, path in the guest).
    """

    kind: str
    text: str
    key: str
    script: str = ""
    copies: tuple[tuple[str, str], ...] = ()


def read_recipe(path: Path) -> ImageSpec:
    """The image that a TOML file describes. Raises SpecError with every problem."""
    data = toml_file(str(path), "describes no image", see="docs/guides/images.md")
    return load_recipe(data, source=str(path), folder=path.absolute().parent)


def load_recipe(data: object, *, source: str = "the image's description", folder: Path = Path()) -> ImageSpec:
    """Plain data as a description of an image; paths of this host become absolute. Raises SpecError with every problem."""
    spec, problems = fields.load(ImageSpec, data)
    problems += [*_problems(spec)] if spec else []
    if problems or spec is None:
        raise SpecError(f"{source} describes no image", problems=problems, fix="correct the fields named above")
    pairs = (one.rpartition(":/") for one in spec.files)
    return replace(spec, files=tuple(f"{folder / here}:/{there}" for here, _, there in pairs))


def _problems(spec: ImageSpec) -> Iterator[Problem]:
    if not spec.name:
        yield Problem("name", spec.name, "an image needs a name", 'name = "web"')
    if not (spec.packages or spec.files or spec.commands):
        yield Problem(
            "commands", None, "nothing is to be done: the image would be its base", "add packages, files or commands"
        )
    for index, one in enumerate(spec.packages):
        if not _PACKAGE.fullmatch(one):
            yield Problem(f"packages[{index}]", one, "not a package's name", "letters, digits and . + : _ @ / ~ = -")
    for index, one in enumerate(spec.files):
        here, colon, there = one.rpartition(":/")
        if not colon or not here or ".." in there.split("/"):
            yield Problem(f"files[{index}]", one, "not a file here and a path in the guest", 'write "site:/var/www/html"')


def steps_of(spec: ImageSpec, base: ImageFacts) -> tuple[str, list[Step]]:
    """The key of the base, and the steps to the image. Raises ImageError for a file that is not there, or odd."""
    status = os.stat(base.disk)  # noqa: PTH116
    what = [os.path.realpath(base.disk), status.st_size, status.st_mtime_ns]
    first = key = _key("base", *map(str, what))
    steps = []
    for kind, text, script, copies in _plain_steps(spec):
        inside = [_tree(here) for here, _ in copies]
        key = _key(key, kind, script or text, *inside)
        steps.append(Step(kind, text, key, script, copies))
    return first, steps


def _plain_steps(spec: ImageSpec) -> Iterator[tuple[str, str, str, tuple[tuple[str, str], ...]]]:
    if spec.packages:
        yield "packages", " ".join(spec.packages), _INSTALL.format(names=" ".join(spec.packages)), ()
    if spec.files:
        pairs = (one.rpartition(":/") for one in spec.files)
        yield "files", " ".join(spec.files), "", tuple((here, f"/{there}") for here, _, there in pairs)
    for command in spec.commands:
        yield "command", command, command, ()
    yield "seal", "what each machine has of its own", _SEAL, ()


def _key(*parts: str) -> str:
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:16]


def _tree(path: str) -> str:
    """The digest of a file, or of all that is in a folder: names, modes and contents. Raises ImageError."""
    digest = hashlib.sha256()
    try:
        for one in [path, *(_below(path) if os.path.isdir(path) else ())]:  # noqa: PTH112
            status = os.lstat(one) if one != path else os.stat(one)  # noqa: PTH116
            digest.update(f"{one.removeprefix(path)}\0{status.st_mode:o}\0".encode())
            if stat.S_ISLNK(status.st_mode):
                digest.update(os.readlink(one).encode())  # noqa: PTH115
            elif stat.S_ISREG(status.st_mode):
                digest.update(status.st_size.to_bytes(8, "big"))
                with open(one, "rb") as file:  # noqa: PTH123
                    hashlib.file_digest(file, lambda: digest)
            elif not stat.S_ISDIR(status.st_mode):
                raise ImageError(f"{one} is neither a file nor a folder", fix="leave it out")
    except OSError as error:
        raise ImageError(f"{path} cannot be read", why=error.strerror or str(error), fix="check files") from error
    return digest.hexdigest()


def _below(path: str) -> Iterator[str]:
    for folder, names, plain in os.walk(path, onerror=_raised):
        names.sort()
        yield from sorted(f"{folder}/{name}" for name in (*names, *plain))


def _raised(error: OSError) -> None:
    raise error
