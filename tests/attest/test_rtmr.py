"""RTMR0 to RTMR2 of TDX by their events: those of real guests computed, each change named; as real firmware measures."""

from __future__ import annotations

import hashlib
import json
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest

pytest.importorskip("cryptography")

from attest import made_tdx
from recorded import VERSIONS
from typed import call, tinamou

from tinamou import late
from tinamou.attest import Known, Launch, MalformedError, Policy, events_of, measured_by, rtmr, tdvf, tpm, verify
from tinamou.attest.expected import launch_of, trusted_of
from tinamou.attest.linux_image import as_handed_over, authenticode
from tinamou.errors import SpecError
from tinamou.images.resolve import resolve

OVMF, STORE = Path("/usr/share/ovmf/OVMF.fd"), Path("/usr/share/OVMF/OVMF_VARS_4M.fd")
GIB = 1 << 30
_EXTRA = {"tables": 0xA, "boot_variables": 0x80000002}


def _section(address: int, size: int, kind: int) -> tdvf.Section:
    return tdvf.Section(0, 0, address, size, kind, measured=False, added=True)


def test_the_hand_off_block_of_real_guests() -> None:
    """Of two guests with OVMF's layout, as their quotes have it: dstack, verifier/fixtures (2 GiB, and 64 GiB)."""
    pieces = ((0x810000, 0x10000, 3), (0x80B000, 0x2000, 3), (0x809000, 0x2000, 2), (0x800000, 0x6000, 3))
    sections = [_section(*one) for one in pieces]
    known = {
        2 * GIB: "0b8772e5b0b41b83e6044a68397e02f49fb47066b4fbe491",
        64 * GIB: "8ae1e425351df7992c444586eff99d35af3b779a",
    }
    for memory, digest in known.items():
        assert hashlib.sha384(rtmr.hand_off(sections, memory)).hexdigest().startswith(digest)
    for memory in (GIB, 3 * GIB, 4 * GIB):
        block = rtmr.hand_off(sections, memory)
        assert (len(block) - 56) % 48 == 0 and int.from_bytes(block[48:56], "little") == 0x809000 + len(block) + 8
        new = [block[at : at + 48] for at in range(56, len(block), 48)]
        sizes = [int.from_bytes(one[40:48], "little") for one in new]
        assert sum(sizes) == memory and int.from_bytes(new[-1][32:40], "little") == (
            GIB * 4 if memory >= 3 * GIB else 0x820000
        )
    with pytest.raises(MalformedError):
        rtmr.hand_off(sections[:2], GIB)


def test_variables_of_real_guests() -> None:
    """Those of the same guests, and of every TDX guest whose firmware has no keys."""
    image = made_firmware()
    found = {one.name.partition(",")[0]: one.digests for one in rtmr.of_firmware(image, GIB)}
    known = {
        "SecureBoot": "9dc3a1f80bcec915391dcda5ffbb15e7419f77eab462bbf7",
        "PK": "6f2e3cbc14f9def86980f5f66fd85e99d63e69a73014ed8a",
        "KEK": "d607c0efb41c0d757d69bca0615c3a9ac0b1db06c557d992",
        "db": "08a74f8963b337acb6c93682f934496373679dd26af1089c",
        "dbx": "18cc6e01f0c6ea99aa23f8a280423e94ad81d96d0aeb5180",
        "the separator behind Secure Boot": "394341b7182cd227c5c6b07ef8000cdfd86136c4292b8e57",
    }
    for name, digest in known.items():
        assert found[name][0].hex().startswith(digest), name
    keyed = bytearray(image)
    keyed[0x80:0x82] = b"\xaa\x55"  # a variable is in the store: what firmware reads of it is named, and not computed
    names = [one.name for one in rtmr.of_firmware(bytes(keyed), GIB)]
    assert not any("empty" in one for one in names) and "the firmware's store of variables" in names


@pytest.mark.skipif(not STORE.is_file(), reason=f"{STORE} is not installed (ovmf)")
def test_the_store_of_real_guests() -> None:
    """Debian's empty store of variables is that of TDX guests in production, byte for byte (dstack, Google)."""
    digest = hashlib.sha384(STORE.read_bytes()).hexdigest()
    assert digest.startswith("344bc51c980ba621aaa00da3ed7436f7d6e549197dfe6995")


def made_firmware() -> bytes:
    """An image with TDX metadata: an empty store, code, a hand-off block, temporary memory."""
    import uuid

    def words(*values: int) -> bytes:
        return b"".join(one.to_bytes(4, "little") for one in values)

    sections = ((0, 0x1000, 0xFFFFE000, 0x1000, 1, 0), (0x1000, 0x1000, 0xFFFFF000, 0x1000, 0, 1))
    sections += ((0, 0, 0x809000, 0x2000, 2, 0), (0, 0, 0x800000, 0x6000, 3, 0))
    described = b"TDVF" + words(16 + 32 * len(sections), 1, len(sections))
    for at, length, address, size, kind, attributes in sections:
        described += words(at, length) + address.to_bytes(8, "little") + size.to_bytes(8, "little") + words(kind, attributes)
    entry = words(512) + (22).to_bytes(2, "little") + uuid.UUID("e47a6535-984a-4798-865e-4685a7bf8ec2").bytes_le
    table = entry + (40).to_bytes(2, "little") + uuid.UUID("96b582de-1fb2-45f7-baea-a366c55a082d").bytes_le
    last = described.ljust(512 - 32 - len(table), b"\0") + table + bytes(32)
    return b"\xff" * 4096 + bytes(4096 - 512) + last


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """A TDX machine whose kernel is handed to it: the tiny guest's."""
    tiny, folder = resolve("tiny", "x86_64"), tmp_path_factory.mktemp("tdx")
    (folder / "firmware.fd").write_bytes(made_firmware())
    return Launch(folder / "firmware.fd", 2, Path(tiny.kernel), Path(tiny.initrd), "console=ttyS0 quiet", "tdx", GIB)


def happened(machine: Launch) -> list[tuple[int, int, bytes, bytes]]:
    """What a guest with these files logs, the tables and boot entries of its host among it."""
    events = [(int(one.register[-1]) + 1, 6, one.digests[-1], b"") for one in events_of(machine)]
    return [*events, *((1, kind, hashlib.sha384(name.encode()).digest(), name.encode()) for name, kind in _EXTRA.items())]


def judged(machine: Launch, events: list[tuple[int, int, bytes, bytes]], *accepted: str):  # type: ignore[no-untyped-def]
    """The answer about a guest that logged these events."""
    log, measured = made_tdx.log(events), measured_by(machine)
    policy = Policy(accepted=accepted)  # type: ignore[arg-type]
    known = Known(measured=measured, events=tuple(events_of(machine)), log=log, policy=policy)
    return verify(made_tdx.quote({**made_tdx.registers_of(log), **measured}), known).of("expected")


def test_a_start_as_it_was_computed(machine: Launch) -> None:
    answer = judged(machine, happened(machine), *_EXTRA)
    assert answer.answer == "yes" and any("the kernel's arguments" in one for one in answer.evidence)
    assert any(one.startswith("accepted by the policy, tables: ACPI") for one in answer.evidence)
    answer = judged(machine, happened(machine), "tables")
    assert answer.answer == "not judged" and "boot_variables: boot entries" in answer.why and "accepted =" in answer.fix
    known = Known(measured=measured_by(machine), events=tuple(events_of(machine)))
    answer = verify(made_tdx.quote(measured_by(machine)), known).of("expected")
    assert answer.answer == "not judged" and "--log" in answer.fix
    foreign = late.replace(known, log=made_tdx.log(happened(machine)))
    assert "give another rtmr" in verify(made_tdx.quote(measured_by(machine)), foreign).of("expected").why


def test_each_change_is_named(machine: Launch) -> None:
    """Other arguments, initrd, kernel, memory, firmware; an event more, less, twice."""
    good, kernel = happened(machine), machine.kernel
    assert kernel is not None
    other = machine.firmware.with_name("other")
    other.write_bytes(b"another initrd")
    longer = machine.firmware.with_name("kernel")
    data = bytearray(kernel.read_bytes())
    data[0x300000] ^= 1
    longer.write_bytes(bytes(data))
    for changed, word in (
        (late.replace(machine, append="console=ttyS0 init=/bin/sh"), "the kernel's arguments"),
        (late.replace(machine, initrd=other), "the initrd"),
        (late.replace(machine, kernel=longer), "the kernel"),
        (late.replace(machine, memory=2 * GIB), "the hand-off block"),
    ):
        answer = judged(machine, happened(changed), *_EXTRA)
        assert answer.answer == "no" and f"{word}" in answer.why and "new in rtmr" in answer.why, answer.why
    more = (2, 0x80000003, bytes(48), b"")
    for events, word in (([*good, more], "new in rtmr1: EFI_BOOT_SERVICES_APPLICATION"), ([*good, good[0]], "new in rtmr0")):
        assert judged(machine, events, *_EXTRA).answer == "no" and word in judged(machine, events, *_EXTRA).why
    for at in range(len(events_of(machine))):
        answer = judged(machine, good[:at] + good[at + 1 :], *_EXTRA)
        assert answer.answer == "no" and "as it is computed" in answer.why
    elsewhere = [(2 if one[0] == 3 else one[0], *one[1:]) for one in good]  # the right events in another register
    assert judged(machine, elsewhere, *_EXTRA).answer == "no"


def test_of_a_plan_and_by_the_command(machine: Launch, tmp_path: Path) -> None:
    words = ["-bios", str(machine.firmware), "-m", "1024M", "-object", '{"qom-type":"tdx-guest","id":"tdx0"}']
    disk = launch_of(words)
    assert disk.memory == GIB and {one.register for one in events_of(disk)} == {"rtmr0"}
    assert {"rtmr1", "rtmr2", "tables"} <= set(trusted_of(disk)) and set(trusted_of(machine)) == set(rtmr.TRUSTED)
    assert (
        set(trusted_of(late.replace(disk, memory=0))) == {"rtmr0", "rtmr1", "rtmr2"}
        and events_of(late.replace(disk, memory=0)) == []
    )
    told = ["attest", "expect", "--kind", "tdx", "--firmware", str(machine.firmware), "--memory", "1G"]
    told += ["--kernel", str(machine.kernel), "--initrd", str(machine.initrd), "--append", machine.append]
    text = tinamou(*told)
    assert len(tomllib.loads(text)["event"]) == len(events_of(machine)) and "# tables: ACPI" in text
    assert {one["register"] for one in json.loads(tinamou(*told, "--json"))["events"]} == {"rtmr0", "rtmr1", "rtmr2"}
    (tmp_path / "expected.toml").write_text(text)
    log = made_tdx.log(happened(machine))
    (tmp_path / "log").write_bytes(log)
    (tmp_path / "policy").write_text('accepted = ["tables", "boot_variables"]')
    (tmp_path / "quote").write_bytes(made_tdx.quote({**made_tdx.registers_of(log), **measured_by(machine)}))
    given = [
        "--expect",
        str(tmp_path / "expected.toml"),
        "--log",
        str(tmp_path / "log"),
        "--policy",
        str(tmp_path / "policy"),
    ]
    ran = call("attest", "verify", str(tmp_path / "quote"), *given, "--json")
    assert json.loads(ran.stdout)["answers"]["expected"]["answer"] == "yes" and ran.returncode == 20  # nobody signed it
    (tmp_path / "expected.toml").write_text(text.replace('register = "rtmr1"', 'register = "rtmr9"'))
    ran = call("attest", "verify", str(tmp_path / "quote"), *given)
    assert ran.returncode == 110 and "an event has register" in ran.stderr
    assert call(*told[:6], "--memory", "many").returncode == 110


def test_what_is_no_kernel(machine: Launch) -> None:
    assert machine.kernel is not None
    kernel = machine.kernel.read_bytes()
    head = int.from_bytes(kernel[0x3C:0x40], "little")

    def turned(at: int, value: bytes) -> bytes:
        return kernel[:at] + value + kernel[at + len(value) :]

    for broken in (b"", bytes(99), b"MZ" + bytes(70), turned(head, b"XX"), turned(head + 6, b"\xff\xff"), kernel[:0x300]):
        with pytest.raises(MalformedError):
            authenticode(broken)
    for broken in (b"", bytes(5000), turned(0x206, b"\1\1"), turned(0x211, b"\0")):
        with pytest.raises(MalformedError):
            as_handed_over(broken, 5, GIB)
    with pytest.raises(SpecError):
        events_of(late.replace(machine, kernel=machine.firmware))


@pytest.mark.vm
@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.skipif(not shutil.which("swtpm_setup"), reason="swtpm-tools is not installed (script/setup test)")
@pytest.mark.skipif(not STORE.is_file(), reason="OVMF is not installed (ovmf)")
def test_a_real_firmware_measures_as_it_is_computed(leftovers, tmp_path: Path) -> None:
    """OVMF with a TPM measures a kernel, its arguments and its initrd by the same code as with TDX, in other registers."""
    code = "if=pflash,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.fd"
    described = f'image = "tiny"\nname = "measured"\nmemory = "256M"\ntpm = true\nqemu_args = ["-drive", "{code}"]\n'
    (tmp_path / "machine.toml").write_text(described)
    tinamou("run", str(tmp_path / "machine.toml"), "-d", "--timeout", "200")
    try:
        tinamou("attest", "quote", "measured", "-o", str(tmp_path / "quote"))
        words = tinamou("exec", "measured", "--", "cat", "/proc/cmdline").rstrip("\n")
    finally:
        tinamou("rm", "--force", "measured")
    events = tpm.parse((tmp_path / "quote").read_bytes()).events()
    digests = {(one.register, one.digests["sha256"]) for one in events if one.digests}
    tiny = resolve("tiny", "x86_64")
    kernel, initrd = Path(tiny.kernel).read_bytes(), Path(tiny.initrd).read_bytes()
    assert words.endswith(" initrd=initrd")
    options = words.encode("utf-16-le") + bytes(2)
    handed = authenticode(as_handed_over(kernel, len(initrd), 256 << 20), "sha256")
    for register, digest in ((4, handed), (9, hashlib.sha256(options).digest()), (9, hashlib.sha256(initrd).digest())):
        assert (register, digest) in digests, register
    for text in (b"Exit Boot Services Invocation", b"Exit Boot Services Returned with Success"):
        assert (5, hashlib.sha256(text).digest()) in digests
    assert (4, hashlib.sha256(b"Calling EFI Application from Boot Option").digest()) in digests
    assert (7, hashlib.sha256(bytes(4)).digest()) in digests
    assert leftovers.found() == []


def test_a_plan_in_a_file_says_what_is_measured(machine: Launch, tmp_path: Path) -> None:
    words = ["qemu", "-bios", str(machine.firmware), "-m", "1024M", "-object", '{"qom-type":"tdx-guest","id":"tdx0"}']
    (tmp_path / "plan.json").write_text(json.dumps({"argv": words}))
    assert (
        json.loads(tinamou("attest", "expect", str(tmp_path / "plan.json"), "--json"))["mrtd"]
        == tdvf.mrtd(made_firmware()).hex()
    )
    for broken in ("{", '{"argv": 7}', '{"argv": [7]}', "[]"):
        (tmp_path / "plan.json").write_text(broken)
        assert "it is no plan" in call("attest", "expect", str(tmp_path / "plan.json")).stderr


@pytest.mark.vm
@pytest.mark.parametrize("version", VERSIONS)
def test_qemu_writes_the_heads_that_are_computed(version: str, program_of, machine: Launch) -> None:
    """What each QEMU hands to the firmware, asked of it by its port for tests (fw_cfg, FW_CFG_SETUP_DATA), by memory."""
    assert machine.kernel is not None and machine.initrd is not None
    kernel, initrd = machine.kernel.read_bytes(), machine.initrd.stat().st_size
    for memory in (GIB, 2900 << 20, 4 * GIB):
        words = ["-accel", "tcg", "-S", "-M", "q35", "-m", f"{memory >> 20}M", "-display", "none", "-nodefaults"]
        words += ["-kernel", str(machine.kernel), "-initrd", str(machine.initrd), "-append", "x"]
        asked = "outw 0x510 0x18\n" + "inb 0x511\n" * 0x260
        qemu = subprocess.Popen(
            [program_of(version, "qemu-system-x86_64"), *words, "-qtest", "stdio", "-qtest-log", "/dev/null"],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )  # fmt: skip
        try:
            assert qemu.stdin and qemu.stdout
            qemu.stdin.write(asked)
            qemu.stdin.flush()
            said = [line.split() for _, line in zip(range(0x261), qemu.stdout, strict=False)]
        finally:
            qemu.kill()
            qemu.communicate()
        head = bytes(int(one[1], 16) for one in said[1:])
        assert head == as_handed_over(kernel, initrd, rtmr.below_4g(memory))[:0x260] and len(head) == 0x260
