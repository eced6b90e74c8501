"""Addresses on a network: the same at every start, nobody's twice, given back with the machine."""

from __future__ import annotations

from pathlib import Path

import pytest

from tinamou.errors import StateError
from tinamou.state import networks
from tinamou.state.networks import Member, Network

SUBNET = "10.9.8.0/29"


@pytest.fixture(autouse=True)
def machines(state: Path) -> None:
    for name in ("a", "b", "c", "d", "e", "f"):
        (state / "machines" / name).mkdir(parents=True)


def leased(member: str, request: str = "", subnet: str = SUBNET) -> tuple[str, str]:
    return networks.lease("lan", subnet, member, request)


def test_the_same_at_every_start_and_nobody_elses() -> None:
    found = {name: leased(f"{name}.0")[1] for name in ("a", "b", "c", "d", "e")}
    assert sorted(found.values()) == [f"10.9.8.{last}" for last in range(2, 7)]  # neither the network, its gateway nor all
    assert {name: leased(f"{name}.0") for name in found} == {name: (SUBNET, address) for name, address in found.items()}
    with pytest.raises(StateError, match=r"network 10\.9\.8\.0/29 is full") as refused:
        leased("f.0")
    assert refused.value.why == "it has 5 addresses"


def test_a_name_has_the_address_it_had_where_the_network_was_forgotten() -> None:
    assert [leased(f"{one}.0")[1] for one in "ab"] == ["10.9.8.4", "10.9.8.2"]
    assert networks.lease("other", SUBNET, "b.0")[1] == "10.9.8.2"
    networks.lease("third", SUBNET, "c.0", "10.9.8.4")
    assert networks.lease("third", SUBNET, "a.0")[1] == "10.9.8.5"  # the next after the one it would have


def test_an_address_somebody_insists_on() -> None:
    assert leased("a.0", "10.9.8.6") == (SUBNET, "10.9.8.6")
    assert leased("a.0") == (SUBNET, "10.9.8.6")
    assert leased("a.0", "10.9.8.5") == (SUBNET, "10.9.8.5")
    with pytest.raises(StateError, match="belongs to another machine"):
        leased("b.0", "10.9.8.5")
    with pytest.raises(StateError, match="is no address of network lan"):
        leased("b.0", "10.9.9.1")


def test_a_network_that_is_there_keeps_its_subnet_and_moves_who_was_elsewhere() -> None:
    assert leased("a.0", subnet="10.1.0.0/24")[1].startswith("10.1.0.")
    networks.write(Network("lan", "tm-lan", SUBNET))
    subnet, address = leased("a.0", subnet="10.1.0.0/24")
    assert subnet == SUBNET and address.startswith("10.9.8.")


def test_what_a_gone_machine_had_is_anyones(state: Path) -> None:
    leased("a.0", "10.9.8.4")
    leased("b.0", "10.9.8.5")
    networks.forget_machine("a")
    assert leased("c.0", "10.9.8.4")[1] == "10.9.8.4"
    (state / "machines" / "b").rmdir()
    assert [one.name for one in networks.members("lan")] == ["c.0"]
    networks.drop("lan", "c.0")
    assert networks.members("lan") == [] and networks.folder("lan").is_dir()
    networks.put("lan", Member("d.0", "10.9.8.2"))
    networks.forget_machine("d")
    assert not networks.folder("lan").exists()


def test_a_network_on_the_host_outlives_its_members() -> None:
    networks.write(Network("lan", "tm-lan", SUBNET))
    leased("a.0")
    networks.forget_machine("a")
    assert networks.read("lan") == Network("lan", "tm-lan", SUBNET)
    networks.forget("lan")
    assert networks.read("lan") is None and not networks.folder("lan").exists()


def test_what_is_no_folder_of_ours_is_told(state: Path) -> None:
    leased("a.0")
    (state / "networks" / "stray").write_text("x")
    [told] = networks.odd()
    assert "stray" in told and told.endswith("it is left alone")


def test_a_damaged_member_is_none() -> None:
    leased("a.0")
    (networks.folder("lan") / "members" / "b.0.json").write_text('{"name": ')
    assert [one.name for one in networks.members("lan")] == ["a.0"]
