"""Archives of hostile guests: whatever they hold, nothing outside the folder they go to is made, changed or removed."""

from __future__ import annotations

import os
import shutil
import stat
import struct
import subprocess
import tarfile

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sent import FILE, FOLDER, HARD, HOSTILE, LINK, archived, framed, rewritten, take, unpack
from trees import seen

from tinamou.errors import GuestError
from tinamou.guest.carry import beneath


@pytest.fixture
def victim(state):
    """A place with things of ours in it, beside the folder that is copied to."""
    (state / "victim").mkdir(mode=0o750)
    (state / "victim" / "keys").write_text("mine")
    (state / "victim" / "keys").chmod(0o600)
    return state / "victim"


@pytest.mark.parametrize("kind", HOSTILE)
@pytest.mark.parametrize("there", ["new", "there before"])
def test_hostile_archives_end_with_one_error_and_leave_nothing(state, victim, kind, there):
    target = state / "to"
    if there == "there before":
        target.mkdir(mode=0o700)
        (target / "mine").write_text("x")
    before = seen(victim, *target.parent.glob("to"))
    archive = HOSTILE[kind]
    if b"{victim}" in archive:
        archive = rewritten(archive, victim)
    with pytest.raises(GuestError) as caught:
        unpack(archive, target)
    assert caught.value.why and "\n" not in caught.value.what
    assert seen(victim, *target.parent.glob("to")) == before
    assert sorted(path.name for path in state.iterdir()) == sorted({"victim", *(["to"] if there != "new" else [])})


def test_devices_pipes_owners_and_lent_rights_are_dropped(state):
    members = [("dev", tarfile.CHRTYPE, ""), ("block", tarfile.BLKTYPE, ""), ("pipe", tarfile.FIFOTYPE, "")]
    sent = unpack(archived(("setuid", FILE, b"x"), ("sub", FOLDER, ""), *members, uid=4242, gid=4242), state / "to")
    assert sent.dropped == (b"dev", b"block", b"pipe")
    assert sorted(path.name for path in (state / "to").iterdir()) == ["setuid", "sub"]
    for name in ("setuid", "sub"):
        now = (state / "to" / name).stat()
        assert (now.st_mode & 0o7777, now.st_uid, now.st_gid) == (0o755, os.getuid(), os.getgid())


def test_a_folder_that_was_there_keeps_its_mode_and_what_it_holds(state):
    target = state / "to"
    for folder in (target, target / "sub"):
        folder.mkdir()
    (target / "sub").chmod(0o1777)
    target.chmod(0o711)
    (target / "sub" / "mine").write_text("mine")
    (target / "sub" / "same").write_text("old")
    (target / "link").symlink_to("old")
    members = [
        (".", FOLDER, ""),
        ("sub", FOLDER, ""),
        ("sub/same", FILE, b"new"),
        ("sub/more", FOLDER, ""),
        ("link", LINK, "new"),
    ]
    unpack(archived(*members, mode=0o700), target)
    assert (target.stat().st_mode & 0o7777, (target / "sub").stat().st_mode & 0o7777) == (0o711, 0o1777)
    assert (target / "sub" / "mine").read_text() == "mine"
    assert (target / "sub" / "same").read_text() == "new"
    assert (target / "sub" / "more").stat().st_mode & 0o7777 == 0o700
    assert str((target / "link").readlink()) == "new"


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        ("link to a folder", (("one", FOLDER, ""), ("one/keys", FILE, b"x"))),
        ("link to a file", (("one", FILE, b"x"),)),
        ("folder", (("one", FILE, b"x"),)),
        ("folder", (("one", LINK, "x"),)),
        ("file", (("one", FOLDER, ""),)),
        ("file", (("one", LINK, "x"),)),
        ("pipe", (("one", FILE, b"x"),)),
    ],
)
def test_what_is_there_never_becomes_another_kind_of_thing(state, victim, ours, theirs):
    target = state / "to"
    target.mkdir()
    (target / "zero").write_text("old")
    one = target / "one"
    if ours.startswith("link"):
        one.symlink_to(victim if ours.endswith("folder") else victim / "keys")
    elif ours == "pipe":
        os.mkfifo(one)
    else:
        one.mkdir() if ours == "folder" else one.write_text("mine")
    before = seen(state)
    with pytest.raises(GuestError, match="in the guest"):
        unpack(archived(("zero", FILE, b"new"), *theirs), target)
    assert seen(state) == before


def test_limits(state):
    with pytest.raises(GuestError, match="more than it may"):
        unpack(archived(("a", FILE, bytes(100_000))), state / "to", limit=50_000)
    with pytest.raises(GuestError, match="too many files"):
        unpack(archived(*((f"{n}", FILE, b"") for n in range(20))), state / "to", files=10)
    with pytest.raises(GuestError, match="too many files"):
        unpack(archived(("/".join("d" * 20).lstrip("/"), FOLDER, "")), state / "to", files=10)
    assert list(state.iterdir()) == []


@pytest.mark.parametrize(
    "stream",
    [
        b"",
        b"\n",
        b"folder",
        b"folder\nchunk\n",
        b"folder\nchunk 999999999999 -\n",
        b"folder\nchunk -5 -\n",
        b"folder\nchunk x -\n",
        b"folder\nchunk 512 0000\n" + bytes(512),
        b"x" * 100_000,
        framed(archived()) + b"file 644 0 99999999999999999 \nx\n0 0\nend 0 no\n",
        framed(archived()) + b"file 644 0 1000\nx\n0 5\n" + bytes(5 << 16),
        framed(archived()) + b"file 644 0 100\nx\n-1 1\n",
        framed(archived()) + b"file 644 0 100\n../x\n0 0\nend 0 no\n",
        framed(archived()) + b"file 644 0 100\n/x\n0 0\nend 0 no\n",
        framed(archived()) + b"file 999 0 100\nx\n0 0\nend 0 no\n",
        framed(archived()) + b"file 644 99999999999999 100\nx\n0 0\nend 0 no\n",
        framed(archived()) + b"file 644 0 99999999999999999\nx\n0 0\nend 0 no\n",
        framed(archived()) + b"file 644 0 100\nx\n0 1\n" + bytes(65536) + b"sum 0000\n0 0\nend 0 no\n",
        framed(archived(("x", LINK, "/etc"))) + b"file 644 0 0\nx/y\n0 0\nend 0 no\n",
        framed(archived()) + b"end 1 no\n",
        framed(archived()) + b"end 0 yes\n",
        framed(archived()) + b"end\n",
        framed(archived()),
    ],
)
def test_what_is_no_copy_is_refused(state, stream):
    with pytest.raises(GuestError):
        take(stream, state / "to")
    assert list(state.iterdir()) == []


def test_holes_are_made_of_what_does_not_come(state):
    block = os.urandom(65536)
    file = b"file 640 1000000000 %d\n./a/image\n5 1\n%ssum -\n0 0\n" % (10 << 30, block)
    sent = take(framed(archived(("a", FOLDER, ""))) + file + b"end 0 no\n", state / "to")
    now = (state / "to/a/image").stat()
    assert (now.st_size, now.st_mtime, now.st_mode & 0o7777, sent.verified) == (10 << 30, 1e9, 0o640, False)
    assert now.st_blocks * 512 < 1 << 20
    with (state / "to/a/image").open("rb") as made:
        made.seek(5 << 16)
        assert made.read(65536) == block


NAMES = st.lists(st.sampled_from(["a", "b", "c", ".", "..", "", "ü", "\udcff"]), min_size=1, max_size=4).map("/".join)
TARGETS = st.sampled_from(["{victim}", "{victim}/keys", "..", "../victim", "../../victim/keys", "a", "b/c", ".", "/"])
KINDS = st.sampled_from([FILE, FOLDER, LINK, HARD, tarfile.CHRTYPE, tarfile.FIFOTYPE])
MEMBERS = st.lists(st.tuples(NAMES, KINDS, st.one_of(TARGETS, NAMES), st.integers(0, 0o7777)), max_size=8)
BEFORE = st.lists(
    st.tuples(st.sampled_from(["a", "b", "c", "a/b"]), st.sampled_from(["file", "folder", "link"])), max_size=3
)


@pytest.mark.parametrize("openat2", [True, False])
def test_no_archive_reaches_outside(tmp_path_factory, openat2, monkeypatch):
    if not openat2:
        monkeypatch.setattr(beneath, "_system_call", lambda: None)
    elif beneath._system_call() is None:
        pytest.skip("this kernel has no openat2, or a filter forbids it")

    @settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
    @given(members=MEMBERS, before=BEFORE)
    def holds(members, before):
        root = tmp_path_factory.mktemp("any")
        victim, target = root / "victim", root / "to"
        victim.mkdir()
        (victim / "keys").write_text("mine")
        for name, kind in before:
            _make(target / name, kind, victim)
        outside = seen(victim)
        kept = _kinds(target)
        archive = rewritten(_archive(members), victim)
        try:
            unpack(archive, target)
        except GuestError:
            assert _kinds(target) == kept
        assert seen(victim) == outside
        assert sorted(path.name for path in root.iterdir()) == sorted({"victim", *(["to"] if target.exists() else [])})
        assert {path: kind for path, kind in _kinds(target).items() if path in kept} == kept

    holds()


def _archive(members):
    return archived(*((name, kind, b"data" if kind == FILE else target) for name, kind, target, _ in members))


def _make(path, kind, victim):
    if path.is_symlink() or path.exists() or path.parent.is_symlink() or path.parent.is_file():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    if kind == "file":
        path.write_text("mine")
    elif kind == "folder":
        path.mkdir(mode=0o711)
    else:
        path.symlink_to(victim)


def _kinds(target):
    """The kinds of all things there, and the modes of folders."""
    found = {}
    for path in (target, *target.rglob("*")) if target.exists() else ():
        mode = path.lstat().st_mode
        found[str(path)] = mode if stat.S_ISDIR(mode) else stat.S_IFMT(mode)
    return found


def test_odd_names_and_times_are_kept(state):
    name = "\udcff\n\x1b[31m"
    unpack(archived((name, FILE, b"x"), mtime=-1.5), state / "to")
    assert os.listdir(os.fsencode(state / "to")) == [os.fsencode(name)]  # noqa: PTH208
    assert (state / "to" / name).stat().st_mtime == -1.5


PROGRAMS = {
    **{f"GNU tar, {form}": ["tar", f"--format={form}", "-cf"] for form in ("v7", "oldgnu", "gnu", "ustar", "posix")},
    "busybox": ["busybox", "tar", "-cf"],
}


@pytest.mark.parametrize("program", PROGRAMS)
def test_what_tar_programs_make_arrives_as_it_was(state, program):
    if not shutil.which(PROGRAMS[program][0]):
        pytest.skip(f"no {PROGRAMS[program][0]} on this host (script/setup installs it)")
    source = state / "from"
    long = "long-" * 15 if "v7" in program else "long-" * 30
    (source / "a b" / ("" if "v7" in program or "ustar" in program else long)).mkdir(parents=True)
    (source / "a b" / "data").write_bytes(os.urandom(70_000))
    (source / "a b" / "ünï\ncode").write_text("x")
    (source / "a b" / "hard").hardlink_to(source / "a b" / "data")
    (source / "link").symlink_to("/nowhere")
    (source / "void").mkdir(mode=0o500)
    (source / "empty").touch(0o604)
    os.utime(source / "empty", (1e9, 1e9))
    argv = [*PROGRAMS[program], str(state / "tar"), "-C", str(source), "."]
    assert subprocess.run(argv, check=False, capture_output=True).returncode == 0
    unpack((state / "tar").read_bytes(), state / "to")
    ours, theirs = (
        {str(path.relative_to(root)): _what(path) for path in (root, *root.rglob("*"))} for root in (source, state / "to")
    )
    assert theirs == ours
    assert (state / "to/a b/hard").samefile(state / "to/a b/data")


def _what(path):
    now = path.lstat()
    if path.is_symlink():
        return str(path.readlink())
    return (now.st_mode, int(now.st_mtime), path.read_bytes() if path.is_file() else None)


@pytest.mark.parametrize("openat2", [True, False])
def test_no_link_is_followed_below_a_folder(state, victim, openat2, monkeypatch):
    if not openat2:
        monkeypatch.setattr(beneath, "_system_call", lambda: None)
    (state / "to/sub").mkdir(parents=True)
    (state / "to/link").symlink_to(victim)
    with beneath.Beneath.at(state / "to") as below:
        assert below.look(b"sub") == "folder"
        assert below.look(b"link") == "link"
        assert below.look(b"missing") == "nothing"
        os.close(below.create(b"sub/new"))
        for path in (b"link/keys", b"link/new", b"../victim/keys", b"sub/../../victim/keys", b"/etc/passwd"):
            with pytest.raises(OSError):
                below.create(path)
            with pytest.raises(OSError):
                os.close(below.folder(path.rpartition(b"/")[0] or b"/"))
    with pytest.raises(OSError):
        beneath.Beneath.at(state / "to/link")


def test_a_deep_tree_is_removed(state):
    at = os.open(state, os.O_RDONLY)
    for _ in range(3000):
        os.mkdir("d", dir_fd=at)
        os.symlink("/etc", "l", dir_fd=at)
        at, before = os.open("d", os.O_RDONLY, dir_fd=at), at
        os.chmod("../d", 0o500, dir_fd=at)
        os.close(before)
    os.close(at)
    with beneath.Beneath.at(state) as below:
        below.clear()
    assert list(state.iterdir()) == []


def test_old_forms_of_numbers():
    from tinamou.guest.carry.tar import _number

    assert _number(b"\x80" + struct.pack(">Q", 1 << 40).rjust(11, b"\0"), "size") == 1 << 40
    assert _number(b"\xff" * 12, "time") == -1
    with pytest.raises(GuestError):
        _number(b"\xff" * 12, "size")
    with pytest.raises(GuestError):
        _number(b"\x80" + b"\xff" * 11, "size")
    with pytest.raises(GuestError):
        _number(b"12x4567 ", "mode")
