"""Where machines are placed: what must hold, what is better, and thousands of them, judged by other code."""

from __future__ import annotations

import random

import pytest
from host_trees import make_host

from bench.placement import CARD, STRATEGIES, furnished, machines, run, violations
from tinamou import late
from tinamou.errors import HostError, SpecError
from tinamou.facts.pci import PciDevice, PciFacts
from tinamou.fleet import room
from tinamou.fleet.placement import Fit, Need, Node, Room, best, fit, need_of, take, verdicts
from tinamou.spec import load_spec
from tinamou.units import PciAddress

GIB = 1 << 30
PAGE = 2 << 20


def a_room(name: str = "h", *, nodes: int = 2, cpus: int = 8, memory: int = 16, **more: object) -> Room:
    made = tuple(Node(number, cpus, memory * GIB) for number in range(nodes))
    return late.replace(
        Room(name, "x86_64", nodes * cpus, nodes * memory * GIB, nodes * cpus, nodes * memory * GIB, made), **more
    )


def need(cpus: int = 2, memory: int = 4, **more: object) -> Need:
    return Need("m", cpus, memory * GIB, **more)  # type: ignore[arg-type]


def why(what: Need, where: Room, homes: frozenset[str] = frozenset()) -> str:
    found = fit(what, where, homes)
    assert isinstance(found, str), found
    return found


def test_what_a_description_needs() -> None:
    spec = {"name": "m", "cpus": 4, "memory": "3G", "pci": ["10de:1DB4", "10de:1db4"]}
    rules = {"spread": "db", "near": "15B3:1017"}
    got = need_of(load_spec({**spec, "placement": rules}))
    assert (got.cpus, got.memory, got.devices) == (4, (3 << 30) + (112 << 20), {"10de:1db4": 2})
    assert (got.spread, got.near, got.together) == ("db", "15b3:1017", "")
    got = need_of(load_spec({**spec, "hugepages": "2M"}))
    assert (got.memory, got.page, got.pages) == (112 << 20, PAGE, 1536)
    with pytest.raises(SpecError, match="cannot be on one host"):
        load_spec({**spec, "placement": {"spread": "a", "together": "a"}})


def test_a_host_without_room_says_which() -> None:
    assert "17 CPUs are more than the 16" in why(need(17), a_room())
    assert "40960 MiB of memory are more than the 32768 MiB" in why(need(1, 40), a_room())
    assert "group db, which is spread" in why(need(spread="db"), a_room(spread=("db",)))
    assert "together on other" in why(need(together="shop"), a_room(), frozenset({"other"}))
    assert "3 huge pages of 2 MiB are more than the 0" in why(need(page=PAGE, pages=3), a_room())
    assert f"1 devices {CARD} are more than the 0" in why(need(devices={CARD: 1}), a_room())
    assert f"no memory node beside a device {CARD}" in why(need(near=CARD), a_room())
    assert "no guest here is of ppc64le" in why(need(), a_room(arch="ppc64le"))
    assert fit(need(arch="x86_64"), a_room(arch="ppc64le")) == Fit((0,), emulated=True)


def test_one_memory_node_where_that_can_be_the_fullest_that_has_room() -> None:
    nodes = (Node(0, 8, 16 * GIB), Node(1, 8, 6 * GIB), Node(2, 8, 2 * GIB))
    host = a_room(nodes=3)
    host = late.replace(host, nodes=nodes)
    assert fit(need(2, 4), host) == Fit((1,))
    assert fit(need(2, 16), host) == Fit((0,))
    assert fit(need(2, 20), host) == Fit((0, 1, 2))
    assert fit(need(10, 4), host) == Fit((0, 1, 2))


def test_near_a_device_is_on_its_node_and_leaves_it() -> None:
    host = a_room()
    host = late.replace(
        host, nodes=(host.nodes[0], late.replace(host.nodes[1], devices={CARD: 1}, beside=frozenset({CARD})))
    )
    assert fit(need(near=CARD), host) == Fit((1,))
    assert take(need(near=CARD), host, Fit((1,))).nodes[1].devices == {CARD: 1}
    assert "no memory node beside" in why(need(9, 4, near=CARD), host)
    taken = take(need(devices={CARD: 1}), host, Fit((1,)))
    assert taken.nodes[1].devices == {CARD: 0}
    assert fit(need(near=CARD), taken) == Fit((1,))
    assert "1 devices" in why(need(devices={CARD: 1}), taken)


def test_what_others_will_ask_for_is_left_to_them() -> None:
    plain, carded, paged = a_room("plain"), a_room("carded"), a_room("paged")
    carded = late.replace(carded, nodes=(late.replace(carded.nodes[0], devices={CARD: 1}), carded.nodes[1]))
    paged = late.replace(paged, nodes=(late.replace(paged.nodes[0], pages={PAGE: 99}), paged.nodes[1]))
    chosen = best(need(), [carded, paged, plain])
    assert chosen and chosen[0].name == "plain"
    chosen = best(need(devices={CARD: 1}), [plain, paged, carded])
    assert chosen and chosen[0].name == "carded"
    told = verdicts(need(devices={CARD: 1}), [plain, carded])
    assert [(one.host, one.fit is None) for one in told] == [("carded", False), ("plain", True)]


def test_the_full_host_before_the_empty_one_and_the_even_one_before_both() -> None:
    full = take(need(6, 12), a_room("full"), Fit((0,)))
    odd = take(need(12, 2), a_room("odd"), Fit((0, 1)))
    chosen = best(need(), [a_room("empty"), odd, full])
    assert chosen and chosen[0].name == "full"


def test_a_group_that_is_together_begins_where_more_have_room() -> None:
    tight, roomy = a_room("tight", nodes=1, cpus=3, memory=6), a_room("roomy")
    chosen = best(need(together="shop"), [tight, roomy])
    assert chosen and chosen[0].name == "roomy"
    chosen = best(need(together="shop"), [take(need(together="shop"), tight, Fit((0,))), roomy])
    assert chosen is None


@pytest.mark.parametrize("name", STRATEGIES)
def test_a_thousand_machines_break_no_rule(name: str) -> None:
    shapes = [a_room(nodes=1, cpus=12, memory=16), a_room(nodes=8, cpus=8), a_room(nodes=4, cpus=24, memory=126)]
    rooms = furnished(shapes, 60, random.Random(7))
    done = run(rooms, machines(1000, random.Random(7)), STRATEGIES[name], random.Random(7))
    assert violations(rooms, done) == []
    assert done.left_out and sum(map(len, done.on.values())) > 500
    assert min(node.memory for one in done.rooms for node in one.nodes) >= 0
    assert (
        min(left for one in done.rooms for node in one.nodes for left in (*node.pages.values(), *node.devices.values())) >= 0
    )


def test_the_judge_sees_what_is_wrong() -> None:
    rooms = [a_room("a"), a_room("b")]
    done = run(rooms, [], best, random.Random(1))
    done.on["a"] += [(need(17, 1), Fit((0,))), (need(1, 99, spread="s"), Fit((0,))), (need(1, 1, spread="s"), Fit((0,)))]
    done.on["a"] += [(need(1, 1, near=CARD), Fit((0,))), (need(1, 1, devices={CARD: 1}), Fit((0,)))]
    done.on["a"] += [(need(1, 1, together="t"), Fit((0,))), (need(1, 1, page=PAGE, pages=1), Fit((0,)))]
    done.on["b"] += [(need(1, 1, together="t"), Fit((0,)))]
    found = " ".join(violations(rooms, done))
    assert all(text in found for text in ("CPUs", "memory", "cards", "huge pages", "not spread", "not near", "t is on 2"))


def test_room_of_a_host() -> None:
    host = make_host(nodes=2, cores=4, memory="16G", free="10G", pages1={PAGE: (8, 5)})
    card = PciDevice(PciAddress.parse("0000:65:00.0"), "10de", "2330", "0302", group=3, node=1)
    second = late.replace(card, address=PciAddress.parse("0000:65:00.1"))
    used = late.replace(card, address=PciAddress.parse("0000:66:00.0"), uses=("it is busy",), node=0)
    left = room.room_of("h", host, PciFacts((card, second, used)), [need(3, 4, spread="db")])
    assert (left.cpus, left.all_cpus, left.spread) == (5, 8, ("db",))
    assert left.memory == 19 * GIB  # 20 GiB are available, of which a 32nd of all stays the host's
    assert [node.devices for node in left.nodes] == [{}, {CARD: 1}]
    assert [node.beside for node in left.nodes] == [{CARD}, {CARD}]
    assert left.nodes[1].pages == {PAGE: 5}


def test_what_another_host_tells_is_believed_only_in_its_shape() -> None:
    left = room.room_of("h", make_host(), PciFacts())
    plain = room.plain(left)
    assert room.told("h", plain) == left
    for wrong in (None, [], {}, {**plain, "nodes": 3}, {**plain, "cpus": "x"}, {**plain, "memory": float("inf")}):
        with pytest.raises(HostError, match="h does not say what it has left"):
            room.told("h", wrong)
