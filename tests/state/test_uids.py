"""User ids of machines: one at a time on the whole host, in turn, not while anything of their last holder is left."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tinamou.errors import StateError
from tinamou.state import shared, uids
from tinamou.state.uids import COUNT, FIRST


@pytest.fixture
def folders(state: Path, monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    monkeypatch.setattr(uids, "_alive_on_host", set)
    monkeypatch.setattr(uids, "_of_processes", set)
    made = [state / "machines" / name for name in "abcd"]
    for folder in made:
        folder.mkdir(parents=True)
    return made


def test_in_turn(folders: list[Path]) -> None:
    assert uids.lend(folders[:2]) == [FIRST, FIRST + 1]
    assert [uids.of(folder) for folder in folders] == [FIRST, FIRST + 1, None, None]
    (folders[1] / "uid").unlink()
    assert uids.lend(folders[2:3]) == [FIRST + 2]  # the one that is free again comes last
    assert uids.lend(folders[3:], taken=[FIRST + 3]) == [FIRST + 4]
    assert uids.lend([]) == [] and uids.lend(folders[1:2]) == [FIRST + 5]


def test_around_the_end(folders: list[Path]) -> None:
    shared.write("uids.json", {"uids": {}, "last": FIRST + COUNT - 2})
    assert uids.lend(folders[:3]) == [FIRST + COUNT - 1, FIRST, FIRST + 1]


def test_none_is_free(folders: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uids, "_alive_on_host", lambda: set(range(FIRST, FIRST + COUNT - 1)))
    with pytest.raises(StateError, match="no user id is free"):
        uids.lend(folders[:2])
    assert uids.lend(folders[:1]) == [FIRST + COUNT - 1]


@pytest.mark.parametrize(
    "said",
    [{str(FIRST - 1): "A"}, {str(FIRST + COUNT): "A"}, {"x": "A"}, {str(FIRST): 5}, [FIRST], {str(FIRST): "/nowhere"}],
)
def test_what_is_no_lease_is_none(folders: list[Path], said: object) -> None:
    text = (
        {uid: str(folders[0]) if where == "A" else where for uid, where in said.items()} if isinstance(said, dict) else said
    )
    (folders[0] / "uid").write_text(str(FIRST))
    shared.write("uids.json", {"uids": text, "last": FIRST + COUNT})
    assert uids.lend(folders[1:2]) == [FIRST]


def test_a_machine_at_rest_keeps_its_own(folders: list[Path]) -> None:
    a, b, c, _ = folders
    uids.lend([a])
    assert uids.kept_or_new(a, FIRST) == FIRST
    shared.write("uids.json", {"uids": {}, "last": FIRST - 1})  # after a reboot
    (b / "uid").write_text(str(FIRST + 7))
    assert uids.kept_or_new(b, FIRST + 7) == FIRST + 7
    assert uids.kept_or_new(a, FIRST) == FIRST  # though it was leased later than that one
    (c / "uid").write_text(str(FIRST))
    assert uids.kept_or_new(c, FIRST) == FIRST + 1 and uids.of(c) == FIRST + 1
    assert uids.kept_or_new(c, FIRST) == FIRST + 1  # a start that was cut short had got it that one


@pytest.mark.parametrize("why", ["taken", "alive"])
def test_one_of_which_something_is_left_is_nobodys(folders: list[Path], monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    (folders[0] / "uid").write_text(str(FIRST))
    taken = [FIRST] if why == "taken" else []
    if why == "alive":
        monkeypatch.setattr(uids, "_of_processes", lambda: {FIRST})
        monkeypatch.setattr(uids, "_alive_on_host", lambda: {FIRST})
    assert uids.kept_or_new(folders[0], FIRST, taken=lambda: taken) == FIRST + 1


@pytest.mark.root
def test_files_go_along_and_no_link_is_followed(state: Path) -> None:
    folder, outside = state / "machines/a", state / "outside"
    (folder / "tpm").mkdir(parents=True)
    outside.write_text("x")
    (folder / "disk").write_text("x")
    (folder / "tpm/state").write_text("x")
    (folder / "link").symlink_to(outside)
    for path, owner in ((folder / "disk", FIRST), (folder / "tpm", FIRST + COUNT), (folder / "tpm/state", FIRST + COUNT)):
        os.chown(path, owner, owner)
    os.chown(outside, FIRST, FIRST)
    uids.give_files(folder, FIRST, FIRST + 9)
    assert (folder / "disk").stat().st_uid == FIRST + 9
    assert {(folder / one).stat().st_uid for one in ("tpm", "tpm/state")} == {FIRST + 9 + COUNT}
    assert outside.stat().st_uid == FIRST and (folder / "machine.json").exists() is False


@pytest.mark.root
def test_a_second_name_in_a_folder_of_anothers_is_not_given_nor_is_a_pipe(state: Path) -> None:
    """Who has the folder can have put a name there of somebody's file, who has the old id by now."""
    folder, outside = state / "machines/a", state / "outside"
    (folder / "tpm").mkdir(parents=True)
    for one in (outside, folder / "disk", folder / "tpm/state"):
        one.write_text("x")
    (folder / "tpm/stolen").hardlink_to(outside)
    (folder / "disk again").hardlink_to(folder / "disk")
    os.mkfifo(folder / "pipe")
    for one in (outside, folder / "disk", folder / "tpm", folder / "tpm/state", folder / "pipe"):
        os.chown(one, FIRST, FIRST)
    uids.give_files(folder, FIRST, FIRST + 9)
    found = {one: (folder / one).stat().st_uid for one in ("disk", "tpm", "tpm/state", "tpm/stolen", "pipe")}
    assert found == {one: FIRST + (0 if one in ("tpm/stolen", "pipe") else 9) for one in found}


@pytest.mark.root
def test_what_is_left_on_the_host_is_seen(folders: list[Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.undo()
    mine = Path("/tmp") / f"left-{os.getpid()}"
    mine.write_text("x")
    try:
        os.chown(mine, FIRST + 3 * COUNT - 1, -1)
        assert FIRST + COUNT - 1 in uids._alive_on_host()
        os.chown(mine, FIRST + 3 * COUNT, -1)
        assert FIRST + COUNT - 1 not in uids._alive_on_host()
    finally:
        mine.unlink()
    child = os.fork()
    if not child:
        os.setresuid(FIRST + 5, FIRST + 5, FIRST + 5)
        import signal

        signal.pause()
    try:
        while FIRST + 5 not in uids._of_processes():
            pass
    finally:
        os.kill(child, 9)
        os.waitpid(child, 0)
