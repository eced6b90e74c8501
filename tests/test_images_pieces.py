"""The pieces images are built from: archive, ELF, kernel, modules, package sources, the store of built guests."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import inspect
import io
import lzma
import os
import struct
import subprocess
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
from lz4 import block

from tinamou.errors import ImageError
from tinamou.facts.image import ImageFacts
from tinamou.images import cpio, kernel, modules, sources, store, tiny, tiny_tree
from tinamou.images.elf import Elf, ElfError
from tinamou.images.progress import silent
from tinamou.system.codecs import CodecError, decompress


def test_an_archive_is_sorted_complete_and_repeatable() -> None:
    entries = {"usr/bin/x": cpio.file(b"hello", 0o755), "bin": cpio.link("usr/bin"), "dev/console": cpio.node(5, 1)}
    data = cpio.archive(entries)
    assert data == cpio.archive(dict(reversed(entries.items())))
    listed = subprocess.run(["cpio", "-tv"], input=data, capture_output=True, check=False)
    if listed.returncode == 0:
        lines = listed.stdout.decode().splitlines()
        assert [line.split()[-1] for line in lines if "->" not in line] == [
            "dev",
            "dev/console",
            "usr",
            "usr/bin",
            "usr/bin/x",
        ]


def test_the_header_is_newc() -> None:
    data = cpio.archive({"a": cpio.file(b"abc")})
    assert data[:6] == b"070701"
    assert int(data[14:22], 16) == 0o100644
    assert int(data[54:62], 16) == 3
    assert b"TRAILER!!!" in data
    assert len(data) % 512 == 0


def test_elf_tells_the_libraries_of_a_real_program() -> None:
    elf = Elf(Path("/bin/sh").resolve().read_bytes())
    assert any(name.startswith("libc.so") for name in elf.needed())
    assert elf.pvh_entry() is None


@pytest.mark.parametrize("data", [b"", b"MZ" + b"\0" * 100, b"\x7fELF\x01\x01"])
def test_what_is_not_elf_is_refused(data: bytes) -> None:
    with pytest.raises(ElfError):
        Elf(data)


def _elf_with_note(owner: bytes = b"Xen\0", kind: int = 18) -> bytes:
    note = struct.pack("<III", 4, 8, kind) + owner + struct.pack("<Q", 0x1000000)
    header = b"\x7fELF\x02\x01\x01" + b"\0" * 9 + struct.pack("<HHIQQQIHHHHHH", 2, 62, 1, 0, 64, 0, 0, 64, 56, 1, 0, 0, 0)
    return header + struct.pack("<IIQQQQQQ", 4, 4, 120, 0, 0, len(note), len(note), 4) + note


def _bzimage(payload: bytes) -> bytes:
    head = bytearray(0x400 + 0x100)
    head[0x1F1] = 1
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, 0x20F)
    struct.pack_into("<II", head, 0x248, 0x100, len(payload))
    return bytes(head) + payload


def _as_linux_packs(data: bytes) -> bytes:
    """Legacy frame of lz4: blocks of 8 MiB, each with its length before it."""
    parts = [block.compress(data[at : at + (8 << 20)], store_size=False) for at in range(0, len(data), 8 << 20)]
    return b"\x02\x21\x4c\x18" + b"".join(struct.pack("<I", len(part)) + part for part in parts)


@pytest.mark.parametrize("pack", [gzip.compress, lzma.compress, _as_linux_packs])
def test_a_kernel_with_the_note_is_found_in_its_bzimage(pack: object) -> None:
    elf = _elf_with_note()
    assert callable(pack)
    assert kernel.pvh_kernel(_bzimage(pack(elf) + b"size")) == elf


def test_a_kernel_without_the_note_has_no_fast_form() -> None:
    assert kernel.pvh_kernel(_bzimage(gzip.compress(_elf_with_note(b"GNU\0")))) is None
    assert kernel.pvh_kernel(_bzimage(gzip.compress(b"no ELF"))) is None
    assert kernel.pvh_kernel(b"MZ") is None


def test_a_damaged_kernel_is_an_error() -> None:
    packed = bytearray(gzip.compress(_elf_with_note() * 50))
    packed[12] ^= 0xFF
    with pytest.raises(ImageError):
        kernel.pvh_kernel(_bzimage(bytes(packed)))


def test_plain_images_are_unpacked() -> None:
    image = b"MZ\0\0" + b"arm64 image" * 9
    assert kernel.plain_image(image) == image
    assert kernel.plain_image(gzip.compress(image)) == image
    packed = gzip.compress(image)
    zboot = b"MZ\0\0zimg" + struct.pack("<II", 16, len(packed)) + packed
    assert kernel.plain_image(zboot) == image


@pytest.mark.parametrize(
    "tool", [["gzip", "-c"], ["zstd", "-c"], ["xz", "-c"], ["bzip2", "-c"], ["xz", "-c", "--format=lzma"]]
)
def test_every_compression_of_a_kernel_is_understood(tool: list[str]) -> None:
    data = bytes(range(256)) * 4000
    try:
        packed = subprocess.run(tool, input=data, capture_output=True, check=True).stdout
    except FileNotFoundError:
        pytest.skip(f"{tool[0]} is not installed")
    assert decompress(packed) == decompress(packed + b"size", len(data)) == data
    for damaged in (packed[:-20], packed[:30], b"no compression"):
        with pytest.raises(CodecError):
            decompress(damaged)
    with pytest.raises(CodecError, match="more than"):
        decompress(packed, len(data) - 1)


def test_the_frame_debian_packs_its_kernels_in_is_understood() -> None:
    data = bytes(range(256)) * (17 << 12)
    packed = _as_linux_packs(data)
    assert decompress(packed) == decompress(packed + b"size", len(data)) == data
    for damaged in (
        packed[:-20],
        packed[:30],
        packed[:4],
        packed[:4] + bytes(100),
        packed[:8] + b"\xff" * 100 + packed[108:],
    ):
        with pytest.raises(CodecError):
            decompress(damaged)
    with pytest.raises(CodecError, match="more than"):
        decompress(packed, len(data) - 1)
    with pytest.raises(CodecError, match="more than 65536 bytes"):
        decompress(_as_linux_packs(bytes(1 << 26)), 1 << 16)


def test_a_stream_that_claims_too_much_is_an_error() -> None:
    bombs = [zlib.compress(bytes(1 << 24), wbits=31), bz2.compress(bytes(1 << 24)), lzma.compress(bytes(1 << 24))]
    for packed in bombs:
        with pytest.raises(CodecError, match="more than 65536 bytes"):
            decompress(packed, 1 << 16)
    # Sixteen bytes: a frame of one empty block that claims 1 TiB, in one segment and in windows.
    for kind in (b"\xe0", b"\xc0\x70"):
        with pytest.raises(CodecError):
            decompress(b"\x28\xb5\x2f\xfd" + kind + struct.pack("<Q", 1 << 40) + b"\1\0\0")


def test_a_kernel_packed_in_another_way_starts_by_itself() -> None:
    assert kernel.pvh_kernel(_bzimage(b"\x89LZO\x00\r\n\x1a\n" + bytes(100))) is None


@pytest.mark.parametrize(
    ("at", "form", "value"),
    [(32, "<Q", 1 << 63), (54, "<H", 65535), (56, "<H", 65535), (64 + 8, "<Q", 1 << 40), (64 + 32, "<Q", 0)],
)
def test_a_damaged_program_is_refused(at: int, form: str, value: int) -> None:
    data = bytearray(_elf_with_note())
    struct.pack_into(form, data, at, value)
    elf = Elf(bytes(data))
    asked: list[Callable[[], object]] = [elf.segments, elf.needed, elf.pvh_entry, lambda: elf.section(".modinfo")]
    for ask in asked:
        try:
            ask()
        except ElfError as error:
            assert str(error)


def test_a_damaged_module_is_named(tmp_path: Path) -> None:
    for content in (b"\x7fELF\x02\x01", b"text", gzip.compress(b"text")[:12]):
        (tmp_path / "virtio.ko").write_bytes(content)
        with pytest.raises(ImageError, match=r"module virtio\.ko is damaged"):
            modules.load(tmp_path / "virtio.ko", tmp_path)


def test_modules_that_need_each_other_have_an_order() -> None:
    found = {m.name: m for m in (_module("a", "b"), _module("b", "a"))}
    assert sorted(modules.load_order(["a"], found)) == ["a", "b"]


def test_a_link_in_packages_leads_to_a_file_of_theirs(tmp_path: Path) -> None:
    root = tmp_path / "root"
    (root / "usr/lib/x").mkdir(parents=True)
    (root / "usr/lib/x/libc.so.6").symlink_to("../../../../outside")
    (tmp_path / "outside").write_bytes(b"a file of the host")
    with pytest.raises(ImageError, match="leads to no file of theirs"):
        tiny_tree._library(root, "libc.so.6")
    with pytest.raises(ImageError, match="no name of one"):
        tiny_tree._library(root, "../../outside")


@pytest.mark.parametrize("path", ["a\0b", "a/" * 3000, "\ud800"])
def test_what_an_archive_cannot_hold_is_refused(path: str) -> None:
    with pytest.raises(ImageError):
        cpio.archive({path: cpio.file(b"")})


def _module(name: str, depends: str = "", alias: str = "") -> modules.Module:
    return modules.Module(
        name, f"kernel/{name}.ko", b"", tuple(filter(None, depends.split(","))), tuple(filter(None, [alias]))
    )


def test_modules_are_ordered_by_what_they_depend_on() -> None:
    found = {m.name: m for m in (_module("a", "b,c"), _module("b"), _module("c", "b", "pci:x*"))}
    assert modules.load_order(["a"], found) == ["b", "c", "a"]
    index = modules.index(found)
    assert index["modules.dep"].decode().splitlines()[0] == "kernel/a.ko: kernel/c.ko kernel/b.ko"
    assert index["modules.alias"] == b"alias pci:x* c\n"


DEBIAN = "ID=debian\nVERSION_CODENAME=bookworm\n"
MINT = 'ID=linuxmint\nID_LIKE="ubuntu debian"\nVERSION_CODENAME=wilma\nUBUNTU_CODENAME=noble\n'


def test_the_host_distribution_is_read() -> None:
    assert sources.host_distribution(DEBIAN) == sources.Distribution("debian", "bookworm")
    assert sources.host_distribution(MINT) == sources.Distribution("ubuntu", "noble")
    with pytest.raises(ImageError, match="neither"):
        sources.host_distribution("ID=fedora\nPRETTY_NAME=Fedora\n")


def test_the_configured_mirror_is_used_for_another_release_too() -> None:
    host = sources.Distribution("debian", "bookworm")
    configured = [("http://mirror/debian/", "bookworm"), ("http://sec/debian-security", "bookworm-security")]
    release, later = sources.for_architecture(host, "riscv64")
    assert later.suite == "forky"
    assert sources.for_architecture(host, "amd64") == [host]
    found = sources.repositories(release, "riscv64", configured)
    assert [(r.uri, r.suite) for r in found] == [
        ("http://mirror/debian", "trixie"),
        ("http://deb.debian.org/debian", "trixie-updates"),
        ("http://sec/debian-security", "trixie-security"),
    ]
    assert (
        found[0]
        .line()
        .startswith("deb [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] http://mirror/debian trixie")
    )


def test_only_the_distributions_own_archive_is_a_mirror() -> None:
    from tinamou.images.packages import archives

    text = """https://download.docker.com/linux/debian/|bookworm|stable|Docker
https://dl.winehq.org/wine-builds/debian/|bookworm|main|dl.winehq.org
http://mirror/debian/|bookworm|main|Debian
http://snapshot/archive/debian/20250520T000000Z/|bookworm|main|$(ORIGIN)
https://packages.example.com/debian/12/prod/|bookworm|main|$(ORIGIN)
"""
    own = ["http://mirror/debian/", "http://snapshot/archive/debian/20250520T000000Z/"]
    assert archives(text) == [(uri, "bookworm") for uri in own]


def test_ubuntu_takes_other_architectures_from_ports() -> None:
    host = sources.Distribution("ubuntu", "noble")
    configured = [("http://mirror/ubuntu", "noble")]
    assert sources.repositories(host, "amd64", configured)[0].uri == "http://mirror/ubuntu"
    assert {r.uri for r in sources.repositories(host, "riscv64", configured)} == {"http://ports.ubuntu.com/ubuntu-ports"}


@dataclass
class Fake:
    """A recipe that counts its builds, and fails when told to."""

    builder: int = 1
    space: int = 1
    key: str = "k1"
    fails: bool = False
    builds: int = 0
    offline: bool = False

    @property
    def facts(self) -> ImageFacts:
        return ImageFacts(name="fake", arch="x86_64", kernel="vmlinuz", initrd="initrd")

    def prepare(self, work: Path, progress: object) -> store.Prepared:
        if self.offline:
            raise ImageError("the package lists cannot be fetched", why="no network")

        def build(out: Path) -> ImageFacts:
            (out / "vmlinuz").write_bytes(b"k")
            if self.fails:
                raise ImageError("broken on purpose")
            self.builds += 1
            return self.facts

        return store.Prepared(self.key, build)


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TINAMOU_CACHE", str(tmp_path))


def test_a_guest_is_built_once_and_found_again(tmp_path: Path) -> None:
    recipe = Fake()
    assert store.cached(recipe) is None
    before = store.predicted(recipe)
    assert not before.built
    built = store.make(recipe, silent)
    assert built.built
    assert Path(built.kernel).read_bytes() == b"k"
    assert Path(before.kernel).resolve() == Path(built.kernel).resolve()
    assert store.make(recipe, silent) == store.cached(recipe) == built
    assert recipe.builds == 1


def test_new_packages_or_a_new_builder_build_anew_and_keep_the_old() -> None:
    old = store.make(Fake(), silent)
    assert store.make(Fake(key="k2"), silent, refresh=True).kernel != old.kernel
    assert store.cached(Fake(builder=2)) is None
    assert Path(old.kernel).exists()
    assert [k.current for k in store.kept()] == [False, True]


def test_versions_with_other_builders_do_not_take_the_guest_from_each_other() -> None:
    recipes = Fake(), Fake(builder=2)
    made = [store.make(recipe, silent) for recipe in recipes]
    assert [store.cached(recipe) for recipe in recipes] == made
    assert made[0].kernel != made[1].kernel
    assert [k.current for k in store.kept()] == [True, True]


def test_what_goes_into_the_tiny_guest_has_a_builder_number_of_its_own() -> None:
    """Raise ``Tiny.builder`` with every change of the guest: a guest that is cached under the number is not built again."""
    folder = Path(tiny.__file__).parent
    programs = (folder / f"programs/{name}.{arch}" for name in ("first", "resident", "attended") for arch in tiny.ARCHES)
    digest = hashlib.sha256(repr([tiny.MODULES, tiny.FIRST, tiny._CMDLINE]).encode())
    digest.update(inspect.getsource(tiny_tree._programs).encode() + inspect.getsource(tiny_tree.initrd).encode())
    files = [*(folder / "rootfs").iterdir(), *programs]
    for file in sorted(files):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    assert (tiny.Tiny("x86_64").builder, digest.hexdigest()[:16]) == (27, "4dbfc40f64e2c50e")


def test_a_failed_or_crashed_build_leaves_nothing(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="on purpose"):
        store.make(Fake(fails=True), silent)
    folder = tmp_path / "images/fake/x86_64"
    assert [p.name for p in folder.iterdir()] == [".lock"]
    (folder / ".building-crashed").mkdir()
    store.make(Fake(), silent)
    assert sorted(p.name for p in folder.iterdir()) == [".lock", "1-k1", "current-1"]


def test_without_network_the_guest_of_an_earlier_version_is_taken_with_a_warning() -> None:
    old = store.make(Fake(), silent)
    told: list[str] = []
    assert store.make(Fake(builder=2, offline=True), lambda text, _: told.append(text)) == old
    assert "warning" in told[0]
    with pytest.raises(ImageError, match="package lists"):
        store.make(Fake(builder=2, offline=True), silent, refresh=True)
    with pytest.raises(ImageError, match="no network"):
        store.remove(store.kept()[0])
        store.make(Fake(offline=True), silent)


def test_removing_forgets_the_guest() -> None:
    store.make(Fake(), silent)
    store.remove(store.kept()[0])
    assert store.kept() == []
    assert store.cached(Fake()) is None


def test_no_space_is_told_before_anything_is_done() -> None:
    with pytest.raises(ImageError, match="not enough space") as caught:
        store.make(Fake(space=1 << 60), silent)
    assert "MiB are free" in caught.value.why


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_a_folder_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(ImageError, match="cannot be written"):
        store.make(Fake(), silent)


def test_progress_goes_nowhere_by_default() -> None:
    with io.StringIO() as out:
        silent("x", None)
        assert out.getvalue() == ""
