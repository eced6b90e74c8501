"""A Linux whose disk was on another bus: mended in a machine of its own, so that it starts on virtio; or told why not."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import shutil
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path

import made_windows
import old_debian
import pytest
from typed import call

from tinamou.convert.assemble import Converted, Placed
from tinamou.convert.result import Disk, Note
from tinamou.errors import GuestError
from tinamou.facts import ImageFacts
from tinamou.images import layers
from tinamou.images.importing import import_image
from tinamou.images.resolve import resolve
from tinamou.machine import mending
from tinamou.machine.mending import mend, mend_imported

UUID = "6f1d7c52-1111-4000-8000-000000000003"
FSTAB = "# /dev/sda by hand\n/dev/sda\t/ ext4 defaults 0 1\n/dev/sdc1 /data ext4 nofail 0 2\n/dev/sr0 /cd udf noauto 0 0\n"
GRUB = "linux /vmlinuz root=/dev/sda ro quiet resume=/dev/sda\nlinux /vmlinuz root=UUID=x ro\n# root=/dev/sda10\n"
SYSTEM = {
    "etc/fstab": FSTAB,
    "etc/crypttab": "swap /dev/sda none luks\n",
    "etc/default/grub": 'GRUB_CMDLINE_LINUX="root=/dev/sda quiet"\n',
    "etc/initramfs-tools/modules": "# by hand\n",
    "boot/grub/grub.cfg": GRUB,
    "boot/vmlinuz-6.1": "",
    "boot/initrd.img-6.1": "lib/modules/6.1/kernel/drivers/ata/ahci.ko\n",
    "lib/modules/6.1/modules.builtin": "kernel/drivers/virtio/virtio_pci.ko\n",
    "lib/modules/6.1/kernel/drivers/block/virtio_blk.ko": "",
    "usr/sbin/blkid": f"#!/bin/busybox sh\necho {UUID}\n",
    "usr/sbin/lsinitramfs": '#!/bin/busybox sh\n/bin/busybox cat "$1"\n',
    "usr/sbin/update-initramfs": (
        "#!/bin/busybox sh\n"
        'for one in $(/bin/busybox grep -v "#" /etc/initramfs-tools/modules); do echo "lib/$one.ko"; done '
        ">>/boot/initrd.img-$3\n"
    ),
}
"""A system without partitions whose own tools are scripts."""


def disk(folder: Path, files: Mapping[str, str]) -> Path:
    """An ext4 disk of these files, with a busybox for their scripts."""
    busybox = next((one for one in ("/bin/busybox", "/usr/bin/busybox") if Path(one).exists()), None)
    if busybox is None or not shutil.which("mkfs.ext4"):
        pytest.skip("busybox-static and mkfs.ext4")
    tree, raw = folder / "tree", folder / "disk.raw"
    for name in ("dev", "proc", "sys", "run", "tmp", "var", "bin", *files):
        target = tree / name
        if name in files:
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(files[name])
            target.chmod(0o755 if files[name].startswith("#!") else 0o644)
        else:
            target.mkdir(parents=True)
    shutil.copy(busybox, tree / "bin/busybox")
    subprocess.run(["mkfs.ext4", "-q", "-F", "-U", UUID, "-d", tree, raw, "64M"], check=True)
    return raw


def looked_at(raw: Path, name: str) -> list[Note]:
    async def work() -> list[Note]:
        await import_image(raw, name, arch="x86_64")
        return await mend(name, "x86_64", {})

    return asyncio.run(work())


@pytest.fixture
def name(cache: Path, request: pytest.FixtureRequest) -> Iterator[str]:
    name = f"mend-{hashlib.sha256(request.node.name.encode()).hexdigest()[:8]}"
    yield name
    shutil.rmtree(layers.folder_of(name, "x86_64").parent, ignore_errors=True)


def content(image: str, path: str) -> str:
    """A file of an image without partitions."""
    facts = resolve(image, "x86_64")
    raw = Path(facts.disk).parent / "raw"
    subprocess.run(["qemu-img", "convert", "-O", "raw", facts.disk, raw], check=True)
    try:
        return subprocess.run(["debugfs", "-R", f"cat {path}", raw], check=True, capture_output=True, text=True).stdout
    finally:
        raw.unlink()


@pytest.mark.slow
@pytest.mark.vm
def test_what_names_the_old_bus_gets_a_lasting_name(name: str, tmp_path: Path) -> None:
    raw = disk(tmp_path, SYSTEM)
    before = hashlib.sha256(raw.read_bytes()).hexdigest()
    notes = looked_at(raw, name)
    told = {(note.rank, note.where.removeprefix(f"image {name} "), note.value) for note in notes}
    assert told == {
        ("changed", "/etc/fstab", "/dev/sda"),
        ("check", "/etc/fstab", "/dev/sdc1"),
        ("changed", "/etc/crypttab", "/dev/sda"),
        ("changed", "/etc/default/grub", "/dev/sda"),
        ("changed", "/boot/grub/grub.cfg", "/dev/sda"),
        ("changed", "/boot/initrd.img-6.1", "virtio_blk"),
    }
    assert content(name, "/etc/fstab") == FSTAB.replace("/dev/sda\t", f"UUID={UUID}\t")
    assert content(name, "/boot/grub/grub.cfg") == GRUB.replace("/dev/sda ro", f"UUID={UUID} ro").replace(
        "resume=/dev/sda", f"resume=UUID={UUID}"
    )
    assert content(name, "/etc/crypttab") == f"swap UUID={UUID} none luks\n"
    assert content(name, "/var/backups/tinamou/etc/fstab") == FSTAB
    assert "virtio_blk.ko" in content(name, "/boot/initrd.img-6.1")
    assert hashlib.sha256(raw.read_bytes()).hexdigest() == before
    assert asyncio.run(mend(name, "x86_64", {}))[0].rank == "check", "a second look changes nothing"


@pytest.mark.slow
@pytest.mark.vm
@pytest.mark.parametrize(
    ("files", "where", "reason"),
    [
        (
            {"lib/modules/5.0-own/kernel/fs/x.ko": "", "boot/vmlinuz-5.0-own": "", "etc/fstab": "/dev/sda / ext4 ro 0 0\n"},
            "kernel 5.0-own",
            "no such driver",
        ),
        (
            SYSTEM | {"usr/sbin/update-initramfs": "#!/bin/busybox sh\necho no space left\nexit 1\n"},
            "/boot/initrd.img-6.1",
            "was not made anew: no space left",
        ),
    ],
    ids=["a kernel without virtio", "an initrd that cannot be made"],
)
def test_what_cannot_be_mended_is_told_by_name(
    files: dict[str, str], where: str, reason: str, name: str, tmp_path: Path
) -> None:
    notes = looked_at(disk(tmp_path, files), name)
    [note] = [one for one in notes if one.rank == "lost"]
    assert note.where == f"image {name} {where}" and reason in note.reason and note.fix


@pytest.mark.slow
@pytest.mark.vm
def test_a_disk_without_a_linux_is_as_it_was(name: str, tmp_path: Path) -> None:
    raw = tmp_path / "locked.raw"
    raw.write_bytes(b"LUKS\xba\xbe" + bytes(8 << 20))
    [note] = looked_at(raw, name)
    assert note.rank == "check" and "encrypted (LUKS)" in note.reason
    assert Path(resolve(name, "x86_64").disk).parent.name.startswith("import-")


def _machine(**disk_fields: object) -> Converted:
    one = Disk("sata0:0", "a.vmdk", **disk_fields)  # type: ignore[arg-type]
    return Converted("a VMware machine", {"image": "web", "name": "web"}, [Placed(one, "image")])


@pytest.fixture
def boots(monkeypatch: pytest.MonkeyPatch) -> None:
    """The image that is imported can start something."""
    monkeypatch.setattr(mending, "resolve", lambda *_: ImageFacts("web", "x86_64", boots=("bios",)))


@pytest.mark.usefixtures("boots")
def test_what_goes_wrong_is_a_note(monkeypatch: pytest.MonkeyPatch) -> None:
    async def fails(*_: object, **__: object) -> list[Note]:
        raise GuestError("the guest did not answer", why="it was busy")

    monkeypatch.setattr(mending, "mend", fails)
    machine = _machine(moved="sata0")
    asyncio.run(mend_imported(machine, arch="x86_64"))
    [note] = machine.notes
    assert note.rank == "check" and "the guest did not answer: it was busy" in note.reason


@pytest.mark.usefixtures("boots")
@pytest.mark.parametrize(
    ("disk_fields", "os", "looked"),
    [
        ({}, "", False),
        ({"moved": "ide"}, "", True),
        ({"options": {"interface": "scsi"}}, "", True),
        ({"moved": "ide"}, "windows-10", False),
    ],
)
def test_a_disk_that_stays_on_its_bus_is_not_looked_at(
    disk_fields: dict[str, object], os: str, looked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []

    async def sees(name: str, *_: object, **__: object) -> list[Note]:
        seen.append(name)
        return []

    monkeypatch.setattr(mending, "mend", sees)
    machine = _machine(**disk_fields)
    machine.machine["os"] = os
    asyncio.run(mend_imported(machine, arch="x86_64"))
    assert seen == ["web"] * looked


@pytest.mark.parametrize(
    ("drivers", "rank", "said"),
    [
        ((), "check", "0x7B"),
        (("viostor", "netkvm"), "done", "has the drivers of virtio"),
        (None, "done", "nothing on it starts"),
    ],
)
def test_what_is_known_of_a_disk_needs_no_machine(
    drivers: tuple[str, ...] | None, rank: str, said: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A Windows, as its volume tells, and a disk of nothing; both are really imported."""
    monkeypatch.setenv("TINAMOU_CACHE", str(tmp_path / "cache"))
    services = drivers or ()
    files = made_windows.windows_files(
        made_windows.hive(made_windows.system(services=services)), made_windows.hive(made_windows.software())
    )
    raw = tmp_path / "d.img"
    raw.write_bytes(os.urandom(1 << 20) if drivers is None else made_windows.disk(made_windows.ntfs(files)))
    asyncio.run(import_image(raw, "web", arch="x86_64"))
    machine = _machine(moved="sata0")
    asyncio.run(mend_imported(machine, arch="x86_64"))
    [note] = machine.notes
    assert note.rank == rank and said in note.reason
    assert note.value == ("" if drivers is None else "Windows 10 Pro (build 19045)")
    assert ("tinamou image inject web" in note.fix) == (rank == "check")


def test_a_guests_words_are_bounded() -> None:
    said = "changed\ta\tb\tc\td\nnosuch\ta\tb\tc\td\nchanged\ta\tb\n\nlost\t" + "x" * 9000 + "\tb\tc\t\n"
    notes = mending._notes("web", said + "check\ta\tb\tc\td\n" * 1000)
    assert len(notes) < 100
    assert [note.rank for note in notes[:3]] == ["changed", "lost", "check"]
    assert len(notes[1].where) < 400


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return old_debian.system(tmp_path_factory.mktemp("system"))


@pytest.mark.slow
@pytest.mark.vm
@pytest.mark.root
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("kind", ["ext4", "btrfs"])
def test_a_debian_that_knows_sda_alone_starts_and_answers(kind: str, system: Path, tmp_path: Path) -> None:
    name = f"old-{kind}"
    old_debian.disk(system, tmp_path / "d.raw", kind)
    subprocess.run(["qemu-img", "convert", "-O", "vmdk", tmp_path / "d.raw", tmp_path / "d.vmdk"], check=True)
    (tmp_path / "d.raw").unlink()
    (tmp_path / "old.vmx").write_text(
        f'displayName = "{name}"\nguestOS = "debian11-64"\nmemsize = "768"\nnumvcpus = "1"\n'
        'sata0.present = "TRUE"\nsata0:0.present = "TRUE"\nsata0:0.fileName = "d.vmdk"\n'
    )
    before = hashlib.sha256((tmp_path / "d.vmdk").read_bytes()).hexdigest()
    try:
        done = call("convert", str(tmp_path / "old.vmx"), "--import", "--json", "-o", str(tmp_path / "m.toml"), timeout=3600)
        assert done.returncode == 0, done.stderr
        told = {
            note["where"].partition(name)[2].strip()
            for note in json.loads(done.stdout)["notes"]
            if "image old" in note["where"]
        }
        assert {"/etc/fstab", "/boot/grub/grub.cfg"} < told and any(one.startswith("/boot/initrd.img-") for one in told)
        assert tomllib.loads((tmp_path / "m.toml").read_text())["image"] == name
        assert hashlib.sha256((tmp_path / "d.vmdk").read_bytes()).hexdigest() == before
        started = call("run", str(tmp_path / "m.toml"), "-d", timeout=600)
        assert started.returncode == 0, started.stderr
        seen = call("exec", name, "--", "findmnt", "-no", "SOURCE,FSTYPE", "/", timeout=900)
        assert seen.stdout.split() == ["/dev/vda3", kind], seen.stderr
    finally:
        call("rm", "-f", name)
        call("image", "rm", name)
