"""Pinning plans hold their promises on recorded and on odd hosts, and refuse with the arithmetic."""

import functools
import re
from dataclasses import replace

import pytest
from host_trees import RECORDED, make_host, recorded_folder, unpack
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinamou.blueprint import Pinning
from tinamou.errors import PlanError
from tinamou.facts import NumaNode
from tinamou.machine.host_picture import picture
from tinamou.probe.host import probe_host
from tinamou.tuning.cpu_pinning import pin
from tinamou.tuning.host_tree import last_level_caches, performance_cpus
from tinamou.tuning.numa import memory_nodes
from tinamou.tuning.placement import GuestTopology, PinRequest
from tinamou.units import CpuSet, Size

recorded = pytest.mark.skipif(
    recorded_folder() is None, reason="no recorded host trees; name a folder in TINAMOU_HOST_TREES"
)
common = settings(deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@functools.cache
def recorded_host(name):
    return probe_host(str(unpack(name)))


@st.composite
def odd_hosts(draw):
    nodes, caches, cores, threads = (draw(st.integers(1, n)) for n in (4, 3, 5, 4))
    everything = list(range(nodes * caches * cores * threads))
    subset = st.sets(st.sampled_from(everything), max_size=len(everything) // 2)
    offline = draw(subset)
    allowed = set(everything) - draw(subset)
    slow = draw(st.integers(0, caches * cores // 2))
    host = make_host(
        nodes=nodes,
        caches=caches,
        cores=cores,
        threads=threads,
        slow=slow,
        offline=offline,
        isolated=draw(subset),
        allowed=allowed,
    )
    return odd_memory(host, draw(st.sets(st.integers(0, nodes - 1), max_size=nodes - 1)), draw(st.integers(0, 2)))


def odd_memory(host, without, beyond):
    """The same host with nodes that have CPUs and no memory, and ``beyond`` nodes of memory without CPUs (CXL, GPUs)."""
    far = range(len(host.nodes), len(host.nodes) + beyond)
    grown = [
        replace(
            node,
            memory=Size(0) if node.number in without else node.memory,
            free=Size(0) if node.number in without else node.free,
            distances=(*node.distances, *(60 + n for n in far)),
        )
        for node in host.nodes
    ]
    cxl = [
        NumaNode(
            n,
            CpuSet(),
            Size.parse("64G"),
            Size.parse("64G"),
            tuple(10 if n == m else 60 + max(n, m) for m in range(far.stop)),
        )
        for n in far
    ]
    return replace(host, nodes=(*grown, *cxl))


def check(host, request):
    """Every promise of a plan; returns it."""
    placement = pin(host, request)
    free = CpuSet(host.usable_cpus - host.isolated_cpus - request.taken)
    cores = {cpu.number: cpu.siblings for cpu in host.cpus}
    room = len({cores[cpu] for cpu in free}) if request.latency else len(free)
    if not placement.vcpus:
        assert request.count > room, "there was room"
        assert placement.notes
        return placement
    seats = [next(iter(cpus)) for cpus in placement.vcpus]
    assert len(seats) == len(set(seats)) == request.count, "no CPU twice"
    assert set(seats) <= free, "none offline, isolated, forbidden or leased"
    assert placement.leased <= free
    check_siblings(host, request, placement, seats, cores, free)
    check_nearness(host, request, placement, seats, free)
    helpers = placement.emulator.union(*placement.iothreads)
    shares = any("share the CPUs" in note.text for note in placement.notes)
    assert shares or not helpers & placement.leased
    assert helpers <= free or shares
    assert all(why.reason for why in placement.whys)
    return placement


def check_siblings(host, request, placement, seats, cores, free):
    topology = placement.topology
    assert topology.count == request.count
    told = any("share a core" in note.text for note in placement.notes)
    for start in range(0, request.count, topology.threads):
        group = set(seats[start : start + topology.threads])
        assert group <= cores[seats[start]], "vCPUs shown as siblings are siblings"
    if topology.threads == 1 and not told:
        assert len({cores[cpu] for cpu in seats}) == request.count, "vCPUs shown as cores have a core each"
    if request.latency:
        beside = {c for cpu in seats for c in cores[cpu]} & free - set(seats)
        assert beside == placement.idle, "sibling threads are left idle"


def check_nearness(host, request, placement, seats, free):
    node_of = {cpu.number: cpu.node for cpu in host.cpus}
    caches = last_level_caches(host)
    cores = {cpu.number: cpu.siblings for cpu in host.cpus}
    fast = free & performance_cpus(host)

    def room(cpus):
        return len({cores[cpu] for cpu in cpus}) if request.latency else len(cpus)

    if room(fast) >= request.count:
        assert set(seats) <= fast, "performance cores first"
    else:
        assert len({cores[cpu] for cpu in fast}) == len({cores[cpu] for cpu in seats if cpu in fast})
        return
    used_nodes, used_caches = {node_of[cpu] for cpu in seats}, {caches[cpu] for cpu in seats}
    if any(room(fast & node.cpus) >= request.count for node in host.nodes):
        assert len(used_nodes) == 1, "one memory node when it fits"
    if any(
        room({cpu for cpu in fast & cache if node_of[cpu] == n}) >= request.count
        for cache in caches.values()
        for n in {0, *used_nodes}
    ):
        assert len(used_caches) == 1, "one last-level cache when it fits"
    plan = memory_nodes(host, placement, request.count, Size.parse("1G"))
    assert sum(node.memory for node in plan.nodes) == Size.parse("1G")
    if any(node.host_node is not None for node in plan.nodes):
        with_memory = {node.number for node in host.nodes if node.memory}
        for node in plan.nodes:
            (home,) = {node_of[seats[vcpu]] for vcpu in node.vcpus}
            assert node.host_node in with_memory
            nearest = min(host.distance(home, other) for other in with_memory)
            assert node.host_node == home or (home not in with_memory and host.distance(home, node.host_node) == nearest)


@recorded
@pytest.mark.parametrize("name", RECORDED)
@pytest.mark.parametrize("latency", [False, True])
def test_recorded_hosts(name, latency):
    host = recorded_host(name)
    most = len(host.usable_cpus)
    for count in (1, 2, 3, 4, 6, 8, 12, 16, most // 2, most - 1, most, most + 1):
        placement = check(host, PinRequest(max(count, 1), latency=latency, iothreads=1))
        check_picture(host, placement)


def check_picture(host, placement):
    """Every CPU stands in the picture once, every virtual CPU beside its own, and no line is longer than asked for."""
    pinning = Pinning(placement.vcpus, placement.emulator, {"io": placement.iothreads[0]}) if placement.vcpus else None
    for width in (80, 200):
        drawn = picture(host, pinning, width=width)
        boxes = re.findall(r"[(\[](\d[^)\]]*)[)\]]", "\n".join(line for line in drawn.splitlines() if line[:1] == " "))
        shown = [word.split(":") for box in boxes for word in box.split()]
        assert sorted(int(words[0]) for words in shown) == sorted(host.online_cpus)
        marked = {words[1]: int(words[0]) for words in shown if words[1:] and words[1][0] == "v"}
        assert marked == {f"v{n}": cpu for n, cpus in enumerate(placement.vcpus) for cpu in cpus}
        assert all(len(line) <= width for line in drawn.splitlines() if line[:1] == " ")


@recorded
@common
@given(data=st.data())
def test_recorded_hosts_with_neighbours(data):
    host = recorded_host(data.draw(st.sampled_from(RECORDED)))
    leased = {}
    for number in range(3):
        request = PinRequest(data.draw(st.integers(1, 12)), latency=data.draw(st.booleans()), leased=dict(leased))
        leased[f"m{number}"] = check(host, request).leased


@common
@given(host=odd_hosts(), count=st.integers(1, 24), latency=st.booleans(), iothreads=st.integers(0, 2))
def test_odd_hosts(host, count, latency, iothreads):
    placement = check(host, PinRequest(count, latency=latency, iothreads=iothreads))
    check(host, PinRequest(1, leased={"first": placement.leased}))


@common
@given(host=odd_hosts(), data=st.data())
def test_named_cpus(host, data):
    if not host.usable_cpus:
        return
    named = CpuSet(data.draw(st.sets(st.sampled_from(sorted(host.usable_cpus)), min_size=1)))
    count = data.draw(st.integers(1, 8))
    placement = pin(host, PinRequest(count, cpus=named))
    assert len(placement.vcpus) == count
    assert all(cpus <= named for cpus in placement.vcpus)
    assert all(len(cpus) == 1 for cpus in placement.vcpus) == (len(named) >= count or len(named) == 1)


def test_memory_of_cpus_without_any():
    host = odd_memory(make_host(nodes=2, cores=4), {1}, 1)
    first = pin(host, PinRequest(4)).leased
    assert first == {4, 5, 6, 7} or first == {0, 1, 2, 3}
    placement = pin(host, PinRequest(4, cpus=CpuSet({4, 5, 6, 7})))
    plan = memory_nodes(host, placement, 4, Size.parse("1G"))
    assert [node.host_node for node in plan.nodes] == [0]
    assert "node 1 has CPUs, but no memory" in plan.notes[0].why.reason
    closed = replace(host, allowed_nodes=CpuSet({2}))
    assert [node.host_node for node in memory_nodes(closed, placement, 4, Size.parse("1G")).nodes] == [2]


@pytest.mark.parametrize(("sizes", "count", "node"), [((2, 6), 2, 0), ((2, 6), 4, 1), ((6, 2), 2, 1)])
def test_nodes_of_different_size(sizes, count, node):
    """The tightest node that fits, so that big ones stay whole."""
    host = make_host(nodes=2, cores=6)
    gone = {n * 6 + core for n, size in enumerate(sizes) for core in range(size, 6)}
    smaller = replace(host, allowed_cpus=CpuSet(host.allowed_cpus - gone))
    assert pin(smaller, PinRequest(count)).nodes[0][0] == node


@recorded
def test_exact_plans():
    """What a person who knows these machines would choose."""

    def cpus(name, count, **request):
        placement = pin(recorded_host(name), PinRequest(count, **request))
        return [next(iter(c)) for c in placement.vcpus], placement

    hybrid = "20em64t-hybrid-1p6c2t+2ca4co1t"
    assert cpus(hybrid, 4)[0] == [0, 1, 2, 3]
    assert cpus(hybrid, 8, latency=True)[0] == [0, 2, 4, 6, 8, 10, 12, 13]
    power = "nvidiagpunumanodes"
    chosen, placement = cpus(power, 8)
    assert chosen == list(range(8))
    assert placement.topology.threads == 4
    opteron = "64amd64-4s2n4ca2co"
    assert {cpu // 8 for cpu in cpus(opteron, 8)[0]} == {1}
    assert cpus(opteron, 8, near=5)[0] == list(range(40, 48))
    chosen, placement = cpus(opteron, 64)
    assert placement.topology.sockets == 8
    dunnington = "96em64t-4no4pa3ca2co"
    assert cpus(dunnington, 12)[1].topology.dies == 2
    chosen, placement = cpus("128arm-2pa2n8cluster4co", 8)
    assert chosen == list(range(32, 40))
    assert (placement.topology.clusters, placement.topology.cores, placement.topology.shared_l2) == (2, 4, False)
    assert cpus(dunnington, 6)[1].topology == GuestTopology(clusters=3, cores=2, shared_l2=True)


def test_memory_decides_the_node():
    host = make_host(nodes=2, cores=8, memory="8G")
    assert len(pin(host, PinRequest(4, memory=Size.parse("6G"))).nodes) == 1
    wide = pin(host, PinRequest(4, memory=Size.parse("12G")))
    assert wide.nodes == ((0, (0, 1)), (1, (2, 3)))
    plan = memory_nodes(host, wide, 4, Size.parse("12G"))
    assert [str(node.memory) for node in plan.nodes] == ["6G", "6G"]
    assert plan.distances == ((10, 21), (21, 10))
    huge = memory_nodes(host, wide, 4, Size.parse("20G"))
    assert {node.policy for node in huge.nodes} == {"preferred"}
    assert huge.notes
    with pytest.raises(PlanError, match="does not fit beside"):
        memory_nodes(host, wide, 4, Size.parse("20G"), strict=True)


@pytest.mark.parametrize(
    ("host", "requested", "words"),
    [
        ({"cores": 2}, {"count": 4, "strict": True}, ["4 vCPUs", "2 CPUs = 2 free, 4 wanted"]),
        (
            {"cores": 8, "offline": {7}, "isolated": {6}},
            {"count": 8, "strict": True, "leased": {"build": CpuSet({0, 1})}},
            ["8 CPUs − 1 offline (7) − 1 isolated (6) − 2 leased to build (0-1) = 4 free"],
        ),
        ({"cores": 4, "threads": 2}, {"count": 5, "strict": True, "latency": True}, ["4 cores"]),
        ({"cores": 4}, {"count": 1, "cpus": CpuSet({9})}, ["not on this host: 9", "0-3"]),
        ({"cores": 4, "offline": {3}}, {"count": 1, "cpus": CpuSet({3})}, ["offline: 3"]),
        (
            {"cores": 4, "allowed": {0, 1}},
            {"count": 1, "cpus": CpuSet({1, 2})},
            ["outside the cpuset or affinity of this process: 2", "allowed are 0-1"],
        ),
        (
            {"cores": 4},
            {"count": 1, "cpus": CpuSet({2}), "leased": {"db": CpuSet({2, 3})}},
            ["leased to db: 2", "db holds 2-3"],
        ),
        ({"cores": 4}, {"count": 1, "cpus": CpuSet()}, ["no CPU is named"]),
        ({"cores": 4}, {"count": 3, "cpus": CpuSet({0, 1}), "strict": True}, ["2 CPUs named, 3 vCPUs wanted"]),
        ({"cores": 2, "threads": 2}, {"count": 3, "cpus": CpuSet({0, 1, 2}), "latency": True}, ["too few cores"]),
    ],
)
def test_refusals(host, requested, words):
    with pytest.raises(PlanError) as caught:
        pin(make_host(**host), PinRequest(**requested))
    text = str(caught.value)
    assert caught.value.fix
    for word in words:
        assert word in text


def test_isolated_cpus_only_by_name():
    host = make_host(cores=4, isolated={2, 3})
    assert pin(host, PinRequest(2)).leased == {0, 1}
    assert pin(host, PinRequest(2, cpus=CpuSet({2, 3}))).leased == {2, 3}


def test_not_enough_is_said_aloud():
    placement = pin(make_host(cores=2), PinRequest(4))
    assert placement.vcpus == ()
    assert placement.notes[0].level == "warning"
    assert "4 wanted" in placement.notes[0].why.reason
