"""A whole machine in one file: what is in it, that it comes back whole, and that no file reaches into the host."""

from __future__ import annotations

import asyncio
import io
import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from leftovers import Leftovers
from test_cloned import reads, write
from typed import TINAMOU, call

import tinamou
from tinamou.errors import ImageError, SpecError, StateError, TinamouError
from tinamou.machine.importing import described, extracted
from tinamou.machine.parts_of import nics_of
from tinamou.operations import keeping, machines
from tinamou.snapshots.packed import Piece, Reader, Writer
from tinamou.spec import dump_spec, load_spec
from tinamou.state.machines import find, machines_dir

pytestmark = pytest.mark.vm

SPEC: dict[str, Any] = {"name": "one", "disk": [{"size": "8M"}], "net": ["user"], "memory": {"size": "192M"}}


@pytest.fixture
def off(fake_qemu: Path) -> str:
    asyncio.run(machines.launch(load_spec(SPEC), wait=False))
    asyncio.run(machines.stop("one"))
    write(find("one").path / "disk0.qcow2", "a")
    return "one"


Pieces = dict[str, bytes]
_MADE: list[bytes] = []


@pytest.fixture
def exported(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    """The machine in a file, and not on this host any more; made once."""
    file = tmp_path / "one"
    if not _MADE:
        name = request.getfixturevalue("off")
        asyncio.run(keeping.export(name, file))
        asyncio.run(machines.remove([name]))
        _MADE.append(file.read_bytes())
    file.write_bytes(_MADE[0])
    return file


def unpacked(file: Path) -> dict[str, bytes]:
    data = subprocess.run(["zstd", "-dcq", str(file)], check=True, capture_output=True).stdout
    return {piece.name: piece.whole() for piece in Reader(io.BytesIO(data), "it").pieces()}


def packed(file: Path, pieces: dict[str, bytes]) -> Path:
    out = io.BytesIO()
    writer = Writer(out)
    for name, data in pieces.items():
        writer.add(name, len(data), io.BytesIO(data))
    writer.close()
    file.write_bytes(subprocess.run(["zstd", "-cq"], input=out.getvalue(), check=True, capture_output=True).stdout)
    return file


def test_there_and_back(off: str, tmp_path: Path, leftovers: Leftovers) -> None:
    file, before = tmp_path / "one.tinamou", find(off)
    (before.path / "vars.fd").write_bytes(b"variables")
    (before.path / "tpm").mkdir()
    (before.path / "tpm/tpm2-00.permall").write_bytes(b"sealed")
    done = call("export", off, str(file))
    assert done.returncode == 0, done.stderr
    assert "exists already" in call("export", off, str(file)).stderr
    with pytest.raises(StateError, match="exists already"):
        tinamou.open(off).export(file)
    assert call("export", off, str(file), "--force").returncode == 0
    assert not list(before.path.glob("*.part")) and file.stat().st_mode & 0o777 == 0o600
    listed = subprocess.run(["tar", "--zstd", "-tf", str(file)], check=True, capture_output=True, text=True).stdout.split()
    assert listed[0] == "machine.json" and listed[-1] == "SHA256SUMS"
    assert {"kernel", "initrd", "disk0.qcow2", "vars.fd", "tpm2-00.permall"} <= set(listed)
    [card] = nics_of(before)
    asyncio.run(machines.remove([off]))
    assert call("import", str(file)).stdout == "one\n"
    now = find(off)
    assert (now.spec, now.former, now.base) == (
        {**SPEC, "disk": [{"size": "8M", "number": 0}], "net": [{"type": "user"}]},
        [],
        "",
    )
    assert nics_of(now)[0].mac == card.mac and reads(off) == "a"
    assert (now.path / "vars.fd").read_bytes() == b"variables" and (
        now.path / "tpm/tpm2-00.permall"
    ).read_bytes() == b"sealed"
    assert (now.path / "kernel").stat().st_mode & 0o777 == 0o644 and (now.path / "id_ed25519").exists() is False
    shutil.rmtree(now.path / "tpm")
    asyncio.run(machines.start(off, wait=False))
    asyncio.run(machines.stop(off))
    twin = tinamou.import_machine(file, "two")
    assert twin.record.base == off and nics_of(twin.record)[0].mac != card.mac and reads("two") == "a"
    twin.rename("three")
    twin.clone("four", linked=True)
    asyncio.run(machines.remove([off, "three"]))
    asyncio.run(machines.start("four", wait=False))
    asyncio.run(machines.stop("four"))
    assert reads("four") == "a"
    asyncio.run(machines.remove(["four"]))
    assert leftovers.settle() == []


@pytest.mark.slow
def test_through_a_pipe(off: str, tmp_path: Path) -> None:
    line = f"{' '.join(TINAMOU)} export one - | {' '.join(TINAMOU)} import - --name two"
    done = subprocess.run(
        ["bash", "-c", f"set -o pipefail; {line}"], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.stdout == "two\n", done.stderr
    assert reads("two") == "a"
    assert "not exported to virtualbox" in call("export", off, "/nowhere", "--to", "virtualbox").stderr


@pytest.mark.slow
def test_one_without_disks(fake_qemu: Path, tmp_path: Path) -> None:
    asyncio.run(machines.launch(load_spec({"name": "bare", "memory": "192M"}), wait=False))
    asyncio.run(machines.stop("bare"))
    file = tmp_path / "bare"
    assert tinamou.open("bare").export(file) == file.stat().st_size
    assert set(unpacked(file)) >= {"machine.json", "kernel", "initrd"}
    again = tinamou.import_machine(file, "again")
    asyncio.run(machines.start("again", wait=False))
    asyncio.run(machines.kill("again"))
    assert again.record.base == "bare"


def _manifest(pieces: dict[str, bytes], change: Callable[[dict[str, Any]], object]) -> dict[str, bytes]:
    data = json.loads(pieces["machine.json"])
    change(data)
    return {**pieces, "machine.json": json.dumps(data).encode()}


def test_what_reaches_into_the_host_is_left_out(exported: Path, tmp_path: Path) -> None:
    pieces = unpacked(exported)

    def reach(data: dict[str, Any]) -> None:
        data["spec"] |= {
            **{"share": [{"path": "/etc"}], "qemu_args": ["-snapshot"], "pci": ["00:1f.0"], "kernel": "/etc/shadow"},
            **{"confine": {"without": ["files"]}, "security": {"syscalls": "qemu"}, "boot": {"kernel": "/etc/shadow"}},
            "disk": [*data["spec"]["disk"], {"path": "/etc/shadow", "format": "raw", "readonly": True, "number": 1}],
            "net": [{"type": "tap", "interface": "eth0"}, {"type": "user", "forward": ["2222:22"]}],
        }

    made = asyncio.run(keeping.take_in(packed(tmp_path / "two", _manifest(pieces, reach)), "two"))
    assert made.record.spec == {
        **{"name": "two", "memory": {"size": "192M"}, "disk": [{"size": "8M", "number": 0}]},
        "net": [{}, {"type": "user"}],
    }
    said = "\n".join(made.notes)
    for one in (
        "share",
        "qemu_args",
        "pci",
        "kernel",
        "confine",
        "security",
        "boot.kernel",
        "disk /etc/shadow",
        "net[0].interface",
    ):
        assert f"{one} was left out" in said, said
    assert "net[1].forward was left out" in said


def test_what_is_about_the_guest_is_taken() -> None:
    """A disk whose blocks were of another size, or a board of another kind, would be another machine to its guest."""
    disk = {"path": "/data/db.raw", "format": "raw", "number": 0, "interface": "virtio", "block_size": 4096, "port": 3}
    guest = {
        **{"os": "windows-11", "clock": {"base": "localtime"}, "smbios": {"serial": "77"}, "memory": {"size": "192M"}},
        "windows": {"drivers": "/iso/virtio-win.iso", "user": "ada", "password_file": "/etc/secret"},
    }
    spec = {"name": "one", **guest, "disk": [{**disk, "cache": "none", "aio": "native"}]}
    manifest = {"name": "one", "spec": spec, "disks": {"disk0": 8 << 20}}
    taken, notes = described(manifest, "", trust=False)
    kept = {"number": 0, "interface": "virtio", "block_size": 4096, "cache": "none", "size": "8M"}
    assert dump_spec(taken) == {"name": "one", **guest, "windows": {"virtio": True}, "disk": [kept]}
    said = ("windows.drivers", "windows.password_file", "windows.user", "disk0.aio", "disk0.port")
    assert [note.partition(" was left out: ")[0] for note in notes] == list(said)
    whole, none = described(manifest, "", trust=True)
    assert dump_spec(whole)["disk"] == [{**kept, "aio": "native", "port": 3}] and none == []


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda p: {"other": b"", **p}, "does not begin with a small machine.json"),
        (lambda p: {**p, "passwd": b"x"}, "passwd is no file of one"),
        (lambda p: {**p, "disk7.qcow2": b"x"}, "disk7.qcow2 is no file of one"),
        (lambda p: {**p, "vars.fd": bytes((64 << 20) + 1)}, "vars.fd is 64M: at most 64M|vars.fd is .*: at most"),
        (lambda p: {k: v for k, v in p.items() if k != "disk0.qcow2"}, "it lacks disk0.qcow2"),
        (lambda p: _manifest(p, lambda d: d["disks"].update(disk0=16 << 20)), "has another size"),
        (lambda p: _manifest(p, lambda d: d["disks"].update(disk0="8M")), "odd values"),
        (lambda p: _manifest(p, lambda d: d.update(format=2)), "format 2"),
        (lambda p: _manifest(p, lambda d: d.update(name="../two")), "name = '../two'"),
        (lambda p: _manifest(p, lambda d: d["image"].update(arch=7)), "image.*damaged|arch"),
        (lambda p: {**p, "machine.json": b"["}, "description of an exported machine is damaged"),
        (lambda p: {**p, "disk0.qcow2": p["disk0.qcow2"][: 70 << 10]}, "truncated|damaged"),
    ],
)
def test_hostile_files(
    exported: Path, tmp_path: Path, damage: Callable[[dict[str, bytes]], dict[str, bytes]], said: str
) -> None:
    with pytest.raises(TinamouError) as error:
        asyncio.run(keeping.take_in(packed(tmp_path / "bad", damage(unpacked(exported)))))
    assert re.search(said, str(error.value)), error.value
    assert not list(machines_dir().iterdir())


def test_how_large_the_file_of_a_disk_may_be(tmp_path: Path) -> None:
    """Twice what the disk holds, for clusters of snapshots, and 64M for tables."""
    manifest = {"disks": {"disk0": 8 << 20}, "boots": []}

    def taken(size: int) -> list[str]:
        piece = Piece("disk0.qcow2", size, lambda _: b"")
        return extracted(iter([piece]), tmp_path, manifest, lambda *_: None)

    with pytest.raises(StateError, match=r"disk0\.qcow2 is .*: at most 80M fit"):
        taken((80 << 20) + 1)
    assert taken(80 << 20) == ["disk0"]


def test_a_disk_that_names_another_file(exported: Path, tmp_path: Path) -> None:
    pieces = unpacked(exported)
    over = tmp_path / "over.qcow2"
    subprocess.run(
        ["qemu-img", "create", "-q", "-u", "-f", "qcow2", "-b", "/etc/shadow", "-F", "raw", str(over), "8M"], check=True
    )
    with pytest.raises(ImageError, match="is not taken"):
        asyncio.run(keeping.take_in(packed(tmp_path / "bad", {**pieces, "disk0.qcow2": over.read_bytes()}), "two"))
    assert tinamou.machines() == []


def test_damage_on_the_way(exported: Path, tmp_path: Path) -> None:
    data = exported.read_bytes()
    for bad in (data[: len(data) // 2], b"", b"not compressed at all", data[:2000] + b"x" * 100 + data[2100:]):
        (tmp_path / "bad").write_bytes(bad)
        with pytest.raises(StateError, match=r"damaged|not exported"):
            asyncio.run(keeping.take_in(tmp_path / "bad", "two"))
    (tmp_path / "machine.json").symlink_to("/etc/shadow")
    line = f"tar -C {tmp_path} -c machine.json | zstd -cq"
    links = subprocess.run(["bash", "-c", line], check=True, capture_output=True)
    (tmp_path / "bad").write_bytes(links.stdout)
    with pytest.raises(StateError, match="no plain file"):
        asyncio.run(keeping.take_in(tmp_path / "bad", "two"))
    assert tinamou.machines() == []
    asyncio.run(keeping.take_in(exported))
    with pytest.raises(StateError, match="exists already"):
        asyncio.run(keeping.take_in(exported))
    with pytest.raises(SpecError):
        asyncio.run(keeping.take_in(exported, "No Name"))
