"""A machine under another name: all that is known by the name follows, its guest stays who it was; or it is refused."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from leftovers import Leftovers
from typed import call

import tinamou
from tinamou.errors import SpecError, StateError
from tinamou.machine.parts_of import nics_of
from tinamou.machine.schedules import write_schedule
from tinamou.machine.starting import plan_again
from tinamou.operations import keeping, machines
from tinamou.parts.seed import SeedSpec, documents
from tinamou.snapshots.schedule import Schedule, schedules
from tinamou.spec import load_spec
from tinamou.state import index, networks, uids
from tinamou.state.machines import find
from tinamou.system.paths import unit_dir

pytestmark = pytest.mark.vm

SPEC = {"name": "old", "disk": [{"size": "8M"}], "net": ["user"], "memory": {"size": "192M"}}


@pytest.fixture
def off(fake_qemu: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    monkeypatch.setenv("TINAMOU_UNITS", str(tmp_path / "units"))
    asyncio.run(machines.launch(load_spec(SPEC), wait=False))
    asyncio.run(machines.stop("old"))
    return "old"


def test_what_is_known_by_its_name(off: str, leftovers: Leftovers) -> None:
    before = find(off)
    [card] = nics_of(before)
    networks.put("lab", networks.Member("old.0", "10.0.0.2", "old"))
    networks.put("lab", networks.Member("old-er.0", "10.0.0.3", "old-er"))
    write_schedule(Schedule("old", "15min", 4, quiesce=True))
    assert call("snapshot", "create", off, "first").returncode == 0
    assert call("rename", off, "new").stdout == "new\n"
    now = find("new")
    assert (now.name, now.former, now.identity, now.spec["name"]) == ("new", ["old"], "old", "new")
    assert json.loads((now.path / "machine.json").read_text())["name"] == "new"
    with pytest.raises(StateError, match="there is no machine named old"):
        find(off)
    assert nics_of(now)[0].mac == card.mac
    plan = plan_again("new")
    assert plan is not None and str(card.mac) in str(plan.elements) and f"{before.directory}/" not in str(plan)
    assert [(one.name, one.address) for one in networks.members("lab")] == [("new.0", "10.0.0.2")]
    assert schedules(unit_dir(), "new") == [Schedule("new", "15min", 4, quiesce=True)] and not schedules(unit_dir(), off)
    assert f"{before.directory}/" not in (now.path / "plan.json").read_text()
    assert call("snapshot", "ls", "new").returncode == 0 and call("check", "new").returncode == 0
    if now.uid is not None:
        assert uids.kept_or_new(now.path, now.uid) == now.uid == before.uid
    asyncio.run(machines.start("new", wait=False))
    asyncio.run(machines.stop("new"))
    tinamou.open("new").rename("newer")
    assert find("newer").former == ["old", "new"] and find("newer").identity == "old"
    asyncio.run(machines.remove(["newer"]))
    assert leftovers.settle() == [] and not schedules(unit_dir(), "newer")


def test_refused(off: str) -> None:
    asyncio.run(machines.launch(load_spec({**SPEC, "name": "other"}), wait=False))
    with pytest.raises(StateError, match="a machine named other runs already"):
        asyncio.run(keeping.rename(off, "other"))
    with pytest.raises(StateError, match="other cannot be renamed while it runs"):
        asyncio.run(keeping.rename("other", "third"))
    with pytest.raises(SpecError):
        asyncio.run(keeping.rename(off, "No Name"))
    with pytest.raises(StateError, match="old is its name already"):
        asyncio.run(keeping.rename(off, off))
    assert find(off).former == [] and sorted(one.name for one in tinamou.machines()) == ["old", "other"]
    asyncio.run(machines.kill("other"))


def test_a_rename_that_was_cut_short_is_one(off: str) -> None:
    """The folder's name is the machine's: what is written in it follows with the next change."""
    find(off).path.rename(find(off).path.with_name("cut"))
    assert (find("cut").name, find("cut").former, find("cut").spec["name"]) == ("cut", ["old"], "cut")
    assert call("start", "cut", "--no-wait").returncode == 0
    assert call("kill", "cut").returncode == 0 and find("cut").identity == "old"


def test_a_new_machine_of_the_former_name_is_somebody_else(off: str, leftovers: Leftovers) -> None:
    """Addresses and instance id are made of a name: no two machines have the same first one, however they come to it."""
    [card] = nics_of(find(off))
    assert call("rename", off, "kept").stdout == "kept\n"
    asyncio.run(machines.launch(load_spec(SPEC), wait=False))
    asyncio.run(machines.stop("old"))
    assert (find("kept").identity, find("old").identity, find("old").former) == ("old", "old~2", ["old~2"])
    assert nics_of(find("old"))[0].mac != card.mac == nics_of(find("kept"))[0].mac
    assert call("rename", "old", "kept-too").returncode == 0
    index.look()
    asyncio.run(machines.launch(load_spec(SPEC), wait=False))
    assert find("old").identity == "old~3" and find("kept-too").former == ["old~2", "old"]
    asyncio.run(machines.remove(["kept", "kept-too"], force=True))
    asyncio.run(machines.remove(["old"], force=True))
    asyncio.run(machines.launch(load_spec(SPEC), wait=False))
    assert find("old").identity == "old"
    asyncio.run(machines.remove(["old"], force=True))
    assert leftovers.settle() == []


def test_its_guest_is_called_as_it_is() -> None:
    told = [documents(SeedSpec(), name, {})["meta-data"] for name in ("web", "web~2")]
    assert [json.loads(one)["local-hostname"] for one in told] == ["web", "web"]
    assert len({json.loads(one)["instance-id"] for one in told}) == 2
