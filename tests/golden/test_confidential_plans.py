"""Plans for encrypted memory stay what they were; the real binaries refuse them for lack of hardware, and of nothing else.

No such hardware was at hand: what starts at all here is the same machine without the encryption, under emulation.
After a wanted change: ``PYTHONPATH=src:tests python tests/confidential_cases.py``.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import os
import re
import struct
import subprocess
import time
from pathlib import Path
from uuid import UUID

import pytest
from confidential_cases import CASES, FOLDER, Case, facts, image_of, spec_of, text_of
from recorded import VERSIONS

from tinamou.blueprint import Flag, Plan, Why
from tinamou.control import connect_qmp
from tinamou.control.commands import quit, status
from tinamou.errors import ControlError
from tinamou.facts import Firmware, Place
from tinamou.images.resolve import resolve
from tinamou.launch.argv import argv
from tinamou.launch.process import start
from tinamou.parts.confidential import encrypted_by
from tinamou.planner import plan
from tinamou.prepare.apply import apply, undo
from tinamou.prepare.journal import Journal
from tinamou.probe.encryption import probe_encryption, takes_hashes
from tinamou.system.memlock import lockable
from tinamou.system.rooted import Rooted
from tinamou.system.spawn import wait_gone

OVMF = Path("/usr/share/ovmf/OVMF.fd")
"""One image of code and variables, whose table of descriptions has an entry for hashes of kernels, and no room behind it."""

HASHES = UUID("7255371f-3a3b-4b04-927b-1da6efa8d454").bytes_le

STARTED = [case for case in CASES if "confidential-guest-support" in case.file.read_text()]

REST = [case for case in CASES if not case.file.read_text().startswith("refused")]
"""What can be started without the encryption."""

REFUSALS = {
    "sev of 7.2": r"-accel kvm: sev_kvm_init: cbitpos check failed, host '\d+' requested '(47|51)'",
    "sev": r"-accel kvm: sev_common_kvm_init: cbitpos check failed, host '\d+' requested '(47|51)'",
    "sev-snp": r"-accel kvm: vm-type SEV-SNP not supported by KVM",
    "tdx": r"-accel kvm: vm-type TDX not supported by KVM",
}
"""What each binary says first on a processor without SEV and TDX, before it looks at anything else of the machine."""

EMULATED = {
    "sev of 7.2": r"Assertion `machine->cgs->ready' failed",
    "sev": r"accelerator does not support confidential guest sev-guest",
    "sev-snp": r"cannot set up private guest memory for sev-snp-guest: KVM required",
    "tdx": r"cannot set up private guest memory for tdx-guest: KVM required",
}
"""What it says under TCG, after it has built the machine: 7.2 dies."""


@pytest.mark.parametrize("case", CASES, ids=str)
def test_plan(case: Case):
    assert text_of(case) == case.file.read_text()


def test_no_stray_recording():
    assert {path.name for path in FOLDER.iterdir()} == {case.file.name for case in CASES}


def test_every_argument_has_its_reason():
    for case in CASES:
        if not text_of(case).startswith("refused"):
            made = plan(spec_of(case), facts(case, image_of(case)))
            assert all(one.why.reason and one.why.asked_by for one in (*made.elements, *made.flags, *made.steps)), case


def _kind(case: Case) -> str:
    found = re.search(r'"(sev|sev-snp|tdx)-guest"', case.file.read_text())
    assert found
    return f"{found[1]} of 7.2" if case.version == "7.2" else found[1]


def _verifying(folder: Path) -> str:
    """A copy of the firmware that claims to verify kernels: its table says where the hashes go."""
    if not OVMF.exists():
        pytest.skip(f"{OVMF} is not installed")
    data = bytearray(OVMF.read_bytes())
    at = data.rindex(HASHES) - 10
    data[at : at + 8] = struct.pack("<2I", 0x80FC00, 0x400)
    (folder / "verifying.fd").write_bytes(data)
    (folder / "verifying.fd").chmod(0o644)
    return str(folder / "verifying.fd")


def _real_plan(case: Case, folder: Path, *, throwaway: bool = False) -> Plan:
    """The case on files that exist: firmware, the tiny guest, an empty disk; on QEMU's own network, no passt to start."""
    file = _verifying(folder)
    tiny = resolve("tiny", "x86_64")
    image = dataclasses.replace(image_of(case), kernel=tiny.kernel, initrd=tiny.initrd, cmdline=tiny.cmdline)
    if image.disk:
        image = dataclasses.replace(image, disk=str(folder / "base.qcow2"))
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", image.disk, "64M"], check=True)
    place = Place("web", str(folder), 1_900_000_000 if os.geteuid() == 0 else None, 0, throwaway=throwaway)
    known = facts(case, image, place)
    firmware: tuple[Firmware, ...] = tuple(dataclasses.replace(one, executable=file) for one in known.firmware)
    hashing = frozenset({file} if takes_hashes(file) else ())
    encryption = dataclasses.replace(known.encryption, hashing=hashing, opens=True)
    spec = spec_of(case)
    nets = tuple(dataclasses.replace(one, type="user") for one in spec.net)
    return plan(dataclasses.replace(spec, net=nets), dataclasses.replace(known, firmware=firmware, encryption=encryption))


def _plain(made: Plan) -> Plan:
    """The same machine without the encryption."""
    elements = tuple(one for one in made.elements if not encrypted_by([one]))
    kept = [
        {key: value for key, value in flag.options.items() if key != "confidential-guest-support"} for flag in made.flags
    ]
    flags = tuple(dataclasses.replace(flag, options=options) for flag, options in zip(made.flags, kept, strict=True))
    return dataclasses.replace(made, elements=elements, flags=flags)


def _emulated(made: Plan) -> Plan:
    """The same machine under emulation."""
    flags = []
    for flag in made.flags:
        if flag.name == "accel":
            flag = dataclasses.replace(flag, value="tcg")
        elif flag.name == "cpu":
            flag = dataclasses.replace(flag, value="max")
        elif flag.name == "append":
            flag = dataclasses.replace(flag, value=f"{flag.value} no_timer_check")
        flags.append(flag)
    return dataclasses.replace(made, flags=tuple(flags))


def _said(binary: str, made: Plan, folder: Path, *more: str, asked: str = "") -> subprocess.CompletedProcess[str]:
    words = [binary, *argv(made)[1:], "-S", *more]
    apply(made.steps, folder)
    try:
        return subprocess.run(words, input=asked, capture_output=True, text=True, timeout=120, check=False)
    finally:
        Journal(folder).give_back(undo)


def _without_the_hardware() -> None:
    if not os.access("/dev/kvm", os.W_OK):
        pytest.skip("KVM cannot be opened on this host")
    here = probe_encryption(Rooted())
    if here.processor or here.flags:
        pytest.skip("this host has such hardware: the plan is for another")


@pytest.fixture
def folder(state: Path) -> Path:
    made = state / "m"
    made.mkdir()
    made.chmod(0o711)
    return made


@pytest.mark.vm
@pytest.mark.parametrize("case", STARTED, ids=str)
def test_the_real_binary_refuses_it_for_the_lack_of_hardware_alone(case: Case, program_of, folder: Path):
    _without_the_hardware()
    done = _said(program_of(case.version, "qemu-system-x86_64"), _real_plan(case, folder), folder)
    first, *rest = done.stderr.splitlines()
    assert done.returncode == 1
    assert re.search(REFUSALS[_kind(case)] + "$", first), done.stderr
    assert all("failed to initialize kvm" in line for line in rest), done.stderr


@pytest.mark.vm
@pytest.mark.parametrize("accel", ["kvm", "tcg"])
@pytest.mark.parametrize("case", REST, ids=str)
def test_the_rest_of_the_machine_is_accepted(case: Case, accel: str, program_of, folder: Path):
    """Everything but the encryption: firmware, board, devices on shared memory, with the processor's part left out."""
    if accel == "kvm" and not os.access("/dev/kvm", os.W_OK):
        pytest.skip("KVM cannot be opened on this host")
    made = _plain(_real_plan(case, folder))
    made = _emulated(made) if accel == "tcg" else made
    asked = '{"execute":"qmp_capabilities"}\n{"execute":"query-status"}\n{"execute":"quit"}\n'
    done = _said(program_of(case.version, "qemu-system-x86_64"), made, folder, "-qmp", "stdio", asked=asked)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line).get("return") for line in done.stdout.splitlines()]
    assert any(isinstance(one, dict) and one.get("status") == "prelaunch" for one in answers)


@pytest.mark.vm
@pytest.mark.parametrize("case", [case for case in STARTED if case.boot == "direct"], ids=str)
def test_without_kvm_the_real_binary_refuses_or_dies(case: Case, program_of, folder: Path):
    """Why a plan without KVM is refused beforehand."""
    done = _said(program_of(case.version, "qemu-system-x86_64"), _emulated(_real_plan(case, folder)), folder)
    assert done.returncode != 0
    assert re.search(EMULATED[_kind(case)], done.stderr), done.stderr


@pytest.mark.vm
@pytest.mark.root
@pytest.mark.parametrize("kind", ["sev", "sev-snp"])
def test_started_as_machines_are_it_ends_for_the_same_reason(kind: str, program_of, folder: Path):
    """Confined: a user id of its own, both devices' groups, those that are here, and the right to lock what is pinned."""
    _without_the_hardware()
    device = Path("/dev/kvm").stat()
    if not (device.st_mode & 0o006 == 0o006 or (device.st_gid and device.st_mode & 0o060 == 0o060)):
        pytest.skip(f"/dev/kvm is {device.st_mode & 0o777:04o} of root alone: a QEMU that is not root cannot open it here")
    if kind == "sev" and lockable() is not None:
        pytest.skip("the limit of locked memory cannot be raised here, and such a plan is refused")
    case = next(one for one in STARTED if (one.requested, one.boot, one.version) == (kind, "direct", "10.0"))
    made = dataclasses.replace(_real_plan(case, folder), binary=program_of(case.version, "qemu-system-x86_64"))
    groups = (Path("/dev/kvm").stat().st_gid, *made.confinement.groups[1:])
    # the walls are those of the recorded host: its devices, where its QEMU lies, what that calls
    mine = dataclasses.replace(
        made.confinement, groups=groups, namespaces=(), landlock=(0, 0, 0), devices=(), reads=(), calls=()
    )
    made = dataclasses.replace(made, confinement=mine)
    apply(made.steps, folder)
    try:
        assert wait_gone(start(made, folder, dies_with_parent=True), 60)
    finally:
        Journal(folder).give_back(undo)
    assert re.search(REFUSALS[_kind(case)] + "$", (folder / "qemu.log").read_text(), re.MULTILINE)


@pytest.mark.vm
def test_firmware_is_handed_over_wherever_it_is(program_of, folder: Path):
    """Started behind its walls, from which the folder of the firmware is not seen: QEMU has loaded it all the same."""
    version = "7.2"
    case = next(one for one in STARTED if (one.requested, one.boot, one.version) == ("sev", "direct", version))
    made = _emulated(_plain(_real_plan(case, folder, throwaway=True)))
    alone = dataclasses.replace(made.confinement, devices=(), groups=(), locked=None)
    waits = Flag("S", Why("test", "it is looked at before it runs"))
    binary = program_of(version, "qemu-system-x86_64")
    made = dataclasses.replace(made, confinement=alone, accel="tcg", binary=binary, flags=(*made.flags, waits))
    apply(made.steps, folder)

    async def looked() -> str:
        process = start(made, folder, dies_with_parent=True)
        try:
            connecting = connect_qmp(str(folder), owner=True, alive=lambda: not wait_gone(process, 0), timeout=60)
            async with await connecting as session:
                state = (await status(session)).state
                await quit(session, 60)
        except ControlError:
            raise AssertionError((folder / "qemu.log").read_text()) from None
        assert wait_gone(process, 60)
        return state

    try:
        assert asyncio.run(looked()) == "prelaunch"
    finally:
        Journal(folder).give_back(undo)


@pytest.mark.vm
def test_qemu_judges_firmware_as_it_is_judged_here(program_of, folder: Path):
    """QEMU 10 looks for the room for hashes before it looks at the accelerator."""
    case = next(one for one in STARTED if (one.requested, one.boot, one.version) == ("sev", "direct", "10.0"))
    made = _emulated(_real_plan(case, folder))
    without = tuple(dataclasses.replace(one, value=str(OVMF)) if one.name == "bios" else one for one in made.flags)
    assert not takes_hashes(str(OVMF))
    done = _said(program_of(case.version, "qemu-system-x86_64"), dataclasses.replace(made, flags=without), folder)
    assert "guest firmware hashes table area is invalid (base=0x0 size=0x0)" in done.stderr


@pytest.mark.vm
@pytest.mark.slow
@pytest.mark.parametrize("version", VERSIONS)
def test_a_guest_boots_on_such_a_machine(version: str, program_of, folder: Path):
    """Firmware as one image loads the kernel, and the guest's agent comes up over devices with iommu_platform."""
    case = next(one for one in STARTED if (one.requested, one.boot, one.version) == ("sev", "direct", version))
    made = _emulated(_plain(_real_plan(case, folder, throwaway=True)))
    apply(made.steps, folder)
    log = folder / "serial.log"
    with (folder / "qemu.log").open("w") as output:
        words = [program_of(case.version, "qemu-system-x86_64"), *argv(made)[1:]]
        qemu = subprocess.Popen(words, stdin=subprocess.DEVNULL, stdout=output, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 240
        while not (log.exists() and "# " in log.read_text(errors="replace")[-100:]):
            assert qemu.poll() is None, (folder / "qemu.log").read_text()
            assert time.monotonic() < deadline, log.read_text(errors="replace")[-2000:]
            time.sleep(0.5)
    finally:
        qemu.kill()
        qemu.wait()
        Journal(folder).give_back(undo)
