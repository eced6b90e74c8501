"""Where packages come from: the mirrors this host is configured for, the distribution's own default as a last resort."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from tinamou.errors import ImageError
from tinamou.late import dataclass

__all__ = ["Distribution", "Repository", "for_architecture", "host_distribution", "repositories"]

_OFFICIAL = {
    "debian": (
        ("http://deb.debian.org/debian", "{suite}"),
        ("http://deb.debian.org/debian", "{suite}-updates"),
        ("http://deb.debian.org/debian-security", "{suite}-security"),
    ),
    "ubuntu": (
        ("http://archive.ubuntu.com/ubuntu", "{suite}"),
        ("http://archive.ubuntu.com/ubuntu", "{suite}-updates"),
        ("http://security.ubuntu.com/ubuntu", "{suite}-security"),
    ),
    "ubuntu-ports": (
        ("http://ports.ubuntu.com/ubuntu-ports", "{suite}"),
        ("http://ports.ubuntu.com/ubuntu-ports", "{suite}-updates"),
        ("http://ports.ubuntu.com/ubuntu-ports", "{suite}-security"),
    ),
}
_COMPONENTS = {"debian": ("main",), "ubuntu": ("main", "universe")}
_UBUNTU_ARCHIVES = {"amd64": "ubuntu", "i386": "ubuntu"}
_FIRST_RELEASES = {("debian", "riscv64"): ("trixie", frozenset({"buster", "bullseye", "bookworm"}))}
"""Architectures a distribution took up late: the first release that has them, and releases before it."""

_NEXT_RELEASES = {("debian", "riscv64"): ("forky",)}
"""Where mirrors do not always carry an architecture whole: releases to take when the wanted one is not consistent."""


@dataclass(frozen=True)
class Distribution:
    """A distribution and its release: ``debian`` or ``ubuntu``, codename."""

    name: str
    suite: str

    @property
    def keyring(self) -> str:
        """The keyring its archive is signed with."""
        return f"/usr/share/keyrings/{self.name}-archive-keyring.gpg"


@dataclass(frozen=True)
class Repository:
    """One line of a package source, signed by one keyring."""

    uri: str
    suite: str
    components: tuple[str, ...]
    keyring: str

    @property
    def index(self) -> str:
        """Where its index files lie."""
        return f"{self.uri}/dists/{self.suite}/"

    def line(self) -> str:
        """As in sources.list(5)."""
        return f"deb [signed-by={self.keyring}] {self.uri} {self.suite} {' '.join(self.components)}"


def host_distribution(os_release: str | None = None) -> Distribution:
    """The distribution of this host, or the one it derives from. Raises ImageError where it is neither Debian nor Ubuntu."""
    text = os_release if os_release is not None else _read(Path("/etc/os-release"))
    pairs = (line.partition("=") for line in text.splitlines())
    field = {key: value.strip().strip('"') for key, _, value in pairs}
    for name in (field.get("ID", ""), *field.get("ID_LIKE", "").split()):
        suite = field.get("UBUNTU_CODENAME") if name == "ubuntu" else field.get("DEBIAN_CODENAME")
        suite = suite or field.get("VERSION_CODENAME")
        if name in _COMPONENTS and suite:
            return Distribution(name, suite)
    raise ImageError(
        "this guest is built from Debian or Ubuntu packages, and this host is neither",
        why=f"/etc/os-release names {field.get('PRETTY_NAME') or 'no known distribution'}",
        fix="give a disk image or a kernel and initrd of your own: tinamou run IMAGE.qcow2",
    )


def for_architecture(host: Distribution, architecture: str) -> list[Distribution]:
    """The releases to take packages of a Debian architecture from, best first: riscv64 is part of Debian from trixie on."""
    first, before = _FIRST_RELEASES.get((host.name, architecture), ("", frozenset()))
    suites = [first if host.suite in before else host.suite, *_NEXT_RELEASES.get((host.name, architecture), ())]
    return [Distribution(host.name, suite) for suite in dict.fromkeys(suites)]


def repositories(wanted: Distribution, architecture: str, configured: Iterable[tuple[str, str]]) -> list[Repository]:
    """The sources for a release and architecture, on the mirrors the host is configured for.

    ``configured`` are (URI, suite) pairs of the host. Where the host has the same kind of archive for another release, its
    mirror is used with the wanted suite; where it has none, the distribution's own server is.
    """
    archive = _UBUNTU_ARCHIVES.get(architecture, "ubuntu-ports") if wanted.name == "ubuntu" else wanted.name
    found = []
    for uri, suite in _OFFICIAL[archive]:
        kind = suite.partition("-")[2]
        mirror = _mirror(archive, kind, configured)
        components = _COMPONENTS[wanted.name]
        found.append(Repository(mirror or uri, suite.format(suite=wanted.suite), components, wanted.keyring))
    return found


def _mirror(name: str, kind: str, configured: Iterable[tuple[str, str]]) -> str | None:
    """The host's mirror for a kind of suite: ``""`` for the release itself, ``updates``, ``security``."""
    for uri, suite in configured:
        if name in uri and suite.partition("-")[2].rpartition("/")[2] == kind:
            return uri.rstrip("/")
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
