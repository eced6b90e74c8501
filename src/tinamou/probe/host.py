"""Examines this host, or a recorded tree of another: CPUs, memory, rights and tools, in a few milliseconds."""

from __future__ import annotations

import os
from collections.abc import Mapping

from tinamou.facts.host import EVERYBODY, HostFacts, NumaNode
from tinamou.probe import cgroup, grouping, topology
from tinamou.system import apparmor, holding, threads
from tinamou.system.rooted import Rooted
from tinamou.units import CpuSet, Size

__all__ = ["TOOLS", "probe_host"]

TOOLS = (
    "apparmor_parser", "busctl", "bwrap", "dnsmasq", "genisoimage", "gpgv", "ip", "mkfs.ext4", "mmdebstrap",
    "nft", "ovs-vsctl", "ovs-vswitchd", "passt", "prlimit", "qemu-img", "qemu-storage-daemon", "setpriv", "ssh",
    "ssh-keygen", "swtpm", "swtpm_setup", "virt-fw-vars", "virtiofsd", "xorriso",
)  # fmt: skip
"""Commands some part may call; ``HostFacts.tools`` holds the paths of those that are installed."""

_DEVICES = (
    "/dev/kvm", "/dev/net/tun", "/dev/vhost-net", "/dev/vhost-vsock", "/dev/vfio/vfio", "/dev/iommu", "/dev/sev",
    "/dev/tpm0", "/dev/tpmrm0", "/dev/udmabuf", "/dev/userfaultfd", "/dev/fuse",
)  # fmt: skip
_FOLDERS = ("/usr/local/bin", "/usr/bin", "/bin", "/usr/local/sbin", "/usr/sbin", "/sbin", "/usr/libexec", "/usr/lib/qemu")


def probe_host(root: str | Rooted = "/") -> HostFacts:
    """The facts of the host whose /proc and /sys lie below ``root``. Never fails: what cannot be read is empty or 0."""
    host = root if isinstance(root, Rooted) else Rooted(root)
    nodes = topology.nodes(host)
    cpus = topology.cpus(host, {cpu: node.number for node in nodes for cpu in node.cpus})
    online = CpuSet(cpu.number for cpu in cpus if cpu.online)
    limits = cgroup.limits(host)
    isolated = host.cpu_list("/sys/devices/system/cpu/isolated") or CpuSet()
    memory, available = _memory(host, nodes)
    tools, smt = _tools(host), (host.read("/sys/devices/system/cpu/smt/active") or "").strip() == "1"
    system, machine, kernel = _identity(host)
    selinux, refused = _labels(host)
    profiles = _apparmor(host, tools)
    return HostFacts(
        system=system,
        arch=machine,
        kernel=kernel,
        cpus=cpus,
        caches=topology.caches(host, cpus),
        nodes=nodes,
        allowed_cpus=_allowed(host, "Cpus_allowed_list", online, limits.cpus, isolated),
        isolated_cpus=isolated,
        memory=memory,
        memory_available=available if limits.memory_left is None else min(available, limits.memory_left),
        is_root=host.real and os.geteuid() == 0,
        groups=_groups(host),
        tools=tools,
        devices=frozenset(path for path in _DEVICES if host.exists(path)),
        device_groups=_device_groups(host),
        nohz_full_cpus=host.cpu_list("/sys/devices/system/cpu/nohz_full") or CpuSet(),
        allowed_nodes=_allowed(host, "Mems_allowed_list", CpuSet(node.number for node in nodes), limits.nodes),
        memory_limit=limits.memory,
        thp=_chosen(host.read("/sys/kernel/mm/transparent_hugepage/enabled")),
        cgroups=limits.controllers,
        grouping=grouping.probe(host, os.getuid() if host.real else 0, "busctl" in tools),
        apparmor=profiles,
        apparmor_refused=apparmor.held() if host.real and profiles else "",
        selinux=selinux,
        selinux_refused=refused,
        smt=smt,
        core_scheduling=smt and host.real and threads.schedules_cores(),
        holding=holding.why_not() if host.real else "",
    )


def _identity(host: Rooted) -> tuple[str, str, str]:
    if host.real:
        name = os.uname()
        return name.sysname, name.machine, name.release
    words = (host.read("/proc/version") or "").split()
    return "Linux", _recorded_arch(host), words[2] if len(words) > 2 else ""


def _recorded_arch(host: Rooted) -> str:
    """The architecture of a recorded tree, from the form of its /proc/cpuinfo; hwloc's trees also carry it in a file."""
    for line in (host.read("/proc/hwloc-nofile-info") or "").splitlines():
        name, _, value = line.partition(":")
        if name == "Architecture":
            return value.strip()
    text = host.read("/proc/cpuinfo") or ""
    marks = {"vendor_id": "x86_64", "CPU implementer": "aarch64", "POWER": "ppc64le", "isa\t": "riscv64"}
    return next((arch for mark, arch in marks.items() if mark in text), "")


def _allowed(
    host: Rooted,
    name: str,
    everything: CpuSet,
    limit: CpuSet | None,
    besides: CpuSet = CpuSet(),  # noqa: B008
) -> CpuSet:
    rows = (line.partition(":") for line in (host.read("/proc/self/status") or "").splitlines())
    bounds = [CpuSet.parse(value.strip()) | besides for key, _, value in rows if key == name]
    return CpuSet(everything.intersection(*bounds, *([] if limit is None else [limit])))


def _memory(host: Rooted, nodes: tuple[NumaNode, ...]) -> tuple[Size, Size]:
    text = host.read("/proc/meminfo") or ""
    total = topology.kib(text, "MemTotal") or Size(sum(node.memory for node in nodes))
    free = topology.kib(text, "MemFree") or Size(sum(node.free for node in nodes))
    return total, topology.kib(text, "MemAvailable") or free


def _groups(host: Rooted) -> dict[str, int]:
    rows = (line.split(":") for line in (host.read("/etc/group") or "").splitlines())
    return {row[0]: int(row[2]) for row in rows if len(row) > 2 and row[2].isdecimal()}


def _device_groups(host: Rooted) -> dict[str, int | None]:
    """Who may use each device: its group, everybody, or only its owner."""
    found: dict[str, int | None] = {}
    for path in _DEVICES:
        try:
            stat = os.stat(host.path(path))  # noqa: PTH116
        except OSError:
            continue
        everybody, group = stat.st_mode & 0o006 == 0o006, stat.st_mode & 0o060 == 0o060
        found[path] = EVERYBODY if everybody else stat.st_gid if group else None
    return found


def _tools(host: Rooted) -> dict[str, str]:
    folders = [*filter(None, os.environ.get("PATH", "").split(":")), *_FOLDERS] if host.real else list(_FOLDERS)
    found: dict[str, str] = {}
    for folder in reversed(list(dict.fromkeys(folders))):
        found |= {name: f"{folder}/{name}" for name in TOOLS if host.exists(f"{folder}/{name}")}
    return found


def _apparmor(host: Rooted, tools: Mapping[str, str]) -> bool:
    """Whether the module is active here, takes profiles, and its parser is installed."""
    active = (host.read("/sys/module/apparmor/parameters/enabled") or "").strip() == "Y"
    return active and host.exists("/sys/kernel/security/apparmor/.replace") and "apparmor_parser" in tools


def _labels(host: Rooted) -> tuple[str, str]:
    """What `probe_selinux` says of this host; its module is loaded where there is something to ask."""
    if not host.real or not host.exists("/sys/fs/selinux/enforce"):
        return "", ""
    from tinamou.probe.selinux import probe_selinux

    return probe_selinux()


def _chosen(text: str | None) -> str:
    """``always [madvise] never`` → ``madvise``."""
    return (text or "").partition("[")[2].partition("]")[0]
