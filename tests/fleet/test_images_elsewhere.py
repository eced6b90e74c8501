"""Images from another host: pulled there first, checked by the vendor's word here; only blocks that are not here go."""

from __future__ import annotations

import hashlib
import os
import random
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from sshd_here import SOURCES, Sshd
from typed import call, tinamou

from tinamou.errors import StateError
from tinamou.fleet import hosts, images
from tinamou.system.qcow2 import encode_overlay

MIB = 1 << 20


def build(changed: int = -1) -> bytes:
    """The bytes of a qcow2 image with eight blocks of noise behind its header, of which one may be another."""
    data = bytearray()
    for offset, piece in encode_overlay(64 * MIB, "", ""):
        data.extend(bytes(max(0, offset - len(data))))
        data[offset : offset + len(piece)] = piece
    data.extend(bytes(-len(data) % MIB))
    blocks = (random.Random(number + 100 * (number == changed)).randbytes(MIB) for number in range(1, 9))
    return bytes(data) + b"".join(blocks)


class Vendor:
    """A web site with an image, and what it was asked for."""

    def __init__(self, folder: Path, port: int, asked: list[str]) -> None:
        self.folder, self.asked = folder, asked
        self.catalogue = folder.parent / "config/tinamou/catalog.toml"
        self.catalogue.parent.mkdir(parents=True)
        self.catalogue.write_text(
            f'[[image]]\nname = "guest:1"\naliases = ["guest"]\nbase = "http://127.0.0.1:{port}/"\nchecksum = "SHA256SUMS"\n'
            'user = "user"\nboots = ["bios"]\n[image.arch.x86_64]\nfile = "disk.img"\n'
        )

    def publish(self, image: bytes) -> None:
        """Put that build there, and its checksum."""
        (self.folder / "disk.img").write_bytes(image)
        (self.folder / "SHA256SUMS").write_text(f"{hashlib.sha256(image).hexdigest()}  disk.img\n")
        self.asked.clear()


@pytest.fixture
def vendor(tmp_path: Path) -> Iterator[Vendor]:
    folder, asked = tmp_path / "site", list[str]()
    folder.mkdir()

    class Handler(SimpleHTTPRequestHandler):
        def log_message(self, format: str, *args: object) -> None:
            asked.append(self.path)

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=str(folder))) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield Vendor(folder, server.server_address[1], asked)
        server.shutdown()


@pytest.fixture
def far(tmp_path: Path, state: Path, server: Sshd, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The cache of another host, ``there``; this one has a cache of its own as well."""
    there = tmp_path / "there"
    there.mkdir()
    monkeypatch.setenv("TINAMOU_CACHE", str(tmp_path / "here"))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    for name in ("http_proxy", "https_proxy", "all_proxy", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    places = {"TINAMOU_STATE": there / "state", "TINAMOU_RUN": there / "run", "TINAMOU_CACHE": there / "cache"}
    more = {"PATH": os.environ["PATH"], "PYTHONPATH": SOURCES, "XDG_CONFIG_HOME": tmp_path / "config"}
    words = ("env", *(f"{name}={value}" for name, value in {**places, **more}.items()), sys.executable, "-m", "tinamou")
    hosts.add(server.host("there", command=words))
    return there / "cache"


def came(stderr: str) -> tuple[float, float]:
    """MiB that went over the line, and that were here."""
    match = re.search(r"([\d.]+) MiB came from there, ([\d.]+) MiB were here", stderr)
    assert match, stderr
    return float(match[1]), float(match[2])


def disks(cache: Path) -> list[bytes]:
    return [one.read_bytes() for one in sorted(cache.glob("images/*/*/*/disk.*")) if not one.parent.is_symlink()]


def test_one_host_downloads_for_another(vendor: Vendor, far: Path, tmp_path: Path) -> None:
    first, second = build(), build(changed=3)
    vendor.publish(first)
    done = call("image", "pull", "guest", "--arch", "x86_64", "--from", "there")
    assert done.returncode == 0, done.stderr
    assert vendor.asked.count("/disk.img") == 1 and vendor.asked.count("/SHA256SUMS") == 2
    assert disks(far) == disks(tmp_path / "here") == [first]
    assert came(done.stderr) == (len(first) / MIB, 0.0)
    assert tinamou("image", "check", "guest", "--arch", "x86_64").startswith("guest:1")

    vendor.publish(second)
    done = call("image", "pull", "guest", "--arch", "x86_64", "--from", "there", "--refresh")
    assert done.returncode == 0, done.stderr
    assert came(done.stderr) == (1.0, len(second) / MIB - 1)
    assert vendor.asked.count("/disk.img") == 1
    assert sorted(disks(tmp_path / "here")) == sorted([first, second])


def test_what_the_vendor_does_not_speak_of_is_refused(vendor: Vendor, far: Path, tmp_path: Path) -> None:
    vendor.publish(build())
    assert call("image", "pull", "guest", "--arch", "x86_64", "--from", "there").returncode == 0
    tinamou("image", "rm", "guest:1")
    [kept] = [one for one in far.glob("images/*/*/*/disk.*") if not one.parent.is_symlink()]
    kept.chmod(0o644)
    kept.write_bytes(build(changed=5))
    done = call("image", "pull", "guest", "--arch", "x86_64", "--from", "there")
    assert done.returncode and "another build" in done.stderr and "leave --from out" in done.stderr
    assert disks(tmp_path / "here") == []
    assert not [one for one in (tmp_path / "here").rglob("*") if one.is_file() and one.name not in (".lock",)]


def test_an_image_of_its_own(vendor: Vendor, far: Path, tmp_path: Path) -> None:
    raw = tmp_path / "own.raw"
    raw.write_bytes(random.Random(7).randbytes(3 * MIB) + bytes(60 * MIB))
    tinamou("-H", "there", "image", "import", str(raw), "mine", "--arch", "x86_64")
    done = call("image", "pull", "mine", "--arch", "x86_64", "--from", "there")
    assert done.returncode == 0, done.stderr
    assert 3 <= came(done.stderr)[0] < 5
    [disk] = [
        one for one in (tmp_path / "here").glob("images/mine/x86_64/import-*/disk.qcow2") if not one.parent.is_symlink()
    ]
    subprocess.run(["qemu-img", "compare", "-f", "raw", "-F", "qcow2", str(raw), str(disk)], check=True, capture_output=True)
    for name, words in (("none-such", "cannot be given"), ("tiny", "cannot be given")):
        done = call("image", "pull", name, "--arch", "x86_64", "--from", "there")
        assert done.returncode and words in done.stderr, done.stderr
    done = call("image", "pull", "guest", "--from", "nowhere")
    assert done.returncode and "nowhere" in done.stderr


def test_a_packed_image_is_downloaded(vendor: Vendor, far: Path) -> None:
    vendor.catalogue.write_text(vendor.catalogue.read_text().replace("user =", 'format = "qcow2.xz"\nuser ='))
    vendor.publish(build())
    done = call("image", "pull", "guest", "--arch", "x86_64", "--from", "there")
    assert done.returncode and "packed" in done.stderr and "leave --from out" in done.stderr


LIKE = {"agent": True, "ssh": True, "seed": "nocloud", "user": "user"}


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"size": 0, "sum": "a", "like": LIKE},
        {"size": 1 << 60, "sum": "a", "like": LIKE},
        {"size": 3 * MIB, "sum": "a", "like": LIKE},
        {"size": "x", "sum": "a", "like": LIKE},
        {"size": 1, "sum": "a", "like": []},
    ],
)
def test_what_no_tinamou_offers_is_refused(data: dict[str, object]) -> None:
    with pytest.raises(StateError, match="no image"):
        images.Offer.of(data, bytes(32))


def test_a_block_that_is_another_is_refused() -> None:
    piece = random.Random(1).randbytes(100)
    offer = images.Offer.of({"size": 100, "sum": "a", "like": LIKE}, hashlib.sha256(piece).digest())
    assert images._parted(offer, [offer.blocks], [0], piece) == {0: piece}
    for other in (bytes(100), piece[:-1], b""):
        with pytest.raises(StateError, match="block 0 is another"):
            images._parted(offer, [offer.blocks], [0], other)
