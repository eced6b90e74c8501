"""Machines of other tools converted: five hundred of libvirt's in one process, one by the command, an OVA with its disks."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path

from bench.commands import OLD, ROOT, older, timed
from bench.framework import AtLeast, Bar, Missing, Table, Way, Within
from bench.guest_line import PROCESSOR
from tinamou.system.paths import cache_dir

__all__ = ["tables"]

CORPUS = Path(os.environ.get("TINAMOU_LIBVIRT_SOURCE", "/nonexistent")) / "tests" / "qemuxml2argvdata"
SIZE = int(os.environ.get("TINAMOU_BENCH_MIB", "1024"))
"""MiB of each of the OVA's disks."""
FILES, DISKS = 500, 3
MANY, ONE = f"{FILES} machines of libvirt in one process", "one machine of libvirt by the command"
IMPORT, CONVERT, SUMS, COMPARE = "tinamou convert --import", "qemu-img convert", "sha512sum", "qemu-img compare"
_Run = Callable[[], Mapping[str, float]]
_CONVERT = """
import sys
from pathlib import Path
from tinamou.convert.writing import text
from tinamou.errors import TinamouError
try:
    from tinamou.machine import inward
    from tinamou.machine.gather import Once
    once = Once()
    convert = lambda path: inward.tried(inward.of_file(path), once)
except ImportError:  # the earlier build has no other way than its command's
    from tinamou.cli.convert import _converted, _draft, _try
    def convert(path):
        converted = _converted(_draft(path), path.resolve().parent, "", ())
        _try(converted)
        return converted
refused = 0
for name in sys.stdin.read().splitlines():
    try:
        converted = convert(Path(name))
        text(converted.machine, name), list(map(str, converted.notes))
    except TinamouError:
        refused += 1
sys.exit(f"{refused} of them are refused" if refused else 0)
"""
_COMMAND = "import sys; sys.argv[0] = 'tinamou'; from tinamou.cli.main import main; sys.exit(main())"
_NAMES = """
import sys
from pathlib import Path
from tinamou.errors import TinamouError
from tinamou.machine import inward
for path in sorted(Path(sys.argv[1]).glob("*.xml")):
    try:
        inward.of_file(path)
        print(path)
    except TinamouError:
        pass
"""


def tables(stack: ExitStack, scratch: Path) -> list[Table]:
    """Descriptions beside the earlier build; an OVA beside what reads the same disks."""
    return [_described(scratch), _appliance(scratch)]


def _described(scratch: Path) -> Table:
    builds: list[tuple[str, Mapping[str, str]]] = [("", _environment(scratch, "here", [ROOT / "src"]))]
    missing = []
    try:
        builds.append((f"{OLD}: ", _environment(scratch, OLD, older(scratch)[0])))
    except (OSError, subprocess.CalledProcessError) as error:
        missing.append(Missing(f"the build {OLD}", str(error)))
    ways = [Way(f"{name}{ONE}", _one(environment)) for name, environment in builds]
    if CORPUS.is_dir():
        names = scratch / "names"
        listed = subprocess.run([sys.executable, "-c", _NAMES, CORPUS], check=True, capture_output=True, text=True)
        taken = listed.stdout.splitlines()
        names.write_text("\n".join(taken[at * len(taken) // FILES] for at in range(FILES)))
        ways += [Way(f"{name}{MANY}", _many(names, environment)) for name, environment in builds]
    else:
        missing.append(Missing(MANY, "TINAMOU_LIBVIRT_SOURCE names no unpacked source package of libvirt"))
    old = f"{OLD}: "
    bars: list[Bar] = [
        AtLeast(f"{MANY}: {PROCESSOR}", 10, f"{old}{MANY}: {PROCESSOR}"),
        Within(f"{ONE}: {PROCESSOR}", 0.4, f"{old}{ONE}: {PROCESSOR}"),
    ]
    notes = [
        "Each file is read, planned on this host where its disks are here, and written; the interpreter's start counts."
    ]
    return Table("descriptions converted", ways, f"{old}{ONE}", notes, missing, bars=bars)


def _environment(scratch: Path, name: str, paths: Sequence[Path]) -> Mapping[str, str]:
    """That of a build: state and cache of its own, what it asks of this host asked before."""
    subprocess.run([sys.executable, "-m", "compileall", "-q", *paths], check=False)
    environment = {
        "PYTHONPATH": ":".join(map(str, paths)),
        "TINAMOU_STATE": str(scratch / f"{name}-state"),
        "TINAMOU_RUN": str(scratch / f"{name}-run"),
        "TINAMOU_CACHE": str(cache_dir() / f"bench-{name}"),
    }
    _one(environment)()
    return environment


def _one(environment: Mapping[str, str]) -> _Run:
    source = ROOT / "tests" / "convert" / "domains" / "fedora-server.xml"
    return lambda: timed([sys.executable, "-c", _COMMAND, "convert", str(source)], environment)


def _many(names: Path, environment: Mapping[str, str]) -> _Run:
    line = f'exec "$0" -c "$1" < "{names}"'
    return lambda: timed(["sh", "-c", line, sys.executable, _CONVERT], environment)


# ── an OVA ──


def _appliance(scratch: Path) -> Table:
    disks = [_disk(scratch / f"d{number}.vmdk") for number in range(DISKS)]
    archive = _packed(scratch / "three.ova", disks)
    environment = _environment(scratch, "here", [ROOT / "src"])
    out = scratch / "out"
    copies = [out / f"{disk.stem}.qcow2" for disk in disks]
    pairs = list(zip(disks, copies, strict=True))
    imports = [sys.executable, "-c", _COMMAND, "convert", str(archive), "--import", "-o", str(out / "three.toml")]
    cache = {**environment, "TINAMOU_CACHE": str(out / "cache")}

    def way(name: str, *lines: Sequence[str], made: Sequence[Sequence[str]] = ()) -> Way:
        return Way(name, lambda: _into(out, made, lines, cache))

    converts = [["qemu-img", "convert", "-f", "vmdk", "-O", "qcow2", str(disk), str(copy)] for disk, copy in pairs]
    compares = [["qemu-img", "compare", "-f", "vmdk", "-F", "qcow2", str(disk), str(copy)] for disk, copy in pairs]
    ways = [
        way(IMPORT, imports),
        way(CONVERT, *converts),
        way(COMPARE, *compares, made=converts),
        way(SUMS, ["sha512sum", *map(str, disks)]),
    ]
    notes = [
        f"{DISKS} streamOptimized disks of {SIZE} MiB, half random; a manifest of SHA-512; {os.cpu_count()} processors.",
        "An import converts each, compares the copy with its source, and the archive with its manifest: the last two rows.",
    ]
    return Table("an OVA with three disks", ways, CONVERT, notes, bars=[AtLeast(IMPORT, 0.9, CONVERT)])


def _disk(target: Path) -> Path:
    plain, lines = target.with_suffix(".raw"), b"".join(b"%d\n" % number for number in range(1 << 17))
    with plain.open("wb") as file:
        file.truncate(SIZE << 20)
        for _ in range(SIZE // 2):
            file.write(os.urandom(1 << 20))
        for _ in range(SIZE // 8):  # so much that can be packed, the rest is holes
            file.write(lines)
    words = ["qemu-img", "convert", "-f", "raw", "-O", "vmdk", "-o", "subformat=streamOptimized", str(plain), str(target)]
    subprocess.run(words, check=True)
    plain.unlink()
    return target


def _packed(archive: Path, disks: Sequence[Path]) -> Path:
    ovf = "http://schemas.dmtf.org/ovf/envelope/1"
    kind = "http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"
    files, listed, items = "", "", "<Item><InstanceID>1</InstanceID><ResourceType>6</ResourceType></Item>"
    for number, disk in enumerate(disks):
        files += f'<File o:id="f{number}" o:href="{disk.name}"/>'
        listed += f'<Disk o:diskId="d{number}" o:fileRef="f{number}" o:capacity="{SIZE << 20}" o:format="{kind}"/>'
        items += f"<Item><HostResource>ovf:/disk/d{number}</HostResource><InstanceID>{number + 2}</InstanceID>"
        items += f"<AddressOnParent>{number}</AddressOnParent><Parent>1</Parent><ResourceType>17</ResourceType></Item>"
    hardware = f"<VirtualHardwareSection>{items}</VirtualHardwareSection>"
    machine = f'<VirtualSystem o:id="three"><Name>three</Name>{hardware}</VirtualSystem>'
    text = (
        f'<Envelope xmlns="{ovf}" xmlns:o="{ovf}"><References>{files}</References>'
        f"<DiskSection>{listed}</DiskSection>{machine}</Envelope>"
    )
    with archive.open("wb") as file, tarfile.open(fileobj=file, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        sums = f"SHA512(three.ovf)= {hashlib.sha512(text.encode()).hexdigest()}\n"
        for disk in disks:
            with disk.open("rb") as data:
                sums += f"SHA512({disk.name})= {hashlib.file_digest(data, 'sha512').hexdigest()}\n"
        for name, content in (("three.ovf", text), ("three.mf", sums)):
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content.encode()))
        for disk in disks:
            tar.add(disk, disk.name)
    return archive


def _into(
    out: Path, made: Sequence[Sequence[str]], lines: Sequence[Sequence[str]], environment: Mapping[str, str]
) -> Mapping[str, float]:
    """Commands one after the other, into an empty folder; those of ``made`` come before the clock starts."""
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    try:
        for words in made:
            timed(words, environment)
        os.sync()
        taken = [timed(words, environment) for words in lines]
    finally:
        shutil.rmtree(out, ignore_errors=True)
    return {key: sum(one[key] for one in taken) for key in ("", PROCESSOR)}
