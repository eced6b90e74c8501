"""Pulling from a server that cuts, lies, stalls, redirects and changes its files: whole and checked, or not there."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from pulling import ARCH, qcow2
from web_server import Resource, serve

from tinamou.errors import ImageError
from tinamou.images import catalog, pulled
from tinamou.images import pull as pulling
from tinamou.images.download import progress_bar


def test_pull(bench):
    bench.publish()
    told = []
    facts = bench.pull(progress=lambda *now: told.append(now))
    assert bench.whole(facts)
    assert (facts.name, facts.arch, facts.format, facts.size, facts.boots) == ("guest:1", ARCH, "qcow2", 64 << 20, ("bios",))
    assert (facts.user, facts.seed, facts.ssh, facts.agent) == ("user", "nocloud", True, False)
    assert told[-1][:2] == (len(bench.image), len(bench.image))
    assert [done for done, _, _ in told] == sorted(done for done, _, _ in told)
    assert all(rate >= 0 for _, _, rate in told)
    assert Path(facts.disk).stat().st_mode & 0o222 == 0


def test_what_an_image_will_be(bench):
    bench.publish()
    entry = catalog.find("guest", ARCH, files=[bench.catalogue()])
    before = pulled.predicted(entry)
    assert not before.built and pulled.cached(entry) is None and not bench.place.exists()
    after = bench.pull()
    assert Path(before.disk).samefile(after.disk)
    assert (before.name, before.format, before.boots) == (after.name, after.format, after.boots)


def test_a_pulled_image_needs_no_network(bench):
    bench.publish()
    first = bench.pull()
    bench.site.seen.clear()
    assert bench.pull() == first
    assert bench.site.seen == []


def test_refresh_asks_for_the_checksum_alone(bench):
    bench.publish()
    bench.pull()
    bench.site.seen.clear()
    bench.pull(refresh=True)
    assert [seen.path for seen in bench.site.seen] == ["/SHA256SUMS"]


def test_a_newer_build_leaves_the_older_one_alone(bench):
    bench.publish()
    old = bench.pull()
    before, bench.image = bench.image, qcow2(seed=2)
    bench.publish(etag='"v2"')
    new = bench.pull(refresh=True)
    assert Path(new.disk).read_bytes() == bench.image
    assert Path(old.disk).read_bytes() == before
    assert bench.pull() == new


# ── connections ──────────────────────────────────────────────────────────────────────────────────


def test_cut_connections_are_continued(bench):
    resource = bench.publish(cuts=[200_000, 300_000, 100, 0, 400_000, None])
    facts = bench.pull()
    assert bench.whole(facts)
    asked = bench.site.asked("disk.img")
    assert len(asked) == 6 and not resource.cuts
    assert "range" not in asked[0].headers
    starts = [int(seen.headers["range"].removeprefix("bytes=").rstrip("-")) for seen in asked[1:]]
    assert starts == sorted(starts) and starts[0] > 0
    assert all(seen.headers["if-range"] == '"v1"' for seen in asked[1:])
    assert sum(seen.sent for seen in asked) < len(bench.image) + 6 * 65536


def test_no_patience_with_a_server_that_never_goes_on(bench):
    bench.publish(cuts=[100_000] + [0] * 20)
    with pytest.raises(ImageError, match="did not finish") as caught:
        bench.pull()
    assert caught.value.code == 117
    assert "continues where it stopped" in caught.value.fix
    assert len(bench.pauses) == 3 and bench.pauses == sorted(bench.pauses) and bench.pauses[-1] > bench.pauses[0]
    assert bench.left() == [".part", ".part.json"]
    bench.publish()
    assert bench.whole(bench.pull())
    assert "range" in bench.site.asked("disk.img")[-1].headers


def test_without_a_validator_nothing_is_continued(bench):
    bench.publish(etag="", cuts=[500_000])
    assert bench.whole(bench.pull())
    assert all("range" not in seen.headers for seen in bench.site.asked("disk.img"))


def test_a_weak_etag_is_no_validator_but_a_date_is(bench):
    date = "Mon, 23 Nov 2026 08:00:00 GMT"
    bench.publish(etag='W/"v1"', modified=date, cuts=[500_000])
    assert bench.whole(bench.pull())
    assert bench.site.asked("disk.img")[1].headers["if-range"] == date


def test_a_server_that_ignores_ranges(bench):
    bench.publish(ranges=False, cuts=[500_000])
    assert bench.whole(bench.pull())


def test_the_file_changes_in_between(bench):
    new = qcow2(seed=9)
    bench.site.put("disk.img", bench.image, cuts=[500_000], becomes=Resource(new, etag='"v2"'))
    bench.image = new
    bench.site.sums("SHA256SUMS", **{"disk.img": new})
    assert bench.whole(bench.pull())


def test_the_file_changes_and_the_server_continues_all_the_same(bench):
    """A server that answers If-Range with a part of another file: the ETag of the answer tells."""
    new = qcow2(seed=9)
    replaced = Resource(new, etag='"v2"')
    bench.site.put("disk.img", bench.image, cuts=[500_000], becomes=replaced)
    bench.site.sums("SHA256SUMS", **{"disk.img": new})
    bench.image = new
    replaced.modified = '"v1"'
    assert bench.whole(bench.pull())


@pytest.mark.parametrize("more", [1000, 10_000_000])
def test_a_length_that_promises_too_much(bench, more):
    bench.publish(claim=len(bench.image) + more)
    with pytest.raises(ImageError, match="did not finish"):
        bench.pull()
    assert "current" not in bench.left()


def test_a_length_that_promises_too_little(bench):
    bench.publish(claim=len(bench.image) - 1000)
    with pytest.raises(ImageError, match=r"sha256 of disk\.img is wrong") as caught:
        bench.pull()
    assert str(len(bench.image) - 1000) in caught.value.why
    assert bench.left() == []


def test_no_length_at_all(bench):
    bench.publish(length=False)
    assert bench.whole(bench.pull())


def test_no_length_and_cut(bench):
    bench.publish(length=False, cuts=[500_000])
    with pytest.raises(ImageError, match="is wrong"):
        bench.pull()
    assert bench.left() == []


def test_a_slow_first_byte(bench):
    resource = bench.publish(gate_at=1)
    threading.Timer(1.0, resource.gate.set).start()
    assert bench.whole(bench.pull())
    assert len(bench.site.asked("disk.img")) == 1


def test_silence_is_a_cut(bench):
    resource = bench.publish(gate_at=300_000)
    policy = bench.policy()

    def pause(seconds):
        if any(one.sent >= 300_000 for one in bench.site.asked("disk.img")):
            resource.gate.set()

    assert bench.whole(bench.pull(type(policy)(attempts=20, timeout=1.0, pause=pause)))
    assert "range" in bench.site.asked("disk.img")[-1].headers


@pytest.mark.parametrize("status", [500, 502, 503, 429])
def test_errors_that_pass(bench, status):
    bench.publish(statuses=[status, status], headers={})
    bench.site.paths["/SHA256SUMS"].statuses = [status]
    assert bench.whole(bench.pull())
    assert len(bench.pauses) == 3


@pytest.mark.parametrize(("status", "fix"), [(404, "another release"), (403, "catalogue"), (410, "another release")])
def test_errors_that_stay(bench, status, fix):
    bench.publish(statuses=[status] * 9)
    with pytest.raises(ImageError, match="cannot be downloaded") as caught:
        bench.pull()
    assert str(status) in caught.value.why and fix in caught.value.fix
    assert bench.pauses == [] and bench.left() == []


def test_errors_that_pass_too_late(bench):
    bench.publish(statuses=[503] * 9)
    with pytest.raises(ImageError, match="did not finish") as caught:
        bench.pull()
    assert "503" in caught.value.why


def test_nobody_listens(bench):
    bench.publish()
    bench.base = "http://127.0.0.1:1/"
    with pytest.raises(ImageError, match="cannot be downloaded"):
        bench.pull()
    assert len(bench.pauses) == 3


# ── the way there ────────────────────────────────────────────────────────────────────────────────


def test_redirects(bench):
    bench.publish()
    bench.site.paths["/real.img"] = bench.site.paths["/disk.img"]
    bench.site.put("disk.img", b"", redirect="/step")
    bench.site.put("step", b"", redirect=f"{bench.site.url}/real.img")
    assert bench.whole(bench.pull())


def test_redirects_in_circles(bench):
    bench.publish()
    bench.site.put("disk.img", b"", redirect="/disk.img")
    with pytest.raises(ImageError, match="circles"):
        bench.pull()
    assert len(bench.site.asked("disk.img")) == 11


@pytest.mark.parametrize("target", ["ftp://127.0.0.1/x", "file:///etc/passwd"])
def test_redirects_out_of_the_web(bench, target):
    bench.publish()
    bench.site.put("disk.img", b"", redirect=target)
    with pytest.raises(ImageError, match="redirects to"):
        bench.pull()


@pytest.fixture
def https(tmp_path):
    pem = tmp_path / "server.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        pem,
        "-out",
        tmp_path / "crt",
        *subject,
    ]
    try:
        subprocess.run(command, check=True, capture_output=True)
    except FileNotFoundError:
        pytest.skip("openssl is not installed")
    pem.write_text(pem.read_text() + (tmp_path / "crt").read_text())
    server, site = serve(pem)
    yield site, tmp_path / "crt"
    server.shutdown()
    server.server_close()


def test_https_and_its_downgrade(bench, https, monkeypatch):
    safe, certificate = https
    monkeypatch.setenv("SSL_CERT_FILE", str(certificate))
    bench.publish()
    safe.paths = dict(bench.site.paths)
    bench.base = safe.url + "/"
    assert bench.whole(bench.pull())
    safe.put("disk.img", b"", redirect=f"{bench.site.url}/disk.img")
    safe.sums("SHA256SUMS", **{"disk.img": b"newer"})
    with pytest.raises(ImageError, match="redirects to http:") as caught:
        bench.pull(refresh=True)
    assert "https" in caught.value.why


def test_a_stranger_with_https(bench, https):
    safe, _ = https
    bench.publish()
    safe.paths = dict(bench.site.paths)
    bench.base = safe.url + "/"
    with pytest.raises(ImageError, match="does not prove who it is"):
        bench.pull()
    assert bench.pauses == []


def test_a_proxy(bench, monkeypatch):
    bench.publish()
    monkeypatch.setenv("http_proxy", bench.site.url)
    monkeypatch.delenv("no_proxy", raising=False)
    monkeypatch.delenv("NO_PROXY", raising=False)
    bench.base = "http://images.invalid/"
    assert bench.whole(bench.pull())
    assert bench.site.asked("disk.img")[0].headers["host"] == "images.invalid"


# ── this host ────────────────────────────────────────────────────────────────────────────────────


def test_two_at_once_download_once(bench):
    resource = bench.publish(gate_at=100_000)
    found = []
    first = threading.Thread(target=lambda: found.append(bench.pull()))
    second = threading.Thread(target=lambda: found.append(bench.pull(refresh=True)))
    first.start()
    until(lambda: bench.site.asked("disk.img"))
    second.start()
    until(lambda: any("waiting" in text for text in bench.said))
    resource.gate.set()
    first.join()
    second.join()
    assert len(found) == 2 and found[0] == found[1]
    assert len(bench.site.asked("disk.img")) == 1


def test_a_killed_download_goes_on(bench):
    resource = bench.publish(gate_at=700_000)
    script = "import sys, pathlib, tinamou.images.pull as p; p.pull('guest', sys.argv[1], files=[pathlib.Path(sys.argv[2])])"
    child = subprocess.Popen([sys.executable, "-c", script, ARCH, bench.catalogue()])
    part = bench.place / ".part"
    until(lambda: part.exists() and part.stat().st_size >= 600_000)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    resource.gate.set()
    assert bench.left() == [".part", ".part.json"]
    assert bench.whole(bench.pull())
    again = bench.site.asked("disk.img")[-1]
    assert int(again.headers["range"].removeprefix("bytes=").rstrip("-")) >= 600_000
    assert again.sent <= len(bench.image) - 600_000


def until(condition):
    for _ in range(3000):
        if condition():
            return
        time.sleep(0.02)
    pytest.fail("what was waited for did not happen")


def test_no_room_is_noticed_before(bench, monkeypatch):
    import shutil

    bench.publish()
    usage = shutil.disk_usage(bench.folder)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=60 << 20))
    with pytest.raises(ImageError, match="not enough room") as caught:
        bench.pull()
    assert "60 MiB are free" in caught.value.why
    assert bench.left() == []


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_the_disk_fills_up_and_the_download_goes_on(bench, tmp_path, monkeypatch):
    small = tmp_path / "small"
    small.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=600k", "tmpfs", small], check=True)
    try:
        monkeypatch.setenv("TINAMOU_CACHE", str(small))
        bench.publish(length=False)
        with pytest.raises(ImageError, match="not enough room"):
            bench.pull()
        place = small / "images" / "guest-1" / ARCH
        assert (place / ".part").stat().st_size > 100_000
        subprocess.run(["mount", "-o", "remount,size=200m", small], check=True)
        facts = bench.pull()
        assert Path(facts.disk).read_bytes() == bench.image
        assert "range" in bench.site.asked("disk.img")[-1].headers
    finally:
        subprocess.run(["umount", small], check=True)


def test_a_folder_that_cannot_be_written(bench, monkeypatch, tmp_path):
    catalogue = bench.catalogue()
    if os.geteuid() == 0:
        monkeypatch.setattr(Path, "mkdir", lambda *_, **__: (_ for _ in ()).throw(PermissionError(13, "denied")))
    else:
        tmp_path.chmod(0o555)
    with pytest.raises(ImageError, match="cannot be written"):
        pulling.pull_entry(catalog.find("guest", ARCH, files=[catalogue]))


def test_the_bar(bench, capsys):
    bench.publish()
    with progress_bar("guest:1") as show:
        bench.pull(progress=show)
    assert capsys.readouterr().out == ""
