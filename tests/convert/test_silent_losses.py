"""What a source says of a device beside what is read of it is told, not dropped."""

from __future__ import annotations

from reading import said
from test_faults import domain

DISK = (
    "<disk type='file' device='disk'><driver name='qemu' type='qcow2'/><source file='/srv/a.qcow2'/>"
    "<target dev='vda' bus='virtio'/><iotune>{limits}</iotune></disk>"
)


def test_limits_of_one_direction_are_told():
    for limit in ("write_bytes_sec", "read_bytes_sec", "read_iops_sec", "write_iops_sec", "total_bytes_sec_max"):
        found = domain(DISK.format(limits=f"<{limit}>1000000</{limit}>"))
        assert said(found, limit, "1000000", rank="lost"), limit
    both = domain(DISK.format(limits="<total_bytes_sec>1000000</total_bytes_sec>"))
    assert not said(both, "total_bytes_sec", rank="lost")
