"""The catalogue: what is shipped holds together, what users add is checked, every mistake is told at once."""

import pytest

from tinamou.errors import ImageError
from tinamou.images import catalog
from tinamou.images.verify import expected_digest

OWN = """
[[image]]
name = "ubuntu:24.04"
aliases = ["ubuntu", "mine"]
base = "https://mirror.example/noble/"
checksum = "SHA256SUMS"
signature = "SHA256SUMS.gpg"
key = "ubuntu-cloud"
boots = ["uefi"]
[image.arch.x86_64]
file = "n.img"
"""


@pytest.fixture(autouse=True)
def no_own(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "config" / "tinamou" / "catalog.toml"
    path.parent.mkdir(parents=True)
    path.write_text(OWN)
    return path


def test_shipped():
    entries = catalog.catalog_entries()
    families = {entry.name.partition(":")[0] for entry in entries}
    assert families == {"debian-cloud", "ubuntu", "fedora", "alpine", "alpine-bios", "rocky", "opensuse", "arch"}
    assert {entry.arch for entry in entries} == {"x86_64", "aarch64", "riscv64"}
    names = [(name, entry.arch) for entry in entries for name in (entry.name, *entry.aliases)]
    assert len(names) == len(set(names))
    for entry in entries:
        assert all(url.startswith("https://") for url in (entry.url, entry.checksum_url) if url)
        assert entry.boots and entry.user and entry.seed == "nocloud" and "{" not in entry.url + entry.checksum_url
        assert "bios" not in entry.boots or entry.arch == "x86_64"


@pytest.mark.parametrize(
    ("name", "arch", "found"),
    [
        ("ubuntu", "x86_64", "ubuntu:26.04"),
        ("ubuntu:noble", "riscv64", "ubuntu:24.04"),
        ("fedora", "riscv64", "fedora:44"),
        ("debian-cloud", "aarch64", "debian-cloud:13"),
        ("arch", "x86_64", "arch:latest"),
    ],
)
def test_find(name, arch, found):
    entry = catalog.find(name, arch)
    assert (entry.name, entry.arch) == (found, arch)


@pytest.mark.parametrize("name", ["debian", "tiny"])
def test_our_own_guests_are_not_in_it(name):
    with pytest.raises(ImageError, match="no image is called"):
        catalog.find(name, "x86_64")


def test_not_found():
    with pytest.raises(ImageError, match="'ubunut'") as caught:
        catalog.find("ubunut", "x86_64")
    assert "did you mean ubuntu" in caught.value.fix
    with pytest.raises(ImageError, match="no arch for riscv64") as caught:
        catalog.find("arch", "riscv64")
    assert "x86_64" in caught.value.why


def test_own_catalogue_comes_first(own):
    assert catalog.catalog_files()[-1] == own
    entry = catalog.find("ubuntu", "x86_64")
    assert (entry.name, entry.url, entry.source) == ("ubuntu:24.04", "https://mirror.example/noble/n.img", str(own))
    assert entry.key and entry.key.package == "ubuntu-keyring"
    assert catalog.find("ubuntu", "aarch64").name == "ubuntu:26.04"
    assert catalog.find("mine", "x86_64") == entry


WRONG = """
[key.short]
fingerprints = ["1234"]
[[image]]
name = "debian"
base = "file:///srv"
chekcsum = "SHA256SUMS"
algorithm = "md5"
style = "sums"
key = "nobody"
boots = ["coreboot"]
[image.arch.x86_64]
file = "a.img"
digest = "sha256:12"
[[image]]
name = "Big Name"
checksum = "SUMS"
[image.arch]
x86_64 = 5
aarch64 = { file = "a.img" }
[other]
"""


def test_every_mistake_at_once(tmp_path):
    path = tmp_path / "wrong.toml"
    path.write_text(WRONG)
    with pytest.raises(ImageError, match="has errors") as caught:
        catalog.read_catalog(path)
    found = {problem.path for problem in caught.value.problems}
    at = "image[0].arch.x86_64"
    assert found >= {"key.short.fingerprints", "image[0].name", "image[0].chekcsum", "image[0].key", f"{at}.algorithm"}
    assert found >= {f"{at}.file", f"{at}.digest", f"{at}.boots", "image[1].name", "image[1].arch.x86_64", "other"}
    assert found >= {"image[1].arch.aarch64.checksum", "image[1].arch.aarch64.boots"}
    assert any("did you mean checksum" in problem.fix for problem in caught.value.problems)


@pytest.mark.parametrize("text", ["[[image", "image = 5", 'image = ["x"]', "key = 1"])
def test_not_a_catalogue(tmp_path, text):
    path = tmp_path / "bad.toml"
    path.write_text(text)
    with pytest.raises(ImageError):
        catalog.read_catalog(path)


A, B = "a" * 64, "b" * 64


@pytest.mark.parametrize(
    ("style", "text"),
    [
        ("sums", f"{B}  other\n{A}  disk.img\n"),
        ("sums", f"{A.upper()} *disk.img\r\n"),
        ("sums", f"{A}  ./disk.img\n"),
        ("bsd", f"# disk.img: 5 bytes\nSHA256 (disk.img) = {A}\nSHA512 (disk.img) = {A + A}\n"),
        ("beside", A),
        ("beside", f"{A}  another-name.qcow2\n"),
        ("beside", f"SHA256 (x) = {A}\n"),
    ],
)
def test_digests(style, text):
    assert expected_digest(text, style, "sha256", "disk.img") == A


@pytest.mark.parametrize(
    ("style", "text"),
    [
        ("sums", ""),
        ("sums", f"{A}  disk.img.old\n"),
        ("sums", f"{A}  disk.img\n{B}  disk.img\n"),
        ("sums", f"{A[:40]}  disk.img\n"),
        ("sums", f"SHA256 (disk.img) = {A}\n"),
        ("bsd", f"{A}  disk.img\n"),
        ("bsd", f"SHA512 (disk.img) = {A + A}\n"),
        ("beside", f"{A}  a\n{B}  b\n"),
        ("beside", "no digest"),
    ],
)
def test_digests_refused(style, text):
    with pytest.raises(ImageError):
        expected_digest(text, style, "sha256", "disk.img")
