"""Limits are written the way each version of control groups reads them: whole numbers of bytes, microseconds."""

import pytest

from tinamou.system.cgroups import Limits
from tinamou.units import Size

LIMITS = Limits(cpu=1.5, memory=Size.parse("64M"), read=Size.parse("1M"), write=Size.parse("10M"), device="254:0", pids=99)


@pytest.mark.parametrize(
    ("controller", "version", "values"),
    [
        ("cpu", "v2", {"cpu.max": "150000 100000"}),
        ("cpu", "v1", {"cpu.cfs_quota_us": "150000"}),
        ("pids", "v1", {"pids.max": "99"}),
        ("pids", "v2", {"pids.max": "99"}),
        ("memory", "v2", {"memory.max": "67108864"}),
        ("memory", "v1", {"memory.limit_in_bytes": "67108864"}),
        ("io", "v2", {"io.max": "254:0 rbps=1048576 wbps=10485760"}),
        (
            "io",
            "v1",
            {"blkio.throttle.read_bps_device": "254:0 1048576", "blkio.throttle.write_bps_device": "254:0 10485760"},
        ),
    ],
)
def test_values(controller, version, values):
    assert LIMITS.values(controller, version) == values


def test_only_what_is_limited():
    assert Limits(write=Size.parse("10M"), device="254:0").values("io", "v2") == {"io.max": "254:0 wbps=10485760"}
    assert Limits(memory=1 << 20).controllers() == ("memory",)
