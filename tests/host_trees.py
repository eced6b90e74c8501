"""Host trees for tests: recorded ones of real machines where they are at hand, and odd ones written on the spot."""

from __future__ import annotations

import contextlib
import os
import tarfile
import tempfile
from pathlib import Path

from tinamou.system.paths import cache_dir

RECORDED = (
    "128arm-2pa2n8cluster4co",
    "16em64t-4s2c2t-offlines",
    "20em64t-hybrid-1p6c2t+2ca4co1t",
    "2i386-2c-nohugepage",
    "40intel64-2g2n4c+pcilocality",
    "64amd64-4s2n4ca2co",
    "96em64t-4no4pa3ca2co",
    "nvidiagpunumanodes",
)


def recorded_folder() -> Path | None:
    """``$TINAMOU_HOST_TREES``, else ``shared/hosts`` in a folder above this checkout."""
    named = os.environ.get("TINAMOU_HOST_TREES")
    above = [parent / "shared" / "hosts" for parent in Path(__file__).resolve().parents]
    return next((folder for folder in ([Path(named)] if named else above) if folder.is_dir()), None)


def unpack(name: str) -> Path:
    """The root of one recorded tree, unpacked once (thousands of files) into tinamou's cache; change nothing in it."""
    folder = recorded_folder()
    assert folder is not None
    kept = cache_dir() / "host-trees"
    tree = kept / name
    if not tree.exists():
        kept.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=kept) as fresh:
            with tarfile.open(folder / f"{name}.tar.bz2") as archive:
                archive.extractall(fresh, **({"filter": "tar"} if hasattr(tarfile, "tar_filter") else {}))
            with contextlib.suppress(OSError):  # another run was first
                next(Path(fresh).iterdir()).rename(tree)
    return tree


def listing(numbers) -> str:
    return ",".join(str(n) for n in sorted(numbers))


class Tree:
    """Writes a /proc and /sys with the given packages × cores × threads; files can be changed afterwards."""

    def __init__(self, root: Path, *, packages=1, nodes_per_package=1, cores=2, threads=1, memory_gib=8, stride=1):
        self.root = root
        nodes = packages * nodes_per_package
        total = nodes * cores * threads
        place = {}
        for index in range(total):
            thread, rest = divmod(index, nodes * cores)
            node, core = divmod(rest, cores) if stride == 1 else (rest % nodes, rest // nodes)
            place[index] = (node // nodes_per_package, node, core, thread)
        self.place = place
        for cpu, (package, node, core, _) in place.items():
            same_core = [c for c, p in place.items() if p[:3] == (package, node, core)]
            same_node = [c for c, p in place.items() if p[1] == node]
            same_package = [c for c, p in place.items() if p[0] == package]
            base = f"/sys/devices/system/cpu/cpu{cpu}"
            self.write(f"{base}/topology/physical_package_id", package)
            self.write(f"{base}/topology/core_id", core + cores * (node % nodes_per_package))
            self.write(f"{base}/topology/thread_siblings_list", listing(same_core))
            self.write(f"{base}/topology/package_cpus_list", listing(same_package))
            for index, (level, kind, size, shared) in enumerate(
                [(1, "Data", "32K", same_core), (2, "Unified", "1M", same_core), (3, "Unified", "16M", same_node)]
            ):
                self.write(f"{base}/cache/index{index}/level", level)
                self.write(f"{base}/cache/index{index}/type", kind)
                self.write(f"{base}/cache/index{index}/size", size)
                self.write(f"{base}/cache/index{index}/shared_cpu_list", listing(shared))
        self.write("/sys/devices/system/cpu/online", listing(place))
        for node in range(nodes):
            base = f"/sys/devices/system/node/node{node}"
            self.write(f"{base}/cpulist", listing(c for c, p in place.items() if p[1] == node))
            self.write(f"{base}/distance", " ".join("10" if other == node else "21" for other in range(nodes)))
            kib = memory_gib * 1024 * 1024
            self.write(f"{base}/meminfo", f"Node {node} MemTotal: {kib} kB\nNode {node} MemFree: {kib * 9 // 10} kB")
            self.hugepages(node, 2048, 0)
            self.hugepages(node, 1048576, 0)
        kib = memory_gib * 1024 * 1024 * nodes
        self.write("/proc/meminfo", f"MemTotal: {kib} kB\nMemFree: {kib * 9 // 10} kB\nMemAvailable: {kib * 9 // 10} kB\n")
        self.write("/sys/kernel/mm/transparent_hugepage/enabled", "always [madvise] never")

    def hugepages(self, node: int, kib: int, total: int, free: int | None = None) -> Tree:
        base = f"/sys/devices/system/node/node{node}/hugepages/hugepages-{kib}kB"
        self.write(f"{base}/nr_hugepages", total)
        self.write(f"{base}/free_hugepages", total if free is None else free)
        return self

    def write(self, path: str, value) -> Tree:
        target = self.root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(f"{value}\n")
        return self

    def remove(self, path: str) -> Tree:
        (self.root / path.lstrip("/")).unlink()
        return self


def make_host(
    *, nodes=1, caches=1, cores=4, threads=1, slow=0, offline=(), isolated=(), allowed=None, memory="16G", free=None, **more
):
    """HostFacts with nodes × caches × cores × threads; the last ``slow`` cores of each node are efficiency cores."""
    from tinamou.facts.host import Cache, Cpu, HostFacts, NumaNode
    from tinamou.units import CpuSet, Size

    per_node, total = caches * cores, nodes * caches * cores
    cpus, shared, of_node = [], {}, {}
    for thread in range(threads):
        for core in range(total):
            node, within = divmod(core, per_node)
            number = thread * total + core
            siblings = CpuSet(t * total + core for t in range(threads)) - set(offline)
            online = number not in offline
            capacity = 500 if within >= per_node - slow else 1024
            cpus.append(
                Cpu(
                    number,
                    node,
                    0,
                    -1,
                    within,
                    node,
                    CpuSet(siblings if online else {number}),
                    online,
                    capacity if online else 0,
                )
            )
            of_node.setdefault(node, set()).add(number)
            if online:
                shared.setdefault(core // cores, set()).add(number)
    size = Size.parse(memory)
    present = CpuSet(cpu.number for cpu in cpus)
    return HostFacts(
        system="Linux",
        arch="x86_64",
        kernel="6.1",
        cpus=tuple(sorted(cpus, key=lambda cpu: cpu.number)),
        caches=tuple(Cache(3, "Unified", Size.parse("16M"), CpuSet(members)) for members in shared.values()),
        nodes=tuple(
            NumaNode(
                n,
                CpuSet(members),
                size,
                Size.parse(free or memory),
                tuple(10 if n == m else 20 + abs(n - m) for m in range(nodes)),
                more.pop(f"pages{n}", {2 << 20: (0, 0), 1 << 30: (0, 0)}),
            )
            for n, members in of_node.items()
        ),
        allowed_cpus=CpuSet((present if allowed is None else set(allowed)) - set(offline)),
        isolated_cpus=CpuSet(isolated),
        memory=Size(size * nodes),
        memory_available=Size(Size.parse(free or memory) * nodes),
        is_root=more.pop("is_root", True),
        thp=more.pop("thp", "madvise"),
        **more,
    )
