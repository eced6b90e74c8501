"""Small valid descriptions and archives of other tools' machines, made by code or as the accounting is tried with."""

from __future__ import annotations

import io
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import made_backups
import made_xva

TESTS = Path(__file__).resolve().parent.parent
BOX = {"metadata.json": b'{"provider":"libvirt"}', "Vagrantfile": b"v.memory = 1\n", "box.img": b"x" * 700}


def described(*names: str) -> Callable[[], Iterator[bytes]]:
    """Descriptions of other tools' machines, as the accounting is tried with."""
    return lambda: ((TESTS / "convert" / "corpus" / name).read_bytes() for name in names)


def backups() -> Iterator[bytes]:
    """Backups of Proxmox."""
    disks = {"drive-scsi0": bytes(4096) + b"x" * 9000, "drive-virtio0": bytes(70_000)}
    text = "memory: 1024\nscsi0: a:b\nvirtio0: a:c\n#qmdump#map:scsi0:drive-scsi0:a:raw:\n"
    yield made_backups.vma(text, disks)
    yield made_backups.vma(text, {"drive-scsi0": b""})


def backup_mended(data: bytes) -> bytes:
    """With the checksums its header and its extents should have."""
    if data[:4] != b"VMA\0" or len(data) < 12288:
        return data
    whole = min(len(data), int.from_bytes(data[56:60], "big"))
    out = bytearray(made_backups.sealed(data[:whole], 32) + data[whole:])
    at = out.find(b"VMAE", whole)
    while at >= 0 and at + 512 <= len(out):
        out[at : at + 512] = made_backups.sealed(bytes(out[at : at + 512]), 24)
        at = out.find(b"VMAE", at + 512)
    return bytes(out)


def boxes() -> Iterator[bytes]:
    """Boxes of Vagrant."""
    for names in (
        {"metadata.json": b'{"provider":"libvirt"}', "Vagrantfile": b"v.memory = 1\n", "box.img": b"x" * 700},
        {"disk.raw": b"y"},
    ):
        file = io.BytesIO()
        with tarfile.open(fileobj=file, mode="w") as archive:
            for name, data in names.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        yield file.getvalue()


PARALLELS = (TESTS / "convert" / "corpus" / "build.pvs").read_text()


def layers() -> Iterator[bytes]:
    """Descriptions of a disk of Parallels': of one layer, of two, in pieces."""
    image = "<Image><GUID>{1}</GUID><Type>Compressed</Type><File>a.hds</File></Image>"
    for storage in (f"<Storage>{image}</Storage>", f"<Storage>{image}{image}</Storage>", f"<Storage>{image}</Storage>" * 2):
        yield f"<Parallels_disk_image><StorageData>{storage}</StorageData></Parallels_disk_image>".encode()


def exports() -> Iterator[bytes]:
    """Of Xen, with a disk of one piece."""
    with tempfile.TemporaryDirectory() as folder:
        path = made_xva.made(Path(folder) / "a", made_xva.machine({"Ref:9": 4096}), {"Ref:9": b"x" * 4096})
        yield path.read_bytes()
