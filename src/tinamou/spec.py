"""The machine as the user wants it: all parts in one frozen model behind TOML files, options and Python arguments."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from tinamou import fields, late
from tinamou.errors import Problem, SpecError
from tinamou.fields import option
from tinamou.late import dataclass
from tinamou.parts.boot import BootSpec
from tinamou.parts.clock import ClockSpec
from tinamou.parts.confidential import ConfidentialSpec
from tinamou.parts.confine import ConfineSpec
from tinamou.parts.cpu import CpuSpec
from tinamou.parts.disk import DiskSpec
from tinamou.parts.display import DisplaySpec
from tinamou.parts.identity import SmbiosSpec
from tinamou.parts.limits import LimitsSpec
from tinamou.parts.memory import MemorySpec
from tinamou.parts.net import NetSpec
from tinamou.parts.net.forwards import doubled
from tinamou.parts.passthrough import PassthroughSpec
from tinamou.parts.placement import PlacementSpec
from tinamou.parts.pmem import PmemSpec
from tinamou.parts.replicate import ReplicateSpec
from tinamou.parts.security import SecuritySpec
from tinamou.parts.seed import SeedSpec
from tinamou.parts.share import ShareSpec
from tinamou.parts.standard import DeviceSpec
from tinamou.parts.tpm import TpmSpec
from tinamou.parts.usb import UsbSpec
from tinamou.parts.windows import OS
from tinamou.parts.windows_spec import WindowsSpec

__all__ = ["ELEMENTS", "MachineSpec", "dump_spec", "load_spec", "shorthand", "spec_schema"]

NAME = r"[a-z0-9](?:[a-z0-9-]{0,46}[a-z0-9])?"

SHORT = {
    "cpus": "cpu.count",
    "pin": "cpu.pin",
    "hugepages": "memory.hugepages",
    "firmware": "boot.firmware",
    "kernel": "boot.kernel",
    "initrd": "boot.initrd",
    "cmdline": "boot.cmdline",
    "secure_boot_keys": "boot.secure_keys",
    "forkable": "memory.forkable",
    "disks": "disk",
    "nics": "net",
}
"""Short names accepted at the top of a spec, and the fields they stand for."""


@dataclass(frozen=True)
class MachineSpec:
    """One machine."""

    name: str = option(
        "",
        "the machine's name, and its guest's hostname",
        pattern=NAME,
        hint="lower-case letters, digits and dashes, at most 48",
    )
    image: str = option(
        "tiny",
        "one built here (tiny, debian, debian+nginx with packages), one of the catalogue (ubuntu:24.04), or an image file",
    )
    os: OS = option("", "the system in the guest: its machine is made as that needs it; nothing is assumed when left out")
    arch: Literal["", "x86_64", "aarch64", "riscv64"] = option("", "the guest's architecture; the host's when left out")
    accel: Literal["auto", "kvm", "hvf", "whpx", "nvmm", "tcg"] = option("auto", "auto takes the best that runs code here")
    cpu: CpuSpec = option(CpuSpec, "virtual CPUs")
    memory: MemorySpec = option(MemorySpec, "guest memory")
    limits: LimitsSpec = option(LimitsSpec, "what it may use of the host at most")
    placement: PlacementSpec = option(PlacementSpec, "on which of several hosts it belongs")
    replicate: ReplicateSpec = option(ReplicateSpec, "copies of its disks that another host keeps")
    confine: ConfineSpec = option(ConfineSpec, "the walls around its QEMU")
    boot: BootSpec = option(BootSpec, "how the guest starts")
    disk: tuple[DiskSpec, ...] = option((), "disks beside the image's own")
    pmem: tuple[PmemSpec, ...] = option((), "files the guest has as persistent memory (/dev/pmem0)")
    net: tuple[NetSpec, ...] = option((NetSpec(),), "network interfaces")
    share: tuple[ShareSpec, ...] = option((), "folders of the host the guest sees")
    pci: tuple[PassthroughSpec, ...] = option((), "devices of the host that the guest has for itself (VFIO)")
    display: DisplaySpec = option(DisplaySpec, "the guest's screen")
    tpm: TpmSpec = option(TpmSpec, "a trusted platform module")
    confidential: ConfidentialSpec = option(ConfidentialSpec, "memory the host cannot read")
    security: SecuritySpec = option(SecuritySpec, "what stands between QEMU and the host")
    windows: WindowsSpec = option(WindowsSpec, "what a Windows in the guest brings with it")
    clock: ClockSpec = option(ClockSpec, "what the guest's clock shows when it starts")
    usb: tuple[UsbSpec, ...] = option((), "USB devices")
    smbios: SmbiosSpec = option(SmbiosSpec, "what the guest reads about its maker")
    devices: DeviceSpec = option(DeviceSpec, "small standard devices")
    seed: SeedSpec = option(SeedSpec, "first-boot configuration (cloud-init)")
    qemu_args: tuple[str, ...] = option((), "arguments passed to QEMU as they are: an escape hatch tinamou does not check")

    def problems(self) -> list[Problem]:
        """What does not fit together between the parts."""
        return [*self._floored(), *doubled([one.forward for one in self.net])]

    def _floored(self) -> list[Problem]:
        if self.memory.floor is None:
            return []
        hindrances = {
            "devices.balloon = true": "" if self.devices.balloon else "memory is taken back through the balloon",
            "pci = []": "what a device of the host may reach stays where it is" if self.pci else "",
            'confidential = "off"': "" if self.confidential.type == "off" else "encrypted memory stays where it is",
        }
        return [
            Problem("memory.floor", str(self.memory.floor), reason, f"leave it out, or set {fix}")
            for fix, reason in hindrances.items()
            if reason
        ]


def load_spec(data: Mapping[str, object], *, source: str = "the machine's description") -> MachineSpec:
    """Plain data as a spec. Raises SpecError with every problem, each with path, value, reason and fix."""
    spread, problems = _spread(data)
    spec, found = fields.load(MachineSpec, spread)
    problems += found
    if problems or spec is None:
        count = f"{len(problems)} problem{'s' if len(problems) != 1 else ''}"
        raise SpecError(f"{source} has {count}", problems=problems, fix="correct the fields named above")
    return spec


def _spread(data: Mapping[str, object]) -> tuple[dict[str, Any], list[Problem]]:
    """Short names to the fields they stand for; a short name beside its long form is a problem."""
    spread: dict[str, Any] = {key: dict(v) if isinstance(v, Mapping) else v for key, v in data.items() if key not in SHORT}
    problems = []
    for short in (key for key in data if key in SHORT):
        table, _, name = SHORT[short].partition(".")
        if not name:
            clash = table in spread
            spread.setdefault(table, data[short])
        else:
            inner = spread.setdefault(table, {})
            if not isinstance(inner, dict):
                inner = spread[table] = {shorthand(table): inner}
            clash = name in inner
            inner.setdefault(name, data[short])
        if clash:
            problems.append(
                Problem(short, data[short], f"given beside {SHORT[short]}, which means the same", "keep one of the two")
            )
    return spread, problems


def shorthand(table: str) -> str:
    """The field that a bare value in place of a table stands for, as ``size`` in ``memory = "2G"``; empty where none is."""
    kinds = {one.name: one.default_factory for one in late.fields(MachineSpec)}
    kind = kinds.get(table)
    return str(getattr(ELEMENTS.get(table, kind), "shorthand", ""))


ELEMENTS: dict[str, type] = {
    **{"disk": DiskSpec, "pmem": PmemSpec, "net": NetSpec, "share": ShareSpec, "pci": PassthroughSpec},
}
"""What a list at the top of a description is of."""


def dump_spec(spec: MachineSpec) -> dict[str, Any]:
    """The spec as plain data, defaults left out; `load_spec` reads it back."""
    data = fields.plain(spec)
    assert isinstance(data, dict)
    return data


def spec_schema() -> dict[str, Any]:
    """JSON Schema of a machine file, short names included."""
    schema = fields.json_schema(MachineSpec)
    for short, long in SHORT.items():
        node = schema
        for part in long.split("."):
            node = next(s for s in (node, *node.get("anyOf", ())) if "properties" in s)["properties"][part]
        schema["properties"][short] = {**node, "description": f"short for {long}"}
    return {**schema, "title": "tinamou machine"}
