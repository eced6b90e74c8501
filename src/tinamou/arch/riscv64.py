"""riscv64: the virt board, OpenSBI, direct boot of an Image."""

from __future__ import annotations

from tinamou.arch.arch import Arch, CpuModel

ARCH = Arch(
    name="riscv64",
    machine="virt",
    board="virt-machine",
    machine_options={},
    console="ttyS0",
    boots=("direct", "uefi"),
    tcg=(
        CpuModel("max", "TCG emulates every feature it has at no extra cost"),
        CpuModel("rv64", "the generic 64-bit model, the best this QEMU has"),
    ),
    native=CpuModel("host", "the guest sees the real CPU: nothing is emulated"),
    tcg_cmdline={},
    cmdline={},
    devices=(),
    uefi_reason="edk2 for RISC-V, with a variable store of the machine's own",
)
