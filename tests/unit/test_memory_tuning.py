"""Huge pages are taken where the host has room, admission refuses with the arithmetic."""

import dataclasses

import pytest
from host_trees import make_host

from tinamou.errors import PlanError
from tinamou.tuning.admission import MemoryBill, admit
from tinamou.tuning.hugepages import PagePool, huge_pages
from tinamou.tuning.numa import GuestNode
from tinamou.units import Size

MIB2, GIB = 2 << 20, 1 << 30


def guest(memory, node=None):
    return [GuestNode((0,), Size.parse(memory), node)]


def test_named_size_reserves_what_is_missing():
    host = make_host(memory="16G", pages0={MIB2: (200, 100), GIB: (0, 0)})
    plan = huge_pages(host, "2M", guest("1G"))
    assert (plan.page, plan.pools, plan.to_reserve) == (MIB2, (PagePool(None, 512, 412),), 412 * MIB2)
    assert any("412 on any node" in why.reason for why in plan.whys)
    assert huge_pages(host, "off", guest("1G")).page is None


def test_pages_beside_the_cpus():
    host = make_host(nodes=2, memory="8G", pages0={MIB2: (9999, 9999)}, pages1={MIB2: (10, 10)})
    plan = huge_pages(host, "2M", [GuestNode((0,), Size.parse("64M"), 0), GuestNode((1,), Size.parse("64M"), 1)])
    assert plan.pools == (PagePool(0, 32, 0), PagePool(1, 32, 22))


def test_auto_prefers_what_is_there():
    pooled = make_host(pages0={MIB2: (0, 0), GIB: (4, 4)})
    assert huge_pages(pooled, "auto", guest("2G")).page == GIB
    assert huge_pages(pooled, "auto", guest("512M")).page == MIB2
    small = make_host(memory="1G")
    plan = huge_pages(small, "auto", guest("1G"))
    assert plan.page is None
    assert "transparent huge pages" in plan.notes[0].text
    assert "512 pages of 2M wanted" in plan.notes[0].why.reason
    nothing = make_host(memory="1G", thp="never")
    assert huge_pages(nothing, "auto", guest("1G")).notes[0].level == "warning"


@pytest.mark.parametrize(
    ("host", "size", "memory", "words"),
    [
        ({"memory": "1G"}, "2M", "2G", ["1024 pages of 2M wanted on any node, 0 free in the pool", "room for 480 more"]),
        ({"memory": "8G"}, "1G", "1500M", ["do not divide", "multiple of 1G"]),
        ({"memory": "8G", "is_root": False}, "2M", "64M", ["may not reserve", "as root"]),
        ({"memory": "8G", "pages0": {}}, "2M", "64M", ["no pages of 2M", "page sizes of this host: none"]),
        ({"memory": "8G"}, "16M", "64M", ["no pages of 16M", "2M, 1G"]),
    ],
)
def test_refusals(host, size, memory, words):
    with pytest.raises(PlanError) as caught:
        huge_pages(make_host(**host), size, guest(memory))
    for word in words:
        assert word in str(caught.value)


def test_pages_had_without_root():
    host = make_host(is_root=False, pages0={MIB2: (64, 64)})
    assert huge_pages(host, "2M", guest("128M")).to_reserve == 0


def test_admission():
    host = make_host(memory="8G", free="4G")
    claims = {"db": Size.parse("1G")}
    assert admit(host, MemoryBill(Size.parse("2G"), overhead=MemoryBill.qemu_overhead(2), claims=claims)) == ()
    bill = MemoryBill(Size.parse("2G"), to_reserve=Size.parse("1G"), overhead=MemoryBill.qemu_overhead(2), claims=claims)
    with pytest.raises(PlanError) as caught:
        admit(host, bill)
    text = str(caught.value)
    for word in (
        "guest RAM 2048",
        "huge pages to reserve 1024",
        "QEMU 104",
        "db may still claim 1024",
        "4096 available − 256 kept",
    ):
        assert word in text
    assert "= 4200 MiB" in text
    assert "360 MiB are missing" in text
    assert "may run out" in admit(host, bill, overcommit=True)[0].text


def test_admission_names_the_control_group():
    host = make_host(memory="8G", free="1G", memory_limit=Size.parse("2G"))
    with pytest.raises(PlanError, match="limit of the control group 2048"):
        admit(host, MemoryBill(Size.parse("4G")))


def test_admission_is_exact():
    """A 32nd of the host's memory is kept for it, 256 MiB here: to the last byte of the rest a machine is let in."""
    host, room = make_host(memory="8G", free="4G"), (4096 - 256) << 20
    for bill in (
        MemoryBill(Size(room)),
        MemoryBill(Size(0), Size(room)),
        MemoryBill(Size(0), overhead=Size(room)),
        MemoryBill(Size(0), claims={"db": Size(room)}),
    ):
        assert admit(host, bill) == ()
        with pytest.raises(PlanError):
            admit(host, dataclasses.replace(bill, ram=Size(bill.ram + 1)))
    assert admit(dataclasses.replace(host, memory=Size(0)), MemoryBill(Size(1 << 50))) == (), "nothing is known of the host"


def test_what_qemu_takes_beside_the_guest():
    assert MemoryBill.qemu_overhead(1) == (96 + 4) << 20
    assert MemoryBill.qemu_overhead(3, 64 << 20) == (96 + 3 * 4 + 64) << 20


def test_the_arithmetic_is_said_as_it_is():
    """What is nothing is left out, and what is missing is rounded up to whole MiB."""
    bill = MemoryBill(Size((3840 << 20) + 1), claims={"db": Size(0), "web": Size.parse("1M")})
    with pytest.raises(PlanError) as caught:
        admit(make_host(memory="8G", free="4G"), bill)
    assert caught.value.why == (
        "guest RAM 3840 + web may still claim 1 = 3841 MiB, but 4096 available − 256 kept for the host = 3840 MiB: "
        "2 MiB are missing"
    )
    assert "memory.overcommit = true" in caught.value.fix
    with pytest.raises(PlanError) as caught:
        admit(make_host(memory="8G", free="128M"), MemoryBill(Size(0), overhead=Size.parse("100M")))
    assert caught.value.why.startswith("QEMU 100 = 100 MiB, but 128 available − 256 kept for the host = 0 MiB:")
