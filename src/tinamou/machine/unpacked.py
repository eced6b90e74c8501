"""A QEMU in a Debian package that is not installed: fetched by apt where it is named, unpacked aside for a while."""

from __future__ import annotations

import contextlib
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

from tinamou.errors import ProbeError
from tinamou.images.progress import Progress, silent
from tinamou.system.exec import CommandError, run

__all__ = ["unpacked"]

_SIBLINGS = ("qemu-system-common", "qemu-system-data", "seabios", "ipxe-qemu")
"""What a system emulator reads beside its own package (source: Depends of Debian's qemu-system-x86)."""
_DATA = ("usr/share/qemu", "usr/share/seabios", "usr/lib/ipxe/qemu", "usr/share/qemu-efi-aarch64", "usr/share/OVMF")
_SECONDS = 600.0


@contextlib.contextmanager
def unpacked(said: str, progress: Progress = silent) -> Iterator[str]:
    """What to say as in ``$TINAMOU_QEMU`` for ``said``: a file ``.deb``, a package apt can download, else a QEMU as it is.

    Raises ProbeError for a package that cannot be had, or holds no QEMU.
    """
    named = re.fullmatch(r"[a-z0-9][a-z0-9+.-]+(=[^\s/]+)?", said) and not Path(said).exists()
    if not (named or said.endswith(".deb")):
        yield said
        return
    with tempfile.TemporaryDirectory(prefix="tinamou-deb-") as name:
        folder = Path(name)
        folder.chmod(0o755)
        packages = [_downloaded(said, folder, progress) if named else _present(said)]
        packages += _siblings(packages[0], folder, progress)
        root = folder / "root"
        for package in packages:
            _run("dpkg-deb", "-x", str(package), str(root))
        _lend_data(root)
        if not any((root / "usr/bin").glob("qemu-system-*")):
            raise ProbeError(f"there is no QEMU in {packages[0].name}", fix="name qemu-system-x86, or another guest's")
        if missing := _missing(packages[0]):
            progress(f"{packages[0].name} depends on what is not installed here: {', '.join(missing)}", None)
        yield f"{root}/usr/bin/qemu-system-{{arch}}"


def _present(said: str) -> Path:
    path = Path(said).absolute()
    if not path.is_file():
        raise ProbeError(f"{path} is not there", fix="name a package's file, its name, or a QEMU")
    return path


def _downloaded(name: str, folder: Path, progress: Progress) -> Path:
    progress(f"downloading {name}", None)
    before = set(folder.glob("*.deb"))
    _run("apt-get", "-qq", "-o", "APT::Sandbox::User=root", "download", name, cwd=folder)
    return (set(folder.glob("*.deb")) - before).pop()


def _siblings(package: Path, folder: Path, progress: Progress) -> Iterator[Path]:
    """Packages it depends on that hold what it reads: beside it, else as apt has them, else what is installed serves."""
    version = _field(package, "Version")
    for name in _names(package):
        if name not in _SIBLINGS:
            continue
        beside = sorted(package.parent.glob(f"{name}_*.deb"))
        if beside and package.parent != folder:
            yield beside[-1]
            continue
        for asked in (f"{name}={version}", name):
            with contextlib.suppress(ProbeError):
                yield _downloaded(asked, folder, progress)
                break


def _lend_data(root: Path) -> None:
    """Firmware no package brought along is the host's own: QEMU looks for it where its own folder is."""
    for name in _DATA:
        inside, here = root / name, Path("/") / name
        if not inside.exists() and here.is_dir():
            inside.parent.mkdir(parents=True, exist_ok=True)
            shutil.copytree(here, inside, symlinks=False, ignore_dangling_symlinks=True)


def _missing(package: Path) -> list[str]:
    """What it depends on and no installed package is called."""
    lacking = []
    for name in _names(package):
        try:
            there = "install ok installed" in run(["dpkg-query", "-W", "-f", "${Status}", name])
        except CommandError:
            there = False
        if not there:
            lacking.append(name)
    return lacking


def _names(package: Path) -> list[str]:
    depends = re.split(r",\s*", _field(package, "Depends"))
    return [match.group() for one in depends if (match := re.match(r"[a-z0-9][a-z0-9+.-]+", one)) and "|" not in one]


def _field(package: Path, field: str) -> str:
    return _run("dpkg-deb", "-f", str(package), field).strip()


def _run(*words: str, cwd: Path | None = None) -> str:
    try:
        return run(words, timeout=_SECONDS, cwd=str(cwd or "/"))
    except (CommandError, FileNotFoundError) as error:
        said = error.stderr.strip() if isinstance(error, CommandError) else str(error)
        raise ProbeError(f"{' '.join(words[:2])} failed", why=said) from error
