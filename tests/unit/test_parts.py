"""The planner walks its parts: needs before slots, checks before contributions, one element at a time for plugging in."""

import dataclasses

import pytest
from made_facts import DEBIAN, EveryFeature, facts

from tinamou import planner
from tinamou.blueprint import Contribution, Element, StartHelper, Why
from tinamou.errors import PlanError, Problem
from tinamou.parts.protocol import Part, PciSlot
from tinamou.planner import PARTS, disk_alone, plan, plan_card, plan_cpu
from tinamou.spec import load_spec
from tinamou.tuning.walls import with_walls
from tinamou.units import Size

MANY = {
    "disk": [{"size": "1G"}, {"size": "1G", "interface": "scsi", "iothread": True}, {"size": "1G", "number": 5, "port": 1}],
    "net": [{"type": "user", "forward": ["8080:80"]}, {"type": "none"}, {"type": "passt", "port": 2}],
}


def seats(made):
    """The slots of the root bus that devices sit in, in the plan's order; those for hot plugging apart."""
    there = [one for one in made.elements if one.kind == "device" and "addr" in one.props and not one.id.startswith("plug")]
    return [int(str(one.props["addr"]), 16) for one in there]


def test_a_new_part_is_one_more_in_the_list(monkeypatch):
    """It gets the slot it needs, behind those of all other parts, which stay where they are."""

    def contribute(resolved):
        props = {"driver": "ivshmem-plain", "id": "more", **resolved.slot("more")}
        return Contribution((Element("device", props, Why("part more", "to try it")),))

    before = plan(load_spec(MANY), facts())
    monkeypatch.setattr(planner, "PARTS", (*PARTS, Part(contribute, lambda _: (PciSlot("more"),))))
    after = plan(load_spec(MANY), facts())
    assert after.elements[:-1] == before.elements
    assert seats(after) == [*seats(before), max(seats(before)) + 1]


def test_nothing_is_contributed_where_any_part_has_a_problem(monkeypatch):
    """Every problem of every part is told."""
    contributed = []

    def part(name):
        problem = Problem(name, None, f"{name} cannot be had", "leave it out")
        return Part(lambda _: contributed.append(name) or Contribution(), check=lambda _: [problem])

    monkeypatch.setattr(planner, "PARTS", (part("first"), *PARTS, part("last")))
    with pytest.raises(PlanError) as error:
        plan(load_spec({"boot": {"order": "disk7"}}), facts(DEBIAN))
    assert [problem.path for problem in error.value.problems] == ["first", "boot.order", "last"]
    assert contributed == []


@pytest.mark.parametrize(
    ("alone", "numbers", "names"),
    [(disk_alone, (0, 1, 5), ("disk0", "disk1", "disk5")), (plan_card, (0, 2), ("net0", "net2"))],
)
def test_one_element_is_what_the_plan_has_of_it(alone, numbers, names):
    whole = plan(load_spec(MANY), facts())
    for number, name in zip(numbers, names, strict=True):
        one = alone(load_spec(MANY), facts(), number)
        of_it = [element for element in whole.elements if element.id.startswith(name)]
        assert [element.id for element in one.elements] == [element.id for element in of_it]
        assert list(one.elements) == of_it
        assert one.steps
        walled = [with_walls(s, facts().walls, listed=True) if isinstance(s, StartHelper) else s for s in one.steps]
        assert set(map(repr, walled)) <= set(map(repr, whole.steps))
    assert alone(load_spec(MANY), facts(), 9) == Contribution()


def test_a_plugged_cpu_is_what_the_plan_has_of_it():
    spec = load_spec({"cpu": {"count": 2, "max": 8, "threads": 2, "plugged": 2}})
    whole = plan(spec, facts())
    one = plan_cpu(spec, facts(), 3)
    assert list(one.elements) == [element for element in whole.elements if element.id == "cpu3"]
    seat = {name: one.elements[0].props[name] for name in ("socket-id", "core-id", "thread-id")}
    assert seat == {"socket-id": 0, "core-id": 1, "thread-id": 1}
    assert plan_cpu(spec, facts(), 1) == Contribution()


def test_what_cannot_be_queued_as_asked_is_not_plugged_in_either():
    refusing = dataclasses.replace(facts(), permits=dataclasses.replace(facts().permits, io_uring="switched off"))
    spec = load_spec({"disk": [{"size": "1G", "aio": "io_uring"}]})
    for planned in (lambda: disk_alone(spec, refusing, 0), lambda: plan(spec, refusing)):
        with pytest.raises(PlanError) as error:
            planned()
        assert [(one.path, one.reason) for one in error.value.problems] == [("disk[0].aio", "switched off")]


def test_what_is_plugged_in_is_checked_like_the_rest_of_its_part():
    taken = load_spec({"disk": [{"size": "1G"}, {"size": "1G", "number": 0}]})
    with pytest.raises(PlanError) as error:
        disk_alone(taken, facts(), 0)
    assert [problem.path for problem in error.value.problems] == ["disk[1].number"]
    with pytest.raises(PlanError) as error:
        plan_card(load_spec({"net": [{"type": "macvtap", "interface": "eth9"}]}), facts(), 0)
    assert [problem.path for problem in error.value.problems] == ["net[0].interface"]


def test_what_a_running_machine_has_already_is_not_asked_for_again():
    """Its memory is no longer free on the host, which is no reason to refuse it a card or a disk."""
    full = dataclasses.replace(facts(), host=dataclasses.replace(facts().host, memory_available=Size.parse("64M")))
    spec = load_spec(MANY)
    with pytest.raises(PlanError, match="has not enough memory"):
        plan(spec, full)
    assert plan_card(spec, full, 0) == plan_card(spec, facts(), 0)
    assert disk_alone(spec, full, 1) == disk_alone(spec, facts(), 1)


def test_the_root_bus_takes_exactly_as_many_devices_as_it_has_slots():
    """From 2 to 29; the last is for hot plugging, eight ports to a slot."""

    def filled(disks, hotplug):
        return plan(load_spec({"net": [], "disk": ["/a.raw"] * disks, "devices": {"hotplug": hotplug}}), facts())

    own = len(seats(filled(0, 0)))
    for hotplug, slots in ((0, 0), (1, 1), (8, 1), (9, 2), (32, 4)):
        assert sorted(seats(filled(28 - slots - own, hotplug))) == list(range(2, 30 - slots))
        with pytest.raises(PlanError, match=f"{29 - slots} devices do not fit on the PCI bus") as error:
            filled(29 - slots - own, hotplug)
        assert error.value.why == f"it has {28 - slots} free slots"


def test_hot_plug_slots_of_a_qemu_that_has_none_are_refused():
    class Portless(EveryFeature):
        def has(self, feature: str) -> bool:
            return feature != "type:pcie-root-port"

    known = facts()
    known = dataclasses.replace(known, qemu=Portless(**vars(known.qemu)))
    with pytest.raises(PlanError) as error:
        plan(load_spec({}), known)
    assert [(one.path, one.value, one.fix) for one in error.value.problems] == [("devices.hotplug", 4, "set it to 0")]
    assert "/usr/bin/qemu-system-x86_64 has no pcie-root-port" in str(error.value)
    assert plan(load_spec({"devices": {"hotplug": 0}}), known)


def test_shares_have_memory_their_server_sees_and_a_slot_each():
    made = plan(load_spec({"share": ["/one", "/two:/mnt:ro"]}), facts())
    ram = next(one.props for one in made.elements if one.id == "ram0")
    assert (ram["qom-type"], ram["share"]) == ("memory-backend-memfd", True)
    assert [one.id for one in made.elements if one.id.startswith("plug")] == [f"plug{n}" for n in range(1, 7)]
    alone = next(one.props for one in plan(load_spec({}), facts()).elements if one.id == "ram0")
    assert (alone["qom-type"], alone["share"]) == ("memory-backend-ram", False)


@pytest.mark.parametrize(
    ("words", "slots"),
    [
        ([], ["0x2", "0x3"]),
        (["-device", "edu"], ["0x2", "0x3"]),
        (["-device", "edu", "-device", "edu,id=two"], ["0x3", "0x4"]),
        (["-device", "edu,addr=2"], ["0x3", "0x4"]),
        (["-device", "edu,addr=0x3.0"], ["0x2", "0x4"]),
        (["-device", '{"driver": "edu", "addr": "0x2"}', "-device", "edu"], ["0x3", "0x4"]),
        (["-device", "usb-kbd,bus=usb.0", "-device", "edu,bus=pcie.0,addr=0x3"], ["0x2", "0x4"]),
        (["-global", "edu.addr=0x2"], ["0x2", "0x3"]),
    ],
)
def test_devices_added_by_hand_keep_their_slots(words, slots):
    made = plan(load_spec({"qemu_args": words}), facts())
    assert [element.props["addr"] for element in made.elements if element.id in ("serial0", "net0-dev")] == slots


def test_a_hot_plug_slot_is_not_given_away_by_hand():
    with pytest.raises(PlanError) as error:
        plan(load_spec({"qemu_args": ["-device", "edu,addr=0x1d"]}), facts())
    assert [problem.path for problem in error.value.problems] == ["qemu_args"]
