"""A Windows is found on a disk, with its release, its drivers, and what keeps its volume from being changed."""

from __future__ import annotations

import dataclasses
import struct
from pathlib import Path

import made_windows as made
import pytest
from made_facts import DEBIAN, facts

from tinamou.facts import ImageFacts
from tinamou.images.blocks import RawBlocks, Unreadable
from tinamou.images.hive import Hive, HiveError, number_of, text_of
from tinamou.images.inspect import inspect_image
from tinamou.images.ntfs import NtfsVolume
from tinamou.images.windows_inside import existing, lacking, look, search, usable
from tinamou.parts.windows import settled
from tinamou.parts.windows_drivers import decide
from tinamou.planner import plan
from tinamou.spec import load_spec


def on_disk(folder: Path, system: bytes | None = None, software: bytes | None = None, **more: bytes) -> Path:
    """A disk with a Windows whose volume was made by code."""
    files = made.windows_files(system or made.hive(made.system()), software or made.hive(made.software()), **more)
    path = folder / "windows.img"
    path.write_bytes(made.disk(made.ntfs(files)))
    return path


def blocks(path: Path) -> RawBlocks:
    return RawBlocks(str(path))


def test_a_windows_is_found(tmp_path: Path):
    found = look(blocks(on_disk(tmp_path)))
    assert found is not None
    assert (found.name, found.version, found.build, found.arch) == ("Windows 10 Pro", (10, 0), 19045, "amd64")
    assert (found.start, found.control, found.database, found.unfit) == (made.FIRST, "ControlSet001", True, "")
    assert (found.drivers, found.boots, found.device_path) == ((), (), "%SystemRoot%\\inf")
    facts = inspect_image(on_disk(tmp_path))
    assert (facts.windows, facts.drivers) == ("Windows 10 Pro (build 19045)", ())
    assert inspect_image(on_disk(tmp_path)) == facts, "as it is remembered"


def test_releases_are_told_by_their_keys(tmp_path: Path):
    software = made.software("Windows Server 2008 R2", 7601, version=(6, 1), server=True)
    system = made.system(database=False, arch="x86", current=2)
    found = look(blocks(on_disk(tmp_path, made.hive(system), made.hive(software))))
    assert found is not None
    assert (found.version, found.server, found.arch, found.control, found.database) == (
        (6, 1),
        True,
        "x86",
        "ControlSet002",
        False,
    )


def test_the_processor_is_told_by_a_program_where_the_registry_does_not(tmp_path: Path):
    head = b"MZ".ljust(60, b"\0") + struct.pack("<I", 64) + b"PE\0\0" + struct.pack("<H", 0x14C)
    for shell, arch in ((head, "x86"), (b"MZ", ""), (head[:40], "")):
        path = on_disk(tmp_path, made.hive(made.system(arch="")), **{"Windows/System32/cmd_exe": shell})
        found = look(blocks(path))
        assert found is not None
        assert found.arch == arch


def test_drivers_that_are_there(tmp_path: Path):
    system = made.system(services=("viostor", "netkvm"))
    system["ControlSet001"]["Services"]["vioscsi"] = {"Start": made.number(3)}  # type: ignore[index]
    found = look(blocks(on_disk(tmp_path, made.hive(system))))
    assert found is not None
    assert found.drivers == ("viostor", "vioscsi", "netkvm")
    assert found.boots == ("viostor", "netkvm")
    assert usable(found) == ("viostor", "netkvm"), "a driver of disks that is started later finds no disk"


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"hiberfil_sys": b"HIBR".ljust(8192, b"\1")}, "hibernated"),
        ({"hiberfil_sys": b"hibr".ljust(4096, b"\0")}, "hibernated"),
        ({"hiberfil_sys": b"wake".ljust(4096, b"\0")}, ""),
        ({"hiberfil_sys": bytes(8192)}, ""),
    ],
)
def test_a_hibernated_one_is_told(more: dict[str, bytes], why: str, tmp_path: Path):
    found = look(blocks(on_disk(tmp_path, **more)))
    assert found is not None
    assert why in found.unfit if why else found.unfit == ""
    assert not why or "shutdown /s" in found.fix


def test_a_volume_that_was_not_closed_is_told(tmp_path: Path):
    files = made.windows_files(made.hive(made.system()), made.hive(made.software()))
    (tmp_path / "d.img").write_bytes(made.disk(made.ntfs(files, dirty=True)))
    found = look(blocks(tmp_path / "d.img"))
    assert found is not None
    assert found.unfit == "its volume was not closed (it is marked dirty)"


@pytest.mark.parametrize("which", ["SYSTEM", "SOFTWARE"])
def test_a_registry_that_was_not_written_to_the_end_is_told(which: str, tmp_path: Path):
    system = made.hive(made.system(), clean=which != "SYSTEM")
    software = made.hive(made.software(), clean=which != "SOFTWARE")
    found = look(blocks(on_disk(tmp_path, system, software)))
    assert found is not None
    assert found.unfit == f"its registry was not written to the end ({which})"


def changed(data: bytes, at: int, new: bytes) -> bytes:
    return data[:at] + new + data[at + len(new) :]


@pytest.mark.parametrize("which", ["SYSTEM", "SOFTWARE"])
@pytest.mark.parametrize(
    ("damage", "why"),
    [
        (lambda hive: b"gone" + hive[4:], "it does not begin as a hive does"),
        (lambda hive: hive[:-4096], "it says to have"),
        (lambda hive: changed(hive, 508, b"\xff\xff\xff\xff"), "the checksum of its first block is wrong"),
        (lambda hive: hive[:4096] + b"\xff" * (len(hive) - 4096), "has no sound size"),
        (lambda hive: hive[:100], "it does not begin as a hive does"),
    ],
)
def test_a_damaged_registry_is_one_line(damage, why: str, which: str, tmp_path: Path):
    hives = {"SYSTEM": made.hive(made.system()), "SOFTWARE": made.hive(made.software())}
    hives[which] = damage(hives[which])
    found = look(blocks(on_disk(tmp_path, hives["SYSTEM"], hives["SOFTWARE"])))
    assert found is not None
    assert found.unfit.startswith(f"its registry is damaged ({which}): ")
    assert why in found.unfit
    assert "\n" not in found.unfit


def test_a_damaged_volume_is_said(tmp_path: Path):
    whole = on_disk(tmp_path).read_bytes()
    table = made.FIRST + 4 * made.CLUSTER
    for at, new, why in (
        (table, b"BAAD", "does not begin with FILE"),
        (table + 5 * made.RECORD + 510, b"\0\0", "written in part"),
        (made.FIRST + 13, b"\0", "no size of a cluster"),
        (made.FIRST + 64, b"\x20", "no size of a record"),
    ):
        (tmp_path / "bad.img").write_bytes(changed(whole, at, new))
        found, kept = search(blocks(tmp_path / "bad.img"))
        assert found is None
        assert why in kept


def test_other_disks_have_none(tmp_path: Path):
    (tmp_path / "a.img").write_bytes(bytes(1 << 20))
    (tmp_path / "b.img").write_bytes(made.disk(made.ntfs({"readme.txt": b"hello"})))
    (tmp_path / "c.img").write_bytes(made.disk(bytes(1 << 20)))
    for name in "abc":
        assert search(blocks(tmp_path / f"{name}.img")) == (None, "")
    assert inspect_image(tmp_path / "b.img").windows == ""


def test_files_are_read_by_any_case_and_in_pieces(tmp_path: Path):
    content = bytes(range(256)) * 40
    path = on_disk(tmp_path, big_bin=content, **{f"pad{n}_txt": b"x" for n in range(30)})
    volume = NtfsVolume(blocks(path), made.FIRST)
    file = volume.open(("BIG.BIN",))
    assert file is not None
    assert file.size == len(content)
    assert file.read(0, 1 << 20) == content
    assert file.read(4000, 200) == content[4000:4200], "over the gap between its pieces"
    assert file.read(len(content) - 3, 10) == content[-3:]
    assert file.read(len(content) + 5, 10) == b""
    assert volume.open(("windows", "SYSTEM32", "Drivers", "disk.sys")) is not None
    assert volume.open(("windows", "nothing")) is None
    assert volume.open(("pad3.txt", "below")) is None


def test_packed_and_encrypted_files_are_not_read(tmp_path: Path):
    files = made.windows_files(made.hive(made.system()), made.hive(made.software()))
    volume = bytearray(made.ntfs(files))
    record = volume.index(b"FILE", 4 * made.CLUSTER + 24 * made.RECORD + len(made.folders_of(files)) * made.RECORD)
    record += sorted(files).index("Windows/System32/config/SYSTEM") * made.RECORD
    for flags, refused in ((0x0001, True), (0x4000, True), (0x8000, False)):
        struct.pack_into("<H", volume, record + 56 + 12, flags)
        (tmp_path / "packed.img").write_bytes(made.disk(bytes(volume)))
        found, kept = search(blocks(tmp_path / "packed.img"))
        assert (found is None) == refused
        assert not refused or "packed or encrypted" in kept


def test_a_hive_is_read_by_any_case():
    tree = {"A": {"Bee": {"N": made.number(7), "T": made.text("hello"), "Long": (3, b"x" * 5000), "None": (1, b"")}}}
    tree |= {f"Key{n}": {} for n in range(300)}
    hive = Hive(Source(made.hive(tree)))
    key = hive.find("a", "BEE")
    assert key is not None
    assert key.name == "Bee"
    assert number_of(key.value("n")) == 7
    assert text_of(key.value("t")) == "hello"
    assert {name: len(one.data) for name, one in key.values().items()} == {"N": 4, "T": 12, "Long": 5000, "None": 0}
    assert hive.find("a", "nothing") is None
    assert hive.find("key299") is not None
    assert len(list(hive.root().children())) == 301
    assert number_of(key.value("T")) is None
    assert text_of(key.value("N")) == ""


@dataclasses.dataclass
class Source:
    data: bytes

    @property
    def size(self) -> int:
        return len(self.data)

    @size.setter
    def size(self, value: int) -> None: ...

    def read(self, offset: int, length: int) -> bytes:
        return self.data[offset : offset + length]


def test_a_hive_that_leads_to_itself_or_outside_ends_in_an_error():
    data = bytearray(made.hive({"A": {"B": {"V": made.text("x")}}}))
    root = 4096 + struct.unpack_from("<I", data, 36)[0] + 4
    for at, new in ((root + 28, b"\xf8\xff\xff\x7f"), (root + 28, b"\x21\0\0\0"), (root, b"vk")):
        with pytest.raises(HiveError):
            Hive(Source(changed(bytes(data), at, new))).find("A", "B")


def test_keys_on_the_way_are_told_with_the_values_to_be_kept(tmp_path: Path):
    path = on_disk(tmp_path)
    found = look(blocks(path))
    assert found is not None
    done = decide(found, ["viostor/w10/amd64/viostor.sys", "viostor/w10/amd64/viostor.inf"])
    there = existing(blocks(path), found.start, done.edits)
    assert there["SYSTEM\\ControlSet001\\Services"] == {}
    assert "SYSTEM\\ControlSet001\\Services\\viostor" not in there
    assert list(there["SOFTWARE\\Microsoft\\Windows\\CurrentVersion"]) == ["DevicePath"]
    assert len(lacking(blocks(path), found.start, done.edits)) == len(done.edits)


def test_a_volume_that_is_none_is_unreadable(tmp_path: Path):
    (tmp_path / "no.img").write_bytes(bytes(4096))
    with pytest.raises(Unreadable, match="no NTFS"):
        NtfsVolume(blocks(tmp_path / "no.img"), 0)


# ── what the plan says ──

WINDOWS = dataclasses.replace(
    DEBIAN, name="win.qcow2", boots=("bios", "uefi"), seed="", ssh=False, agent=False, windows="Windows 10 Pro (build 19045)"
)
READY = dataclasses.replace(WINDOWS, drivers=("viostor", "vioscsi", "netkvm"))


def notes(image: ImageFacts, **settings: object) -> list[str]:
    found = plan(load_spec({"image": "win.qcow2", **settings}), facts(image))
    return [note.text for note in found.notes if note.level == "warning" and "0x7B" in note.text]


def models(image: ImageFacts, **settings: object) -> set[str]:
    found = plan(load_spec({"image": "win.qcow2", **settings}), facts(image))
    return {str(one.props.get("driver")) for one in found.elements if one.kind == "device"}


@pytest.mark.parametrize("settings", [{}, {"os": "windows-10", "windows": {"virtio": True}}])
def test_a_disk_that_windows_would_not_find_is_said(settings: dict[str, object]):
    (text,) = notes(WINDOWS, **settings)
    assert "Windows 10 Pro (build 19045) on win.qcow2" in text
    assert "viostor" in text
    assert "tinamou image inject win.qcow2 NAME --drivers virtio-win.iso" in text
    assert ("SATA" in text) and (("name its os" in text) == (not settings))


def test_nothing_is_said_where_it_starts():
    assert notes(WINDOWS, os="windows-10") == []
    assert notes(READY) == []
    assert notes(dataclasses.replace(WINDOWS, windows="")) == []
    assert notes(READY, os="windows-10") == []


def test_one_with_its_drivers_is_on_virtio():
    assert {"virtio-blk-pci", "virtio-net-pci"} <= models(READY, os="windows-10")
    assert {"ide-hd", "e1000e"} <= models(WINDOWS, os="windows-10")
    half = dataclasses.replace(READY, drivers=("viostor",))
    assert {"ide-hd", "e1000e"} <= models(half, os="windows-10")
    spec = load_spec({"image": "win.qcow2", "os": "windows-10"})
    once = settled(spec, READY.drivers)
    assert settled(once, READY.drivers) == once
    assert settled(once) == once
