"""What a firmware trusts lies in its store of variables, which every start keeps: other keys need another store."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from typed import call

from tinamou.images.inspect import inspect_image
from tinamou.state import machines
from tinamou.state.folder import write_image
from tinamou.state.record import Record, change
from tinamou.system.spawn import process_of

pytestmark = pytest.mark.skipif(not Path("/usr/share/OVMF").is_dir(), reason="no OVMF here (script/setup)")


@pytest.fixture
def store(efi_disk: Callable[..., Path]) -> Path:
    """The store of a machine that is off, and boots from a disk by UEFI."""
    disk = efi_disk()
    spec = {"name": "m", "image": str(disk), "boot": {"firmware": "uefi"}}
    with machines.making("m") as folder:
        (record,) = machines.entered(Record("m", str(folder), spec, arch="x86_64", agent=False))
        write_image(record, inspect_image(disk, arch="x86_64"))
    (record.path / "vars.fd").write_bytes(b"of before")
    return record.path / "vars.fd"


def test_it_is_made_anew_where_secure_boot_changes(store: Path) -> None:
    assert call("set", "m", "memory=256M").returncode == 0 and store.exists()
    assert call("set", "m", "--dry-run", "boot.secure=true").returncode == 0 and store.exists()
    done = call("set", "m", "boot.secure=true")
    assert done.returncode == 0, done.stderr
    assert "its firmware's variables, which hold keys and boot entries, are made anew" in done.stdout
    assert not store.exists() and store.with_name("vars.fd.before").read_bytes() == b"of before"
    store.write_bytes(b"with keys")
    assert call("set", "m", "boot.menu=true").returncode == 0 and store.read_bytes() == b"with keys"
    assert call("set", "m", "boot.secure=false").returncode == 0 and not store.exists()


def test_one_in_use_is_not_put_aside(store: Path) -> None:
    me = process_of(os.getpid())
    change(machines.find("m"), pid=me.pid, started=me.started)
    done = call("set", "m", "boot.secure=true")
    assert done.returncode != 0 and "m runs with the store of keys it has" in done.stderr, done.stderr
    assert store.read_bytes() == b"of before" and machines.find("m").later == {}
    change(machines.find("m"), pid=0, started=0)
