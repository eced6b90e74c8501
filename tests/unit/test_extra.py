"""Devices that are there when asked for: where they sit, and what is refused by name."""

from __future__ import annotations

import dataclasses
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made_facts import DEBIAN, TCG, TINY, facts, host, of_arch
from recorded import qemu

from tinamou.blueprint import HandOver, WriteText
from tinamou.errors import PlanError, SpecError
from tinamou.facts import Facts
from tinamou.launch.argv import argv
from tinamou.launch.handover import properties, with_descriptors
from tinamou.parts import clock
from tinamou.planner import plan
from tinamou.snapshots import extras
from tinamou.spec import load_spec


def known(arch: str = "x86_64", version: str = "11.1") -> Facts:
    return dataclasses.replace(facts(of_arch(TINY, arch), TCG), qemu=qemu(version, arch))


def refusal(description: dict[str, Any], there: Facts) -> str:
    with pytest.raises(PlanError) as error:
        plan(load_spec(description), there)
    return str(error.value)


def drivers(description: dict[str, Any], there: Facts) -> list[str]:
    return [str(one.props["driver"]) for one in plan(load_spec(description), there).elements if one.kind == "device"]


def test_vsock_is_handed_the_open_device():
    there = known()
    there = dataclasses.replace(there, host=dataclasses.replace(host(), devices=frozenset({"/dev/vhost-vsock"})))
    made = plan(load_spec({"devices": {"vsock": 7}}), there)
    device = next(one for one in made.elements if one.id == "vsock0")
    assert HandOver in {type(step) for step in made.steps if getattr(step, "path", "") == "/dev/vhost-vsock"}
    spelled = properties(device, {"/dev/vhost-vsock": 9}, {"/dev/vhost-vsock": "/dev/fdset/3"})
    assert (spelled["guest-cid"], spelled["vhostfd"]) == (7, "9")
    assert "fork" in refusal({"devices": {"vsock": 7}, "memory": {"forkable": True}}, there)


@pytest.mark.parametrize("video", ["virtio", "std", "ramfb", "qxl"])
@pytest.mark.parametrize("arch", ["x86_64", "aarch64", "riscv64"])
def test_each_card_is_there_or_refused_by_name(video: str, arch: str):
    description, there = {"display": {"video": video}}, known(arch)
    if (video, arch) in (("qxl", "aarch64"), ("qxl", "riscv64")):
        assert "display.video = 'qxl'" in refusal(description, there)
    else:
        card = {"virtio": "virtio-", "std": "VGA", "ramfb": "ramfb", "qxl": "qxl-vga"}[video]
        assert any(one.startswith(card) for one in drivers(description, there))


@pytest.mark.parametrize("display", ["vnc", {"video": "virtio"}])
def test_a_card_on_which_no_firmware_draws_is_told(display: Any):
    """Of a QEMU without the module of virtio-vga, which is in a package of its own."""

    def told(there: Facts) -> list[str]:
        return [note.text for note in plan(load_spec({"display": display}), there).notes if "stays dark" in note.text]

    whole = known()
    without = dataclasses.replace(whole, qemu=dataclasses.replace(whole.qemu, types=whole.qemu.types - {"virtio-vga"}))
    assert told(whole) == told(known("aarch64")) == []
    [note] = told(without)
    assert "virtio-gpu-pci" in note and "has no virtio-vga" in note


def test_what_this_qemu_lacks_is_refused_by_name():
    assert "devices.sound = 'virtio'" in refusal({"devices": {"sound": "virtio"}}, known(version="7.2"))
    assert "display.video = 'qxl'" in refusal({"display": {"video": "qxl"}}, known(version="10.0"))
    assert "devices.vsock" in refusal({"devices": {"vsock": 3}}, known())
    assert "smbios" in refusal({"smbios": {"product": "x"}}, known("riscv64", "7.2"))
    assert "devices.serial" in refusal({"devices": {"serial": 4}}, known())
    assert "display.video" in refusal({"display": {"type": "vnc", "video": "none"}}, known())
    assert "'sata'" in refusal({"disk": [{"size": "1M", "interface": "sata"}]}, known("aarch64"))
    assert "SATA ports" in refusal({"disk": [{"size": "1M", "interface": "sata"}] * 7}, known())


@pytest.mark.parametrize(
    ("description", "field"),
    [
        ({"usb": ["stick"]}, "usb[0].path"),
        ({"usb": [{"type": "hub", "path": "/x"}]}, "usb[0].path"),
        ({"devices": {"vsock": 2}}, "devices.vsock"),
        ({"smbios": {"uuid": "1"}}, "smbios.uuid"),
        ({"smbios": {"product": "ü"}}, "smbios.product"),
        ({"smbios": {"oem": ["a\nb"]}}, "smbios.oem"),
        ({"clock": "yesterday"}, "clock.base"),
        ({"clock": {"base": "localtime", "offset": 5}}, "clock.offset"),
        ({"clock": {"offset": 10**13}}, "clock.offset"),
        ({"clock": {"offset": -(10**13)}}, "clock.offset"),
        ({"disk": [{"size": "1M", "interface": "sata", "block_size": 4096}]}, "disk[0].block_size"),
        ({"disk": [{"size": "1M", "interface": "sata", "port": 1}]}, "disk[0].port"),
        ({"disk": [{"size": "1M", "interface": "sata", "iothread": True}]}, "disk[0].iothread"),
    ],
)
def test_what_no_machine_can_have_is_refused_by_name(description: dict[str, Any], field: str):
    with pytest.raises(SpecError) as error:
        load_spec(description)
    assert field in str(error.value)


@pytest.mark.parametrize(
    ("description", "base"),
    [
        ({"clock": {"offset": -36525 * 86400}}, "1926-01-31T11:00:00"),
        ({"clock": {"offset": -3600}}, "2026-01-31T10:00:00"),
        ({"os": "windows-11", "clock": {"offset": -3600}}, "2026-01-31T12:00:00"),
        ({"os": "windows-11", "clock": {"base": "utc", "offset": -3600}}, "2026-01-31T10:00:00"),
    ],
)
def test_an_offset_is_from_what_the_guest_takes_the_clock_for(description: dict[str, Any], base: str):
    there = dataclasses.replace(known(), now=1769857200, local=7200)  # 2026-01-31 11:00 UTC, two hours east of it
    resolved: Any = SimpleNamespace(spec=load_spec(description), facts=there)
    made = clock.PART.contribute(resolved)
    assert made.flags[0].options["base"] == base


def test_serial_ports_are_the_boards_or_pci():
    two = {"devices": {"serial": 2}}
    flags = [flag.value for flag in plan(load_spec(two), known()).flags if flag.name == "serial"]
    assert flags == ["chardev:console", "chardev:serial1", "chardev:serial2"]
    assert drivers(two, known("aarch64")).count("pci-serial") == 2


def test_a_screen_carries_the_sound():
    made = plan(load_spec({"display": "vnc", "devices": {"sound": "hda"}}), known())
    vnc = next(flag for flag in made.flags if flag.name == "vnc")
    assert vnc.options == {"audiodev": "audio0"}


def test_slots_beside_those_taken_by_hand():
    """What is passed on by hand keeps its address, and nothing tinamou adds is there."""
    by_hand = ["-device", "edu,addr=0x5", "-device", "edu"]
    description = {"usb": ["tablet"], "devices": {"sound": "hda", "watchdog": "reset"}, "display": {"video": "std"}}
    made = plan(load_spec({**description, "qemu_args": by_hand}), dataclasses.replace(known(), image=DEBIAN))
    slots = [str(one.props["addr"]) for one in made.elements if one.kind == "device" and "addr" in one.props]
    assert "0x5" not in slots and len(slots) == len(set(slots))


@pytest.mark.parametrize(("count", "arch", "word"), [(100, "x86_64", "64"), (20, "x86_64", ""), (100, "aarch64", "")])
def test_long_strings_have_tables_that_hold_them(count, arch, word):
    made = plan(load_spec({"smbios": {"oem": ["x" * 1000] * count}}), known(arch))
    options = {name: value for flag in made.flags if flag.name == "machine" for name, value in flag.options.items()}
    assert options.get("smbios-entry-point-type", "") == word


def test_strings_that_may_be_secrets_are_on_no_command_line():
    """Every user reads those: each is in a file, of which QEMU is handed a copy in memory."""
    made = plan(load_spec({"smbios": {"oem": ["io.systemd.credential:x=hunter2", "second, too"]}}), known())
    assert not any("hunter2" in word or "second" in word for word in argv(made))
    texts = {step.path: step.text for step in made.steps if isinstance(step, WriteText)}
    named = [flag.options["path"] for flag in made.flags if flag.name == "smbios"]
    assert [texts[path] for path in named] == ["io.systemd.credential:x=hunter2", "second, too"]
    handed = {
        step.path: 40 + n for n, step in enumerate(made.steps) if isinstance(step, HandOver) and step.access == "secret"
    }
    flags = [flag for flag in with_descriptors(made, handed).flags if flag.name == "smbios"]
    assert [flag.options["path"] for flag in flags] == [f"/dev/fd/{handed[path]}" for path in named]
    assert {Path(path).name for path in named} <= set(extras.FILES), "a fork has them, too"
    for strings, said in ((["hunter2\n"], "not a line"), (["x"] * 256, "at most 255")):
        with pytest.raises(SpecError, match=said) as error:
            load_spec({"smbios": {"oem": strings}})
        assert "hunter2" not in str(error.value)


@pytest.mark.parametrize("version", ["7.2", "10.0"])
def test_long_strings_start(version, program_of, tmp_path):
    """QEMU takes them; without the tables of SMBIOS 3 it says that they are too long."""
    strings = [word for _ in range(100) for word in ("-smbios", f"type=11,value={'x' * 1000}")]
    binary = program_of(version, "qemu-system-x86_64")
    for entry, refused in (("64", False), ("32", True)):
        words = [
            binary,
            "-machine",
            f"pc-q35-7.2,smbios-entry-point-type={entry}",
            "-nodefaults",
            "-display",
            "none",
            *strings,
        ]
        done = subprocess.run(
            [*words, "-qmp", "stdio"],
            input='{"execute":"qmp_capabilities"}{"execute":"quit"}',
            capture_output=True,
            text=True,
        )
        assert ("exceeds 65535" in done.stderr) == refused, done.stderr
