"""Packages without touching the host: an apt of its own (lists, state, architecture), verified downloads, unpacking."""

from __future__ import annotations

import os
import re
import shutil
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import unquote

from tinamou.errors import ImageError, if_full
from tinamou.images.progress import Progress
from tinamou.images.sources import Distribution, Repository, repositories
from tinamou.late import dataclass
from tinamou.system.exec import CommandError, find_tool, run

__all__ = ["Apt", "Package", "archives", "configured_mirrors", "first_usable", "host_acquire", "require_tools", "unpack"]

_APT_LINE = {
    "apt-get": "apt",
    "apt-cache": "apt",
    "apt-config": "apt",
    "dpkg-deb": "dpkg",
    "mcopy": "mtools",
    "mkfs.ext4": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "newuidmap": "uidmap",
    "qemu-img": "qemu-utils",
    "unshare": "util-linux",
}
_OWN_ARCHIVE = re.compile(r"/(debian|debian-security|ubuntu|ubuntu-ports)(/\d{8}T\d{6}Z)?/?$")
_UNKNOWN = re.compile(r"^E: (?:Unable to locate package |Package ')([^\s']+)", re.MULTILINE)
_UNREACHED = ("Failed to fetch", "Could not resolve", "Unable to connect", "Release", "Connection", "timed out")
"""What apt says where a mirror is not reached, or not trusted."""
_NOT_COPIED = ("Acquire::IndexTargets", "Acquire::Languages", "Acquire::GzipIndexes")


@dataclass(frozen=True)
class Package:
    """One package as apt would download it: name, version, file name, size in bytes."""

    name: str
    version: str
    file: str
    size: int


def require_tools(names: Sequence[str], purpose: str) -> None:
    """Raise ImageError, with the line that installs them, when commands are missing."""
    missing = [name for name in names if not find_tool(name)]
    if missing:
        packages = " ".join(sorted({_APT_LINE.get(name, name) for name in missing}))
        raise ImageError(
            f"{purpose} needs {', '.join(missing)}, which this host does not have",
            fix=f"apt-get install -y --no-install-recommends {packages}",
        )


def configured_mirrors() -> list[tuple[str, str]]:
    """The (URI, suite) pairs of the distribution's own archive that the host's apt is configured for, in its order."""
    try:
        form = "$(REPO_URI)|$(RELEASE)|$(COMPONENT)|$(ORIGIN)"
        text = run(["apt-get", "indextargets", "--format", form, "Created-By: Packages"])
    except CommandError:
        return []
    return archives(text)


def archives(indextargets: str) -> list[tuple[str, str]]:
    """The (URI, suite) pairs of lines ``URI|suite|component|origin`` that are a distribution's own archive.

    The origin is only known once the host has fetched its lists; before, the place of the archive has to tell.
    """
    found = []
    for line in indextargets.splitlines():
        uri, suite, component, origin = line.split("|", 3)
        known = not origin.startswith("$(")
        own = origin in ("Debian", "Ubuntu") if known else bool(_OWN_ARCHIVE.search(uri))
        if component == "main" and own:
            found.append((uri, suite))
    return list(dict.fromkeys(found))


@dataclass(frozen=True)
class Apt:
    """An apt with folders of its own; it knows the host's proxies and certificates, and nothing else of the host."""

    folder: Path
    sources: tuple[Repository, ...]

    @classmethod
    def prepare(cls, folder: Path, architecture: str, sources: Sequence[Repository]) -> Apt:
        """Make the folders and the configuration. Raises ImageError when a keyring is missing."""
        require_tools(["apt-get", "apt-cache", "apt-config", "dpkg-deb"], "building this guest")
        for keyring in {source.keyring for source in sources}:
            if not Path(keyring).exists():
                raise ImageError(
                    f"the keyring {keyring} is missing, so packages cannot be verified",
                    fix=f"apt-get install -y --no-install-recommends {_keyring_package(keyring)}",
                )
        for name in ("lists/partial", "cache/archives/partial", "etc/parts", "etc/preferences.d", "debs"):
            (folder / name).mkdir(parents=True, exist_ok=True)
        if os.geteuid() == 0:
            shutil.chown(folder / "debs", "_apt")
        (folder / "status").touch()
        (folder / "apt.conf").write_text(_configuration(folder, architecture))
        return cls(folder, tuple(sources))

    def update(self) -> list[Repository]:
        """Fetch and verify the package lists; return the sources left out because their mirror is not consistent now.

        The release itself, which comes first, is never left out. Raises ImageError when a mirror cannot be
        reached or trusted.
        """
        try:
            self._update(self.sources)
        except ImageError as error:
            failed = error.evidence["apt"]
            broken = [source for source in self.sources if _failed(source, failed)]
            if not broken or self.sources[0] in broken:
                raise
            self._update([source for source in self.sources if source not in broken])
            return broken
        return []

    def _update(self, sources: Sequence[Repository]) -> None:
        (self.folder / "sources.list").write_text("".join(f"{source.line()}\n" for source in sources))
        self._run("the package lists cannot be fetched", ["apt-get", "-q", "-o", "APT::Update::Error-Mode=any", "update"])

    def depends(self, name: str) -> list[str]:
        """The names a package depends on directly, first alternatives only, newest version."""
        text = self._run(f"the package {name} is not in the archive", ["apt-cache", "show", "--no-all-versions", name])
        fields = (line.partition(": ") for line in text.splitlines())
        listed = next((value for key, _, value in fields if key == "Depends"), "")
        return [part.split("|")[0].split("(")[0].split(":")[0].strip() for part in listed.split(",") if part.strip()]

    def closure(self, names: Sequence[str]) -> list[Package]:
        """These packages and all they depend on, in the versions apt would install. Raises ImageError."""
        argv = ["apt-get", "install", "-qq", "--print-uris", "-y", "--no-install-recommends", *names]
        try:
            text = self._run("the packages cannot be installed from the archive", argv)
        except ImageError as error:
            unknown = list(dict.fromkeys(_UNKNOWN.findall(error.evidence["apt"])))
            if not unknown:
                raise
            few = "no package" if len(unknown) == 1 else "no packages"
            fix = "check the spelling, and that it is in this release: https://packages.debian.org"
            raise ImageError(f"the archive has {few} {', '.join(unknown)}", fix=fix) from error
        return [_package(line) for line in text.splitlines() if line.startswith("'")]

    def download(self, packages: Sequence[Package], progress: Progress) -> list[Path]:
        """Fetch and verify packages, return their files. Raises ImageError."""
        target = self.folder / "debs"
        total = sum(package.size for package in packages)
        text = f"downloading {len(packages)} packages, {total / 1e6:.0f} MB"
        with _watched(target, total, lambda fraction: progress(text, fraction)):
            argv = ["apt-get", "-q", "download", *(f"{package.name}={package.version}" for package in packages)]
            self._run("packages cannot be downloaded", argv, cwd=str(target))
        return sorted(target.glob("*.deb"))

    def _run(self, what: str, argv: Sequence[str], cwd: str | None = None) -> str:
        try:
            return run(argv, environment={"APT_CONFIG": str(self.folder / "apt.conf")}, cwd=cwd)
        except CommandError as error:
            fix = "check the network, the mirrors in /etc/apt and its proxy settings: apt-get update"
            unreached = any(text in error.stderr for text in _UNREACHED)
            fix = fix if unreached else if_full(error.stderr)
            raise ImageError(what, why=_reason(error.stderr), fix=fix, evidence={"apt": error.stderr}) from error


def first_usable(
    releases: Sequence[Distribution], architecture: str, work: Path, progress: Progress
) -> tuple[Distribution, Apt, list[str]]:
    """The first release whose package lists can be fetched and verified, an apt for it, and the sources left out of it.

    Whatever had to be left out or passed over is told as a warning. Raises the first release's ImageError
    when there is none.
    """
    mirrors, first = configured_mirrors(), None
    for release in releases:
        apt = Apt.prepare(work / f"apt-{release.suite}", architecture, repositories(release, architecture, mirrors))
        progress(f"reading the package lists of {release.name} {release.suite} ({architecture})", None)
        try:
            left_out = [source.line() for source in apt.update()]
        except ImageError as error:
            first = first or error
            progress(f"warning: {release.suite} cannot be used: {error.what}: {error.why}", None)
            continue
        for line in left_out:
            progress(f"warning: left out, its mirror is not consistent now: {line}", None)
        return release, apt, left_out
    raise first or ImageError("no release to take packages from")


def unpack(deb: Path, target: Path) -> None:
    """Unpack the files of a package below a folder, as the current user. Raises ImageError."""
    target.mkdir(parents=True, exist_ok=True)
    try:
        run(["dpkg-deb", "-x", str(deb), str(target)])
    except CommandError as error:
        raise ImageError(f"the package {deb.name} cannot be unpacked", why=error.stderr.strip()) from error


def _failed(source: Repository, stderr: str) -> bool:
    return f"Failed to fetch {source.index}" in stderr or f"'{source.uri} {source.suite} Release'" in stderr


def _configuration(folder: Path, architecture: str) -> str:
    settings = {
        "Dir::State": f"{folder}",
        "Dir::State::lists": f"{folder}/lists",
        "Dir::State::status": f"{folder}/status",
        "Dir::Cache": f"{folder}/cache",
        "Dir::Etc::sourcelist": f"{folder}/sources.list",
        "Dir::Etc::sourceparts": f"{folder}/etc/parts",
        "Dir::Etc::parts": f"{folder}/etc/parts",
        "Dir::Etc::main": f"{folder}/etc/none",
        "Dir::Etc::preferences": f"{folder}/etc/none",
        "Dir::Etc::preferencesparts": f"{folder}/etc/preferences.d",
        "APT::Architecture": architecture,
        "APT::Architectures": architecture,
        "Acquire::Languages": "none",
        "Acquire::Retries": "2",
    }
    lines = [f'{name} "{value}";' for name, value in settings.items()]
    return "\n".join([*host_acquire(), *lines, ""])


def host_acquire() -> list[str]:
    """The host's Acquire settings: proxies, certificates, time-outs."""
    text = run(["apt-config", "dump"])
    lines = [line for line in text.splitlines() if line.startswith("Acquire::")]
    return [line for line in lines if not line.startswith(_NOT_COPIED)]


def _keyring_package(keyring: str) -> str:
    return "ubuntu-keyring" if "ubuntu" in keyring else "debian-archive-keyring"


def _package(line: str) -> Package:
    _, file, size, *_ = line.split()
    name, version, _ = file.split("_", 2)
    return Package(name, unquote(version), file, int(size))


def _reason(stderr: str) -> str:
    lines = [line[2:].strip() for line in stderr.splitlines() if line.startswith("E:")]
    return lines[0] if lines else ""


@contextmanager
def _watched(folder: Path, total: int, report: Callable[[float | None], None]) -> Iterator[None]:
    """Report the fraction of ``total`` bytes that lie in a folder, five times a second."""
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.2):
            size = sum(entry.stat().st_size for entry in os.scandir(folder) if entry.is_file())
            report(min(1.0, size / total) if total else None)

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
