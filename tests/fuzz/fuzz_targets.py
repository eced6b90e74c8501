"""What is fuzzed: one function for each reader of what tinamou did not write itself."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import tomllib
from pathlib import Path
from unittest import mock

import fuzz_agents  # noqa: F401
import fuzz_devices  # noqa: F401
import fuzz_exported  # noqa: F401
import fuzz_foreign
import fuzz_moves  # noqa: F401
import fuzz_seeds as seeds
import fuzz_web  # noqa: F401
import fuzz_windows  # noqa: F401
import made_vmcx
from fuzz_folder import folder, written
from fuzzing import target

from tinamou.cli import described
from tinamou.convert import box, files, hyperv, kinds, ova, parallels, vma, vmcx, writing, xva
from tinamou.convert.assemble import assemble
from tinamou.errors import ControlError, ImageError, SpecError, StateError
from tinamou.images import blocks, catalog, cpio, elf, fat, kernel, modules, qemu_img, signature, verify
from tinamou.images.inspect import inspect_image
from tinamou.images.part import check_part
from tinamou.screen.picture import from_ppm
from tinamou.screen.text import Font, read_text
from tinamou.spec import dump_spec, load_spec
from tinamou.system.codecs import CodecError, decompress
from tinamou.system.qcow2 import Qcow2Error, parse_header

sys.path.append(str(seeds.TESTS / "convert"))
import reading

NOWHERE = Path("/nonexistent")


# ── what a guest shows ──


def screens() -> list[bytes]:
    """A screen of two cells, as QEMU writes it."""
    return [b"P6\n16 16\n255\n" + (bytes(9) + b"\xaa" * 6 + bytes(9)) * 32]


@target("picture of a screen", seeds=screens, errors=[ControlError, StateError])
def screen(data: bytes) -> object:
    font = Font(16, {bytes(16): " ", bytes([0x18] * 16): "|"})
    return read_text(from_ppm(data), [font])


# ── packed streams, programs, archives ──


@target("packed stream", seeds=seeds.streams, errors=[CodecError])
def stream(data: bytes) -> object:
    return decompress(data, 1 << 20)


@target("elf", seeds=seeds.elves, errors=[elf.ElfError])
def program(data: bytes) -> object:
    one = elf.Elf(data)
    asked = []
    for ask in (one.segments, one.needed, one.pvh_entry, lambda: one.section(".modinfo")):
        try:
            asked.append(type(ask()).__name__)
        except elf.ElfError as error:
            asked.append(str(error))
    return " ".join(asked)


@target("module", seeds=lambda: [*seeds.elves(), seeds.zstd.compress(seeds.elf()), seeds.lzma.compress(seeds.elf())])
def module(data: bytes) -> object:
    return modules.load(written(data, "m.ko"), folder())


@target("kernel", seeds=seeds.kernels)
def whole_kernel(data: bytes) -> object:
    fast, plain = kernel.pvh_kernel(data), kernel.plain_image(data)
    return f"{type(fast).__name__} {plain == data}"


@target("cpio", seeds=lambda: [b"bin/sh\0etc/passwd\0root", b"a"], words=["/", "..", "TRAILER!!!", "\ud800"])
def initrd(data: bytes) -> object:
    names = data.decode("utf-8", "surrogateescape").replace("\udced\udca0\udc80", "\ud800").split("\0")
    return cpio.archive({name: cpio.file(data[:9]) for name in names})


@target("ova", seeds=seeds.archives, mended=seeds.tar_mended)
def appliance(data: bytes) -> object:
    draft = ova.read(path := written(data, "a.ova"))
    for disk in draft.disks:
        if disk.part:
            offset, length = disk.part
            assert 0 <= offset <= offset + length <= len(data), "a disk outside the archive"
            with mock.patch.object(qemu_img, "ask", lambda *_, **__: ""):
                check_part(path, disk.part)
    return draft


# ── disks ──


@target("qcow2 header", seeds=seeds.qcow2_headers, errors=[Qcow2Error])
def header(data: bytes) -> object:
    return parse_header(data)


def answered(size: int):
    """A stand-in for qemu-img: every foreign image is so large, and holds zeros."""
    return mock.patch.object(qemu_img, "ask", lambda *_, **__: json.dumps({"virtual-size": size}))


@target("qcow2 image", seeds=seeds.qcow2_images)
def qcow2(data: bytes) -> object:
    facts = inspect_image(written(data, "disk.qcow2"))
    return f"{facts.boots} {facts.arch}".replace("'", "")


@target("raw disk", seeds=seeds.raw_disks, mended=seeds.gpt_mended)
def raw(data: bytes) -> object:
    facts = inspect_image(written(data, "disk.img"))
    return f"{facts.boots} {facts.arch} {facts.format}".replace("'", "")


@target("fat", seeds=lambda: [seeds.fat(bits) for bits in (12, 16, 32)])
def volume(data: bytes) -> object:
    whole = blocks.RawBlocks(str(written(data, "volume")))
    return " ".join("e" * len(fat.list_folder(whole, 0, path)) for path in ((), ("EFI",), ("EFI", "BOOT")))


@target(
    "foreign image", seeds=seeds.foreign_images, words=["RW", "VMFS", "parentFileNameHint", "SPARSE", "flat.vmdk", "nbd:a"]
)
def foreign(data: bytes) -> object:
    written(bytes(512), "flat.vmdk")
    with answered(1 << 20):
        return inspect_image(written(data, "disk.img"))


@target("answer of qemu-img", seeds=seeds.answers, words=["virtual-size", "backing-filename", "null", "{}"])
def answer(data: bytes) -> object:
    with mock.patch.object(qemu_img, "ask", lambda *_, **__: data.decode(errors="replace")):
        return inspect_image(written(seeds.vmdk() + os.urandom(0), "disk.vmdk"))


@target("pulled image", seeds=lambda: [*seeds.qcow2_headers(), *seeds.raw_disks()])
def pulled(data: bytes) -> object:
    path = written(data, "disk")
    sizes = []
    for format in ("qcow2", "raw", "iso"):
        try:
            verify.check_format(path, format)
            sizes.append(format)
        except ImageError as error:
            last = error
    if not sizes:
        raise last
    return " ".join(sizes)


@target("packed image", seeds=lambda: [one for one in seeds.streams() if one[:1] in b"\xfd\x28"])
def packed(data: bytes) -> object:
    outer = "xz" if data[:1] == b"\xfd" else "zst"
    return verify.unpack(written(data, "packed"), f"raw.{outer}", folder() / "unpacked")


# ── descriptions ──

SPEC_WORDS = [
    *load_spec({}).__dataclass_fields__,
    "size",
    "count",
    "pin",
    "type",
    "forward",
    "path",
    "true",
    "inf",
    "[[disk]]",
    "[net]",
]


TOML = r"(?<== )[^\n]+|(?<=\")[^\"\n]*(?=\")|\b\w+(?= =)"


def spec_of(data: bytes):
    path = written(data, "machine.toml")
    return described.described(str(path), {})


@target("machine file", seeds=seeds.machine_files, words=SPEC_WORDS, values=TOML)
def machine_file(data: bytes) -> object:
    spec = spec_of(data)
    assert load_spec(dump_spec(spec)) == spec, "what is written does not read back"
    return spec


@target("plan", seeds=seeds.machine_files, words=SPEC_WORDS, values=TOML)
def planned(data: bytes) -> object:
    result = reading.Converted("a machine file", dump_spec(spec_of(data)))
    return reading.planned(result)


@target(
    "json spec",
    seeds=lambda: [json.dumps(tomllib.loads(one.decode())).encode() for one in seeds.machine_files()],
    words=SPEC_WORDS,
)
def tree(data: bytes) -> object:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return None
    return load_spec(found) if isinstance(found, dict) else None


@target(
    "options",
    seeds=lambda: [b"type=user,model=e1000,mac=52:54:00:00:00:01", b"path=a.qcow2,size=1G", b"[1,2]"],
    words=SPEC_WORDS,
)
def options(data: bytes) -> object:
    text = data[:2000].decode(errors="replace").replace("\0", " ")
    found = []
    for option in ({"disk": [text]}, {"net": [text]}, {"set": [f"seed.user_data={text}"]}):
        try:
            found.append(described.described("", option))
        except SpecError as error:
            last = error
    if not found:
        raise last
    return found


def converted(data: bytes) -> object:
    path = written(data, "source")
    text, draft = files.read_source(path)
    draft = draft or kinds.read(text, "source")
    files.absolute(draft, NOWHERE)
    result = assemble(draft, files.look(draft, NOWHERE))
    again = tomllib.loads(writing.text(result.machine, result.source))
    load_spec(again)
    return "\n".join(sorted({note.reason for note in result.notes}))


XML = [
    "disk",
    "interface",
    "type",
    "kvm",
    "source",
    "unit",
    "KiB",
    "file",
    "address",
    "0x01",
    "yes",
    "on",
    "efi",
    "bridge",
    "<!DOCTYPE a>",
]
QEMU = [
    "-m",
    "-smp",
    "-drive",
    "-device",
    "-netdev",
    "-object",
    "-numa",
    "id=a",
    "$A",
    "A=$A$A",
    "$(x)",
    "file=",
    "if=virtio",
    "qemu-system-x86_64",
]
VMX = ["TRUE", "FALSE", "scsi0:0.fileName", "ethernet0.present", "|22", '= "', "memsize"]

VALUES = r"""(?<=["'>])[^"'<>\n]+(?=["'<])"""
SETTINGS = r"(?<=\")[^\"\n]*(?=\")"

target("libvirt", seeds=seeds.libvirt, words=XML, values=VALUES)(converted)
target("vmx", seeds=seeds.vmx, words=VMX, values=SETTINGS)(converted)
target("ovf", seeds=seeds.ovf, words=[*XML, "byte * 2^20", "Item", "17", "ovf:/disk/vmdisk1"], values=VALUES)(converted)
target("virtualbox", seeds=seeds.vbox, words=[*XML, "HardDisk", "DVD", "NAT", "{aaaa}"], values=VALUES)(converted)
target("qemu script", seeds=seeds.scripts, words=QEMU)(converted)
target("quickemu", seeds=seeds.quickemu, words=["guest_os=", "windows", "ram", "(", "export"], values=SETTINGS)(converted)

TREE = r"(?<=: )[^\n]+"
JSON = r"(?<=:)[^,}\]\n]+"
YAML_WORDS = ["name: a", "- a", "{}", "[]", "&a ", "*a", "<<: *a", "true", "1Gi", "volumes:", "type: disk", "path: /", "|\n"]
JSON_WORDS = ['"path":', "null", "true", "[{", '"a":1,"a":1', "1e999", "payload", "drives"]
PVE = ["local:100/a", "media=cdrom", "none", "order=", "flags=+a", "[PENDING]", "scsi0: ", "net0: virtio=", "="]
XL = ["target=", "['a,raw,xvda,rw']", '"""', "disk = [", "qcow2:", ":cdrom", "vif = ", "hvm", "1e400"]
for kind, name, words, values in (
    ("kubevirt", "kubevirt.yaml", YAML_WORDS, TREE),
    ("incus", "incus.yaml", YAML_WORDS, TREE),
    ("lima", "lima.yaml", YAML_WORDS, TREE),
    ("proxmox", "web.pve", PVE, TREE),
    ("xen xl.cfg", "guest.xl", XL, r"(?<== )[^\n]+"),
    ("readconfig", "machine.ini", ["[device]", '"', "driver", "[m]"], SETTINGS),
    ("firecracker", "firecracker.json", JSON_WORDS, JSON),
    ("cloud-hypervisor", "cloud-hypervisor.json", JSON_WORDS, JSON),
    ("virt-install", "install.virt", ["--disk", "size=1", "none", "$A", "--boot uefi", "bus=sata", "-x"], r"(?<= )[^ \n]+"),
    ("podman machine", "podman.json", JSON_WORDS, JSON),
    ("gns3 appliance", "router.gns3a", JSON_WORDS, JSON),
    ("utm machine", "debian.plist", ["<dict>", "<array/>", "<date>x</date>", "<data>=</data>", "<key>"], r"(?<=>)[^<\n]+"),
    ("parallels machine", "build.pvs", ["<Hdd>", "</Hdd>", "a.hdd", "..", "/a.pvm/", "8", "<VmType>"], r"(?<=>)[^<\n]+"),
    ("hyper-v machine", "second.hyperv", ["<a>", "</a>", "drive0", "VHD"], r"(?<=>)[^<\n]+"),
):
    target(kind, seeds=fuzz_foreign.described(name), words=words, values=values)(converted)


@target("proxmox backup", seeds=fuzz_foreign.backups, errors=[ImageError, SpecError], mended=fuzz_foreign.backup_mended)
def backup(data: bytes) -> object:
    path = written(data, "backup.vma")
    text, draft = files.read_source(path)
    with tempfile.TemporaryDirectory() as folder:
        found = vma.unpack(path, Path(folder), {disk.member for disk in draft.disks} if draft else set())
        return text, sorted(found)


@target("xen export", seeds=fuzz_foreign.exports, errors=[ImageError, SpecError], mended=seeds.tar_mended)
def exported(data: bytes) -> object:
    path = written(data, "a.xva")
    draft = xva.read(path)
    with tempfile.TemporaryDirectory() as folder:
        return sorted(xva.unpack(path, Path(folder), {disk.member for disk in draft.disks}))


@target("parallels disk", seeds=fuzz_foreign.layers, words=["<Image>", "Plain", "<File>", "../a", "{", "<Storage>"])
def layer(data: bytes) -> object:
    described = parallels.read(fuzz_foreign.PARALLELS, lambda _: data.decode("utf-8", "replace"))
    return sorted({note.reason for note in described.notes})


@target("hyper-v settings", seeds=lambda: [made_vmcx.made(made_vmcx.MACHINE)])
def stored(data: bytes) -> object:
    return assemble(hyperv.read_store(data), {}).machine if vmcx.is_store(data) else None


@target("vagrant box", seeds=fuzz_foreign.boxes, errors=[ImageError, SpecError], mended=seeds.tar_mended)
def boxed(data: bytes) -> object:
    path = written(data, "a.box")
    draft = box.read(path)
    with tempfile.TemporaryDirectory() as folder:
        return sorted(box.unpack(path, Path(folder), {disk.member for disk in draft.disks}))


@target("catalogue", seeds=lambda: [CATALOGUE], words=["file", "digest", "boots", "[key.a]", "[[image]]", "arch"])
def catalogue(data: bytes) -> object:
    return catalog.read_catalog(written(data, "catalog.toml"))


CATALOGUE = (
    b'[key.k]\nowner = "K"\nfingerprints = ["'
    + b"A" * 40
    + b'"]\n[[image]]\nname = "a:1"\nbase = "https://x/"\nchecksum = "S"\nkey = "k"\n'
    b'signature = "inline"\nboots = ["bios"]\n[image.arch.x86_64]\nfile = "d.img"\n'
)


@target(
    "checksum file",
    seeds=seeds.checksum_files,
    words=["SHA256", "(disk.img)", "-----BEGIN PGP SIGNED MESSAGE-----", "disk.img"],
)
def checksums(data: bytes) -> object:
    text = signature.signed_text(data)
    found = []
    for style in ("sums", "bsd", "beside"):
        try:
            found.append(verify.expected_digest(text, style, "sha256", "disk.img"))
        except ImageError as error:
            last = error
    if not found:
        raise last
    return found
