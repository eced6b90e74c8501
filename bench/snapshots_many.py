"""Random reads in the guest and the time to start, at first and after many snapshots with automatic flattening.

``python -m bench.snapshots_many [--count 1000] [--json FILE]``. The disk is filled with 32 MiB first, and written to between
snapshots. Times to start are from the command to QEMU's first answer, without the guest's boot.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

from tinamou.control import connect_qmp
from tinamou.machine.booting import until_up
from tinamou.machine.chains import existing_chains
from tinamou.machine.connected import Connected
from tinamou.machine.snapshots import take
from tinamou.machine.starting import Started, begin, begin_again
from tinamou.spec import load_spec
from tinamou.state.folder import image_of
from tinamou.state.record import Record

READS = 3000


async def measure(started: Started, reader: bytes, *, fill: bool) -> tuple[Connected, list[int]]:
    """A guest that answers, and the median and 99th percentile of its reads in microseconds."""
    machine = Connected(started.record, started.plan)
    await until_up(machine, answer=False)
    await machine.run("cat > /reader && chmod +x /reader", input=reader)
    if fill:
        await machine.run("dd if=/dev/urandom of=/dev/vda bs=1M count=32 conv=fsync 2>/dev/null")
    await machine.run(f"/reader /dev/vda {READS}")
    runs = [(await machine.run(f"/reader /dev/vda {READS}")).text.split() for _ in range(5)]
    return machine, [int(statistics.median(int(run[index]) for run in runs)) for index in (0, 1)]


def main() -> None:
    """Measure and print."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("--count", type=int, default=1000)
    options.add_argument("--json", type=Path)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(dir="/var/tmp", prefix="bench-") as folder:
        os.environ["TINAMOU_STATE"] = f"{folder}/state"
        Path(folder).chmod(0o711)
        source = Path(__file__).with_name("reader.c")
        subprocess.run(["gcc", "-O2", "-static", "-o", f"{folder}/reader", source], check=True)
        result = asyncio.run(many(given.count, (Path(folder) / "reader").read_bytes()))
    print(json.dumps(result, indent=1))
    if given.json:
        given.json.write_text(json.dumps(result, indent=1))


async def many(count: int, reader: bytes) -> dict[str, object]:
    """Everything, as plain data; times in milliseconds, reads in microseconds."""
    spec = load_spec({"image": "tiny", "name": "many", "disk": [{"size": "64M"}], "net": []})
    started = await asyncio.to_thread(begin, spec, ephemeral=False, dies_with_parent=True)
    machine, first = await measure(started, reader, fill=True)
    spent = []
    written = "dd if=/dev/urandom of=/dev/vda bs=4k count=8 seek=$((RANDOM % 8000)) conv=fsync,notrunc"
    await machine.run(f"while true; do {written}; sleep 0.2; done >/dev/null 2>&1 &")
    for number in range(count):
        began = time.perf_counter()
        await take(machine.record, f"n{number}")
        spent.append(1000 * (time.perf_counter() - began))
    record = machine.record
    await machine.end()
    fresh, used = await starts(record)
    machine, last = await measure(await asyncio.to_thread(begin_again, record, dies_with_parent=True), reader, fill=False)
    await machine.end()
    chain = existing_chains(spec, image_of(record), Path(record.directory))["disk0"]
    files = len([name for name in os.listdir(record.directory) if name.startswith("disk0")])  # noqa: PTH208
    return {
        "snapshots": count,
        "files read through": len(chain),
        "files": files,
        "read at first": first,
        "read after": last,
        "read ratio": round(last[0] / first[0], 2),
        "start at first": fresh,
        "start after": used,
        "start ratio": round(used / fresh, 2),
        "snapshot, median of first 100": round(statistics.median(spent[:100]), 1),
        "snapshot, median of last 100": round(statistics.median(spent[-100:]), 1),
    }


async def starts(record: Record) -> tuple[float, float]:
    """Milliseconds from the command to QEMU's greeting, median of five: a fresh machine's second start, and this one's."""

    async def once(one: Record) -> float:
        began = time.perf_counter()
        started = await asyncio.to_thread(begin_again, one, dies_with_parent=True)
        async with await connect_qmp(one.directory, alive=lambda: started.record.running):
            spent = 1000 * (time.perf_counter() - began)
        await Connected(started.record, started.plan).end()
        return spent

    plain = load_spec({"image": "tiny", "name": "fresh", "disk": [{"size": "64M"}], "net": []})
    started = await asyncio.to_thread(begin, plain, ephemeral=False, dies_with_parent=True)
    await Connected(started.record, started.plan).end()
    pairs = [(await once(started.record), await once(record)) for _ in range(5)]
    return round(statistics.median(a for a, _ in pairs), 1), round(statistics.median(b for _, b in pairs), 1)


if __name__ == "__main__":
    main()
