"""What a machine has of the host, in words."""

from __future__ import annotations

import pytest

from tinamou.machine.receipts import _described


@pytest.mark.parametrize(
    ("entry", "words"),
    [
        ({"kind": "hugepages", "node": None, "count": 4, "page": 2 << 20}, "4 pages of 2M on any node"),
        ({"kind": "hugepages", "node": 1, "count": 4, "page": 1 << 30}, "4 pages of 1G on node 1"),
        ({"kind": "pci", "devices": ["0000:01:00.0", "0000:01:00.1"]}, "0000:01:00.0, 0000:01:00.1"),
        ({"kind": "pci", "devices": "0000:01:00.0"}, "0000:01:00.0"),
        ({"kind": "cgroup", "places": ["/a", "/b", "/a"]}, "/a, /b"),
        ({"kind": "cgroup", "places": "/a"}, "/a"),
        ({"kind": "cpus", "cpus": "2-3"}, "2-3"),
        ({"kind": "value", "path": "/sys/x", "value": "1"}, "/sys/x"),
        ({"kind": "link", "name": "tm0"}, "interface tm0"),
        ({"kind": "rules", "name": "tm0"}, "packet filter of tm0"),
        ({"kind": "ovs-port", "name": "tm0", "bridge": "br0"}, "port tm0 of Open vSwitch bridge br0"),
        ({"kind": "network", "network": "lan", "member": "m.0"}, "network lan, as m.0"),
        ({"kind": "new", "took": 1, "machine": "m", "path": "/x", "size": 5}, "path /x, size 5"),
    ],
)
def test_in_words(entry: dict[str, object], words: str) -> None:
    assert _described(entry) == words
