"""Machines made of machines: what a clone has of its own, what both read, what is refused; a template is only cloned."""

from __future__ import annotations

import asyncio
import dataclasses
import signal
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from leftovers import Leftovers
from made_facts import TINY
from typed import call

import tinamou
from tinamou.errors import SpecError, StateError
from tinamou.machine import cloning
from tinamou.machine.chains import existing_chains
from tinamou.machine.parts_of import nics_of
from tinamou.machine.snapshots import history_of
from tinamou.machine.starting import plan_again
from tinamou.operations import keeping, machines
from tinamou.spec import load_spec
from tinamou.state.folder import image_of
from tinamou.state.machines import find

pytestmark = pytest.mark.vm

CARD = {"type": "user", "forward": ["18099:80"], "mac": "52:54:00:11:22:33", "address": "10.0.2.50/24"}


def write(file: Path, text: str) -> None:
    subprocess.run(["qemu-io", "-c", f"write -P {ord(text)} 0 64k", str(file)], check=True, capture_output=True)


def reads(name: str, disk: str = "disk0") -> str:
    """The letter that a disk of a machine begins with."""
    record = find(name)
    chain = existing_chains(load_spec(record.spec), image_of(record), record.path)[disk]
    raw = record.path / "seen.raw"
    subprocess.run(["qemu-img", "convert", "-U", "-f", chain[0].format, "-O", "raw", chain[0].path, str(raw)], check=True)
    with raw.open("rb") as file:
        return file.read(1).decode()


def top(name: str) -> Path:
    return find(name).path / history_of(find(name)).present["disk0"].top


@pytest.fixture
def off(fake_qemu: Path, tmp_path: Path) -> str:
    data = tmp_path / "data.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(data), "8M"], check=True)
    write(data, "u")
    spec = {"name": "one", "disk": [{"size": "8M"}, str(data)], "net": [CARD], "memory": {"size": "192M"}}
    asyncio.run(machines.launch(load_spec(spec), wait=False))
    asyncio.run(machines.stop("one"))
    write(find("one").path / "disk0.qcow2", "a")
    return "one"


@pytest.mark.parametrize("how", ["full", "linked"])
def test_a_clone_is_a_machine_of_its_own(off: str, how: str, leftovers: Leftovers) -> None:
    done = call("clone", off, "two", *(["--linked"] if how == "linked" else []))
    assert done.stdout == "two\n", done.stderr
    for said in ("net[0].forward is one's (18099:80)", "net[0].mac is one's", "net[0].address is one's (10.0.2.50/24)"):
        assert said in done.stderr, done.stderr
    two, [card], [old] = find("two"), nics_of(find("two")), nics_of(find(off))
    assert (two.base, two.former, two.spec["net"], two.running) == ("one", [], [{"type": "user"}], False)
    assert card.mac != old.mac and (two.uid is None or two.uid != find(off).uid)
    assert reads("two") == reads(off) == "a" and reads("two", "disk1") == "u"
    top_of_two = top("two") if how == "linked" else two.path / "disk0.qcow2"
    mine = top_of_two.stat()
    assert two.uid is None or (mine.st_uid, mine.st_gid) == (two.uid, two.uid)
    write(top_of_two, "b")
    write(top(off), "c")
    assert (reads("two"), reads(off)) == ("b", "c")
    assert not history_of(find(off)).snapshots
    asyncio.run(machines.start("two", wait=False))
    asyncio.run(machines.start(off, wait=False))
    asyncio.run(machines.stop("two"))
    asyncio.run(machines.stop(off))
    assert call("check", "two").returncode == 0, call("check", "two").stdout
    assert call("snapshot", "create", "two", "s").returncode == 0 and call("snapshot", "flatten", "two").returncode == 0
    asyncio.run(machines.remove([off]))
    assert reads("two") == "b" and reads("two", "disk1") == "u"
    assert plan_again("two") is not None
    asyncio.run(machines.start("two", wait=False))
    asyncio.run(machines.stop("two"))
    asyncio.run(machines.remove(["two"]))
    assert leftovers.settle() == []


@pytest.mark.slow
def test_many_of_a_template(off: str) -> None:
    asyncio.run(keeping.template(off))
    before = {path.name: path.stat().st_ino for path in find(off).path.glob("disk*")}
    one = tinamou.open(off)
    clones = [one.clone(f"c{number}", linked=True) for number in range(3)]
    one.clone("whole")
    assert {path.name: path.stat().st_ino for path in find(off).path.glob("disk*")} == before, "nothing of it is changed"
    for number, clone in enumerate(clones):
        write(top(clone.name), str(number))
    assert [reads(clone.name) for clone in clones] == ["0", "1", "2"] and reads(off) == reads("whole") == "a"
    for words in (
        *(("start", off), ("set", off, "memory=1G"), ("disk", "add", off, "size=1M"), ("net", "add", off, "type=user")),
        *(("snapshot", "create", off), ("disk", "resize", off, "disk0", "16M"), ("net", "rm", off, "net0")),
    ):
        assert "is a template" in call(*words).stderr, words
    assert find(off).spec["memory"] == {"size": "192M"}
    assert "clones read its files, and no more can be made then: c0, c1, c2" in call("rm", off).stderr
    assert "clones read its files: c0, c1, c2" in call("template", off, "--undo").stderr
    assert call("rename", off, "base").returncode == 0 and {find(one.name).base for one in clones} == {"base"}
    asyncio.run(machines.remove(["c0", "c1"]))
    assert call("rm", "-f", "base").returncode == 0 and reads("c2") == "2"
    assert call("start", "c2", "--no-wait").returncode == 0 and call("kill", "c2").returncode == 0


def test_a_template_can_be_a_machine_again(off: str) -> None:
    tinamou.open(off).template()
    assert find(off).template
    with pytest.raises(StateError, match="is a template"):
        tinamou.open(off).start()
    tinamou.open(off).template(undo=True)
    asyncio.run(machines.start(off, wait=False))
    assert "cannot be made a template while it runs" in call("template", off).stderr
    asyncio.run(machines.stop(off))


def test_a_clone_of_a_clone_keeps_a_template_one(off: str) -> None:
    """The clone between is gone: nothing but the files tells that another machine rests on them."""
    tinamou.open(off).template()
    tinamou.open(off).clone("two", linked=True)
    tinamou.open("two").clone("three", linked=True)
    asyncio.run(machines.remove(["two"]))
    assert "clones read its files: three" in call("template", off, "--undo").stderr and find(off).template
    assert "clones read its files, and no more can be made then: three" in call("rm", off).stderr
    asyncio.run(machines.remove(["three"]))
    assert call("template", off, "--undo").returncode == 0


def test_a_clone_of_a_throw_away_machine_stays(fake_qemu: Path) -> None:
    with tinamou.Machine(wait=False, name="brief", memory="192M") as brief:
        brief.clone("kept")
    assert [one.name for one in tinamou.machines()] == ["kept"] and not find("kept").ephemeral
    assert call("ls").returncode == 0 and find("kept").base == "brief"


def test_a_name_must_be_free_and_one(off: str) -> None:
    with pytest.raises(StateError, match="a machine named one exists already"):
        asyncio.run(keeping.clone(off, off))
    with pytest.raises(SpecError):
        asyncio.run(keeping.clone(off, "bad name"))
    assert [one.name for one in tinamou.machines()] == [off] and not history_of(find(off)).snapshots


KILLED = """
import asyncio, os, signal, sys, pathlib
from tinamou.machine import {module}
async def made(*words, **more):
    os.kill(os.getpid(), signal.SIGKILL)
{module}.made = made
from tinamou.operations import keeping
asyncio.run(keeping.{work})
"""


@pytest.mark.parametrize(
    ("module", "work"),
    [
        ("cloning", "clone('one', 'two')"),
        ("exporting", "export('one', pathlib.Path(sys.argv[1]))"),
        ("committing", "commit('one', 'mine')"),
    ],
)
def test_what_is_killed_while_it_copies_is_tidied_up_for_by_the_next(
    off: str, tmp_path: Path, module: str, work: str, leftovers: Leftovers
) -> None:
    words = [sys.executable, "-c", KILLED.format(module=module, work=work), str(tmp_path / "out")]
    killed = subprocess.run(words, capture_output=True, text=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    one = find(off)
    assert [entry.note for entry in history_of(one).snapshots] == ["for a copy"]
    before = {path.name for path in one.path.glob("*.part")}
    assert before == ({"export.part"} if module == "exporting" else {"commit.part"} if module == "committing" else set())
    assert call("disk", "ls", off).returncode == 0
    assert history_of(one).snapshots == () and not [*one.path.glob("*.part")]
    assert reads(off) == "a" and call("check", off).returncode == 0
    assert len([*one.path.glob("disk0*.qcow2")]) == 1
    asyncio.run(machines.remove([off]))
    assert leftovers.settle() == []


@pytest.mark.parametrize(
    ("disk", "more", "seeded", "said"),
    [
        ("/images/x.qcow2", (), False, True),
        ("", ({"size": "8M"},), False, True),
        ("/images/x.qcow2", ({"size": "8M"},), True, False),
        ("", (), False, False),
    ],
)
def test_keys_of_a_guest_that_nothing_makes_anew_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, disk: str, more: tuple[dict[str, str], ...], seeded: bool, said: bool
) -> None:
    monkeypatch.setattr(
        cloning, "image_of", lambda _: dataclasses.replace(TINY, disk=disk, seed="cloud-init" if seeded else "")
    )
    one: Any = SimpleNamespace(name="one", path=tmp_path)
    _, notes = cloning._own(load_spec({"disk": list(more)}), one, "two")
    assert [note for note in notes if "ssh host keys" in note] == (
        ["nothing in its guest makes new ssh host keys and a new machine id: they are one's"] if said else []
    )
