"""Another QEMU could give a machine a device more: where a state goes on it has none that it was not saved with."""

from __future__ import annotations

from tinamou.blueprint import Element, Plan, Why
from tinamou.late import replace
from tinamou.snapshots.hardware import differences, without_more

WHY = Why("test", "a device")


def plan(*elements: Element) -> Plan:
    return replace(BARE, elements=elements)


def device(name: str, **props: object) -> Element:
    return Element("device", {"driver": "virtio-x-pci", "id": name, **props}, WHY)  # type: ignore[dict-item]


BARE = Plan("m", "x86_64", "/usr/bin/qemu-system-x86_64", "pc-q35-7.2", "tcg", (), (), ())


def test_a_small_device_more_is_left_out_and_one_of_the_users_is_not() -> None:
    rng, balloon, disk = device("rng0", rng="rng0"), device("balloon0"), device("disk1-dev", drive="disk1")
    saved = plan(rng)
    now = without_more(plan(rng, balloon, disk), saved)
    assert [one.id for one in now.elements] == ["rng0", "disk1-dev"]
    assert [one.startswith("has now device") and "disk1-dev" in one for one in differences(saved, now)] == [True]
    assert without_more(plan(rng), plan(rng, balloon)).elements == (rng,)
    assert "was saved with" in differences(plan(rng, balloon), plan(rng))[0]
