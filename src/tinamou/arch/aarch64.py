"""aarch64: the virt board, AAVMF, direct boot of an Image."""

from __future__ import annotations

from tinamou.arch.arch import Arch, CpuModel

ARCH = Arch(
    name="aarch64",
    machine="virt",
    board="virt-machine",
    machine_options={"gic-version": ("max", "the newest interrupt controller the accelerator offers")},
    console="ttyAMA0",
    boots=("uefi", "direct"),
    tcg=(
        CpuModel(
            "max",
            "TCG emulates every feature it has",
            {"pauth-impdef": "on"},
        ),
    ),
    native=CpuModel("host", "the guest sees the real CPU: nothing is emulated"),
    tcg_cmdline={},
    cmdline={},
    devices=(),
    levels={"clusters": "clusters"},
    tpm_device="tpm-tis-device",
    uefi_reason="AAVMF, with a variable store of the machine's own",
)
