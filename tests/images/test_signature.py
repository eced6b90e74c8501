"""Vendors' signatures, made here with keys of the test's own: good ones count, wrong ones are always refused."""

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest

from tinamou.errors import ImageError
from tinamou.images import catalog, signature
from tinamou.images.pull import origin

pytestmark = pytest.mark.skipif(
    not (shutil.which("gpg") and shutil.which("gpg-agent") and shutil.which("gpgv")),
    reason="gpg, gpg-agent or gpgv is missing",
)


BROKEN = b"-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n"


class Ring:
    """Keys of pretended vendors, and what they sign."""

    def __init__(self, home):
        self.home = home
        self.prints = {}

    def gpg(self, *arguments, data=b""):
        command = [
            "gpg",
            "--homedir",
            self.home,
            "--batch",
            "--quiet",
            "--yes",
            "--pinentry-mode",
            "loopback",
            "--passphrase",
            "",
        ]
        return subprocess.run([*command, *arguments], input=data, capture_output=True, check=True).stdout

    def make(self, name, when="20200101T000000", until="never"):
        before = ["--faked-system-time", f"{when}!"]
        self.gpg(*before, "--quick-generate-key", name, "ed25519", "sign", until)
        listed = self.gpg("--with-colons", "--list-keys", name).decode()
        self.prints[name] = next(line.split(":")[9] for line in listed.splitlines() if line.startswith("fpr"))

    def public(self, *names, armour=False):
        return self.gpg(*(["--armor"] if armour else []), "--export", *names)

    def detached(self, name, data, *options):
        return self.gpg("--local-user", name, *options, "--detach-sign", data=data)

    def clear(self, name, data):
        return self.gpg("--local-user", name, "--clearsign", data=data)


@pytest.fixture(scope="module")
def ring():
    home = Path(tempfile.mkdtemp(prefix="gpg-", dir="/tmp"))
    ring = Ring(home)
    ring.make("vendor")
    ring.make("stranger")
    ring.make("lapsed", until="20210101T000000")
    yield ring
    subprocess.run(["gpgconf", "--homedir", home, "--kill", "gpg-agent"], check=False)
    shutil.rmtree(home, ignore_errors=True)


@pytest.fixture
def signed(bench, ring):
    """A catalogue whose vendor signs its checksum file, and whose key is here."""
    path = bench.folder / "vendor.gpg"
    path.write_bytes(ring.public("vendor"))
    bench.keys["vendor"] = {"owner": "The Vendor", "fingerprints": [ring.prints["vendor"]], "keyrings": [str(path)]}
    bench.fields |= {"key": "vendor", "signature": "SHA256SUMS.gpg"}
    bench.publish()
    bench.sums = bench.site.paths["/SHA256SUMS"].body
    bench.site.put("SHA256SUMS.gpg", ring.detached("vendor", bench.sums))
    return bench


def refused(bench, why):
    with pytest.raises(ImageError, match=r"signature of .* is wrong") as caught:
        bench.pull()
    assert why in caught.value.why
    assert not [name for name in bench.left() if name not in (".part", ".part.json")]


@pytest.mark.parametrize("armour", [False, True])
def test_a_good_signature(signed, ring, armour):
    Path(signed.keys["vendor"]["keyrings"][0]).write_bytes(ring.public("vendor", armour=armour))
    facts = signed.pull(require_signature=True)
    assert signed.whole(facts)
    assert origin(facts).signer == ring.prints["vendor"] and not origin(facts).unsigned
    assert signed.said == []


def test_an_armoured_signature(signed, ring):
    signed.site.put("SHA256SUMS.gpg", ring.detached("vendor", signed.sums, "--armor"))
    assert origin(signed.pull()).signer


def test_a_signature_of_something_else(signed, ring):
    signed.site.put("SHA256SUMS.gpg", ring.detached("vendor", b"something else"))
    refused(signed, "does not belong to these bytes")
    assert signed.site.asked("disk.img") == []


def test_a_changed_checksum_file(signed):
    signed.site.put("SHA256SUMS", signed.sums + b"# harmless\n")
    refused(signed, "does not belong to these bytes")


def test_a_signature_by_a_stranger(signed, ring):
    signed.site.put("SHA256SUMS.gpg", ring.detached("stranger", signed.sums))
    refused(signed, "not in the keyring")


def test_a_stranger_in_the_keyring_is_not_the_vendor(signed, ring):
    Path(signed.keys["vendor"]["keyrings"][0]).write_bytes(ring.public("vendor", "stranger"))
    signed.site.put("SHA256SUMS.gpg", ring.detached("stranger", signed.sums))
    refused(signed, "not by The Vendor")


def test_one_of_two_signatures_is_enough(signed, ring):
    both = ring.detached("stranger", signed.sums) + ring.detached("vendor", signed.sums)
    signed.site.put("SHA256SUMS.gpg", both)
    assert origin(signed.pull()).signer == ring.prints["vendor"]


def test_a_bad_signature_beside_a_good_one(signed, ring):
    both = ring.detached("vendor", b"something else") + ring.detached("vendor", signed.sums)
    signed.site.put("SHA256SUMS.gpg", both)
    refused(signed, "does not belong to these bytes")


def test_an_expired_key(signed, ring):
    signed.keys["vendor"]["fingerprints"] = [ring.prints["lapsed"]]
    Path(signed.keys["vendor"]["keyrings"][0]).write_bytes(ring.public("lapsed"))
    made = ring.detached("lapsed", signed.sums, "--faked-system-time", "20200601T000000!")
    signed.site.put("SHA256SUMS.gpg", made)
    refused(signed, "the key has expired")


@pytest.mark.parametrize(
    "body", [b"", b"no signature at all", b"-----BEGIN PGP SIGNATURE-----\n\nAAAA\n-----END PGP SIGNATURE-----\n"]
)
def test_no_signature_in_the_file(signed, body):
    signed.site.put("SHA256SUMS.gpg", body)
    with pytest.raises(ImageError, match="is wrong"):
        signed.pull()


def test_a_missing_signature_is_not_passed_over(signed):
    del signed.site.paths["/SHA256SUMS.gpg"]
    with pytest.raises(ImageError, match=r"SHA256SUMS\.gpg cannot be downloaded"):
        signed.pull()


def test_without_the_key(signed):
    Path(signed.keys["vendor"]["keyrings"][0]).unlink()
    signed.keys["vendor"]["package"] = "vendor-keyring"
    facts = signed.pull()
    assert not origin(facts).signer
    assert "The Vendor is not on this host" in origin(facts).unsigned and "vendor-keyring" in origin(facts).unsigned
    assert len(signed.said) == 1 and "plain http" in signed.said[0]
    with pytest.raises(ImageError, match="cannot be checked") as caught:
        signed.pull(require_signature=True)
    assert caught.value.code == 117


def test_the_key_comes_later(signed, ring):
    keyring = Path(signed.keys["vendor"]["keyrings"][0])
    keyring.rename(signed.folder / "away")
    first = signed.pull()
    (signed.folder / "away").rename(keyring)
    signed.site.seen.clear()
    again = signed.pull(require_signature=True)
    assert again == first and origin(again).signer == ring.prints["vendor"]
    assert signed.site.asked("disk.img") == []


def test_keys_of_the_user(signed, ring, monkeypatch):
    Path(signed.keys["vendor"]["keyrings"][0]).unlink()
    own = signed.folder / "own.asc"
    own.write_bytes(ring.public("vendor", armour=True))
    assert origin(signed.pull(require_signature=True, keyrings=[own])).signer
    folder = signed.folder / "config" / "tinamou" / "keyrings"
    folder.mkdir(parents=True)
    own.rename(folder / "vendor.asc")
    assert origin(signed.pull(require_signature=True, refresh=True)).signer


def test_a_damaged_keyring(signed, ring):
    text = ring.public("vendor", armour=True).replace(b"\n\n", b"\n\n$$$$", 1)
    Path(signed.keys["vendor"]["keyrings"][0]).write_bytes(text)
    with pytest.raises(ImageError, match=r"keyring .* is damaged"):
        signed.pull()


def test_without_gpgv(signed, monkeypatch):
    monkeypatch.setattr(signature, "find_tool", lambda _: None)
    assert "gpgv is not installed" in origin(signed.pull()).unsigned
    with pytest.raises(ImageError, match="cannot be checked"):
        signed.pull(require_signature=True)


def test_a_vendor_who_does_not_sign(bench):
    bench.publish()
    assert "publishes no signature" in origin(bench.pull()).unsigned
    with pytest.raises(ImageError, match="cannot be checked"):
        bench.pull(require_signature=True)


# ── clear-signed checksum files (Fedora) ─────────────────────────────────────────────────────────


@pytest.fixture
def inline(signed, ring):
    """The checksum file carries its signature, digests in the manner of BSD."""
    signed.fields |= {"checksum": "CHECKSUM", "style": "bsd", "signature": "inline"}
    digest = hashlib.sha256(signed.image).hexdigest()
    signed.text = f"# disk.img: {len(signed.image)} bytes\nSHA256 (disk.img) = {digest}\n".encode()
    signed.site.put("CHECKSUM", ring.clear("vendor", signed.text))
    return signed


def test_a_clear_signed_file(inline, ring):
    facts = inline.pull(require_signature=True)
    assert origin(facts).signer == ring.prints["vendor"]


def test_a_clear_signed_file_without_the_key(inline):
    Path(inline.keys["vendor"]["keyrings"][0]).unlink()
    assert inline.whole(inline.pull())


def test_a_changed_clear_signed_file(inline):
    inline.site.paths["/CHECKSUM"].body = inline.site.paths["/CHECKSUM"].body.replace(b"bytes", b"Bytes")
    refused(inline, "does not belong to these bytes")


def test_text_around_a_clear_signed_file_does_not_count(inline, ring):
    """A good signature with forged digests before and after what it covers: only what is signed is read."""
    evil = b"SHA256 (disk.img) = " + b"0" * 64 + b"\n"
    honest = ring.clear("vendor", b"SHA256 (other.img) = " + b"1" * 64 + b"\n")
    inline.site.put("CHECKSUM", evil + honest + evil)
    with pytest.raises(ImageError, match=r"says nothing about disk\.img|is wrong"):
        inline.pull()


def test_an_unsigned_file_where_a_signed_one_belongs(inline):
    inline.site.put("CHECKSUM", inline.text)
    with pytest.raises(ImageError, match="is wrong"):
        inline.pull()


# ── signed images (Arch Linux) ───────────────────────────────────────────────────────────────────


@pytest.fixture
def whole_image(signed, ring):
    """The image is signed, not the checksum file."""
    signed.fields |= {"signature": "{file}.sig", "signs": "image"}
    signed.site.put("disk.img.sig", ring.detached("vendor", signed.image))
    return signed


def test_a_signed_image(whole_image, ring):
    assert origin(whole_image.pull(require_signature=True)).signer == ring.prints["vendor"]


def test_a_signed_image_with_a_wrong_signature(whole_image, ring):
    whole_image.site.put("disk.img.sig", ring.detached("vendor", b"another image"))
    refused(whole_image, "does not belong")
    assert whole_image.left() == []


def test_a_signed_image_that_was_pulled_before_the_key_came(whole_image):
    keyring = Path(whole_image.keys["vendor"]["keyrings"][0])
    keyring.rename(whole_image.folder / "away")
    assert not origin(whole_image.pull()).signer
    (whole_image.folder / "away").rename(keyring)
    assert origin(whole_image.pull(require_signature=True)).signer


# ── real keyrings ────────────────────────────────────────────────────────────────────────────────


def shipped_keys():
    return {entry.key.name: entry.key for entry in catalog.catalog_entries() if entry.key}


@pytest.mark.parametrize("name", ["ubuntu-cloud", "fedora-42", "fedora-43", "fedora-44", "opensuse"])
def test_keyrings_of_packages_hold_the_keys_named(name, tmp_path):
    key = shipped_keys()[name]
    found = signature.keyrings(key)
    if not found:
        pytest.skip(f"the package {key.package} is not installed")
    plain = tmp_path / "ring.gpg"
    plain.write_bytes(b"".join(signature._plain(ring) for ring in found))
    shown = subprocess.run(
        ["gpg", "--homedir", tmp_path, "--show-keys", "--with-colons", plain], capture_output=True, check=True
    )
    prints = {line.split(":")[9] for line in shown.stdout.decode().splitlines() if line.startswith("fpr")}
    assert set(key.fingerprints) <= prints
