"""Plans for Windows stay what they were, and every word of them is known to the QEMU it is said to.

After a wanted change: ``PYTHONPATH=src:tests:tests/golden python tests/golden/windows_cases.py``, then read the difference.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
from pathlib import Path

import pytest
import recorded
from windows_cases import CASES, FOLDER, HOSTS, Case, described, facts, lines_of, planned, text_of

from tinamou.blueprint import Plan
from tinamou.facts import HyperVFacts, Place
from tinamou.launch.argv import argv
from tinamou.parts.windows import RELEASES
from tinamou.planner import plan
from tinamou.prepare.apply import apply, undo
from tinamou.prepare.journal import Journal
from tinamou.spec import load_spec


@pytest.mark.parametrize("release", RELEASES)
def test_plans(release: str):
    assert text_of(release) == (FOLDER / f"{release}.txt").read_text()


def test_no_stray_recording():
    assert {path.name for path in FOLDER.iterdir()} == {f"{release}.txt" for release in RELEASES}
    assert not any(lines_of(case)[0].startswith("refused") for case in CASES[::7])


def cpu_words(version: str) -> set[str]:
    """Every feature said to a CPU in the plans for that QEMU."""
    found = set()
    for case in (one for one in CASES if one.version == version):
        value = next(flag.value for flag in planned(case).flags if flag.name == "cpu")
        found |= set((value or "").split(",")[1:])
    return found


@pytest.mark.parametrize("version", recorded.VERSIONS)
def test_every_feature_is_a_property_of_the_cpu(version: str):
    known = recorded.qemu(version, "x86_64")
    for word in cpu_words(version):
        name = word.partition("=")[0].lstrip("-")
        assert known.has(f"property:max-x86_64-cpu.{name}"), word


@pytest.mark.vm
@pytest.mark.parametrize("version", recorded.VERSIONS)
def test_the_real_binary_accepts_every_feature(version: str, program_of):
    """Under TCG, which shows none of them to a guest, but refuses what it does not know; 7.2 asks KVM about one."""
    words = [word for word in sorted(cpu_words(version)) if (word, version) != ("hv-vpindex=on", "7.2")]
    assert len(words) > 12
    for more, status in (([], 0), (["hv-nosuch=on"], 1)):
        line = [program_of(version, "qemu-system-x86_64"), "-machine", "q35,hpet=off", "-accel", "tcg", "-nodefaults", "-S"]
        line += ["-display", "none", "-qmp", "stdio", "-cpu", ",".join(["max", *words, *more])]
        asked = '{"execute":"qmp_capabilities"}\n{"execute":"quit"}\n'
        done = subprocess.run(line, input=asked, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == status, done.stderr
        assert status or "deprecated" not in done.stderr


def _emulated(made: Plan, version: str) -> Plan:
    """The same machine under TCG: the CPU of that name, without the timer that KVM has, nor what 7.2 asks KVM about."""
    flags = []
    for flag in made.flags:
        if flag.name == "accel":
            flag = dataclasses.replace(flag, value="tcg")
        elif flag.name == "cpu":
            kept = [word for word in (flag.value or "").split(",")[1:] if (word, version) != ("hv-vpindex=on", "7.2")]
            flag = dataclasses.replace(flag, value=",".join(["max", *kept]))
        if flag.options.get("driver") != "kvm-pit":
            flags.append(flag)
    return dataclasses.replace(made, flags=tuple(flags))


@pytest.mark.vm
@pytest.mark.parametrize("version", recorded.VERSIONS)
@pytest.mark.parametrize("shape", ["setup", "installed"])
@pytest.mark.parametrize("host", ["intel", pytest.param("amd", marks=pytest.mark.slow)])
@pytest.mark.parametrize(
    "release",
    ["windows-11", *(pytest.param(one, marks=pytest.mark.slow) for one in RELEASES if one != "windows-11")],
)
def test_the_real_binary_accepts_the_machine(release: str, host: str, shape: str, version: str, program_of, state: Path):
    """Every release on both makers' processors; one by default, as releases differ in firmware and TPM, hosts in the CPU."""
    folder = state / "m"
    folder.mkdir()
    folder.chmod(0o711)
    disk = state / ("win.iso" if shape == "setup" else "win.qcow2")
    subprocess.run(["qemu-img", "create", "-q", "-f", "raw" if shape == "setup" else "qcow2", disk, "64M"], check=True)
    case = Case(release, version, host, shape)
    known = facts(case)
    image = dataclasses.replace(known.image, disk=str(disk))
    place = Place("web", str(folder), 1_900_000_000 if os.geteuid() == 0 else None, 0)
    firmware = tuple(one for one in known.firmware if Path(one.executable).exists())
    known = dataclasses.replace(known, image=image, place=place, firmware=firmware)
    made = _emulated(plan(load_spec(described(case)), known), version)
    asked = '{"execute":"qmp_capabilities"}\n{"execute":"query-status"}\n{"execute":"quit"}\n'
    apply(made.steps, folder)
    try:
        words = [program_of(version, "qemu-system-x86_64"), *argv(made)[1:], "-S", "-qmp", "stdio"]
        done = subprocess.run(words, input=asked, capture_output=True, text=True, timeout=120, check=False)
    finally:
        Journal(folder).give_back(undo)
    assert done.returncode == 0 and '"prelaunch"' in done.stdout, done.stderr
    assert "deprecated" not in done.stderr


def _said(case: Case, found: HyperVFacts, **more: object) -> tuple[list[str], list[str]]:
    """The CPU's words and the notes on a host with these facts."""
    description = {"os": case.release, "memory": "8G", "net": "user", **more}
    made = plan(load_spec(description), dataclasses.replace(facts(case), hyperv=found))
    value = next(flag.value for flag in made.flags if flag.name == "cpu")
    return (value or "").split(","), [note.text for note in made.notes]


@pytest.mark.parametrize("release", RELEASES)
def test_evmcs_is_for_intel_alone(release: str):
    intel, amd = (Case(release, "11.1", name, "installed") for name in ("intel", "amd"))
    assert "hv-evmcs=on" in _said(intel, HOSTS["intel"])[0]
    assert not any("evmcs" in word for word in _said(amd, HOSTS["amd"])[0])


def test_what_the_kernel_lacks_is_left_out_with_all_that_needs_it_and_said():
    case, known = Case("windows-11", "11.1", "amd", "installed"), HOSTS["amd"]
    words, notes = _said(case, dataclasses.replace(known, offered=frozenset(known.offered or ()) - {"synic"}))
    assert not any(word.startswith(("hv-synic", "hv-stimer")) for word in words)
    assert "no hv-synic for Windows: this kernel's KVM does not have it" in notes


def test_what_the_user_says_of_the_cpu_stays():
    case = Case("windows-11", "11.1", "intel", "installed")
    words, _ = _said(case, HOSTS["intel"], cpu={"count": 2, "model": "host,-hv_time,hv-spinlocks=0xfff,cet-ss=on"})
    assert words.count("cet-ss=on") == 1 and "cet-ss=off" not in words and "hv-time=on" not in words
    assert not any(word.startswith("hv-stimer") for word in words), "it needs hv-time"
    assert [word for word in words if "spinlocks" in word] == ["hv-spinlocks=0xfff"]


def test_every_decision_has_its_reason():
    for case in CASES[::5]:
        made = planned(case)
        assert all(one.why.reason and one.why.asked_by for one in (*made.elements, *made.flags, *made.steps, *made.notes))
        cpu = next(flag for flag in made.flags if flag.name == "cpu")
        named = [word.partition("=")[0] for word in (cpu.value or "").split(",")[1:] if word.startswith("hv-")]
        assert named and all(name in cpu.why.reason for name in named)


def test_disks_are_where_the_setup_finds_them():
    for shape, drivers in (("setup", {"ide-cd", "ide-hd"}), ("installed", {"virtio-blk-pci"})):
        made = planned(Case("windows-11", "11.1", "amd", shape))
        devices = [json.loads(json.dumps(one.props)) for one in made.elements if one.kind == "device"]
        assert {one["driver"] for one in devices if "drive" in one} == drivers
        assert len({one["bus"] for one in devices if "drive" in one and "bus" in one}) == (2 if shape == "setup" else 0)
