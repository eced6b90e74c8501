"""What the tests of pulling share: a small real image, a catalogue that points at a test server, a patient policy."""

import hashlib
import random
from pathlib import Path

from tinamou.images.http import Policy
from tinamou.images.pull import pull
from tinamou.system.qcow2 import encode_overlay

ARCH = "x86_64"


def qcow2(size=1 << 20, seed=1, backing=""):
    """The bytes of a qcow2 image: a true header, then noise."""
    data = bytearray()
    for offset, piece in encode_overlay(64 << 20, backing, "raw" if backing else ""):
        data.extend(bytes(max(0, offset - len(data))))
        data[offset : offset + len(piece)] = piece
    return bytes(data) + random.Random(seed).randbytes(size)


class Bench:
    """A catalogue with one image on a test server."""

    def __init__(self, folder, site):
        self.folder = folder
        self.site = site
        self.image = qcow2()
        self.pauses = []
        self.said = []
        self.fields = {"checksum": "SHA256SUMS", "user": "user", "boots": ["bios"]}
        self.arch = {"file": "disk.img"}
        self.keys = {}
        self.base = site.url + "/"

    def publish(self, **how):
        """Put image and checksum file on the server."""
        self.site.sums("SHA256SUMS", **{self.arch["file"]: self.image})
        return self.site.put(self.arch["file"], self.image, **how)

    def catalogue(self):
        """Write the catalogue file."""
        lines = []
        for name, key in self.keys.items():
            lines += [f"[key.{name}]", *(f"{field} = {toml(value)}" for field, value in key.items())]
        lines += ["[[image]]", 'name = "guest:1"', 'aliases = ["guest"]', f"base = {toml(self.base)}"]
        lines += [f"{field} = {toml(value)}" for field, value in self.fields.items()]
        lines += [f"[image.arch.{ARCH}]", *(f"{field} = {toml(value)}" for field, value in self.arch.items())]
        path = self.folder / "catalog.toml"
        path.write_text("\n".join(lines) + "\n")
        return path

    def policy(self, attempts=4, timeout=30.0):
        """Tries without waiting; the waits asked for are remembered."""
        return Policy(attempts=attempts, timeout=timeout, pause=self.pauses.append)

    def pull(self, policy=None, **how):
        """Pull the image."""
        return pull("guest", ARCH, files=[self.catalogue()], policy=policy or self.policy(), notice=self.said.append, **how)

    @property
    def place(self):
        """The folder of the image in the cache."""
        return self.folder / "tinamou-cache" / "images" / "guest-1" / ARCH

    def left(self):
        """Files in the image's folder, the lock apart."""
        if not self.place.exists():
            return []
        return sorted(str(p.relative_to(self.place)) for p in self.place.rglob("*") if p.name != ".lock" and not p.is_dir())

    def whole(self, facts):
        """Whether the disk is the image, byte for byte, and nothing lies about beside it."""
        digest = hashlib.sha256(self.image).hexdigest()[:12]
        files = [f"{digest}/{name}" for name in (Path(facts.disk).name, "facts.json", "origin.json")]
        return Path(facts.disk).read_bytes() == self.image and self.left() == sorted(files)


def toml(value):
    """A value in TOML."""
    if isinstance(value, list):
        return "[" + ", ".join(map(toml, value)) + "]"
    return "true" if value is True else '"' + str(value) + '"'
