"""What comes instead of an image: pages, other formats, stale checksums, damaged parts; nothing wrong stays in the cache."""

import hashlib
import lzma
import os
import subprocess
from pathlib import Path

import pytest
from pulling import qcow2

from tinamou.errors import ImageError
from tinamou.images import pull as pulling

PAGE = b"<!DOCTYPE html><html><body>Please log in to the hotel network</body></html>"


@pytest.mark.parametrize("content_type", ["text/html; charset=utf-8", "application/octet-stream"])
def test_a_page_instead_of_the_image(bench, content_type):
    bench.publish()
    bench.site.put("disk.img", PAGE, content_type=content_type)
    with pytest.raises(ImageError, match="web page") as caught:
        bench.pull()
    assert "hotel" in str(caught.value)
    assert bench.left() == []


def test_an_image_that_is_called_a_page(bench):
    bench.publish(content_type="text/html")
    with pytest.raises(ImageError, match="web page"):
        bench.pull()


def test_a_page_instead_of_the_checksum_file(bench):
    bench.publish()
    bench.site.put("SHA256SUMS", PAGE)
    with pytest.raises(ImageError, match="web page"):
        bench.pull()
    assert bench.site.asked("disk.img") == []


@pytest.mark.parametrize("body", [b"", b"PK\x03\x04" + bytes(9000), bytes(9000)])
def test_another_format(bench, body):
    bench.image = body
    bench.publish()
    with pytest.raises(ImageError, match="is not qcow2"):
        bench.pull()
    assert bench.left() == []


def test_an_image_that_names_a_file_of_this_host(bench):
    bench.image = qcow2(backing="/etc/shadow")
    bench.publish()
    with pytest.raises(ImageError, match="not a whole image") as caught:
        bench.pull()
    assert "/etc/shadow" in caught.value.why
    assert bench.left() == []


def test_a_stale_checksum(bench):
    bench.publish()
    bench.site.sums("SHA256SUMS", **{"disk.img": b"yesterday"})
    with pytest.raises(ImageError, match="is wrong") as caught:
        bench.pull()
    for body in (b"yesterday", bench.image):
        assert hashlib.sha256(body).hexdigest() in caught.value.why
    assert bench.left() == []
    assert bench.site.asked("SHA256SUMS")[1].headers["cache-control"] == "no-cache"


def test_a_build_replaced_between_checksum_and_image(bench):
    fresh = bench.site.sums("SHA256SUMS", **{"disk.img": bench.image})
    stale = bench.site.sums("SHA256SUMS", **{"disk.img": b"yesterday"})
    stale.becomes = fresh
    bench.site.put("disk.img", bench.image)
    assert bench.whole(bench.pull())


def test_damaged_part_of_an_earlier_run(bench):
    bench.publish(cuts=[600_000] + [0] * 9)
    with pytest.raises(ImageError):
        bench.pull()
    with (bench.place / ".part").open("r+b") as part:
        part.seek(400_000)
        part.write(bytes(4096))
    bench.publish()
    assert bench.whole(bench.pull())
    assert any("anew" in text for text in bench.said)


def test_a_whole_part_of_an_earlier_run(bench):
    """Killed after the last byte: the server answers 416 and nothing is fetched again."""
    resource = bench.publish()
    (bench.place).mkdir(parents=True)
    (bench.place / ".part").write_bytes(bench.image)
    origin = '{"url": "%s/disk.img", "etag": "%s", "modified": "", "total": %d}'
    (bench.place / ".part.json").write_text(origin % (bench.site.url, resource.etag.replace('"', '\\"'), len(bench.image)))
    assert bench.whole(bench.pull())
    assert [seen.sent for seen in bench.site.asked("disk.img")] == [0]


@pytest.mark.parametrize("record", ["", "{", '{"url": 5}', '{"other": 1}'])
def test_an_unreadable_record_of_an_earlier_run(bench, record):
    bench.publish()
    bench.place.mkdir(parents=True)
    (bench.place / ".part").write_bytes(b"x" * 1000)
    (bench.place / ".part.json").write_text(record)
    assert bench.whole(bench.pull())


def test_an_image_not_in_the_checksum_file(bench):
    bench.publish()
    bench.site.sums("SHA256SUMS", **{"other.img": b""})
    with pytest.raises(ImageError, match=r"says nothing about disk\.img") as caught:
        bench.pull()
    assert "other.img" in caught.value.why


def test_a_pinned_digest(bench):
    bench.publish()
    del bench.fields["checksum"]
    bench.arch["digest"] = "sha256:" + hashlib.sha256(bench.image).hexdigest()
    assert bench.whole(bench.pull())
    assert [seen.path for seen in bench.site.seen] == ["/disk.img"]


def test_a_wrong_pinned_digest(bench):
    bench.publish()
    bench.arch["digest"] = "sha256:" + "0" * 64
    with pytest.raises(ImageError, match="is wrong"):
        bench.pull()


def test_check_notices_a_change(bench):
    bench.publish()
    facts = bench.pull()
    assert pulling.check(facts).digest.endswith(hashlib.sha256(bench.image).hexdigest())
    disk = Path(facts.disk)
    disk.chmod(0o644)
    with disk.open("r+b") as file:
        file.seek(900_000)
        file.write(b"changed")
    with pytest.raises(ImageError, match="has changed"):
        pulling.check(facts)


@pytest.mark.parametrize("outer", ["xz", "zst"])
def test_packed_images(bench, outer):
    raw = bytearray(8 << 20)
    raw[510:512] = b"\x55\xaa"
    raw[5 << 20 : (5 << 20) + 5] = b"hello"
    if outer == "xz":
        bench.image = lzma.compress(bytes(raw))
    else:
        bench.image = subprocess.run(["zstd", "-c"], input=bytes(raw), capture_output=True, check=True).stdout
    bench.arch |= {"file": f"disk.raw.{outer}", "format": f"raw.{outer}"}
    bench.publish()
    facts = bench.pull()
    assert (facts.format, facts.size) == ("raw", 8 << 20)
    assert Path(facts.disk).read_bytes() == raw
    assert Path(facts.disk).stat().st_blocks * 512 < 1 << 20
    pulling.check(facts)


@pytest.mark.parametrize("outer", ["xz", "zst"])
def test_packed_images_that_are_cut(bench, outer):
    whole = {"xz": lzma.compress(os.urandom(300_000)), "zst": b""}[outer] or subprocess.run(
        ["zstd", "-c"], input=os.urandom(300_000), capture_output=True, check=True
    ).stdout
    bench.image = whole[:-1000]
    bench.arch |= {"file": f"disk.raw.{outer}", "format": f"raw.{outer}"}
    bench.publish()
    with pytest.raises(ImageError, match="cannot be unpacked"):
        bench.pull()
    assert not [name for name in bench.left() if name.startswith((".unpacked", "current"))]


def test_a_disc(bench):
    from tinamou.system.iso import build_iso

    path = bench.folder / "a.iso"
    build_iso(path, "DISC", {"a": "b"})
    bench.image = path.read_bytes()
    bench.arch |= {"file": "a.iso", "format": "iso"}
    bench.publish()
    assert bench.pull().format == "iso"
    bench.image = bytes(60_000)
    bench.publish()
    with pytest.raises(ImageError, match="not an image of format iso"):
        bench.pull(refresh=True)


def test_passwords_stay_out_of_messages(bench):
    bench.publish()
    bench.base = bench.base.replace("http://", "http://me:secret@")
    bench.site.put("disk.img", b"<html>")
    with pytest.raises(ImageError) as caught:
        bench.pull()
    assert "secret" not in str(caught.value)
