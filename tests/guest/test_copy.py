"""Copying by a real agent, between two folders of this host; archives a hostile guest might send; a real guest."""

from __future__ import annotations

import asyncio
import io
import os
import tarfile

import pytest
from running import local_agent, run, tiny

from tinamou.errors import GuestError, SpecError
from tinamou.guest import archive, copy, files
from tinamou.guest.copy import End


@pytest.fixture
def here(state):
    folder = state / "here"
    folder.mkdir()
    return folder


@pytest.fixture
def there(state):
    folder = state / "there"
    folder.mkdir()
    return folder


def tree(folder):
    """Names with kind, mode, content; what a copy must keep."""
    found = {}
    for path in sorted(folder.rglob("*")):
        state = path.lstat()
        content = str(path.readlink()) if path.is_symlink() else path.read_bytes() if path.is_file() else None
        mode = None if path.is_symlink() else f"{state.st_mode & 0o7777:o}"
        found[str(path.relative_to(folder))] = (mode, content)
    return found


def fill(folder):
    (folder / "a b").mkdir(mode=0o750)
    (folder / "a b" / "ünï\ncode").write_bytes(bytes(range(256)))
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    (folder / "secret").write_text("x")
    (folder / "secret").chmod(0o600)
    (folder / "empty").touch(0o644)
    (folder / "absolute").symlink_to("/etc/hostname")
    (folder / "dangling").symlink_to("nowhere")
    (folder / "void").mkdir()


@pytest.mark.parametrize(
    ("text", "end"),
    [
        ("vm:/etc/x", End("vm", "/etc/x")),
        ("/a:/b", End("", "/a:/b")),
        ("./vm:/x", End("", "./vm:/x")),
        ("plain", End("", "plain")),
        (":/x", End("", ":/x")),
    ],
)
def test_paths(text, end):
    assert copy.parse_end(text) == end


@pytest.mark.parametrize("text", ["vm:relative", "vm:"])
def test_paths_refused(text):
    with pytest.raises(SpecError, match="begins with /"):
        copy.parse_end(text)


def test_files_both_ways(state, here, there):
    data = os.urandom(files.PIECE * 2 + 17)
    (here / "data").write_bytes(data)
    (here / "data").chmod(0o4750)
    os.utime(here / "data", (1e9, 1e9))

    async def talk(agent):
        async with agent:
            copied = await copy.into_guest(agent, here / "data", f"{there}/new name")
            assert copied == copy.Copied(len(data), True)
            assert (there / "new name").read_bytes() == data
            assert (there / "new name").stat().st_mode & 0o7777 == 0o4750
            assert (there / "new name").stat().st_mtime == 1e9
            await copy.into_guest(agent, here / "data", f"{there}")
            copied = await copy.out_of_guest(agent, f"{there}/data", here / "back")
            assert copied == copy.Copied(len(data), True)
            assert (here / "back").read_bytes() == data
            assert (here / "back").stat().st_mode & 0o7777 == 0o750
            (here / "nothing").touch()
            assert (await copy.into_guest(agent, here / "nothing", f"{there}/nothing")).bytes == 0
            assert await files.read(agent, f"{there}/nothing") == b""
            assert sorted(path.name for path in there.iterdir()) == ["data", "new name", "nothing"]
            assert sorted(path.name for path in here.iterdir()) == ["back", "data", "nothing"]

    with local_agent(state) as agent:
        run(talk(agent))


def test_folders_both_ways(state, here, there):
    source = here / "source"
    source.mkdir()
    fill(source)

    async def talk(agent):
        async with agent:
            assert (await copy.into_guest(agent, source, str(there))).verified
            assert tree(there / "source") == tree(source)
            assert (await copy.out_of_guest(agent, f"{there}/source", here / "back")).verified
            assert tree(here / "back") == tree(source)
            await copy.out_of_guest(agent, f"{there}/source", here / "back")
            assert tree(here / "back" / "source") == tree(source)
            assert [path.name for path in there.iterdir()] == ["source"]

    with local_agent(state) as agent:
        run(talk(agent))


def test_what_cannot_be_copied(state, here, there):
    (here / "file").write_text("x")
    (here / "folder").mkdir()
    (there / "file").write_text("x")

    async def talk(agent):
        async with agent:
            with pytest.raises(GuestError, match="no file"):
                await copy.out_of_guest(agent, f"{there}/missing", here / "x")
            with pytest.raises(GuestError, match="could not be opened"):
                await copy.into_guest(agent, here / "file", f"{there}/no/such/folder/file")
            with pytest.raises(GuestError, match="is a file in the guest"):
                await copy.into_guest(agent, here / "folder", f"{there}/file")
            with pytest.raises(GuestError, match="is a file, and"):
                await copy.out_of_guest(agent, str(there), here / "file")
            with pytest.raises(FileNotFoundError):
                await copy.into_guest(agent, here / "missing", f"{there}/x")
            with pytest.raises(GuestError, match="not complete"):
                await copy.into_guest(agent, here / "file", "relative")
            with pytest.raises(GuestError, match="larger than"):
                await files.read(agent, f"{there}/file", limit=0)
            assert sorted(path.name for path in here.iterdir()) == ["file", "folder"]
            assert [path.name for path in there.iterdir()] == ["file"]

    with local_agent(state) as agent:
        run(talk(agent))


def test_damage_on_the_way_is_seen(state, here, there, monkeypatch):
    (here / "file").write_bytes(b"good")
    (there / "file").write_bytes(b"good")

    async def damaged(agent, path, pieces):
        return await write(agent, path, [piece.replace(b"good", b"evil") for piece in pieces])

    async def pieces(agent, path, **more):
        async for piece in read_pieces(agent, path, **more):
            yield piece.replace(b"good", b"evil")

    write, read_pieces = files.write, files.read_pieces

    async def talk(agent):
        async with agent:
            monkeypatch.setattr(files, "write", damaged)
            with pytest.raises(GuestError, match="damaged"):
                await copy.into_guest(agent, here / "file", f"{there}/new")
            monkeypatch.setattr(files, "read_pieces", pieces)
            with pytest.raises(GuestError, match="damaged"):
                await copy.out_of_guest(agent, f"{there}/file", here / "new")
            assert [path.name for path in (*here.iterdir(), *there.iterdir())] == ["file", "file"]

    with local_agent(state) as agent:
        run(talk(agent))


def test_a_cancelled_copy_leaves_nothing(state, here, there):
    (here / "big").write_bytes(bytes(64 << 20))

    async def talk(agent):
        async with agent:
            task = asyncio.create_task(copy.into_guest(agent, here / "big", f"{there}/big"))
            while not list(there.iterdir()):  # noqa: ASYNC110
                await asyncio.sleep(0.01)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert list(there.iterdir()) == []

    with local_agent(state) as agent:
        run(talk(agent))


def archived(*members):
    """A tar archive of (name, type, extra) entries, as a hostile guest could make it."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as made:
        for name, kind, extra in members:
            info = tarfile.TarInfo(name)
            info.type = kind
            info.mode = 0o6755
            if kind == tarfile.REGTYPE:
                info.size = len(extra)
                made.addfile(info, io.BytesIO(extra))
            else:
                info.linkname = extra
                made.addfile(info)
    buffer.seek(0)
    return buffer


@pytest.mark.parametrize(
    "members",
    [
        [("../evil", tarfile.REGTYPE, b"x")],
        [("/evil", tarfile.REGTYPE, b"x")],
        [("a/../../evil", tarfile.REGTYPE, b"x")],
        [("hard", tarfile.LNKTYPE, "../outside")],
        [("hard", tarfile.LNKTYPE, "/etc/passwd")],
        [("hard", tarfile.LNKTYPE, "missing")],
        [(".", tarfile.SYMTYPE, "/etc")],
        [("before/evil", tarfile.REGTYPE, b"x")],
    ],
)
def test_hostile_archives_are_refused(state, members):
    (state / "outside").write_text("mine")
    folder = state / "folder"
    folder.mkdir()
    (folder / "before").symlink_to(state)
    with pytest.raises(GuestError):
        archive.unpack(archived(*members), folder)
    assert (state / "outside").read_text() == "mine"
    assert not (state / "evil").exists()


def test_hostile_archives_do_nothing_outside(state):
    (state / "outside").write_text("mine")
    folder = state / "folder"
    folder.mkdir()
    members = [
        ("link", tarfile.SYMTYPE, str(state)),
        ("link/outside", tarfile.REGTYPE, b"theirs"),
        ("setuid", tarfile.REGTYPE, b"x"),
        ("device", tarfile.CHRTYPE, ""),
        ("pipe", tarfile.FIFOTYPE, ""),
    ]
    with pytest.raises(GuestError, match="folder here"):
        archive.unpack(archived(*members), folder)
    assert (state / "outside").read_text() == "mine"
    assert (folder / "setuid").stat().st_mode & 0o7777 == 0o755
    assert not (folder / "device").exists() and not (folder / "pipe").exists()


@pytest.mark.vm
def test_a_real_guest(state, here):
    source = here / "source"
    source.mkdir()
    fill(source)
    (source / "data").write_bytes(os.urandom(1 << 20))

    async def talk(machine):
        async with machine.agent() as agent:
            await agent.wait(100)
            assert (await copy.into_guest(agent, source, "/root/source")).verified
            assert (await copy.out_of_guest(agent, "/root/source", here / "back")).verified
            assert tree(here / "back") == tree(source)
            assert (await copy.into_guest(agent, source / "run.sh", "/root/")).verified
            assert (await agent.run(["stat", "-c", "%a", "/root/run.sh"])).text == "755"
            assert (await agent.run(["sh", "-c", "ls -a /root /tmp | grep -c -e part -e tar"])).text == "0"

    with tiny(state) as machine:
        run(talk(machine))
