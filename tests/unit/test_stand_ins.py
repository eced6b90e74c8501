"""What stands in for a tap while another QEMU starts: nobody sees it, and it says when it ends. Which files are the same."""

from __future__ import annotations

import errno
import os
import select
import socket
import subprocess
from contextlib import closing

import pytest

from tinamou.system import tap
from tinamou.system.descriptors import numbers_of, taps_of
from tinamou.system.holding import why_not

pytestmark = pytest.mark.root


@pytest.mark.skipif(not os.access("/dev/net/tun", os.R_OK | os.W_OK), reason="/dev/net/tun cannot be opened on this host")
@pytest.mark.parametrize("count", [1, 3])
def test_nobody_sees_it_and_who_waits_for_it_is_told_of_its_end(count: int) -> None:
    before = socket.if_nameindex()
    made = tap.stand_in(count)
    try:
        with closing(made.rtnetlink):
            assert socket.if_nameindex() == before
            assert taps_of(os.getpid(), "stands-in") == made.queues and len(made.queues) == count
            waits = select.poll()
            for queue in made.queues:
                waits.register(queue, select.POLLIN)
            assert waits.poll(0) == []
            made.remove()
            assert sorted(number for number, _ in waits.poll(10000)) == made.queues
            with pytest.raises(OSError, match="stood in") as raised:
                made.remove()
            assert raised.value.errno == errno.ENODEV
    finally:
        for queue in made.queues:
            os.close(queue)


@pytest.mark.skipif(bool(why_not()), reason=f"files are not handed on here: {why_not()}")
def test_the_same_file_is_told_from_another_of_the_same_name() -> None:
    one, other = os.open("/dev/null", os.O_RDWR), os.open("/dev/null", os.O_RDWR)
    again = os.dup(one)
    try:
        with subprocess.Popen(["sleep", "60"], pass_fds=[one, again]) as child:
            try:
                assert numbers_of(child.pid, one) == numbers_of(child.pid, again) == sorted((one, again))
                assert numbers_of(child.pid, other) == []
            finally:
                child.kill()
    finally:
        for descriptor in (one, other, again):
            os.close(descriptor)
