"""Copying by a real agent, between two folders of this host; what a real guest does is in test_copy_port.py."""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import socket
import subprocess
import tarfile

import pytest
from running import local_agent, run
from trees import fill, tree

from tinamou.errors import GuestError, SpecError
from tinamou.guest import copy, files
from tinamou.guest.carry import exchange, wire
from tinamou.guest.carry.feed import Feed
from tinamou.guest.copy import End


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


@pytest.mark.parametrize("name", ["probe", "send", "receive"])
def test_the_guests_scripts_are_sound(name):
    if not shutil.which("shellcheck"):
        pytest.skip("no shellcheck on this host (script/setup installs it)")
    done = subprocess.run(
        ["shellcheck", "-s", "sh", "-"], input=exchange._script(name), capture_output=True, text=True, check=False
    )
    assert done.stdout == ""


def test_a_guest_of_another_architecture_is_sent_no_program():
    assert exchange.program("x86_64").startswith(b"\x7fELF")
    assert exchange.program("sparc64") == exchange.program("../extents.c") == exchange.program("") == b""


def test_files_both_ways(state, here, there, tools):
    data = os.urandom(files.PIECE * 4 + 17)
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
            assert (here / "back").stat().st_mtime == 1e9
            for size in (0, 1, 4096, 4097, 300_000):
                (here / "other").write_bytes(data[:size])
                assert (await copy.into_guest(agent, str(here / "other"), f"{there}/")).bytes == size
                assert await files.read(agent, f"{there}/other") == data[:size]
                assert (await copy.out_of_guest(agent, f"{there}/other", str(here))).bytes == size
                assert (here / "other").read_bytes() == data[:size]
            assert sorted(path.name for path in there.iterdir()) == ["data", "new name", "other"]
            assert sorted(path.name for path in here.iterdir()) == ["back", "data", "other"]

    with local_agent(state) as agent:
        run(talk(agent))


def test_tar_archives_both_ways(state, here, there, tools):
    (here / "source").mkdir()
    fill(here / "source")
    (here / "source/data").write_bytes(os.urandom(9 << 20))
    packed = here / "packed"
    subprocess.run(["tar", "-cf", packed, "-C", here / "source", "."], check=True)
    (there / "tmp").mkdir()
    (there / "tmp").chmod(0o1777)

    async def talk(agent):
        async with agent:
            with packed.open("rb") as file:
                assert (await copy.tar_into_guest(agent, file.fileno(), f"{there}/tmp")).verified
            assert tree(there / "tmp") == tree(here / "source")
            assert (there / "tmp").stat().st_mode & 0o7777 == 0o1777
            with (here / "sent").open("wb") as file:
                assert (await copy.tar_out_of_guest(agent, f"{there}/tmp", file.fileno())).verified
            with tarfile.open(here / "sent") as sent:
                assert {name.partition("/")[0] for name in sent.getnames()} == {"tmp"}
                assert sent.extractfile("tmp/data").read() == (here / "source/data").read_bytes()
            with (here / "sent").open("wb") as file:
                await copy.tar_out_of_guest(agent, f"{there}/tmp/run.sh", file.fileno())
            with tarfile.open(here / "sent") as sent:
                assert sent.getnames() == ["run.sh"]

    with local_agent(state) as agent:
        run(talk(agent))


@pytest.mark.parametrize("kind", ["nothing", "text", "cut short", "compressed"])
def test_what_is_no_tar_archive_is_not_unpacked(state, here, there, kind):
    packed = here / "packed"
    (here / "file").write_bytes(os.urandom(50_000))
    subprocess.run(["tar", "-czf" if kind == "compressed" else "-cf", packed, "-C", here, "file"], check=True)
    if kind in ("nothing", "text"):
        packed.write_text("" if kind == "nothing" else "text" * 1000)
    elif kind == "cut short":
        os.truncate(packed, 40_960)

    async def talk(agent):
        async with agent:
            with packed.open("rb") as file, pytest.raises(SpecError) as error:
                await copy.tar_into_guest(agent, file.fileno(), str(there))
            assert error.value.fix.endswith(f"tinamou exec NAME -- sh -c 'cat >{there}/FILE' <FILE")
            assert list(there.iterdir()) == []

    with local_agent(state) as agent:
        run(talk(agent))


@pytest.mark.parametrize("kind", ["nothing", "file"])
def test_an_archive_needs_a_folder_and_says_how_a_file_is_made(state, here, there, kind):
    target = there / "a b"
    if kind == "file":
        target.write_text("x")
    subprocess.run(["tar", "-cf", here / "packed", "-T", os.devnull], check=True)

    async def talk(agent):
        async with agent:
            with (here / "packed").open("rb") as file, pytest.raises(GuestError) as error:
                await copy.tar_into_guest(agent, file.fileno(), str(target))
            assert f"tinamou exec NAME -- mkdir '{target}'; " in error.value.fix
            *_, sh, c, line, source = shlex.split(error.value.fix)
            assert (sh, c, source) == ("sh", "-c", "<FILE")
            return line

    with local_agent(state) as agent:
        line = run(talk(agent))
    target.unlink(missing_ok=True)
    subprocess.run(["sh", "-c", line], input=b"as it is", check=True)
    assert target.read_bytes() == b"as it is"


def test_devices_and_pipes_of_the_guest_are_left_out_and_named(state, here, there, tools):
    os.mkfifo(there / "pipe")
    (there / "file").write_text("x")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(there / "socket"))

        async def talk(agent):
            async with agent:
                copied = await copy.out_of_guest(agent, f"{there}/.", here / "new")
                assert [name.removeprefix("./") for name in copied.left_out] == ["pipe"]
                assert [path.name for path in (here / "new").iterdir()] == ["file"]

        with local_agent(state) as agent:
            run(talk(agent))


def test_a_guest_may_send_so_much_and_no_more(state, here, there):
    (there / "file").write_bytes(bytes(2 << 20))

    async def talk(agent):
        async with agent:
            for source in (f"{there}/file", str(there)):
                with pytest.raises(GuestError, match="more than it may"):
                    await copy.out_of_guest(agent, source, here / "new", limit=200_000)
            assert list(here.iterdir()) == []

    with local_agent(state) as agent:
        run(talk(agent))


def test_a_link_here_is_gone_through_where_it_was_named(state, here, there):
    (there / "file").write_text("theirs")
    (here / "real").write_text("mine")
    (here / "link").symlink_to("real")
    os.mkfifo(here / "pipe")

    async def talk(agent):
        async with agent:
            await copy.out_of_guest(agent, f"{there}/file", here / "link")
            assert (here / "link").is_symlink()
            assert (here / "real").read_text() == "theirs"
            with pytest.raises(GuestError, match="special file here"):
                await copy.out_of_guest(agent, f"{there}/file", here / "pipe")
            assert sorted(path.name for path in here.iterdir()) == ["link", "pipe", "real"]
            (there / "up").mkdir()
            await copy.out_of_guest(agent, f"{there}/up/..", here)
            assert sorted(path.name for path in here.iterdir()) == ["link", "pipe", "real", there.name]

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
            with pytest.raises(GuestError) as caught:
                await copy.into_guest(agent, here / "file", f"{there}/no/such/folder/file")
            assert f"there is no folder {there}/no/such/folder/" in caught.value.why
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


@pytest.mark.parametrize("folder", [False, True])
def test_damage_on_the_way_is_seen(state, here, there, tools, monkeypatch, folder):
    for root in (here, there):
        (root / "one").mkdir() if folder else (root / "one").write_bytes(b"good")
        if folder:
            (root / "one" / "file").write_bytes(b"good")

    def damaged(make):
        return lambda *words: (piece.replace(b"good", b"evil") for piece in make(*words))

    def taken(feed, count):
        return take(feed, count).replace(b"good", b"evil")

    take = Feed.take

    async def talk(agent):
        async with agent:
            with monkeypatch.context() as patch:
                patch.setattr(wire, "file_in", damaged(wire.file_in))
                patch.setattr(wire, "folder_in", damaged(wire.folder_in))
                with pytest.raises(GuestError, match="damaged"):
                    await copy.into_guest(agent, here / "one", f"{there}/new")
            monkeypatch.setattr(Feed, "take", taken)
            with pytest.raises(GuestError, match="damaged"):
                await copy.out_of_guest(agent, f"{there}/one", here / "new")
            assert [path.name for path in (*here.iterdir(), *there.iterdir())] == ["one", "one"]

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
