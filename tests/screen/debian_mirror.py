"""A mirror for Debian's installer on this host's loopback: Debian's own, with a way round what that one lacks.

All files are Debian's, fetched by apt as they are asked for, but for two: the index of the installer's parts, and the
Release file that names it, which nobody has signed. A part that cannot be had is put together from Debian's packages of the
same program (``REBUILT``), or left out of the index with what needs it; ``lost`` and ``rebuilt`` say which.
"""

from __future__ import annotations

import contextlib
import hashlib
import lzma
import re
import shutil
import subprocess
import threading
from collections.abc import Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

SUITE = "trixie"
PARTS = "main/debian-installer/binary-amd64/Packages"
PACKAGES = f"dists/{SUITE}/main/binary-amd64/Packages.xz"
REBUILT: Mapping[str, tuple[str, ...]] = {
    "e2fsprogs-udeb": ("e2fsprogs", "libext2fs2t64", "libcom-err2"),
    "ntfs-3g-udeb": ("ntfs-3g", "libntfs-3g89t64"),
}
"""Parts that only repeat what packages have, by the packages."""
NEEDED = (
    "base-installer",
    "partman-auto",
    "partman-ext3",
    "grub-installer",
    "user-setup-udeb",
    "pkgsel",
    "ext4-modules-{}-di",
)
"""Parts without which nothing is installed; the last is of the installer's kernel."""
_KEPT = ("usr/sbin", "usr/bin", "usr/lib/x86_64-linux-gnu", "sbin", "bin", "lib/x86_64-linux-gnu", "etc")
_LOADED = ("required", "important", "standard")
"""Priorities of the parts that anna loads without being asked (source: anna's anna.c)."""
_ASKED = ("partman-auto-lvm", "partman-auto-crypto", "virtio-modules-{}-di", "mmc-modules-{}-di", "rtc-modules-{}-di")
"""What other parts ask for as they run (source: partman-base's bin/partman, hw-detect, clock-setup)."""


class MissingError(Exception):
    """Something that no way round leads to."""


class Part:
    """One paragraph of an index."""

    def __init__(self, text: str) -> None:
        self.fields = dict(re.findall(r"^([A-Za-z0-9-]+): *(.*)$", text, re.M))
        self.name = self.fields["Package"]
        self.path = self.fields["Filename"]

    def names(self, field: str) -> list[list[str]]:
        """What a field names: for each of its demands the alternatives."""
        demands = self.fields.get(field, "").split(",")
        return [[re.split(r"[ (]", one.strip())[0] for one in demand.split("|")] for demand in demands if demand.strip()]

    def text(self) -> str:
        return "".join(f"{name}: {value}\n" for name, value in self.fields.items())


def parts_of(index: bytes) -> list[Part]:
    return [Part(text) for text in lzma.decompress(index).decode().split("\n\n") if text.strip()]


def loaded(parts: Iterable[Part], present: Iterable[str], kernel: str) -> dict[str, Part]:
    """The parts that an installer of this kernel loads, where it has those named by ``present`` already."""
    usable = {one.name: one for one in parts if one.fields.get("Kernel-Version", kernel) == kernel}
    provided = {name: one for one in usable.values() for [name] in one.names("Provides")}
    has, found = set(present), dict[str, Part]()
    has |= {name for one in usable.values() if one.name in has for [name] in one.names("Provides")}
    todo = [one.name for one in usable.values() if one.fields.get("Priority") in _LOADED]
    todo += [name.format(kernel) for name in _ASKED]
    while todo:
        name = todo.pop()
        part = usable.get(name) or provided.get(name)
        if name in has or part is None or part.name in found:
            continue
        found[part.name] = part
        todo += [one for demand in part.names("Depends") if not has & set(demand) for one in demand]
    return found


def without(parts: Iterable[Part], missing: Iterable[str]) -> list[Part]:
    """The parts but the missing ones and all that need one of them."""
    gone, left = set(missing), list(parts)
    while True:
        kept = [one for one in left if one.name not in gone and not any(set(d) <= gone for d in one.names("Depends"))]
        if len(kept) == len(left):
            return kept
        gone |= {one.name for one in left} - {one.name for one in kept}
        left = kept


class Upstream:
    """Debian's mirror as apt is set up for it, each file fetched once and kept in a folder."""

    def __init__(self, folder: Path) -> None:
        words = [
            "apt-get",
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Created-By: Packages",
            "Origin: Debian",
            "Label: Debian",
        ]
        done = subprocess.run(words, capture_output=True, text=True, check=False)
        self._url = ((done.stdout.split() or ["http://deb.debian.org/debian"])[0]).rstrip("/")
        self._folder = folder
        self._lock = threading.Lock()
        self._busy: dict[str, threading.Lock] = {}
        folder.mkdir(parents=True, exist_ok=True)

    def get(self, path: str) -> Path | None:
        """The file, or None where the mirror has none; what is in an archive's ``dists`` is asked for once in each run."""
        with self._lock:
            busy = self._busy.setdefault(path, threading.Lock())
        with busy:
            file = self._folder / path.replace("/", "_")
            if not file.exists():
                part = file.with_suffix(".part")
                words = [
                    "/usr/lib/apt/apt-helper",
                    "-o",
                    "APT::Sandbox::User=root",
                    "download-file",
                    f"{self._url}/{path}",
                    part,
                ]
                if subprocess.run(words, capture_output=True, check=False).returncode:
                    return None
                part.rename(file)
            return file

    def forget(self, prefix: str) -> None:
        for file in self._folder.glob(f"{prefix.replace('/', '_')}*"):
            file.unlink()


class Mirror:
    """What the installer is given; ``serve`` gives it."""

    def __init__(self, folder: Path, present: Mapping[str, str], kernel: str) -> None:
        """For an installer of this kernel that has the parts ``present`` already, by name and version.

        Those are not offered anew: anna replaces them by whatever version a part it loads later comes with.
        """
        self.upstream = Upstream(folder / "upstream")
        self.upstream.forget("dists/")
        self._own: dict[str, Path | bytes] = {}
        self.rebuilt: list[str] = []
        release, index = self._needed(f"dists/{SUITE}/Release"), self._needed(f"dists/{SUITE}/{PARTS}.xz")
        parts = parts_of(index.read_bytes())
        for one in parts:
            one.fields["Version"] = present.get(one.name, one.fields["Version"])
        wanted = loaded(parts, present, kernel)
        missing = [name for name, one in wanted.items() if self.upstream.get(one.path) is None]
        for part in [wanted[name] for name in missing if name in REBUILT]:
            self._rebuild(part, folder / "rebuilt")
        kept = without(parts, set(missing) - set(self.rebuilt))
        self.lost = sorted(set(wanted) - {one.name for one in kept})
        needed = [name.format(kernel) for name in NEEDED]
        if absent := [name for name in needed if name not in wanted or name in self.lost]:
            raise MissingError(f"no {', '.join(absent)} on the mirror, nor anything of {', '.join(missing) or 'its index'}")
        if missing or any(one.name in present for one in parts):
            text = "\n".join(one.text() for one in kept).encode()
            self._own[f"dists/{SUITE}/{PARTS}.xz"] = packed = lzma.compress(text)
            lines = [
                line for line in release.read_text().splitlines() if not line.endswith((PARTS, f"{PARTS}.gz", f"{PARTS}.xz"))
            ]
            lines.append(f" {hashlib.sha256(packed).hexdigest()} {len(packed)} {PARTS}.xz")  # SHA256 is the last list
            self._own[f"dists/{SUITE}/Release"] = "".join(f"{line}\n" for line in lines).encode()

    def _needed(self, path: str) -> Path:
        if (found := self.upstream.get(path)) is None:
            raise MissingError(f"{path} is not on the mirror")
        return found

    def _rebuild(self, part: Part, folder: Path) -> None:
        """A part of the same name from Debian's packages: their programs, libraries and settings, nothing that is run."""
        work = folder / part.name
        shutil.rmtree(work, ignore_errors=True)
        (work / "tree" / "DEBIAN").mkdir(parents=True)
        known = {one.name: one for one in parts_of(self._needed(PACKAGES).read_bytes()) if one.name in REBUILT[part.name]}
        for name in REBUILT[part.name]:
            subprocess.run(["dpkg-deb", "-x", self._needed(known[name].path), work / "all"], check=True)
        for place in _KEPT:
            if (work / "all" / place).is_dir():
                target = work / "tree" / (place if place == "etc" else f"usr/{place.removeprefix('usr/')}")
                shutil.copytree(work / "all" / place, target, symlinks=True, dirs_exist_ok=True)
        fields = {
            name: value for name, value in part.fields.items() if name in ("Package", "Version", "Architecture", "Depends")
        }
        more = {"Maintainer": "nobody", "Section": "debian-installer", "Priority": "optional", "Description": "put together"}
        control = "".join(f"{name}: {value}\n" for name, value in {**fields, **more}.items())
        (work / "tree" / "DEBIAN" / "control").write_text(control)
        made = work / "made.udeb"
        words = ["dpkg-deb", "--root-owner-group", "-Zxz", "--build", work / "tree", made]
        subprocess.run(words, check=True, capture_output=True)
        part.fields["Size"] = str(made.stat().st_size)
        part.fields["SHA256"] = hashlib.sha256(made.read_bytes()).hexdigest()
        part.fields["MD5sum"] = hashlib.md5(made.read_bytes()).hexdigest()
        self._own[part.path] = made
        self.rebuilt.append(part.name)

    def get(self, path: str) -> bytes | None:
        """What is answered to a request."""
        own = self._own.get(path)
        if isinstance(own, bytes):
            return own
        found = own or self.upstream.get(path)
        return found.read_bytes() if found else None


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    mirror: Mirror
    log: list[str]

    def do_GET(self) -> None:
        path = (
            self.path.removeprefix("/debian/")
            .replace("%2b", "+")
            .replace("%7e", "~")
            .replace("%2B", "+")
            .replace("%7E", "~")
        )
        body = self.mirror.get(path) if re.fullmatch(r"(dists|pool)(/[\w+.~:%-]+)+", path) and ".." not in path else None
        self.log.append(f"{200 if body is not None else 404} {path}")
        self.send_response(200 if body is not None else 404)
        self.send_header("Content-Length", str(len(body or b"")))
        self.end_headers()
        if self.command == "GET" and body:
            self.wfile.write(body)

    do_HEAD = do_GET

    def log_message(self, *_: object) -> None:
        """Kept in ``log``."""


@contextlib.contextmanager
def served(mirror: Mirror) -> Iterator[tuple[int, list[str]]]:
    """The port on the loopback where the mirror is, and its log: a status and a path for each request."""
    log: list[str] = []
    with ThreadingHTTPServer(("127.0.0.1", 0), type("Bound", (_Handler,), {"mirror": mirror, "log": log})) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port, log
        finally:
            server.shutdown()
            thread.join()
