"""Inside the lab: forks of machines whose guests run on the processor, by KVM."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tinamou import Machine
from tinamou.machine.checkpoints import every
from tinamou.snapshots import branching
from tinamou.snapshots.resting import discard

pytestmark = [pytest.mark.lab, pytest.mark.timeout(900)]


@pytest.fixture(autouse=True)
def _no_checkpoints_left() -> Iterator[None]:
    yield
    for one in every():
        discard(Path(one.directory))


def test_memory_is_frozen_under_kvm_and_every_fork_is_the_machine() -> None:
    """The kernel forgets where a guest's memory was when that is mapped anew, and finds it again."""
    with Machine(accel="kvm", forkable=True, net=[], memory="256M", cpus=2, timeout=500) as source:
        source.run("dd if=/dev/urandom of=/tmp/f bs=1M count=20 2>&1; sha256sum /tmp/f > /tmp/sum", timeout=300)
        first = source.checkpoint("first")
        assert (first.kind, first.why) == ("instant", branching._Frozen.why)
        source.run("echo later > /tmp/later")
        with source.fork() as fork:
            assert fork.run("sha256sum -c /tmp/sum; cat /tmp/later", timeout=300).text == "/tmp/f: OK\nlater"
            with fork.fork() as child:
                assert child.run("sha256sum -c /tmp/sum; cat /tmp/later", timeout=300).text == "/tmp/f: OK\nlater"
                child.run("echo child > /tmp/f; sync")
            assert fork.run("sha256sum -c /tmp/sum", timeout=300).text == "/tmp/f: OK"
        assert source.run("sha256sum -c /tmp/sum; cat /tmp/later", timeout=300).text == "/tmp/f: OK\nlater"
