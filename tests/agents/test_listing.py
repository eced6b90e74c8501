"""What is told of a guest's files, by the host's own tools and by busybox: names, links, what differs between two."""

from __future__ import annotations

import asyncio
import os
import shutil
import stat
import subprocess

import pytest

from tinamou.errors import GuestError
from tinamou.guest.command import Completed
from tinamou.service.agents.comparing import compare
from tinamou.service.agents.listing import links, parsed, walk


def here(tools: str = ""):
    """Commands run on this host, in the place of a guest's; with ``busybox`` by its shell and tools alone."""

    async def run(argv):
        path = {**os.environ, "PATH": tools} if tools else None
        done = await asyncio.to_thread(subprocess.run, list(argv), capture_output=True, env=path, stdin=subprocess.DEVNULL)
        return Completed(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(params=["coreutils", "busybox"])
def run(request, tmp_path):
    if request.param == "coreutils":
        return here()
    busybox = shutil.which("busybox")
    if busybox is None:
        pytest.skip("no busybox here")
    folder = tmp_path / "tools"
    folder.mkdir()
    for name in ("sh", "find", "stat", "wc", "printf", "readlink", "sha256sum", "head", "echo"):
        (folder / name).symlink_to(busybox)
    return here(str(folder))


NAMES = ["plain", "with space", "new\nline", "-rf", "quo'te\"", "ü", "two\n\nlines\n", "$(id)"]


def test_every_name_is_told(run, tmp_path):
    top = tmp_path / "top"
    for number, name in enumerate(NAMES):
        (top / "deep").mkdir(parents=True, exist_ok=True)
        (top / "deep" / name).write_text("x" * number)
    found = asyncio.run(walk(run, str(top), 2))
    assert {one.path.removeprefix(f"{top}/deep/"): one.size for one in found if one.path != f"{top}/deep"} == {
        name: number for number, name in enumerate(NAMES)
    }
    assert [one.path for one in asyncio.run(walk(run, str(top), 1))] == [f"{top}/deep"]


def test_links_lead_where_they_lead(run, tmp_path):
    top = tmp_path / "top"
    top.mkdir()
    targets = {"a": "nowhere", "b": "with\nline\n", "c": "/etc"}
    for name, target in targets.items():
        (top / name).symlink_to(target)
    found = [one.path for one in asyncio.run(walk(run, str(top))) if stat.S_ISLNK(one.mode)]
    assert asyncio.run(links(run, found)) == {f"{top}/{name}": target for name, target in targets.items()}


def test_a_folder_that_is_none_is_an_error(run, tmp_path):
    with pytest.raises(GuestError, match="cannot be listed"):
        asyncio.run(walk(run, str(tmp_path / "none")))


@pytest.mark.parametrize("text", [b"a\0b\0\0one line\0", b"a\0\0no numbers at all\0", b"a\0\0\0"])
def test_what_no_guest_says_is_refused(text):
    with pytest.raises(GuestError, match="cannot be read"):
        list(parsed(text))


def test_what_differs_is_found(run, tmp_path):
    """Two trees under one name, as two guests have them: the second run sees them through another folder."""
    sides = [tmp_path / "first", tmp_path / "second"]
    for side in sides:
        side.mkdir()
        (side / "same").write_text("same")
        (side / "text").write_text("a\nb\n")
        (side / "mode").write_text("m")
        (side / "link").symlink_to("abc")
        (side / "pipe").mkdir() if side is sides[0] else os.mkfifo(side / "pipe")
    (sides[1] / "text").write_text("a\nc\n")
    (sides[1] / "mode").chmod(0o600)
    (sides[1] / "link").unlink()
    (sides[1] / "link").symlink_to("xyz")
    (sides[1] / "more").write_text("")

    def within(side):
        async def inside(argv):
            done = await run([word.replace("/seen", str(side)) for word in argv])
            return Completed(done.status, done.stdout.replace(str(side).encode(), b"/seen"), done.stderr)

        return inside

    found = asyncio.run(compare(within(sides[0]), within(sides[1]), ["/seen", "/not-there"]))
    assert {one["path"]: one["how"] for one in found} == {
        "/seen/link": "content",
        "/seen/mode": "mode",
        "/seen/more": "only in second",
        "/seen/pipe": "kind",
        "/seen/text": "content",
    }
    assert "-b\n+c\n" in next(one["diff"] for one in found if one["path"] == "/seen/text")
