"""Each thread of QEMU goes where the plan says."""

import pytest

from tinamou.blueprint import Pinning
from tinamou.errors import ControlError
from tinamou.machine.pinning import assign, refuse_strangers
from tinamou.units import CpuSet


def cpus(text):
    return CpuSet.parse(text)


def test_every_thread_has_its_place():
    pinning = Pinning((cpus("2"), cpus("3")), cpus("4"), {"disk0-io": cpus("5"), "disk1-io": cpus("6")})
    found = assign(pinning, [101, 102], {"disk0-io": 103}, {100, 101, 102, 103, 104})
    assert found == {100: cpus("4"), 101: cpus("2"), 102: cpus("3"), 103: cpus("5"), 104: cpus("4")}


def test_one_thread_for_all_virtual_cpus():
    pinning = Pinning((cpus("2"), cpus("3")), cpus("4"))
    assert assign(pinning, [101, 101], {}, {100, 101}) == {100: cpus("4"), 101: cpus("2-3")}


@pytest.mark.parametrize(("vcpus", "iothreads"), [([1], {}), ([101], {"disk0-io": 1}), ([101, 102], {}), ([], {})])
def test_threads_that_are_not_qemus(vcpus, iothreads):
    pinning = Pinning((cpus("2"),), cpus("4"), {"disk0-io": cpus("5")})
    with pytest.raises(ControlError, match="QEMU answered with"):
        refuse_strangers(pinning, vcpus, iothreads, {100, 101, 102})


def test_virtual_cpu_without_thread():
    assert assign(Pinning((cpus("2"),), cpus("4")), [0], {}, {100}) == {100: cpus("4")}
