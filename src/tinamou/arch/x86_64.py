"""x86_64: the q35 board, SeaBIOS or OVMF, PVH direct boot."""

from __future__ import annotations

from tinamou.arch.arch import Arch, CpuModel

ARCH = Arch(
    name="x86_64",
    machine="q35",
    board="generic-pc-machine",
    machine_options={
        "hpet": ("off", "an idle HPET wakes the host hundreds of times a second; guests have better clocks"),
        "vmport": ("off", "the VMware back door is of no use here and one door less"),
        "smm": ("off", "system management mode is only needed for Secure Boot, and costs time at every firmware start"),
    },
    unused={
        "sata": ("off", "no disk is on the board's own ports, and a kernel waits for each of them"),
        "smbus": ("off", "nothing is on the board's management bus"),
        "i8042": ("off", "without a screen there is no keyboard and no mouse"),
    },
    console="ttyS0",
    boots=("bios", "uefi", "direct"),
    tcg=(
        CpuModel(
            "max",
            "every feature TCG has, but for the short string moves, which it does byte by byte: guests then move words",
            {"erms": "off", "fsrm": "off"},
        ),
    ),
    native=CpuModel("host", "the guest sees the real CPU: nothing is emulated"),
    tcg_cmdline={"no_timer_check": "under emulation the timer check can fail on a busy host and panic the guest"},
    cmdline={},
    devices=(("vmgenid", "the guest learns that it was copied or restored, and reseeds its random numbers"),),
    strong_memory_order=True,
    panic_device="pvpanic",
    levels={"dies": "dies", "clusters": "modules"},
    caches=True,
    plugs_cpus=True,
    tpm_device="tpm-crb",
    window_file="opt/ovmf/X-PciMmio64Mb",
    keyboard="i8042",
    encryption=("sev-snp", "tdx", "sev-es", "sev"),
    sata_ports=6,
    isa_serial=3,
    expanders=True,
    uefi_reason="OVMF, with a variable store of the machine's own",
)
