"""What tinamou has to know about one guest architecture."""

from __future__ import annotations

from collections.abc import Mapping

from tinamou.late import dataclass, field


@dataclass(frozen=True)
class CpuModel:
    """A CPU model, what it costs or gains, and the properties it is given where the binary knows them."""

    model: str
    reason: str
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Arch:
    """One guest architecture.

    ``machine`` is the machine type's alias, pinned to the versioned type behind it while planning; ``board`` is the QOM
    type that has its options. ``machine_options`` and ``cmdline`` map a setting to its reason; ``unused`` are options beside
    ``machine_options`` for a guest without a screen whose kernel QEMU loads. ``console`` is the first
    serial port's name in Linux, ``boots`` the ways a machine can start here. ``tcg`` are CPU models for emulation: the
    first the binary has is taken. ``strong_memory_order`` tells that guests rely on it, so that TCG must not run vCPUs in
    parallel on a weakly ordered host. ``levels`` are the options of ``-smp`` for what its boards can show between socket and
    core, ``caches`` tells that they can show which of these share a cache, ``plugs_cpus`` that CPUs can be added later.
    ``devices`` are present in every machine: (device type, reason); ``tpm_device`` is the one that makes a TPM, empty where
    guests would not find it. ``window_file`` is the fw_cfg file that tells UEFI firmware how many MiB devices need above
    4 GiB. ``keyboard`` is the option of ``machine`` that takes away the board's own keyboard, empty where it has none.
    ``encryption`` are the ways its processors keep the host out of a guest's memory, best first; ``sata_ports`` are those of
    the board, ``isa_serial`` the serial ports it has room for beside the console. ``expanders``: every guest finds root
    complexes beside the board's own.
    """

    name: str
    machine: str
    board: str
    machine_options: Mapping[str, tuple[str, str]]
    console: str
    boots: tuple[str, ...]
    tcg: tuple[CpuModel, ...]
    native: CpuModel
    tcg_cmdline: Mapping[str, str]
    cmdline: Mapping[str, str]
    devices: tuple[tuple[str, str], ...]
    strong_memory_order: bool = False
    panic_device: str = "pvpanic-pci"
    levels: Mapping[str, str] = field(default_factory=dict)
    caches: bool = False
    plugs_cpus: bool = False
    uefi_reason: str = ""
    unused: Mapping[str, tuple[str, str]] = field(default_factory=dict)
    tpm_device: str = ""
    window_file: str = ""
    keyboard: str = ""
    encryption: tuple[str, ...] = ()
    sata_ports: int = 0
    isa_serial: int = 0
    expanders: bool = False
