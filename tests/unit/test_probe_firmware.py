"""Firmware descriptors are found, overridden, masked and refused as QEMU's specification says."""

import json
from pathlib import Path

import pytest

from tinamou.probe.firmware import probe_firmware


def _descriptor(name, **changes):
    return {
        "description": name,
        "interface-types": ["uefi"],
        "mapping": {
            "device": "flash",
            "executable": {"filename": "/fw/code.fd", "format": "raw"},
            "nvram-template": {"filename": "/fw/vars.fd", "format": "raw"},
        },
        "targets": [{"architecture": "x86_64", "machines": ["pc-q35-*"]}],
        "features": ["secure-boot"],
        "tags": [],
        **changes,
    }


@pytest.fixture
def root(tmp_path):
    (tmp_path / "fw").mkdir()
    for name in ("code.fd", "vars.fd", "plain.bin"):
        (tmp_path / "fw" / name).write_bytes(b"x")
    return tmp_path


def _put(root, folder, name, content):
    path = root / folder / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content))


def _scan(root, *data_dirs):
    return probe_firmware(root, data_dirs, config_home="/home/me/.config")


def test_order_is_that_of_the_file_names(root):
    _put(root, "etc/qemu/firmware", "50-b.json", _descriptor("b"))
    _put(root, "usr/share/qemu/firmware", "60-c.json", _descriptor("c"))
    _put(root, "home/me/.config/qemu/firmware", "40-a.json", _descriptor("a"))
    _put(root, "usr/share/qemu/firmware", "notes.txt", "no descriptor")
    scan = _scan(root)
    assert [one.description for one in scan.firmware] == ["a", "b", "c"]
    assert scan.notes == ()
    first = scan.firmware[0]
    assert first.descriptor == "/home/me/.config/qemu/firmware/40-a.json"
    assert (first.device, first.executable, first.template, first.mode) == ("flash", "/fw/code.fd", "/fw/vars.fd", "split")
    assert first.serves("x86_64", "pc-q35-7.2")
    assert not first.serves("aarch64", "virt-7.2")


@pytest.mark.parametrize(
    ("lower", "higher"),
    [
        ("opt/qemu/firmware", "usr/share/qemu/firmware"),
        ("usr/share/qemu/firmware", "etc/qemu/firmware"),
        ("etc/qemu/firmware", "home/me/.config/qemu/firmware"),
    ],
)
def test_the_same_name_overrides_and_an_empty_file_masks(root, lower, higher):
    _put(root, lower, "50.json", _descriptor("lower"))
    assert [one.description for one in _scan(root, "/opt/qemu").firmware] == ["lower"]
    _put(root, higher, "50.json", _descriptor("higher"))
    assert [one.description for one in _scan(root, "/opt/qemu").firmware] == ["higher"]
    _put(root, higher, "50.json", "")
    assert _scan(root, "/opt/qemu") == type(_scan(root))((), ())


@pytest.mark.parametrize(
    "content",
    [
        "{",
        "[]",
        "7",
        "{}",
        _descriptor("x", mapping={"device": "flash"}),
        _descriptor("x", mapping=None),
        _descriptor("x", targets=[{"architecture": 3, "machines": []}]),
        _descriptor("x", features=[{}]),
        _descriptor("x", **{"interface-types": None}),
    ],
)
def test_a_damaged_descriptor_is_a_note(root, content):
    _put(root, "etc/qemu/firmware", "10-bad.json", content)
    _put(root, "etc/qemu/firmware", "20-good.json", _descriptor("good"))
    scan = _scan(root)
    assert [one.description for one in scan.firmware] == ["good"]
    assert len(scan.notes) == 1
    assert "10-bad.json" in scan.notes[0]


def test_not_utf8_is_a_note(root):
    _put(root, "etc/qemu/firmware", "10-bad.json", "")
    (root / "etc/qemu/firmware/10-bad.json").write_bytes(b'{"a": "\xff"}')
    assert len(_scan(root).notes) == 1


def test_a_descriptor_without_its_file_is_a_note(root):
    _put(root, "etc/qemu/firmware", "10.json", _descriptor("x"))
    (root / "fw/vars.fd").unlink()
    scan = _scan(root)
    assert scan.firmware == ()
    assert "/fw/vars.fd" in scan.notes[0]


def test_firmware_in_memory_or_as_kernel(root):
    for device in ("memory", "kernel"):
        _put(
            root,
            "etc/qemu/firmware",
            f"{device}.json",
            _descriptor(device, mapping={"device": device, "filename": "/fw/plain.bin"}),
        )
    assert [(one.device, one.executable, one.template) for one in _scan(root).firmware] == [
        ("kernel", "/fw/plain.bin", ""),
        ("memory", "/fw/plain.bin", ""),
    ]


def test_u_boot_is_known_without_descriptor_unless_one_names_it(root):
    elf = "/usr/lib/u-boot/qemu-riscv64_smode/uboot.elf"
    _put(root, str(Path(elf).parent)[1:], "uboot.elf", "elf")
    [uboot] = _scan(root).firmware
    assert uboot.serves("riscv64", "virt")
    assert uboot.descriptor == ""
    _put(root, "etc/qemu/firmware", "uboot.json", _descriptor("described", mapping={"device": "kernel", "filename": elf}))
    assert [one.description for one in _scan(root).firmware] == ["described"]


@pytest.mark.skipif(not Path("/usr/share/qemu/firmware").is_dir(), reason="no firmware descriptors installed")
def test_what_is_installed_here_is_usable():
    scan = probe_firmware()
    assert scan.firmware
    assert all(Path(one.executable).is_file() for one in scan.firmware)
