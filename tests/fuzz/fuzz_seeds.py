"""Small valid files of each kind, made by code: what the fuzzer damages."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import sys
import tarfile
import uuid
import zlib
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import appliances
from lz4 import block

from tinamou.convert import qemu
from tinamou.system.qcow2 import encode_overlay

if sys.version_info >= (3, 14):
    from compression import zstd
else:
    from backports import zstd

TESTS = Path(__file__).resolve().parent.parent
SECTOR = 512
ESP = uuid.UUID("c12a7328-f81f-11d2-ba4b-00a0c93ec93b")


def streams() -> Iterator[bytes]:
    """One of every compression."""
    text = b"what a kernel is packed with " * 40
    yield from (gzip.compress(text, mtime=0), bz2.compress(text), zstd.compress(text))
    yield from (lzma.compress(text, format=one) for one in (lzma.FORMAT_XZ, lzma.FORMAT_ALONE))
    yield lz4_frame(text)
    yield zstd.compress(text, options={zstd.CompressionParameter.checksum_flag: 1})


# ── ELF and kernels ──


def elf(owner: bytes = b"Xen\0", libraries: bytes = b"\0libc.so.6\0libm.so.6\0") -> bytes:
    """A program with an interpreter, two libraries, a note, and a section .modinfo."""
    note = struct.pack("<III", 4, 8, 18) + owner + struct.pack("<Q", 0x1000000)
    names, told = b"\0.modinfo\0.shstrtab\0", b"depends=a,b\0alias=pci:x\0softdep=pre: c\0"
    parts = [b"/lib64/ld-linux-x86-64.so.2\0", libraries, note, names, told]
    start, at = 64 + 4 * 56, []
    for part in parts:
        at.append(start)
        start += len(part)
    dynamic = struct.pack("<10Q", 5, at[1], 1, 1, 1, 11, 0, 0, 0, 0)
    segments = [(3, at[0], len(parts[0])), (1, 0, start + len(dynamic)), (2, start, len(dynamic)), (4, at[2], len(note))]
    programs = b"".join(struct.pack("<IIQQQQQQ", kind, 4, place, place, 0, size, size, 4) for kind, place, size in segments)
    sections = [(0, 0, 0), (1, at[4], len(told)), (10, at[3], len(names))]
    table = b"".join(struct.pack("<IIQQQQIIQQ", name, 1, 0, 0, place, size, 0, 0, 1, 0) for name, place, size in sections)
    numbers = (2, 62, 1, 0, 64, start + len(dynamic), 0, 64, 56, 4, 64, 3, 2)
    head = b"\x7fELF\x02\x01\x01" + bytes(9) + struct.pack("<HHIQQQIHHHHHH", *numbers)
    return head + programs + b"".join(parts) + dynamic + table


def elves() -> Iterator[bytes]:
    """One with the PVH note, one without."""
    yield elf()
    yield elf(b"GNU\0")


def bzimage(payload: bytes) -> bytes:
    """A Linux kernel for PCs, as its boot protocol has it."""
    head = bytearray(0x500)
    head[0x1F1] = 1
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, 0x20F)
    struct.pack_into("<II", head, 0x248, 0x100, len(payload))
    return bytes(head) + payload


def lz4_frame(data: bytes) -> bytes:
    """As Linux packs with lz4: a magic, and a block with its length."""
    packed: bytes = block.compress(data, store_size=False)
    return b"\x02\x21\x4c\x18" + struct.pack("<I", len(packed)) + packed


def kernels() -> Iterator[bytes]:
    """Kernels in every wrapping."""
    for pack in (lambda data: gzip.compress(data, mtime=0), lzma.compress, zstd.compress, bz2.compress, lz4_frame):
        packed = pack(elf())
        yield bzimage(packed)
        yield b"MZ\0\0zimg" + struct.pack("<II", 16, len(packed)) + packed
    yield gzip.compress(b"MZ" + bytes(60), mtime=0)


# ── disks ──


def mbr(*partitions: tuple[int, int, int, int]) -> bytes:
    """A boot sector with partitions (status, type, first sector, sectors)."""
    table = b"".join(struct.pack("<B3xB3xII", *one) for one in partitions)
    return b"\xfa".ljust(446, b"\0") + table.ljust(64, b"\0") + b"\x55\xaa"


def gpt(first: int, last: int, sectors: int) -> bytes:
    """Protective MBR, header and a table of eight entries, the first an EFI partition."""
    table = (ESP.bytes_le + bytes(16) + struct.pack("<QQQ", first, last, 0) + bytes(72)).ljust(8 * 128, b"\0")
    fields = (b"EFI PART", 0x10000, 92, 0, 0, 1, sectors - 1, 4, sectors - 4, bytes(16), 2, 8, 128, zlib.crc32(table))
    head = struct.pack("<8sIIIIQQQQ16sQIII", *fields).ljust(SECTOR, b"\0")
    return gpt_mended(mbr((0, 0xEE, 1, sectors - 1)) + head + table)


def gpt_mended(disk: bytes) -> bytes:
    """The disk with the checksum its partition table's header should have."""
    if disk[512:520] != b"EFI PART" or len(disk) < 1024:
        return disk
    length = min(max(struct.unpack_from("<I", disk, 524)[0], 92), 512)
    head = disk[512:528] + bytes(4) + disk[532 : 512 + length]
    return disk[:528] + struct.pack("<I", zlib.crc32(head)) + disk[532:]


def fat(bits: int = 12) -> bytes:
    """A volume of 64 sectors with EFI/BOOT/BOOTX64.EFI; the larger kinds claim more sectors than are there."""
    total = {12: 64, 16: 8192, 32: 131072}[bits]
    fat_sectors = {12: 1, 16: 33, 32: 1024}[bits] if bits != 32 else 4
    root_entries = 0 if bits == 32 else 16
    boot = bytearray(512)
    boot[:3] = b"\xeb\x3c\x90"
    struct.pack_into(
        "<HBHBHHBH", boot, 11, 512, 1, 1, 1, root_entries, 0 if bits == 32 else total, 0xF8, 0 if bits == 32 else fat_sectors
    )
    struct.pack_into("<I", boot, 32, total if bits == 32 else 0)
    struct.pack_into("<II", boot, 36, fat_sectors if bits == 32 else 0, 0)
    struct.pack_into("<I", boot, 44, 2)
    boot[54:62] = b"FAT     "
    boot[510:] = b"\x55\xaa"
    end = {12: 0xFFF, 16: 0xFFFF, 32: 0x0FFFFFFF}[bits]
    table = sum(end << bits * number for number in range(6)).to_bytes(64, "little")
    first = 3 if bits == 32 else 2
    folders = [
        _entry(b"EFI        ", 0x10, first),
        _entry(b"BOOT       ", 0x10, first + 1),
        _long("bootx64.efi") + _entry(b"BOOTX64 EFI", 0x20, 5),
    ]
    return bytes(boot) + table.ljust(fat_sectors * 512, b"\0") + b"".join(folder.ljust(512, b"\0") for folder in folders)


def _entry(name: bytes, attributes: int, cluster: int) -> bytes:
    return name + struct.pack("<B8xHHHHI", attributes, cluster >> 16, 0, 0, cluster & 0xFFFF, 0)


def _long(name: str) -> bytes:
    text = (name + "\0").encode("utf-16-le").ljust(26, b"\xff")
    return b"\x41" + text[:10] + b"\x0f\0\0" + text[10:22] + b"\0\0" + text[22:26]


def disc() -> bytes:
    """An ISO 9660 volume with an El Torito catalogue for both kinds of firmware."""
    volume = b"\1CD001\1".ljust(80, b"\0") + struct.pack("<I", 24)
    record = b"\0CD001\1EL TORITO SPECIFICATION".ljust(71, b"\0") + struct.pack("<I", 19)
    entries = b"\1".ljust(30, b"\0") + b"\x55\xaa" + b"\x88".ljust(32, b"\0") + b"\x91\xef\1".ljust(32, b"\0")
    catalogue = entries + b"\x88" + bytes(7) + struct.pack("<I", 20) + bytes(20)
    return bytes(16 * 2048) + b"".join(one.ljust(2048, b"\0") for one in (volume, record, b"\xffCD001\1", catalogue)) + fat()


def efi_disk() -> bytes:
    """A disk of 80 sectors with an EFI partition."""
    return (gpt(8, 71, 80).ljust(8 * SECTOR, b"\0") + fat()).ljust(80 * SECTOR, b"\0")


def raw_disks() -> Iterator[bytes]:
    """Disks with every partition table and volume that is read."""
    yield mbr((0x80, 0x83, 8, 8)) + bytes(8192)
    yield (mbr((0, 0xEF, 1, 64)) + fat()).ljust(65 * SECTOR, b"\0")
    yield efi_disk()
    yield from (fat(bits) for bits in (12, 16, 32))
    yield disc()


def qcow2(disk: bytes, *, packed: str = "", bits: int = 9) -> bytes:
    """A disk as a qcow2 file, its clusters packed by ``zlib`` or ``zstd``."""
    size = 1 << bits
    clusters = [disk[at : at + size].ljust(size, b"\0") for at in range(0, len(disk), size)]
    per_table = size // 8
    tables = -(-len(clusters) // per_table)
    data_at, data, entries = (4 + tables) * size, b"", []
    for content in clusters:
        here = data_at + len(data)
        if not any(content):
            entries.append(0)
        elif packed:
            stream = zstd.compress(content) if packed == "zstd" else _deflated(content)
            sectors = (here % 512 + len(stream) - 1) // 512
            entries.append(1 << 62 | sectors << (62 - (bits - 8)) | here)
            data += stream + bytes(-len(stream) % 512)
        else:
            entries.append(1 << 63 | here)
            data += content
    mode = 8 if packed == "zstd" else 0
    fields = (b"QFI\xfb", 3, 0, 0, bits, len(clusters) * size, 0, tables, 3 * size, size, 1, 0, 0)
    head = (
        struct.pack(">4sIQIIQIIQQIIQ", *fields)
        + struct.pack(">QQQII", mode, 0, 0, 4, 112)
        + bytes([bool(mode)])
        + bytes(7 + 8)
    )
    l1 = struct.pack(f">{tables}Q", *(1 << 63 | (4 + at) * size for at in range(tables)))
    words = struct.pack(f">{len(entries)}Q", *entries).ljust(tables * size, b"\0")
    rest = struct.pack(">Q", 2 * size).ljust(size, b"\0") + (b"\0\1" * (size // 2)) + l1.ljust(size, b"\0")
    return head.ljust(size, b"\0") + rest + words + data


def _deflated(content: bytes) -> bytes:
    packer = zlib.compressobj(wbits=-12)
    return packer.compress(content) + packer.flush()


def qcow2_headers() -> Iterator[bytes]:
    """First clusters: with a backing file, of version 2, with an encryption header, with a data file."""
    for pieces in (
        encode_overlay(1 << 30),
        encode_overlay(5 << 30, "base.img", "raw"),
        encode_overlay(1 << 30, crypto=b"LUKS" * 300),
    ):
        yield pieces[0][1].ljust(2048, b"\0")
    second = bytearray(encode_overlay(1 << 30)[0][1].ljust(1024, b"\0"))
    struct.pack_into(">I", second, 4, 2)
    yield bytes(second)
    kept = struct.pack(">II", 0x44415441, 8) + b"data.raw" + struct.pack(">II", 0, 0)
    data = bytearray(encode_overlay(1 << 30)[0][1][:112])
    struct.pack_into(">Q", data, 72, 4)
    yield bytes(data) + kept + bytes(512)


def qcow2_images() -> Iterator[bytes]:
    """Whole files, plain and packed in both ways."""
    disk = efi_disk()
    yield from (qcow2(disk), qcow2(disk, packed="zlib", bits=12), qcow2(disk, packed="zstd", bits=12), qcow2(disk, bits=16))


def vmdk(descriptor: str = "", capacity: int = 128) -> bytes:
    """The header of a sparse vmdk, and its descriptor."""
    text = (
        descriptor or '# Disk DescriptorFile\nversion=1\nCID=fffffffe\nparentCID=ffffffff\ncreateType="monolithicSparse"\n'
    ).encode()
    head = struct.pack("<4sIIQQQQIQQQB4sH", b"KDMV", 1, 3, capacity, 128, 1, 20, 512, 21, 26, 128, 0, b"\n \r\n", 0)
    return head.ljust(512, b"\0") + text.ljust(20 * 512, b"\0") + bytes(2048)


FLAT = (
    '# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\ncreateType="monolithicFlat"\nRW 128 FLAT "flat.vmdk" 0\n'
)


def foreign_images() -> Iterator[bytes]:
    """Headers of the formats that go through qemu-img."""
    yield vmdk()
    yield vmdk(FLAT)
    yield FLAT.encode()
    yield b"COWD".ljust(2048, b"\0")
    vdi = bytearray(b"<<< tinamou >>>\n".ljust(1024, b"\0"))
    struct.pack_into("<I", vdi, 0x40, 0xBEDA107F)
    struct.pack_into("<I", vdi, 0x158, 1024)
    struct.pack_into("<QIIII", vdi, 0x170, 4096, 4096, 0, 1, 1)
    yield bytes(vdi) + bytes(4096)
    yield bytes(1024) + b"conectix".ljust(512, b"\0")
    yield b"vhdxfile".ljust(4096, b"\0")


# ── archives ──


def _tar(format: int, *, long: bool = False) -> bytes:
    disk = vmdk()
    files = {"greeter.ovf": appliances.ovf().encode(), "disk1.vmdk": disk}
    if long:
        files |= {
            f"{'x' * 120}/note": b"text",
            "greeter.mf": b"SHA256(disk1.vmdk)= " + sha256(disk).hexdigest().encode() + b"\n",
        }
    with io.BytesIO() as out:
        with tarfile.open(fileobj=out, mode="w", format=format) as archive:
            for name, data in files.items():
                member = tarfile.TarInfo(name)
                member.size = len(data)
                archive.addfile(member, io.BytesIO(data))
        return out.getvalue()


def archives() -> Iterator[bytes]:
    """Appliances in each dialect of tar."""
    yield _tar(tarfile.USTAR_FORMAT)
    yield _tar(tarfile.GNU_FORMAT, long=True)
    yield _tar(tarfile.PAX_FORMAT, long=True)


def tar_mended(data: bytes) -> bytes:
    """Every block that could be a header with the checksum it should have."""
    blocks = bytearray(data)
    for at in range(0, len(blocks) - 511, 512):
        if blocks[at + 257 : at + 262] == b"ustar":
            blocks[at + 148 : at + 156] = b" " * 8
            blocks[at + 148 : at + 156] = b"%06o\0 " % sum(blocks[at : at + 512])
    return bytes(blocks)


# ── descriptions ──


def machine_files() -> Iterator[bytes]:
    """Machine files: those of the golden plans, and some of every table."""
    yield from (path.read_bytes() for path in sorted((TESTS / "golden" / "specs").glob("*.toml")))
    yield b'cpus = 4\nmemory = "2G"\nnics = [{ type = "user", forward = ["tcp:127.0.0.1:2222:22"] }]\n'
    yield b'disks = ["a.qcow2", { size = "1G" }]\n'


def libvirt() -> Iterator[bytes]:
    """Domains."""
    yield from (path.read_bytes() for path in sorted((TESTS / "convert" / "domains").glob("*.xml")))
    yield b"<domain type='kvm'><name>a</name><memory unit='GiB'>1</memory><vcpu>2</vcpu></domain>"


def vmx() -> Iterator[bytes]:
    """Machines of VMware."""
    more = 'sata0:1.fileName = "i.iso"\nsharedFolder0.hostPath = "/x"\n'
    more += 'ethernet1.connectionType = "hostonly"\nvtpm.present = "TRUE"'
    yield appliances.vmx(more=more).encode()


def scripts() -> Iterator[bytes]:
    """Shell scripts with a command line of QEMU in them."""
    yield (
        b"#!/bin/bash\n# a machine\nRAM=4G\nOPTS=(-m $RAM -smp 4,cores=2)\nqemu-img create -f qcow2 d.qcow2 10G\n"
        b'exec qemu-system-x86_64 "${OPTS[@]}" -enable-kvm -drive file=d.qcow2,if=none,id=d \\\n'
        b" -device virtio-blk-pci,drive=d \\\n"
        b"  -netdev user,id=n,hostfwd=tcp::2222-:22 -device e1000,netdev=n,mac=52:54:00:11:22:33 -cdrom i.iso -boot d\n"
    )
    yield b"qemu-system-x86_64 " + b" ".join(b"-%s id=a,file=b" % name.encode() for name in sorted(qemu._HANDLERS))
    yield b"taskset -c 0-3 sudo qemu-system-aarch64 -M virt -cpu max -m 1G -object memory-backend-ram,id=m,size=1G \\\n"
    yield b"numactl -C 1-2 qemu-system-x86_64 -object memory-backend-ram,id=m,size=1G -numa node,memdev=m\n"
    yield (
        b'qemu-system-x86_64 -blockdev \'{"driver":"qcow2","node-name":"q","file":{"driver":"file","filename":"x"}}\' '
        b'-device \'{"driver":"virtio-blk-pci","drive":"q"}\' -nic bridge,br=br0,model=virtio -vga std <<EOF\ntext\nEOF\n'
    )
    yield b"if [ -e x ]; then\n  virsh start a; echo 8 > /proc/sys/vm/nr_hugepages\nfi\n"
    yield b"for i in $(seq 3); do qemu-kvm -hda $i; done\n"


def ovf() -> Iterator[bytes]:
    """A description in the Open Virtualization Format."""
    more = "<Item><rasd:ResourceType>15</rasd:ResourceType><rasd:HostResource>ovf:/file/file1</rasd:HostResource></Item>"
    yield appliances.ovf(more=f'{more}<vmw:Config vmw:key="firmware" vmw:value="efi"/>').encode()


def vbox() -> Iterator[bytes]:
    """Machines of VirtualBox."""
    yield appliances.vbox().encode()
    yield appliances.vbox(guest="Windows11_64", attached="cccc").encode()


def quickemu() -> Iterator[bytes]:
    """A configuration of quickemu."""
    yield b'guest_os="linux"\ndisk_img="d"\ndisk_size="1G"\nram="4G"\ncpu_cores="2"\n'
    yield b'guest_os="windows"\nport_forwards=("1:2")\nboot="efi"\nextra_args="-s"\n'


# ── the web ──


def replies() -> Iterator[bytes]:
    """Answers of web servers."""
    yield b'HTTP/1.1 200 OK\r\nContent-Length: 5\r\nETag: "v"\r\nContent-Type: text/plain\r\n\r\nhello'
    yield b"HTTP/1.1 302 Found\r\nLocation: /other\r\nContent-Length: 0\r\n\r\n"
    yield b"HTTP/1.1 503 Busy\r\nRetry-After: Wed, 21 Oct 2026 07:28:00 GMT\r\nContent-Length: 0\r\n\r\n"
    yield b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"
    yield b"HTTP/1.1 206 Partial\r\nContent-Range: bytes 0-4/5\r\nContent-Length: 5\r\nLast-Modified: x\r\n\r\nhello"
    yield b"HTTP/1.1 416 No\r\nContent-Range: bytes */5\r\nContent-Length: 0\r\n\r\n"


def checksum_files() -> Iterator[bytes]:
    """Checksum files in every style, one clear-signed."""
    digest = b"0123456789abcdef" * 4
    yield digest + b" *disk.img\n" + digest + b"  other.img\n"
    yield b"SHA256 (disk.img) = " + digest + b"\n"
    yield (
        b"-----BEGIN PGP SIGNED MESSAGE-----\nHash: SHA256\n\n"
        + digest
        + b" *disk.img\n-----BEGIN PGP SIGNATURE-----\nx\n-----END PGP SIGNATURE-----\n"
    )


def answers() -> Iterator[bytes]:
    """What ``qemu-img info`` says."""
    yield b'{"virtual-size": 1048576, "filename": "a.vmdk", "format": "vmdk", "actual-size": 4096, "dirty-flag": false}'
    yield b'{"virtual-size": 0, "backing-filename": "b"}'
