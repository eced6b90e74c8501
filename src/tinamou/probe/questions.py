"""What a QEMU binary is asked, and the types whose properties tinamou needs to know."""

from __future__ import annotations

import zlib
from collections.abc import Mapping

from tinamou.facts.qemu import BACKEND_KINDS
from tinamou.late import dataclass

__all__ = ["ACCELS", "FINGERPRINT", "TYPES", "Question", "questions"]

ACCELS = ("kvm", "mshv", "hvf", "whpx", "nvmm", "tcg")
"""Every accelerator that is tried, best first: a binary or host offers one or two of the first five."""

_VIRTIO = "net blk scsi rng balloon serial gpu keyboard mouse tablet crypto iommu mem pmem 9p sound"
_VIRTIO_MMIO = "net blk scsi rng balloon serial gpu 9p"

_OTHERS = """
virtio-mmio virtserialport virtconsole vhost-vsock-pci vhost-vsock-device vhost-user-fs-pci vhost-user-blk-pci
memory-backend-ram memory-backend-memfd memory-backend-file memory-backend-epc pc-dimm nvdimm
iothread main-loop monitor-qmp thread-context throttle-group secret tls-creds-x509 rng-random rng-builtin iommufd
sev-guest sev-snp-guest tdx-guest arm-rme-guest pef-guest s390-pv-guest acpi-generic-initiator
pcie-root-port pcie-pci-bridge pci-bridge pxb pxb-pcie x3130-upstream xio3130-downstream
cxl-rp cxl-type3 pxb-cxl vfio-pci vmgenid vmcoreinfo pvpanic pvpanic-pci
intel-iommu amd-iommu tpm-crb tpm-tis tpm-tis-device tpm-crb-device
nvme nvme-ns nvme-subsys scsi-hd scsi-cd scsi-block scsi-generic ide-hd ide-cd ahci ich9-ahci lsi53c895a pvscsi
qemu-xhci nec-usb-xhci usb-storage usb-tablet usb-kbd usb-mouse usb-host usb-redir
e1000 e1000e igb rtl8139 vmxnet3 ivshmem-plain ivshmem-doorbell
VGA bochs-display ramfb cirrus-vga ich9-intel-hda intel-hda hda-duplex hda-micro
isa-serial pci-serial isa-debugcon isa-debug-exit i6300esb ib700 sbsa_gwdt hpet ICH9-LPC cfi.pflash01
generic-pc-machine virt-machine
max-x86_64-cpu host-x86_64-cpu max-arm-cpu host-arm-cpu max-riscv-cpu rv64-riscv-cpu host-riscv-cpu
"""

TYPES: tuple[str, ...] = (
    *(f"virtio-{name}-pci" for name in _VIRTIO.split()),
    *(f"virtio-{name}-device" for name in _VIRTIO_MMIO.split()),
    *_OTHERS.split(),
    *(f"{name}-accel" for name in ACCELS),
)
"""Device, object, CPU and accelerator types whose property names are read."""

FINGERPRINT = zlib.crc32(" ".join((*TYPES, *BACKEND_KINDS)).encode())
"""Changes with what is asked: facts that were asked for less are asked for anew."""


@dataclass(frozen=True)
class Question:
    """One QMP command, its arguments, and the name its answer is filed under."""

    name: str
    command: str
    arguments: Mapping[str, object]


def questions() -> list[Question]:
    """Everything a binary is asked. What loads QEMU's modules comes last: that is where a mixed installation dies."""
    plain = ["query-version", "query-target", "query-machines", "query-commands", "query-command-line-options"]
    asked = [Question(name, name, {}) for name in (*plain, "query-qmp-schema")]
    asked += [Question(f"properties:{name}", "qom-list-properties", {"typename": name}) for name in TYPES]
    asked.append(Question("types", "qom-list-types", {"abstract": False}))
    return asked
