"""CPUID is executed here and agrees with the kernel; firmware, flags and parameters are read as they are documented."""

from __future__ import annotations

import dataclasses
import json
import os
import resource
import struct
import subprocess
from pathlib import Path
from uuid import UUID

import pytest
from confidential_cases import Case, facts
from made_facts import TINY

from tinamou.planner import plan
from tinamou.probe.encryption import probe_encryption, takes_hashes
from tinamou.probe.firmware import probe_firmware
from tinamou.spec import load_spec
from tinamou.system.cpuid import cpuid
from tinamou.system.memlock import lockable
from tinamou.system.rooted import Rooted

TABLE = "96b582de-1fb2-45f7-baea-a366c55a082d"
HASHES = "7255371f-3a3b-4b04-927b-1da6efa8d454"
RESET = "00f771de-1a7e-4fcb-890e-68c77e2fb44e"

X86 = pytest.mark.skipif(os.uname().machine != "x86_64", reason="CPUID is an instruction of x86")


@X86
def test_the_processor_names_its_maker_as_the_kernel_does():
    _, ebx, ecx, edx = cpuid(0)
    shown = next(line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("vendor_id"))
    assert struct.pack("<3I", ebx, edx, ecx).decode() == shown.split()[-1]


@X86
def test_it_says_what_the_kernels_own_device_says():
    try:
        device = os.open("/dev/cpu/0/cpuid", os.O_RDONLY)
    except OSError as error:
        pytest.skip(f"/dev/cpu/0/cpuid cannot be read: {error.strerror}")
    try:
        for leaf in (0, 0x80000000, 0x80000002):
            assert struct.unpack("<4I", os.pread(device, 16, leaf)) == cpuid(leaf)
    finally:
        os.close(device)


@X86
def test_a_leaf_the_processor_does_not_have_is_none():
    assert cpuid(0x8FFFFFFF) is None


def test_how_much_may_be_locked_is_what_a_child_may_raise_it_to():
    limit = lockable()
    wanted = 1 << 40 if limit is None else limit + 4096
    before = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    raised = subprocess.run(["prlimit", f"--memlock={wanted}", "--", "true"], capture_output=True, check=False)
    assert (raised.returncode == 0) is (limit is None)
    assert resource.getrlimit(resource.RLIMIT_MEMLOCK) == before


def tree(root: Path, files: dict[str, str]) -> Rooted:
    for path, text in files.items():
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return Rooted(str(root))


class Here(Rooted):
    """A tree that passes for the running host, whose processor is asked."""

    @property
    def real(self) -> bool:
        return True


EPYC = {
    "/proc/cpuinfo": "processor\t: 0\nflags\t\t: svm sev sev_es sev_snp\n",
    "/sys/module/kvm_amd/parameters/sev": "Y\n",
    "/sys/module/kvm_amd/parameters/sev_es": "1\n",
    "/sys/module/kvm_amd/parameters/sev_snp": "N\n",
}


def test_a_host_as_documented(tmp_path):
    said = (0b11010, 51 | 5 << 6, 509, 100)
    found = probe_encryption(Here(tree(tmp_path, EPYC).root), ask=lambda leaf: said)
    assert (found.cbit, found.keys, found.keys_es) == (51, 509, 99)
    assert found.opens is None
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/sev").touch()
    assert probe_encryption(Here(str(tmp_path)), ask=lambda leaf: said).opens is True
    assert found.processor == found.flags == {"sev", "sev-es", "sev-snp"}
    assert found.parameters == {"sev": True, "sev-es": True, "sev-snp": False}


def test_a_processor_without_the_leaf_has_none_of_it(tmp_path):
    answers = {0: (0x20, 0, 0, 0)}
    found = probe_encryption(Here(tree(tmp_path, {}).root), ask=answers.get)
    assert (found.processor, found.cbit, found.flags, found.parameters) == (frozenset(), None, None, {})


def test_nobody_is_asked_about_a_recorded_host(tmp_path):
    found = probe_encryption(tree(tmp_path, {"/proc/cpuinfo": "flags: tdx_host_platform\n"}), ask=lambda leaf: 1 / 0)
    assert (found.processor, found.flags) == (None, {"tdx"})


def entry(name: str, data: bytes) -> bytes:
    return data + struct.pack("<H", len(data) + 18) + UUID(name).bytes_le


def image(path: Path, *entries: bytes, size: int = 65536) -> str:
    body = b"".join(entries)
    table = body + struct.pack("<H", len(body) + 18) + UUID(TABLE).bytes_le
    path.write_bytes(bytes(size - len(table) - 32) + table + bytes(32))
    return str(path)


ROOM = struct.pack("<2I", 0x80FC00, 0x400)


@pytest.mark.parametrize(
    ("entries", "takes"),
    [
        ((entry(RESET, b"\0\4\2\1"), entry(HASHES, ROOM)), True),
        ((entry(HASHES, ROOM), entry(RESET, b"\0\4\2\1")), True),
        ((entry(HASHES, bytes(8)),), False),
        ((entry(RESET, b"\0\4\2\1"),), False),
        ((), False),
        ((entry(HASHES, ROOM)[:-18] + struct.pack("<H", 0) + UUID(HASHES).bytes_le,), False),
        ((entry(HASHES, ROOM)[:-18] + struct.pack("<H", 999) + UUID(HASHES).bytes_le,), False),
    ],
)
def test_room_for_hashes(tmp_path, entries, takes):
    assert takes_hashes(image(tmp_path / "fw", *entries)) is takes


def test_no_firmware_has_no_room(tmp_path):
    (tmp_path / "short").write_bytes(b"x" * 20)
    assert not takes_hashes(str(tmp_path / "short"))
    assert not takes_hashes(str(tmp_path / "missing"))


def test_the_descriptor_in_the_guide_is_one(tmp_path):
    guide = Path(__file__).parents[2] / "docs/guides/encrypted-memory.md"
    text = guide.read_text().partition("```json\n")[2].partition("```")[0]
    name = json.loads(text)["mapping"]["filename"]
    for path in (tmp_path / "etc/qemu/firmware", tmp_path / Path(name).parent.relative_to("/")):
        path.mkdir(parents=True)
    (tmp_path / "etc/qemu/firmware/60-amdsev.json").write_text(text)
    image(tmp_path / name.lstrip("/"), entry(HASHES, ROOM))
    scan = probe_firmware(tmp_path, config_home="/nonexistent")
    assert scan.notes == ()
    (found,) = scan.firmware
    known = facts(Case("sev-snp", "direct", "epyc-7003", "10.0"), TINY)
    hashing = dataclasses.replace(known.encryption, hashing=frozenset({name}))
    known = dataclasses.replace(known, firmware=(found,), encryption=hashing)
    made = plan(load_spec({"confidential": "sev-snp"}), known)
    assert [flag.value for flag in made.flags if flag.name == "bios"] == [name]


def test_generic_firmware_of_this_host_verifies_no_kernel():
    """Debian's OVMF names the table, and gives it no room."""
    installed = [one.executable for one in probe_firmware().firmware if "amd-sev" in one.features]
    if not installed:
        pytest.skip("no firmware for SEV is installed")
    found = probe_encryption(Rooted(), probe_firmware().firmware)
    assert found.hashing <= {path for path in installed if "amdsev" in path.lower()}
