"""What somebody who comes from libvirt does to a machine in a year, in one script; each step is looked at inside."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from leftovers import Leftovers
from typed import call, tinamou

pytestmark = [pytest.mark.vm, pytest.mark.slow]

MEMORY = "sed -n 's/MemTotal: *\\([0-9]*\\) kB/\\1/p' /proc/meminfo"
ADDRESS = "cat /sys/class/net/eth0/address"


@pytest.fixture
def host(leftovers: Leftovers) -> Iterator[None]:
    yield
    call("rm", "-f", *(row["name"] for row in json.loads(tinamou("ls", "--json"))))
    assert leftovers.settle() == []


def inside(name: str, script: str) -> str:
    return tinamou("exec", name, "--", "sh", "-c", script).strip()


def test_a_year_of_a_machine(host: None, tmp_path: Path) -> None:
    # create
    tinamou("run", "-d", "--name", "shop", "--net", "user", "--memory", "256M", "--disk", "size=64M", "--set", "cpu.max=4")
    assert inside("shop", "nproc; hostname") == "1\nshop"
    inside("shop", "echo stock >/dev/vda; sync")
    first, address = int(inside("shop", MEMORY)), inside("shop", ADDRESS)
    # edit memory, and see it after a restart
    text = tmp_path / "shop.toml"
    text.write_text('memory = "320M"\nname = "shop"\n[cpu]\nmax = 4\n[[net]]\ntype = "user"\n[[disk]]\nsize = "64M"\n')
    said = tinamou("edit", "shop", "--file", str(text))
    assert "memory.size: 256M -> 320M, from the next start on" in said and "+ -m 320M" in said
    assert int(inside("shop", MEMORY)) == first
    tinamou("restart", "shop")
    assert int(inside("shop", MEMORY)) - first > 40 << 10
    # add CPU live
    assert "cpu.count: 1 -> 3, now" in tinamou("set", "shop", "cpus=3")
    assert inside("shop", "nproc") == "3"
    # snapshot, and back
    tinamou("snapshot", "create", "shop", "before")
    inside("shop", "echo spoil >/dev/vda; sync")
    tinamou("snapshot", "revert", "--restart", "shop", "before")
    assert inside("shop", "head -c 5 /dev/vda; nproc") == "stock3"
    # rename
    assert call("rename", "shop", "store").returncode and "while it runs" in call("rename", "shop", "store").stderr
    tinamou("stop", "shop")
    tinamou("rename", "shop", "store")
    tinamou("start", "store")
    assert inside("store", f"head -c 5 /dev/vda; {ADDRESS}") == f"stock{address}"
    assert [one["name"] for one in json.loads(tinamou("snapshot", "ls", "store", "--json"))] == ["before"]
    # clone, in full from the running one, and linked from a template
    tinamou("clone", "store", "copy")
    tinamou("stop", "store")
    tinamou("template", "store")
    tinamou("clone", "store", "link", "--linked")
    tinamou("start", "copy")
    tinamou("start", "link")
    for name in ("copy", "link"):
        assert inside(name, "head -c 5 /dev/vda; hostname") == f"stock{name}"
        assert inside(name, ADDRESS) != address
    inside("link", "echo links >/dev/vda; sync")
    assert inside("copy", "head -c 5 /dev/vda") == "stock"
    assert "others rest on" in call("rm", "store").stderr
    # export, remove, import
    tinamou("stop", "link")
    tinamou("export", "link", str(tmp_path / "link.tinamou"))
    tinamou("rm", "link")
    tinamou("rm", "store")
    tinamou("import", str(tmp_path / "link.tinamou"), "--name", "back")
    tinamou("start", "back")
    assert inside("back", "head -c 5 /dev/vda; nproc; hostname") == "links3\nback"
    tinamou("rm", "-f", "copy", "back")
    assert json.loads(tinamou("ls", "--json")) == []
