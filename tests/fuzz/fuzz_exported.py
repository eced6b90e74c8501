"""The file of an exported machine, as the one who imports it reads it."""

from __future__ import annotations

import io
import json

import fuzz_seeds as seeds
from fuzzing import target

from tinamou.machine import importing
from tinamou.snapshots.packed import Reader, Writer
from tinamou.spec import dump_spec


def exported() -> list[bytes]:
    """A machine as `tinamou export` writes it, before it is compressed."""
    spec = {"name": "web", "net": [{"type": "user", "forward": ["80:80"]}], "disk": [{"size": "1M", "number": 0}]}
    manifest = {
        **{"format": 1, "name": "web", "former": ["old"], "spec": spec, "boots": ["kernel"], "disks": {"disk0": 1 << 20}},
        **{"image": {"name": "tiny", "arch": "x86_64", "boots": ["direct"], "size": "0"}, "record": {"agent": True}},
    }
    disk = next(iter(seeds.qcow2_headers()))
    out = io.BytesIO()
    writer = Writer(out)
    for name, data in {"machine.json": json.dumps(manifest).encode(), "kernel": b"k" * 700, "disk0.qcow2": disk}.items():
        writer.add(name, len(data), io.BytesIO(data))
    writer.close()
    return [out.getvalue()]


@target("exported machine", seeds=exported)
def exported_machine(data: bytes) -> object:
    pieces = Reader(io.BytesIO(data), "the file").pieces()
    manifest = importing.manifest_of(pieces)
    for trust in (False, True):
        spec, _ = importing.described(manifest, "", trust=trust)
        dump_spec(spec)
    return sum(len(piece.whole()) for piece in pieces)
