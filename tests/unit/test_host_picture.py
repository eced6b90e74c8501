"""The picture of a host says what is where, and who holds it."""

from host_trees import make_host

from tinamou.blueprint import Pinning
from tinamou.machine.host_picture import picture
from tinamou.units import CpuSet


def test_everything_has_its_mark():
    host = make_host(nodes=2, cores=3, threads=2, slow=1, offline={11}, isolated={4}, allowed=set(range(12)) - {3})
    pinning = Pinning((CpuSet({0}), CpuSet({6})), CpuSet({1}), {"a": CpuSet({1}), "b": CpuSet({7})})
    drawn = picture(host, pinning, {"web": CpuSet({9}), "d": CpuSet({10})}, devices={1: ["0000:65:00.0 graphics"]})
    assert (
        drawn.rpartition("\n")[0]
        == """\
2 packages, 2 memory nodes, 2 last-level caches, 6 cores, 11 CPUs and 1 offline
node 0 (package 0): 16.0 of 16.0 GiB free, distances 10 21
  L3 16M [0:v0 6:v1] [1:EI 7:I]  (2 8)
node 1 (package 1): 16.0 of 16.0 GiB free, distances 21 10
  L3 16M [3:x 9:b]   [4:i 10:a]  (5)
  offline 11
  0000:65:00.0 graphics"""
    )
    marks = "vN virtual CPU N, I I/O thread, EI both, i isolated, x not allowed here, a d holds 10, b web holds 9"
    assert drawn.endswith(f"\n[core] (efficiency core)  {marks}")


def test_nothing_to_explain():
    assert picture(make_host(cores=2)).splitlines()[-1] == "  L3 16M [0] [1]"


def test_as_wide_as_the_terminal():
    rows = picture(make_host(cores=40), width=40).splitlines()[2:]
    assert {row.count("[") for row in rows} == {4}
