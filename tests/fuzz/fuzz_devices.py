"""What is fuzzed of devices and hosts: what a guest's script says of its devices, and recordings of other hosts."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator

from fuzz_folder import written
from fuzzing import target

from tinamou.errors import ProbeError
from tinamou.machine.pci_check import read
from tinamou.machine.recording import opened
from tinamou.probe.host import probe_host
from tinamou.probe.pci import probe_pci
from tinamou.system.rooted import Rooted

SAID = b"""@ 0000:41:00.0
numa_node 1
current_link_speed 16.0 GT/s PCIe
current_link_width 16
driver ../../../bus/pci/drivers/nvidia
region 0 0x1000000 0x1ffffff 0x40200
region 1 0x0 0x0 0x0
vector msix
"""


@target("devices of a guest", seeds=lambda: [SAID, SAID * 2])
def devices(data: bytes) -> object:
    return list(read(data.decode(errors="replace")))


def recordings() -> Iterator[bytes]:
    """One with a CPU and a device, packed and plain."""
    for mode in ("w:gz", "w"):
        with io.BytesIO() as out:
            with tarfile.open(fileobj=out, mode=mode) as archive:  # type: ignore[call-overload]
                for name, text in {
                    "sys/devices/system/cpu/online": "0\n",
                    "sys/devices/pci0000:00/0000:00:02.0/class": "0x030000\n",
                    "sys/devices/pci0000:00/0000:00:02.0/resource": "0x1000 0x1fff 0x40200\n",
                }.items():
                    member = tarfile.TarInfo(name)
                    member.size = len(text)
                    archive.addfile(member, io.BytesIO(text.encode()))
                link = tarfile.TarInfo("sys/bus/pci/devices/0000:00:02.0")
                link.type, link.linkname = tarfile.SYMTYPE, "../../../devices/pci0000:00/0000:00:02.0"
                archive.addfile(link)
            yield out.getvalue()


@target("recording of a host", seeds=recordings, errors=[ProbeError])
def recording(data: bytes) -> object:
    with opened(written(data, "host.tar")) as root:
        return probe_host(root), probe_pci(Rooted(root), {})
