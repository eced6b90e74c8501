"""The same facts give the same command line as ever, and the real binary of that version accepts it.

After a wanted change: ``PYTHONPATH=tests:tests/golden python tests/golden/cases.py``, then read the difference.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from cases import CASES, Case, facts, image_of, spec_of, text_of
from recorded import VERSIONS
from windows_cases import HOSTS

from tinamou.facts import Place
from tinamou.launch.argv import argv
from tinamou.parts.windows import RELEASES
from tinamou.planner import plan
from tinamou.prepare.apply import apply, undo
from tinamou.prepare.journal import Journal

ACCEPTED = [
    case
    for case in CASES
    if case.accel in ("tcg", "kvm-needs")
    and case.spec not in ("networks", "passthrough", "pmem")
    and not text_of(case).startswith("refused")
]
"""``networks`` needs interfaces and sockets of the host, ``passthrough`` a device, ``pmem`` files: tests/net, tests/lab and
tests/e2e/test_persistent_memory.py start those."""


@pytest.mark.parametrize("case", CASES, ids=str)
def test_plan(case: Case):
    assert text_of(case) == case.file.read_text()


def test_there_are_more_than_four_hundred():
    """With those of Windows, and of guests whose memory is encrypted."""
    import confidential_cases
    import windows_cases

    whole = [*CASES, *windows_cases.CASES, *confidential_cases.CASES]
    assert len({str(case) for case in whole}) == len(whole) > 400
    windows = {(case.release, case.version, HOSTS[case.host].vendor) for case in windows_cases.CASES}
    assert len(windows) == len(RELEASES) * len(VERSIONS) * 2


def test_no_stray_recording():
    recorded = {path.name for path in CASES[0].file.parent.iterdir()}
    assert recorded == {case.file.name for case in CASES}


def _real_image(case: Case, folder: Path):
    """The case's image with files that exist: the tiny guest's kernel, and an empty disk."""
    from tinamou.images.resolve import resolve

    tiny = resolve("tiny", case.arch)
    wanted = image_of(case)
    files = {"kernel": tiny.kernel, "initrd": tiny.initrd, "fast_kernel": tiny.fast_kernel if wanted.fast_kernel else ""}
    if wanted.disk:
        files["disk"] = str(folder / "base.qcow2")
        subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", files["disk"], "64M"], check=True)
    return dataclasses.replace(wanted, **files)


@pytest.mark.vm
@pytest.mark.parametrize("case", ACCEPTED, ids=str)
def test_the_real_binary_accepts_it(case: Case, program_of, state: Path):
    if case.accel == "kvm-needs" and (case.arch != os.uname().machine or not os.access("/dev/kvm", os.W_OK)):
        pytest.skip(f"KVM for {case.arch} cannot be opened on this host")
    binary = program_of(case.version, f"qemu-system-{case.arch}")
    folder = state / "m"
    folder.mkdir()
    folder.chmod(0o711)
    owner = 1_900_000_000 if os.geteuid() == 0 else None
    known = facts(case, _real_image(case, state), Place("web", str(folder), owner, 0))
    firmware = tuple(one for one in known.firmware if Path(one.executable).exists())
    if case.spec == "debian-uefi" and not firmware:
        pytest.skip("no UEFI firmware is installed")
    made = plan(spec_of(case), dataclasses.replace(known, firmware=firmware))
    words = [binary, *argv(made)[1:], "-S", "-qmp", "stdio"]
    asked = '{"execute":"qmp_capabilities"}\n{"execute":"query-status"}\n{"execute":"quit"}\n'
    apply(made.steps, folder)
    try:
        done = subprocess.run(words, input=asked, capture_output=True, text=True, timeout=60, check=False)
    finally:
        Journal(folder).give_back(undo)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr
    greeting, *answers = [json.loads(line) for line in done.stdout.splitlines()]
    major, minor = case.version.split(".")
    assert greeting["QMP"]["version"]["qemu"]["major"] == int(major)
    assert greeting["QMP"]["version"]["qemu"]["minor"] == int(minor)
    assert any(a.get("return", {}).get("status") == "prelaunch" for a in answers if isinstance(a.get("return"), dict))


@pytest.mark.vm
@pytest.mark.parametrize("version", VERSIONS)
def test_only_the_device_is_missing(version: str, program_of):
    """What is said of a device of the host is understood by the real binary, which then does not find it."""
    case = Case("passthrough", version, "x86_64", "tcg")
    made = plan(spec_of(case), facts(case, image_of(case), Place("web", "/nowhere", None, 0)))
    ours = [e for e in made.elements if e.props.get("driver") == "vfio-pci" or e.id == "pci0-port"]
    binary = program_of(version, "qemu-system-x86_64")
    words = [binary, "-machine", "q35", "-nodefaults", "-display", "none", "-S"]
    words += [word for element in ours for word in ("-device", json.dumps(element.props))]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=False, stdin=subprocess.DEVNULL)
    assert done.returncode != 0
    assert "0000:65:00.0: no such host device" in done.stderr, done.stderr


@pytest.mark.vm
def test_a_wrong_argument_would_be_noticed(state: Path):
    """The acceptance check refuses what QEMU refuses."""
    binary = shutil.which("qemu-system-x86_64")
    words = [binary, "-nodefaults", "-display", "none", "-device", '{"driver":"virtio-blk-pci","drive":"nowhere"}', "-S"]
    done = subprocess.run([*words, "-qmp", "stdio"], input="", capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode != 0
