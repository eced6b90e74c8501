"""Copying folders by a real agent, between two folders of this host: into ones that are there, with links and holes."""

from __future__ import annotations

import os

import pytest
from running import local_agent, run
from trees import fill, same, sparse, tree

from tinamou.errors import GuestError
from tinamou.guest import copy


def test_folders_both_ways(state, here, there, tools):
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
            await copy.into_guest(agent, f"{source}/.", f"{there}/only/what/it/holds")
            assert tree(there / "only/what/it/holds") == tree(source)
            (here / "flat").mkdir(mode=0o711)
            await copy.out_of_guest(agent, f"{there}/source/.", here / "flat")
            assert tree(here / "flat") == tree(source)
            assert (here / "flat").stat().st_mode & 0o777 == 0o711

    with local_agent(state) as agent:
        run(talk(agent))


def test_a_folder_goes_into_one_that_is_there_as_cp_does_it(state, here, there, tools):
    """Through the guest's own links; modes of folders stay; files are replaced."""
    for folder in ("run", "var", "tmp"):
        (there / folder).mkdir()
    (there / "var/run").symlink_to(there / "run")
    (there / "tmp").chmod(0o1777)
    (there / "etc").write_text("old")
    (there / "linked").symlink_to("etc")
    (there / "mine").symlink_to("elsewhere")
    (there / "tmp/kept").write_text("kept")
    source = here / "source"
    for folder in ("var/run/new", "tmp", "srv/deep"):
        (source / folder).mkdir(parents=True)
    for number in range(250):
        (source / f"tmp/{number}").write_text(f"{number}")
    (source / "var/run/pid").write_text("1")
    (source / "tmp").chmod(0o700)
    (source / "linked").write_text("through")
    (source / "mine").symlink_to("here")
    (source / "-f").write_text("odd")

    async def talk(agent):
        async with agent:
            for _ in range(2):
                await copy.into_guest(agent, f"{source}/.", str(there))
                assert (there / "var/run").is_symlink()
                assert (there / "run/pid").read_text() == "1"
                assert (there / "run/new").is_dir()
                assert (there / "tmp").stat().st_mode & 0o7777 == 0o1777
                assert sorted(path.name for path in (there / "tmp").iterdir()) == sorted(["kept", *map(str, range(250))])
                assert (there / "linked").is_symlink()
                assert (there / "etc").read_text() == "through"
                assert str((there / "mine").readlink()) == "here"
                assert (there / "-f").read_text() == "odd"
            assert sorted(path.name for path in there.iterdir()) == [
                "-f",
                "etc",
                "linked",
                "mine",
                "run",
                "srv",
                "tmp",
                "var",
            ]
            await copy.into_guest(agent, source / "-f", f"{there}/linked")
            assert (there / "linked").is_symlink()
            assert (there / "etc").read_text() == "odd"

    with local_agent(state) as agent:
        run(talk(agent))


@pytest.mark.parametrize(
    ("ours", "theirs", "said"),
    [
        ("folder", "file", "is no folder"),
        ("folder", "link", "is no folder"),
        ("file", "folder", "is no file"),
        ("file", "pipe", "is no file"),
        ("file", "link", "is no file"),
        ("link", "file", "is no link"),
        ("link", "folder", "is no link"),
    ],
)
def test_nothing_in_the_guest_becomes_another_kind_of_thing(state, here, there, tools, ours, theirs, said):
    for root, kind in ((here, ours), (there, theirs)):
        (root / "a").write_text(str(root))
        if kind == "folder":
            (root / "b").mkdir()
        elif kind == "pipe":
            os.mkfifo(root / "b")
        elif kind == "link":
            (root / "b").symlink_to("nowhere")
        else:
            (root / "b").write_text("x")
    before = tree(there)

    async def talk(agent):
        async with agent:
            with pytest.raises(GuestError) as caught:
                await copy.into_guest(agent, f"{here}/.", str(there))
            assert f"{there}/b is there and {said}" in caught.value.why
            assert tree(there) == before

    with local_agent(state) as agent:
        run(talk(agent))


def test_holes_stay_holes_and_are_not_carried(state, here, there, tools):
    (here / "folder/sub").mkdir(parents=True)
    image = here / "folder/sub/disk [1].img"
    sparse(image)
    image.chmod(0o640)
    (here / "folder/small").write_text("x")

    async def talk(agent):
        async with agent:
            assert (await copy.into_guest(agent, image, f"{there}/image")).bytes < 4 << 20
            same(image, there / "image")
            assert (await copy.out_of_guest(agent, f"{there}/image", here / "back")).bytes < 4 << 20
            same(image, here / "back")
            assert (await copy.into_guest(agent, here / "folder", str(there))).bytes < 4 << 20
            same(image, there / "folder/sub/disk [1].img")
            assert (await copy.out_of_guest(agent, f"{there}/folder", here / "again")).bytes < 4 << 20
            same(image, here / "again/sub/disk [1].img")
            assert (here / "again/sub/disk [1].img").stat().st_mode & 0o777 == 0o640
            assert (here / "again/small").read_text() == "x"

    with local_agent(state) as agent:
        run(talk(agent))
