"""What is told of machines as families of metrics: under names of our own, under those of libvirt's exporter; findings."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, InfoMetricFamily
from prometheus_client.metrics_core import Metric

from tinamou.late import dataclass
from tinamou.machine.listing import size_of
from tinamou.monitor.observation import DiskObservation, GuestMemory
from tinamou.state.record import Record
from tinamou.version import __version__

__all__ = ["MOST_FINDINGS", "Sample", "found", "of_libvirt", "of_machines"]

MOST_FINDINGS = 1000


@dataclass(frozen=True)
class Sample:
    """One running machine: processor seconds, resident bytes, its disks and cards; None and nothing where unknown.

    ``memory`` is what its guest said of it lately, ``pss`` the bytes of the host its QEMU then had, shared ones divided.
    """

    record: Record
    seconds: float | None
    resident: int | None
    disks: tuple[DiskObservation, ...]
    network: tuple[dict[str, Any], ...]
    memory: GuestMemory | None = None
    pss: int | None = None


def found(wrong: Sequence[Mapping[str, Any]]) -> Metric:
    """What is wrong now, the gravest first: 1 for each; the host's own has no machine."""
    family = GaugeMetricFamily(
        "tinamou_finding", "Something that is wrong, as tinamou watch finds it.", labels=["machine", "check", "severity"]
    )
    for machine, check, severity in dict.fromkeys((one["machine"] or "", one["check"], one["severity"]) for one in wrong):
        if len(family.samples) < MOST_FINDINGS:
            family.add_metric([machine, check, severity], 1)
    return family


def of_libvirt(samples: Iterable[Sample]) -> Iterator[Metric]:
    """The same machines under the names of libvirt's exporter (source: README of kumina/libvirt_exporter)."""
    gauge, counter, stem = GaugeMetricFamily, CounterMetricFamily, "libvirt_domain"
    yield gauge("libvirt_up", "Whether the machines could be looked at.", 1)
    most = gauge(f"{stem}_info_maximum_memory_bytes", "Memory the guest was given.", labels=["domain"])
    used = gauge(f"{stem}_info_memory_usage_bytes", "Memory of the host its QEMU holds.", labels=["domain"])
    cpus = gauge(f"{stem}_info_virtual_cpus", "Virtual CPUs.", labels=["domain"])
    spent = counter(f"{stem}_info_cpu_time_seconds", "Processor time of its QEMU.", labels=["domain"])
    words = ("read_bytes", "read_requests", "write_bytes", "write_requests")
    on_disk = ["domain", "source_file", "target_device"]
    blocks = {one: counter(f"{stem}_block_stats_{one}", f"{one} of a disk.", labels=on_disk) for one in words}
    by_card = ["domain", "source_bridge", "target_device"]
    ways = {"received": "receive", "sent": "transmit"}
    cards = {
        key: counter(f"{stem}_interface_stats_{one}_bytes", f"Bytes {key}.", labels=by_card) for key, one in ways.items()
    }
    for one in samples:
        name, (count, given) = one.record.name, size_of(one.record)
        cpus.add_metric([name], count)
        most.add_metric([name], given)
        if one.resident is not None:
            used.add_metric([name], one.resident)
        if one.seconds is not None:
            spent.add_metric([name], one.seconds)
        for disk in one.disks:
            values = (disk.read, disk.reads, disk.written, disk.writes)
            for word, value in zip(words, values, strict=True):
                blocks[word].add_metric([name, disk.files[0] if disk.files else "", disk.name], value)
        for nic, row in sorted({row["nic"]: row for row in reversed(one.network)}.items()):
            for key, family in cards.items():
                if isinstance(row.get(key), int):
                    family.add_metric([name, "", nic], row[key])
    yield from (most, used, cpus, spent, *blocks.values(), *cards.values())


def of_machines(samples: Sequence[Sample]) -> Iterator[Metric]:
    """Each machine under names of our own."""
    yield InfoMetricFamily("tinamou_build", "The program that tells this.", {"version": __version__})
    gauge, counter = GaugeMetricFamily, CounterMetricFamily
    info = InfoMetricFamily("tinamou_vm", "A running machine.", labels=["machine"])
    cpus = gauge("tinamou_vm_vcpus", "Virtual CPUs.", labels=["machine"])
    memory = gauge("tinamou_vm_memory_bytes", "Memory the guest was given.", labels=["machine"])
    resident = gauge("tinamou_vm_resident_bytes", "Memory of the host its QEMU holds.", labels=["machine"])
    seconds = counter("tinamou_vm_cpu_seconds", "Processor time of its QEMU.", labels=["machine"])
    stages = gauge("tinamou_vm_start_stage_seconds", "How long a stage of its last start took.", labels=["machine", "stage"])
    disks, cards = _Counted("tinamou_vm_disk", "disk"), _Counted("tinamou_vm_network", "nic")
    for one in samples:
        name, (count, given) = one.record.name, size_of(one.record)
        info.add_metric([name], {"image": one.record.image, "arch": one.record.arch, "accel": one.record.accel})
        cpus.add_metric([name], count)
        memory.add_metric([name], given)
        if one.resident is not None:
            resident.add_metric([name], one.resident)
        if one.seconds is not None:
            seconds.add_metric([name], one.seconds)
        for stage, taken in one.record.timings.items():
            stages.add_metric([name, stage], taken)
        for disk in one.disks:
            disks.add(
                name, disk.name, read_bytes=disk.read, written_bytes=disk.written, reads=disk.reads, writes=disk.writes
            )
            disks.gauge(name, disk.name, allocated_bytes=int(disk.allocated))
        by_card = {row["nic"]: row for row in reversed(one.network)}
        for nic, row in sorted(by_card.items()):
            known = {key: row[key] for key in ("received", "sent") if isinstance(row.get(key), int)}
            cards.add(name, nic, **{f"{key}_bytes": value for key, value in known.items()})
    yield from _of_guests(samples)
    yield from (info, cpus, memory, resident, seconds, stages, *disks.families.values(), *cards.families.values())


def _of_guests(samples: Iterable[Sample]) -> Iterator[Metric]:
    """What guests say of their memory, and the share of the host's that takes a walk over pages: as of a while ago."""
    told = {
        "balloon_bytes": "Memory the balloon leaves the guest.",
        "guest_available_bytes": "Memory the guest could use without swapping.",
        "guest_used_bytes": "Memory the guest could not give.",
        "pss_bytes": "Memory of the host its QEMU has, shared pages divided by their users.",
    }
    families = {name: GaugeMetricFamily(f"tinamou_vm_{name}", about, labels=["machine"]) for name, about in told.items()}
    for one in samples:
        memory = one.memory
        said = (memory.holds, memory.available, memory.used) if memory else (None, None, None)
        for family, value in zip(families.values(), (*said, one.pss), strict=True):
            if value is not None:
                family.add_metric([one.record.name], int(value))
    yield from families.values()


class _Counted:
    """Families of counters and gauges with a machine and a part of it as labels, made when the first is added."""

    def __init__(self, stem: str, label: str) -> None:
        self._stem, self._label = stem, label
        self.families: dict[str, Any] = {}

    def add(self, machine: str, part: str, **values: int) -> None:
        """Counters, by the ends of their names."""
        self._put(CounterMetricFamily, machine, part, values)

    def gauge(self, machine: str, part: str, **values: int) -> None:
        """Gauges, by the ends of their names."""
        self._put(GaugeMetricFamily, machine, part, values)

    def _put(self, family: Any, machine: str, part: str, values: dict[str, int]) -> None:
        for end, value in values.items():
            name = f"{self._stem}_{end}"
            if name not in self.families:
                self.families[name] = family(
                    name, f"{end.replace('_', ' ')} of a {self._label}", labels=["machine", self._label]
                )
            self.families[name].add_metric([machine, part], value)
