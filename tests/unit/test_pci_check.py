"""What is said of a guest's devices: right, wrong in each way, of a guest that lies; and what a real one shows."""

from __future__ import annotations

import asyncio
import dataclasses

import pytest

from tinamou import Machine
from tinamou.errors import StateError
from tinamou.machine import pci_check, transfers
from tinamou.machine.connected import Connected
from tinamou.machine.pci_check import Seen, judged, read
from tinamou.units import Size

HOST = Seen("0000:65:00.0", "vfio-pci", "16.0 GT/s PCIe x16", {0: Size(16 << 20), 1: Size(32 << 30)}, 1)
GUEST = dataclasses.replace(HOST, address="0000:41:00.0", driver="nvidia", interrupts="msix", vectors=6)


def bad(host: Seen = HOST, node: int | None = None, **changed: object) -> dict[str, str]:
    """What is wrong with a guest that differs so."""
    said = judged("0000:65:00.0", host, dataclasses.replace(GUEST, **changed), node)  # type: ignore[arg-type]
    return {one.about: one.text for one in said if not one.good}


def test_a_guest_that_has_all_of_it() -> None:
    assert bad() == {}
    assert bad(node=1) == {}
    said = list(judged("0000:65:00.0", HOST, GUEST, 1))
    assert [one.about for one in said] == ["host", "guest", "driver", "regions", "interrupts", "link", "memory node"]


def test_each_thing_that_can_be_wrong() -> None:
    assert "no driver has it" in bad(driver="")["driver"]
    assert bad(bars={0: Size(16 << 20)})["regions"] == "region 1 has 0, 32G here"
    assert "shared lines" in bad(vectors=0)["interrupts"]
    assert bad(link="2.5 GT/s PCIe x4")["link"] == "2.5 GT/s PCIe x4, 16.0 GT/s PCIe x16 here"
    assert bad(node=0)["memory node"] == "node 1, and it is beside node 0"
    assert "nvidia has it" in bad(dataclasses.replace(HOST, driver="nvidia"))["host"]
    (gone,) = [one for one in judged("0000:65:00.0", HOST, None) if not one.good]
    assert "does not see it" in gone.text


ONE, OTHER = "disk nvme0n1\ntook 128 1000.50 1004.50\n", "disk sda\ntook 192 7.00 11.00\ntook 256 11.00 15.00\n"


def test_transfers_are_compared_with_the_hosts() -> None:
    assert transfers.read(ONE + OTHER) == [32 << 20, 64 << 20]
    assert transfers.read("disk x\ntook 9 1.00 1.00\ntook x") == transfers.read("took 1 1.00 2.00") == []
    (good, bad_one) = pci_check.compared("a", [100 << 20, 100 << 20], [98 << 20, 97 << 20])
    assert (good.good, bad_one.good) == (True, False)
    assert "0.970" in bad_one.text
    (missing,) = pci_check.compared("a", [], [1])
    assert not missing.good and "pci measure a" in missing.text
    assert [one.good for one in pci_check.compared("a", [], [])] == [True]
    assert [one.good for one in pci_check.compared("a", [1], [])] == [False]


def test_what_a_guest_says_is_read_and_no_more() -> None:
    text = (
        "@ 0000:41:00.0\nnuma_node 1\ncurrent_link_speed 16.0 GT/s PCIe\ncurrent_link_width 16\n"
        "driver ../../../bus/pci/drivers/nvidia\nregion 0 0x1000000 0x1ffffff 0x40200\nregion 1 0x0 0x0 0x0\n"
        "region 2 0xc000 0xc07f 0x40101\nvector msix\nvector msix\n"
    )
    (one,) = read(text)
    assert one == Seen("0000:41:00.0", "nvidia", "16.0 GT/s PCIe x16", {0: Size(16 << 20)}, 1, "msix", 2)
    for lie in (
        "@ x\nnuma_node " + "9" * 5000,
        "@ \nregion 0 zz 1 2\nregion 1",
        "nothing",
        "@ a\nregion 0 0x" + "f" * 99 + " 1 1",
    ):
        assert all(found.bars == {} and found.node == -1 for found in read(lie))


@pytest.mark.vm
def test_a_real_guest_is_asked() -> None:
    """No device of a host is here to be given: the guest is asked for those that QEMU makes, by the same way."""

    async def ask(connected: Connected) -> dict[str, Seen]:
        async with connected:
            with pytest.raises(StateError, match="no device of the host"):
                await pci_check.check(connected)
            return await pci_check.look(connected, ["serial0", "rng0-dev", "plug1", "nobody"])

    with Machine("tiny", name="asked", accel="tcg", devices={"hotplug": 1}, timeout=300) as vm:
        vm.run("true")
        seen = asyncio.run(ask(Connected.visiting(vm.record)))
    assert set(seen) == {"serial0", "rng0-dev", "plug1"}
    serial = seen["serial0"]
    assert (serial.driver, serial.interrupts, serial.vectors) == ("virtio-pci", "msix", 2)
    assert serial.bars
    assert seen["plug1"].link
