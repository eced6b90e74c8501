"""A file the guest has as memory: what it writes is in it, nobody else writes to it, and what would lack it is refused."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest
from typed import call, tinamou

pytestmark = pytest.mark.vm

MIB = 1 << 20
_THERE = "until head -c 1 /dev/{0} >/dev/null 2>&1 || [ $((i += 1)) -gt 600 ]; do sleep 0.1; done; "
WRITE = (
    _THERE.format("pmem0")
    + "printf 'from the guest' | dd of=/dev/pmem0 bs=1 seek=4096 conv=fsync 2>/dev/null; head -c 13 /dev/pmem0"
)
DROPPED = _THERE.format("pmem0") + "printf lost | dd of=/dev/pmem0 conv=fsync 2>/dev/null; head -c 13 /dev/pmem0"


@pytest.fixture
def memory(tmp_path: Path) -> Path:
    file = tmp_path / "memory.img"
    file.write_bytes(b"from the host".ljust(4 * MIB, b"\0"))
    file.chmod(0o600)
    return file


def test_what_the_guest_writes_is_in_the_file(every_qemu: str, memory: Path):
    out = tinamou("run", "--arch", "x86_64", "--net", "none", "--pmem", str(memory), "--", "sh", "-c", WRITE)
    assert out == "from the host"
    data = memory.read_bytes()
    assert data[4096:4110] == b"from the guest" and len(data) == 4 * MIB and data[:13] == b"from the host"
    assert not _listed(memory)


def test_what_is_only_read_is_not_changed(every_qemu: str, memory: Path):
    words = ("--arch", "x86_64", "--net", "none", "--pmem", f"path={memory},readonly=true")
    done = call("run", *words, "--", "sh", "-c", DROPPED)
    assert done.returncode == 0 and "is dropped, and it is not told" in done.stderr
    assert memory.read_bytes() == b"from the host".ljust(4 * MIB, b"\0")


def _listed(file: Path) -> bool:
    """Whether anybody but its owner may open it."""
    return "system.posix_acl_access" in os.listxattr(file) or file.stat().st_mode & 0o077 != 0


def test_a_machine_that_stays(memory: Path, tmp_path: Path):
    tinamou("run", "-d", "--name", "keeps", "--arch", "x86_64", "--net", "none", "--pmem", str(memory), "--disk", "size=4M")
    try:
        assert tinamou("exec", "keeps", "--", "sh", "-c", WRITE) == "from the host"
        assert _listed(memory) == (os.geteuid() == 0)
        if os.geteuid() == 0:
            assert str(memory) in tinamou("host")
        _refused(tmp_path)
        for more in (str(memory), f"path={memory},readonly=true"):
            other = call("run", "--net", "none", "--pmem", more, "--", "true")
            assert other.returncode > 100 and "is open for writing elsewhere" in other.stderr, other.stderr
        other = call("run", "--net", "none", "--disk", f"path={memory},format=raw", "--", "true")
        assert other.returncode > 100 and "is open for writing elsewhere" in other.stderr
        warm = call("run", "--warm", "--pmem", str(memory), "--", "true")
        assert warm.returncode > 100 and "pmem" in warm.stderr and "forkable" in warm.stderr
        tinamou("stop", "keeps")
        assert not _listed(memory)
        with memory.open("r+b") as file:
            file.write(b"from the hosT")
        tinamou("start", "keeps")
        assert tinamou("exec", "keeps", "--", "sh", "-c", WRITE) == "from the hosT"
        tinamou("kill", "keeps")
        told = json.loads(tinamou("set", "keeps", "pmem[0].readonly=true", "--json"))
        assert [(one["field"], one["effect"]) for one in told["changes"]] == [("pmem[0].readonly", "next start")]
        tinamou("snapshot", "create", "keeps")
        tinamou("set", "keeps", "pmem=")
        tinamou("clone", "keeps", "other")
        assert json.loads(tinamou("show", "other", "--json"))["spec"].get("pmem") is None
    finally:
        call("rm", "-f", "keeps", "other")
    assert memory.exists() and not _listed(memory)


def _refused(place: Path) -> None:
    """Everything that would lack the file, or the device's state."""
    for words in (
        ("snapshot", "create", "keeps"),
        ("backup", "create", "keeps", str(place / "shelf")),
        ("clone", "keeps", "other"),
        ("export", "keeps", str(place / "keeps.tar")),
        ("checkpoint", "keeps"),
        ("fork", "keeps"),
        ("suspend", "keeps"),
        ("upgrade", "keeps"),
    ):
        done = call(*words)
        assert done.returncode > 100 and "pmem" in done.stderr and "Traceback" not in done.stderr, (words, done.stderr)
    assert tinamou("exec", "keeps", "--", "echo", "on") == "on\n"
    shutil.rmtree(place / "shelf", ignore_errors=True)
