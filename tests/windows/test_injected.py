"""Drivers are put into a real volume with real hives, by ntfs-3g and hivexsh, and read back by hivexget and regipy."""

from __future__ import annotations

import asyncio
import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import made_windows as made
import pytest

from tinamou.errors import ImageError
from tinamou.images import layers, windows_mender
from tinamou.images.blocks import RawBlocks
from tinamou.images.inspect import disk_of, inspect_image
from tinamou.images.windows_inside import existing, lacking, look, search
from tinamou.machine.injecting import _write, inject
from tinamou.parts.windows_drivers import FOLDER, Injection, decide
from tinamou.system.iso import build_iso
from tinamou.system.paths import image_dir

DRIVERS = {"viostor": "viostor", "vioscsi": "vioscsi", "NetKVM": "netkvm"}
TOOLS = ("ntfs-3g", "mkntfs", "hivexsh", "hivexget", "hivexregedit")
mounts = pytest.mark.skipif(
    os.geteuid() != 0 or not os.access("/dev/fuse", os.W_OK) or not all(map(shutil.which, TOOLS)),
    reason="needs root, /dev/fuse, and script/packages test: ntfs-3g, libhivex-bin, libwin-hivex-perl",
)
WRITTEN = made.software("Windows 10 Enterprise Evaluation", 17763)


def disc() -> dict[str, str | bytes]:
    """What the disc of drivers has, for Windows 10 and 11."""
    files: dict[str, str | bytes] = {
        f"{folder}/{release}/amd64/{name}.{ending}": f"{folder} {release} {ending}\n" * 99
        for folder, name in DRIVERS.items()
        for release in ("w10", "w11")
        for ending in ("sys", "inf", "cat", "pdb")
    }
    return {**files, "guest-agent/qemu-ga-x86_64.msi": b"msi" * 999}


def windows(folder: Path, **more: bytes) -> Path:
    """A volume by mkntfs with hives by hivexregedit, its folders in another case than is usual."""
    system, software = made.merged(folder / "system", made.system()), made.merged(folder / "software", WRITTEN)
    files = made.windows_files(system, software, **more)
    cased = {name.replace("/config/", "/Config/").replace("/drivers/", "/Drivers/"): one for name, one in files.items()}
    cased["Windows/System32/Drivers/VIOSTOR.SYS"] = b"an earlier one"
    return made.real_volume(folder / "volume", cased)


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Path]:
    """The guest's script with this host's places instead of the guest's."""
    for name, content in disc().items():
        path = tmp_path / "disc" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    (tmp_path / "mnt").mkdir()
    text = windows_mender.script()
    for old, new in (
        ("/mnt/windows", f"{tmp_path}/mnt"),
        ("/mnt/disc", f"{tmp_path}/disc"),
        ("disc=$(disk disk1)", ""),
        ("modprobe -a isofs fuse", ""),
        ("export GCONV_PATH=/usr/lib/gconv", f"GCONV_PATH={tmp_path}"),
        ("grep -q ", "true "),
        ("mkdir -p", "true"),
        ("device=$(disk disk0)", "device=none"),
        ('"/dev/$device"', f"{tmp_path}/volume"),
    ):
        assert old in text, old
        text = text.replace(old, new)
    (tmp_path / "run.sh").write_text(text)
    (tmp_path / "told").mkdir()
    yield tmp_path
    subprocess.run(["umount", str(tmp_path / "mnt")], check=False, capture_output=True)


def put(here: Path) -> subprocess.CompletedProcess[str]:
    words = ["sh", str(here / "run.sh"), "put", "0", str(here / "told")]
    return subprocess.run(words, capture_output=True, text=True, check=False)


def done_to(here: Path) -> Injection:
    disk = RawBlocks(str(here / "volume"))
    found = look(disk)
    assert found is not None
    done = decide(found, [f"./{name}" for name in disc()])
    _write(here / "told", done, existing(disk, found.start, done.edits))
    ended = put(here)
    assert (ended.returncode, ended.stderr) == (0, "")
    return done


def exported(hive: Path) -> str:
    words = ["hivexregedit", "--export", "--prefix", "HKLM", str(hive), "\\"]
    return subprocess.run(words, capture_output=True, text=True, check=True).stdout


@mounts
def test_other_tools_read_what_was_written(here: Path):
    regipy = pytest.importorskip("regipy.registry", reason="pip install regipy")
    done = done_to(windows(here).parent)
    assert lacking(RawBlocks(str(here / "volume")), 0, done.edits) == []
    with made.mounted(here / "volume", here / "mnt") as root:
        hives = {name: root / "Windows/System32/Config" / name for name in ("SYSTEM", "SOFTWARE")}
        for edit in done.edits:
            got = regipy.RegistryHive(str(hives[edit.hive])).get_key(f"\\{edit.key}").get_values(as_json=True)
            assert edit.name.lower() in {str(one.name).lower().replace("(default)", "") for one in got}, edit
        service = "\\ControlSet001\\Services\\viostor"
        asked = {
            name: subprocess.run(["hivexget", hives["SYSTEM"], service, name], capture_output=True, text=True).stdout.strip()
            for name in ("Start", "Group", "ImagePath", "Type")
        }
        assert asked == {"Start": "0", "Group": "SCSI miniport", "ImagePath": "system32\\drivers\\viostor.sys", "Type": "1"}
        values = regipy.RegistryHive(str(hives["SYSTEM"])).get_key(service).get_values()
        assert {one.name: one.value for one in values} == {
            "Type": 1,
            "Start": 0,
            "Group": "SCSI miniport",
            "ErrorControl": 1,
            "ImagePath": "system32\\drivers\\viostor.sys",
        }
        here_now = regipy.RegistryHive(str(hives["SOFTWARE"])).get_key("\\Microsoft\\Windows\\CurrentVersion")
        assert here_now.get_value("DevicePath") == "%SystemRoot%\\inf;%SystemRoot%\\Drivers\\VirtIO"
        text = exported(hives["SYSTEM"])
        assert "[HKLM\\DriverDatabase\\DeviceIds\\PCI\\VEN_1AF4&DEV_1042&REV_01]" in text
        assert "[HKLM\\ControlSet001\\Services\\Tcpip\\Parameters]" in text, "what was there stays"


@mounts
def test_files_lie_where_they_should_and_twice_is_as_once(here: Path):
    windows(here)
    done_to(here)
    with made.mounted(here / "volume", here / "mnt") as root:
        drivers = root / "Windows/System32/Drivers"
        assert sorted(one.name for one in drivers.iterdir()) == ["VIOSTOR.SYS", "disk.sys", "vioscsi.sys"]
        assert (drivers / "VIOSTOR.SYS").read_text().startswith("viostor w10 sys")
        staged = {one.name for one in (root / FOLDER).iterdir()}
        assert {"netkvm.inf", "netkvm.sys", "viostor.cat", "qemu-ga-x86_64.msi", "firstboot.cmd"} <= staged
        assert not any(name.endswith(".pdb") for name in staged)
        assert b"\r\nsc delete tinamou-firstboot\r\n" in (root / FOLDER / "firstboot.cmd").read_bytes()
        once = {name: exported(root / "Windows/System32/Config" / name) for name in ("SYSTEM", "SOFTWARE")}
    again = done_to(here)
    assert [edit.name for edit in again.edits].count("DevicePath") == 0
    with made.mounted(here / "volume", here / "mnt") as root:
        assert {one.name for one in (root / FOLDER).iterdir()} == staged
        assert {name: exported(root / "Windows/System32/Config" / name) for name in once} == once
    found = look(RawBlocks(str(here / "volume")))
    assert found is not None
    assert (found.boots, found.unfit) == (("viostor", "vioscsi"), "")


@mounts
def test_a_hibernated_volume_is_refused_by_the_tool_too(here: Path):
    windows(here, hiberfil_sys=b"hibr".ljust(8192, b"\1"))
    found = look(RawBlocks(str(here / "volume")))
    assert found is not None
    assert "hibernated" in found.unfit
    (here / "told" / "copies").write_text("")
    (here / "told" / "texts").write_text("")
    ended = put(here)
    assert ended.returncode == 1
    assert "hibernated" in ended.stderr
    assert ended.stderr.count("\n") == 0


@mounts
def test_hives_by_other_tools_are_read_as_they_read_them(tmp_path: Path):
    """Both ways: a hive made by code here is taken by hivex, and one filled by hivexregedit is read here."""
    (tmp_path / "code").write_bytes(made.hive(made.system()))
    made.merged(tmp_path / "tool", made.system())
    assert exported(tmp_path / "code") == exported(tmp_path / "tool")


# ── the whole of it ──


def disc_file(folder: Path) -> Path:
    build_iso(folder / "virtio-win.iso", "VIRTIO", disc())
    return folder / "virtio-win.iso"


def source(folder: Path, **more: bytes) -> Path:
    files = made.windows_files(made.hive(made.system()), made.hive(WRITTEN), **more)
    (folder / "win.img").write_bytes(made.disk(made.ntfs(files)))
    return folder / "win.img"


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TINAMOU_CACHE", str(tmp_path / "cache"))
    return image_dir()


@pytest.mark.parametrize(
    ("more", "why"),
    [
        ({"hiberfil_sys": b"HIBR".ljust(8192, b"\1")}, "hibernated"),
        ({"Windows/System32/config/SYSTEM": b"regf" * 2000}, "damaged"),
    ],
)
def test_what_may_not_be_changed_is_refused_at_once(more, why: str, tmp_path: Path, images: Path):
    with pytest.raises(ImageError) as caught:
        asyncio.run(inject(str(source(tmp_path, **more)), "win", disc_file(tmp_path)))
    assert caught.value.what.endswith(" cannot be changed now")
    assert why in caught.value.why
    assert caught.value.fix
    assert not (images / "win").exists()


def test_a_disc_that_is_none_and_a_disk_without_a_windows_are_refused(tmp_path: Path, images: Path):
    disk = source(tmp_path)
    with pytest.raises(ImageError, match="does not exist"):
        asyncio.run(inject(str(disk), "win", tmp_path / "virtio-win.iso"))
    with pytest.raises(ImageError, match="is no disc of drivers"):
        asyncio.run(inject(str(disk), "win", disk))
    (tmp_path / "other.img").write_bytes(made.disk(made.ntfs({"a.txt": b"a"})))
    with pytest.raises(ImageError, match="no Windows was found"):
        asyncio.run(inject(str(tmp_path / "other.img"), "win", disc_file(tmp_path)))
    with pytest.raises(ImageError, match="no Windows is installed"):
        asyncio.run(inject("tiny", "win", tmp_path / "virtio-win.iso"))
    with pytest.raises(ImageError, match="no Windows is installed"):
        asyncio.run(inject(str(tmp_path / "virtio-win.iso"), "win", tmp_path / "virtio-win.iso"))
    assert not (images / "win").exists()


@pytest.mark.vm
@pytest.mark.slow
@mounts
def test_an_image_with_drivers_is_made_in_a_machine_of_its_own(tmp_path: Path, state: Path, cache: Path):
    volume = windows(tmp_path).read_bytes()
    (tmp_path / "win.img").write_bytes(made.disk(volume))
    before = (tmp_path / "win.img").read_bytes()
    name = f"test-windows-{os.getpid()}"
    try:
        done = asyncio.run(inject(str(tmp_path / "win.img"), name, disc_file(tmp_path)))
        assert done.done is not None
        assert done.image.drivers == ("viostor", "vioscsi", "netkvm")
        assert done.image.windows == "Windows 10 Enterprise Evaluation (build 17763)"
        found, kept = search(disk_of(done.image.disk))
        assert found is not None, kept
        assert (found.boots, found.unfit) == (("viostor", "vioscsi"), "")
        assert inspect_image(done.image.disk).drivers == ("viostor", "vioscsi")
        assert (tmp_path / "win.img").read_bytes() == before, "the source is only read"
        again = asyncio.run(inject(str(tmp_path / "win.img"), name, tmp_path / "virtio-win.iso"))
        assert (again.done, again.image.disk) == (None, done.image.disk)
        build_iso(tmp_path / "lean.iso", "LEAN", {"viostor/w7/x86/viostor.sys": "x"})
        with pytest.raises(ImageError, match="no viostor"):
            asyncio.run(inject(str(tmp_path / "win.img"), name, tmp_path / "lean.iso"))
        assert layers.layer(name, "x86_64") == done.image, "the name stands for what it stood for"
        subprocess.run(["qemu-img", "convert", "-O", "raw", done.image.disk, str(tmp_path / "flat.img")], check=True)
        (tmp_path / "volume").write_bytes((tmp_path / "flat.img").read_bytes()[made.FIRST : made.FIRST + len(volume)])
        with made.mounted(tmp_path / "volume", tmp_path / "mnt") as root:
            hive = root / "Windows/System32/Config/SYSTEM"
            words = ["hivexget", str(hive), "\\ControlSet001\\Services\\viostor", "ImagePath"]
            said = subprocess.run(words, capture_output=True, text=True, check=True).stdout
            assert said.strip() == "system32\\drivers\\viostor.sys"
            assert (root / FOLDER / "netkvm.inf").read_text().startswith("NetKVM w10 inf")
    finally:
        shutil.rmtree(image_dir() / name, ignore_errors=True)
