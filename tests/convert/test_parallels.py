"""Machines of Parallels Desktop: the folder, its disks, and a box of Vagrant's."""

from __future__ import annotations

import io
import os
import re
import struct
import subprocess
import tarfile
from pathlib import Path

import pytest
from reading import converted, said

from tinamou.convert import box
from tinamou.errors import ImageError, SpecError
from tinamou.images import foreign
from tinamou.images.inspect import inspect_image
from tinamou.machine import inward
from tinamou.spec import load_spec

CORPUS = Path(__file__).parent / "corpus"
BUILD = (CORPUS / "build.pvs").read_text()
BASE = "{5fbaabe3-6958-40ff-92a7-860e329aab41}"


def descriptor(*images: tuple[str, str], pieces: int = 1, engine: str = "0" * 8, padding: str = "0") -> str:
    """A disk's description, as Parallels writes it."""
    listed = "".join(f"<Image><GUID>{BASE}</GUID><Type>{kind}</Type><File>{file}</File></Image>" for kind, file in images)
    storage = f"<Storage><Start>0</Start><End>2048</End><Blocksize>2048</Blocksize>{listed}</Storage>" * pieces
    return f"""<?xml version='1.0' encoding='UTF-8'?>
<Parallels_disk_image Version="1.0"><Disk_Parameters><Disk_size>2048</Disk_size><Padding>{padding}</Padding>
<Encryption><Engine>{{{engine}-0000-0000-0000-000000000000}}</Engine><Data></Data></Encryption></Disk_Parameters>
<StorageData>{storage}</StorageData></Parallels_disk_image>"""


def make(folder: Path, text: str = BUILD) -> Path:
    """The folder of that machine: its system expanding, as Parallels and as QEMU write it; its data raw."""
    folder.mkdir()
    (folder / "config.pvs").write_text(text)
    (folder / "answers.iso").write_bytes(bytes(0x8001) + b"CD001" + bytes(8192))
    raw = folder.parent / "raw"
    raw.write_bytes(os.urandom(100_000) + bytes(900_000) + os.urandom(48_576))
    for name, kind in (("system", "Compressed"), ("data", "Plain")):
        (folder / f"{name}.hdd").mkdir()
        layer = folder / f"{name}.hdd" / f"{name}.hdd.0.{BASE}.hds"
        into = "parallels" if kind == "Compressed" else "raw"
        subprocess.run(["qemu-img", "convert", "-f", "raw", "-O", into, str(raw), str(layer)], check=True)
        (folder / f"{name}.hdd" / "DiskDescriptor.xml").write_text(descriptor((kind, layer.name)))
    return folder


def test_a_machine_and_its_disks(tmp_path):
    folder = make(tmp_path / "Build Host.pvm")
    made = inward.of_file(folder)
    assert made.machine == {
        "name": "build-host",
        "cpu": {"count": 4},
        "memory": {"size": "4G"},
        "boot": {"firmware": "uefi", "secure": True},
        "tpm": {"enabled": True},
        "image": str(folder / "system.hdd" / f"system.hdd.0.{BASE}.hds"),
        "disk": [
            {"path": str(folder / "data.hdd" / f"data.hdd.0.{BASE}.hds"), "format": "raw"},
            {"path": str(folder / "answers.iso"), "interface": "cdrom"},
        ],
        "net": [
            {"mac": "00:1c:42:aa:bb:01"},
            {"mac": "00:1c:42:aa:bb:02"},
            {"type": "bridge", "network": "lab", "isolated": True, "mac": "00:1c:42:aa:bb:03"},
        ],
        "display": {"type": "vnc"},
        "devices": {"sound": "hda", "serial": 1},
    }
    assert said(made, "AutoStart", rank="lost") and said(made, "Autoprotect", rank="lost")
    assert said(made, "CpuLimitValue 50", rank="lost") and said(made, "/Users/me/src", rank="lost")
    assert said(made, "TxBps(1000000)", rank="lost")
    assert said(made, "network", "boot programs", rank="lost") and said(made, "/tmp/port", rank="lost")
    assert said(made, "TimeShift 3600", rank="check") and said(made, "ShareUserHomeDir", rank="lost")
    assert not any("open" in one.value.split() or "Password(open)" in one.value for one in made.notes)
    assert made.spec == load_spec(made.machine)


def rewritten(path: Path) -> None:
    """The layer as Parallels itself writes it: its table counts sectors, QEMU's counts clusters."""
    data = bytearray(path.read_bytes())
    sectors, entries = struct.unpack_from("<II", data, 28)
    table = [one * sectors for one in struct.unpack_from(f"<{entries}I", data, 64)]
    assert data[:16] == b"WithouFreSpacExt" and any(table)
    data[:16] = b"WithoutFreeSpace"
    struct.pack_into(f"<{entries}I", data, 64, *table)
    path.write_bytes(data)


@pytest.mark.parametrize("own", [True, False])
def test_the_layer_reads_as_what_was_written(tmp_path, own):
    folder = make(tmp_path / "a.pvm")
    layer = inward.of_file(folder).machine["image"]
    if own:
        rewritten(Path(layer))
    facts = inspect_image(Path(layer))
    assert facts.format == "parallels"
    subprocess.run(["qemu-img", "convert", "-f", facts.format, "-O", "raw", layer, str(tmp_path / "out")], check=True)
    assert (tmp_path / "out").read_bytes() == (tmp_path / "raw").read_bytes()


def test_a_disk_that_is_cut_off_is_refused_before_qemu_reads_it(tmp_path):
    """qemu-img check takes a cut-off one for sound, or ends in the middle, depending on its version."""
    layer = inward.of_file(make(tmp_path / "a.pvm")).machine["image"]
    head = Path(layer).read_bytes()[: 64 + 4]
    assert foreign.parallels_missing(head, 2 << 20) == ""
    assert "last cluster ends at byte 2097152" in foreign.parallels_missing(head, (2 << 20) - 1)
    for length, words in ((66, "table of 1 clusters"), (40, "shorter than its header")):
        with Path(layer).open("r+b") as file:
            file.truncate(length)
        with pytest.raises(ImageError, match=words):
            inspect_image(Path(layer))


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (descriptor(("Compressed", "a.hds"), pieces=3), "split into 3 pieces"),
        (descriptor(("Compressed", "a.hds"), ("Compressed", "b.hds")), "2 layers, made by snapshots"),
        (descriptor(("Compressed", "a.hds"), engine="1" * 8), "encrypted"),
        (descriptor(), "names no file"),
    ],
)
def test_a_disk_that_is_no_single_layer_is_lost_aloud(tmp_path, text, words):
    folder = make(tmp_path / "a.pvm")
    (folder / "system.hdd" / "DiskDescriptor.xml").write_text(text)
    made = inward.of_file(folder)
    assert said(made, "system.hdd", words, rank="lost")
    assert made.machine["image"].endswith("data.hdd.0." + BASE + ".hds")


def test_files_outside_the_folder_are_not_read(tmp_path):
    (tmp_path / "other.hdd").mkdir()
    (tmp_path / "other.hdd" / "DiskDescriptor.xml").write_text(descriptor(("Plain", "secret")))
    (tmp_path / "other.hdd" / "secret").write_bytes(bytes(1 << 20))
    for name in ("../other.hdd", str(tmp_path / "other.hdd")):
        folder = tmp_path / f"{len(name)}.pvm"
        made = inward.of_file(make(folder, BUILD.replace("system.hdd", name)))
        assert said(made, "other.hdd", "outside the machine's folder", rank="lost")
        assert "secret" not in str(made.machine)
    folder = make(tmp_path / "b.pvm")
    (folder / "system.hdd" / "DiskDescriptor.xml").write_text(descriptor(("Plain", str(tmp_path / "other.hdd" / "secret"))))
    with pytest.raises(ImageError, match="outside its folder"):
        inward.of_file(folder)


def test_a_raw_layer_with_the_head_of_another_format_is_refused(tmp_path):
    folder = make(tmp_path / "a.pvm")
    [layer] = (folder / "data.hdd").glob("*.hds")
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(layer), "1M"], check=True)
    with pytest.raises(ImageError, match="begins like qcow2"):
        inward.of_file(folder)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("<VmType>0<", "<VmType>2<", "macOS"),
        ("<OsType>9<", "<OsType>7<", "macOS"),
        ('<VmEncryptionInfo dyn_lists="">\n         <Enabled>0<', "<VmEncryptionInfo><Enabled>1<", "encrypted"),
    ],
)
def test_what_cannot_run_here_is_refused(old, new, words):
    assert old in BUILD
    with pytest.raises(SpecError, match=words):
        converted(BUILD.replace(old, new))


def test_an_arm_machine_and_a_windows():
    arm = converted(BUILD.replace("<Mode>1</Mode>", "<Mode>1</Mode><Type>1</Type>"))
    assert arm.machine["arch"] == "aarch64"
    windows = BUILD.replace("<OsType>9<", "<OsType>8<")
    known = converted(windows.replace("<OsNumber>2317<", "<OsNumber>2063<"))
    assert known.machine["os"] == "windows-10" and known.machine["net"][1]["model"] == "e1000"
    assert said(converted(windows), "which Windows it is", rank="check")
    undone = converted(BUILD.replace("<UndoDisks>0<", "<UndoDisks>1<"))
    assert said(undone, "data.hdd", "UndoDisks 1", rank="lost") and said(undone, "UndoDisks 1", "layer", rank="changed")
    plain = converted(re.sub(r"<(EfiEnabled|EfiSecureBoot|Type)>1<", r"<\1>0<", BUILD))
    assert "boot" not in plain.machine and "tpm" not in plain.machine


def test_a_box_of_vagrants(tmp_path):
    folder = make(tmp_path / "box.pvm")
    with tarfile.open(tmp_path / "a.box", "w:gz") as tar:
        data = b'{"provider":"parallels"}'
        info = tarfile.TarInfo("./metadata.json")
        info.size = len(data)
        tar.addfile(info, io.BytesIO(data))
        tar.add(folder, "./box.pvm")
    made = inward.of_file(tmp_path / "a.box")
    layers = [f"box.pvm/{name}.hdd/{name}.hdd.0.{BASE}.hds" for name in ("system", "data")]
    assert [one.disk.member for one in made.disks if one.disk.member.endswith(".hds")] == layers
    (tmp_path / "out").mkdir()
    found = box.unpack(tmp_path / "a.box", tmp_path / "out", {layers[0]})
    [original] = (folder / "system.hdd").glob("*.hds")
    assert found[layers[0]].read_bytes() == original.read_bytes()
