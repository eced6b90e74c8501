"""Backups as Proxmox writes them (VMA), made of any disks: clusters in any order, blocks of zeros left out, sums right."""

from __future__ import annotations

import hashlib
import random
import struct
from collections.abc import Mapping

BLOCK, CLUSTER = 4096, 65536


def sealed(data: bytes, at: int) -> bytes:
    """The same with its MD5 where that belongs, counted over zeros there."""
    return data[:at] + hashlib.md5(data[:at] + bytes(16) + data[at + 16 :]).digest() + data[at + 16 :]


def vma(configuration: str, disks: Mapping[str, bytes], seed: int = 0) -> bytes:
    """One backup."""
    uuid, blobs = bytes(range(16)), b"\0"

    def blob(data: bytes) -> int:
        nonlocal blobs
        at = len(blobs)
        blobs += struct.pack("<H", len(data)) + data
        return at

    names = [blob(b"qemu-server.conf\0")]
    datas = [blob(configuration.encode())]
    devices = bytearray(256 * 32)
    for slot, (name, data) in enumerate(disks.items(), 1):
        struct.pack_into(">IIQ", devices, slot * 32, blob(name.encode() + b"\0"), 0, len(data))
    padding = bytes(-len(blobs) % 512)  # as Proxmox writes it, of whole sectors
    whole = 12288 + len(blobs) + len(padding)
    head = struct.pack(">4sI16sq16sIII", b"VMA\0", 1, uuid, 1, bytes(16), 12288, len(blobs), whole)
    head += bytes(1984) + struct.pack(">256I", *names, *[0] * 255) + struct.pack(">256I", *datas, *[0] * 255) + bytes(4)
    found = sealed(head + bytes(devices) + blobs + padding, 32)
    todo = [(slot, at) for slot, data in enumerate(disks.values(), 1) for at in range(-(-len(data) // CLUSTER))]
    random.Random(seed).shuffle(todo)
    contents = list(disks.values())
    while todo:
        here, todo = todo[:59], todo[59:]
        infos, stored = b"", b""
        for slot, at in here:
            data = contents[slot - 1][at * CLUSTER : (at + 1) * CLUSTER].ljust(CLUSTER, b"\0")
            blocks = [data[place : place + BLOCK] for place in range(0, CLUSTER, BLOCK)]
            mask = sum(1 << number for number, one in enumerate(blocks) if one.strip(b"\0"))
            infos += struct.pack(">HBBI", mask, 0, slot, at)
            stored += b"".join(one for one in blocks if one.strip(b"\0"))
        extent = struct.pack(">4sHH16s16s", b"VMAE", 0, len(stored) // BLOCK, uuid, bytes(16)) + infos.ljust(472, b"\0")
        found += sealed(extent, 24) + stored
    return found
