"""A clone of a Debian guest is nobody's twin: host keys, machine id, name and addresses of its own; a rename keeps all."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from typed import call, tinamou

pytestmark = [pytest.mark.vm, pytest.mark.slow]

KEY = "cut -d' ' -f2 /etc/ssh/ssh_host_ed25519_key.pub"
WHO = f"cat /etc/machine-id; {KEY}; hostname; cat /sys/class/net/e*/address | head -n 1"
READY = "cloud-init status --wait >/dev/null; "


@pytest.fixture
def one() -> Iterator[str]:
    tinamou("run", "-d", "--name", "one", "--memory", "512M", "debian")
    yield "one"
    for name in ("one", "uno", "two"):
        call("rm", "-f", name)


def who(name: str) -> list[str]:
    return tinamou("exec", name, "--", "sh", "-c", READY + WHO).split()


def test_who_a_clone_is(one: str) -> None:
    before = who(one)
    assert before[2] == "one" and len(before) == 4
    tinamou("stop", one)
    tinamou("clone", one, "two", "--linked")
    tinamou("rename", one, "uno")
    tinamou("start", "two")
    clone = who("two")
    assert clone[2] == "two" and not set(clone) & set(before), (before, clone)
    assert tinamou("ssh", "two", "--", "hostname").strip() == "two"
    tinamou("kill", "two")
    tinamou("start", "uno")
    assert who("uno") == before
    assert tinamou("ssh", "uno", "--", "hostname").strip() == "one"
