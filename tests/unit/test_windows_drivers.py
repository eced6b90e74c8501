"""Which drivers go where, and what the registry must say then: for every release and processor, from a disc's list alone."""

from __future__ import annotations

import dataclasses

import pytest

from tinamou.errors import ImageError
from tinamou.facts.windows import WindowsFacts
from tinamou.parts.windows_drivers import FOLDER, SERVICE, Injection, decide, first_boot, folders, hive_commands

RELEASES = {
    "w7": WindowsFacts(product="Windows 7 Professional", version=(6, 1), build=7601),
    "w8.1": WindowsFacts(product="Windows 8.1 Pro", version=(6, 3), build=9600),
    "w10": WindowsFacts(product="Windows 10 Pro", version=(10, 0), build=19045),
    "w11": WindowsFacts(product="Windows 10 Home", version=(10, 0), build=22631),
    "2k8R2": WindowsFacts(product="Windows Server 2008 R2", version=(6, 1), build=7601, server=True),
    "2k16": WindowsFacts(product="Windows Server 2016", version=(10, 0), build=14393, server=True),
    "2k19": WindowsFacts(product="Windows Server 2019", version=(10, 0), build=17763, server=True),
    "2k22": WindowsFacts(product="Windows Server 2022", version=(10, 0), build=20348, server=True),
    "2k25": WindowsFacts(product="Windows Server 2025", version=(10, 0), build=26100, server=True),
}
DRIVERS = {"viostor": "viostor", "vioscsi": "vioscsi", "NetKVM": "netkvm", "Balloon": "balloon", "viorng": "viorng"}
ENDINGS = ("sys", "inf", "cat", "pdb")


def disc(releases: tuple[str, ...] = tuple(RELEASES), arches: tuple[str, ...] = ("amd64", "x86")) -> list[str]:
    """The files of a disc, in the words of find."""
    drivers = [
        f"./{folder}/{release}/{arch}/{name}.{ending}"
        for folder, name in DRIVERS.items()
        for release in releases
        for arch in arches
        for ending in ENDINGS
    ]
    agents = ["./guest-agent/qemu-ga-x86_64.msi", "./guest-agent/qemu-ga-i386.msi"]
    return [*drivers, *agents, "./virtio-win_license.txt"]


def windows(release: str, arch: str = "amd64", **more: object) -> WindowsFacts:
    old = RELEASES[release].version < (6, 2)
    return dataclasses.replace(RELEASES[release], arch=arch, database=not old, **more)  # type: ignore[arg-type]


def values(done: Injection, key: str) -> dict[str, tuple[int, bytes]]:
    return {one.name: (one.type, one.data) for one in done.edits if one.key == key}


def text(value: tuple[int, bytes]) -> str:
    return value[1].decode("utf-16-le").rstrip("\0")


@pytest.mark.parametrize("arch", ["amd64", "x86"])
@pytest.mark.parametrize("release", RELEASES)
def test_each_release_gets_its_own_drivers(release: str, arch: str):
    done = decide(windows(release, arch), disc())
    assert done.notes == ()
    assert done.drivers == ("viostor", "vioscsi", "netkvm")
    sources = {one.source for one in done.copies if "/" + arch + "/" in one.source}
    assert {one.split("/")[1] for one in sources} == {release}
    assert {one.target for one in done.copies if "System32" in one.target} == {
        "Windows/System32/drivers/viostor.sys",
        "Windows/System32/drivers/vioscsi.sys",
    }
    assert f"{FOLDER}/netkvm.inf" in {one.target for one in done.copies}
    agent = "qemu-ga-x86_64.msi" if arch == "amd64" else "qemu-ga-i386.msi"
    assert f"{FOLDER}/{agent}" in {one.target for one in done.copies}
    assert not any(one.target.endswith((".pdb", ".txt")) for one in done.copies)
    assert all(one.why for one in (*done.copies, *done.edits))


def test_the_service_is_started_by_the_loader():
    done = decide(windows("w10", control="ControlSet002"), disc())
    service = values(done, "ControlSet002\\Services\\viostor")
    assert service["Type"] == (4, b"\1\0\0\0")
    assert service["Start"] == (4, b"\0\0\0\0")
    assert text(service["Group"]) == "SCSI miniport"
    assert service["ImagePath"][0] == 2
    assert text(service["ImagePath"]) == "system32\\drivers\\viostor.sys"
    once = values(done, f"ControlSet002\\Services\\{SERVICE}")
    assert once["Start"] == (4, b"\2\0\0\0")
    assert text(once["ImagePath"]).endswith('/d /c "%SystemRoot%\\Drivers\\VirtIO\\firstboot.cmd"')


@pytest.mark.parametrize(("arch", "label"), [("amd64", "amd64"), ("x86", "x86")])
def test_since_windows_8_devices_are_found_in_the_database(arch: str, label: str):
    done = decide(windows("w11", arch), disc())
    package = f"tinamou-viostor.inf_{label}_0000000000000000"
    assert text(values(done, "DriverDatabase\\DriverInfFiles\\tinamou-viostor.inf")["Active"]) == package
    for device in ("VEN_1AF4&DEV_1001&REV_00", "VEN_1AF4&DEV_1042&REV_01"):
        assert values(done, f"DriverDatabase\\DeviceIds\\PCI\\{device}") == {"tinamou-viostor.inf": (3, b"\1\xff\0\0")}
        there = values(done, f"DriverDatabase\\DriverPackages\\{package}\\Descriptors\\PCI\\{device}")
        assert text(there["Configuration"]) == "viostor_conf"
    configured = values(done, f"DriverDatabase\\DriverPackages\\{package}\\Configurations\\viostor_conf")
    assert text(configured["Service"]) == "viostor"
    assert len(values(done, f"DriverDatabase\\DriverPackages\\{package}")["Version"][1]) == 48
    assert not any("CriticalDeviceDatabase" in one.key for one in done.edits)


def test_until_windows_7_they_are_critical_devices():
    done = decide(windows("w7"), disc())
    for device in ("1001&REV_00", "1042&REV_01"):
        there = values(done, f"ControlSet001\\Control\\CriticalDeviceDatabase\\PCI#VEN_1AF4&DEV_{device}")
        assert text(there["Service"]) == "viostor"
        assert text(there["ClassGUID"]) == "{4D36E97B-E325-11CE-BFC1-08002BE10318}"
    assert not any("DriverDatabase" in one.key for one in done.edits)


def test_the_folder_of_drivers_is_looked_into_once():
    key = "Microsoft\\Windows\\CurrentVersion"
    first = decide(windows("w10", device_path="%SystemRoot%\\inf"), disc())
    path = text(values(first, key)["DevicePath"])
    assert path == "%SystemRoot%\\inf;%SystemRoot%\\Drivers\\VirtIO"
    assert values(first, key)["DevicePath"][0] == 2
    again = decide(windows("w10", device_path=path.upper()), disc())
    assert values(again, key) == {}
    assert text(values(decide(windows("w10"), disc()), key)["DevicePath"]) == path


def test_a_disc_for_earlier_releases_serves_those_of_the_same_model():
    done = decide(windows("2k25"), disc(("2k22", "w10")))
    assert {one.source.split("/")[1] for one in done.copies if "viostor" in one.source} == {"2k22"}
    assert "the disc has no viostor for 2k25: that for 2k22 is taken, of the same model" in done.notes
    assert folders(windows("w11")) == ("w11", "w10")
    assert folders(windows("w10")) == ("w10",)
    assert folders(windows("2k19")) == ("2k19", "2k16")


def test_names_of_the_disc_are_taken_in_any_case_and_unusual_ones_left_out():
    listing = [one.upper() for one in disc(("w10",))]
    done = decide(windows("w10"), [*listing, "./viostor/w10/amd64/../../evil.sys", "./viostor/w10/amd64/a\tb.sys"])
    assert f"{FOLDER}/viostor.sys" in {one.target for one in done.copies}
    assert not any(".." in one.source or "\t" in one.source for one in done.copies)


def test_what_a_disc_lacks_is_said():
    lean = [one for one in disc() if "NetKVM" not in one and "vioscsi" not in one and "guest-agent" not in one]
    done = decide(windows("w10"), lean)
    assert done.drivers == ("viostor",)
    assert [note.partition(":")[0] for note in done.notes] == [
        "the disc has no vioscsi",
        "the disc has no NetKVM",
        "the disc has no guest-agent/qemu-ga-x86_64.msi",
    ]
    assert "msiexec" not in done.texts[f"{FOLDER}/firstboot.cmd"]


@pytest.mark.parametrize(
    ("release", "listing", "why"),
    [
        ("w7", disc(("w10", "w11")), "there is no viostor/w7/amd64"),
        ("2k16", disc(("2k19",)), "there is no viostor/2k16/amd64"),
        ("w11", disc(arches=("x86",)), "there is no viostor/w11/amd64 nor viostor/w10/amd64"),
        ("w10", [], "there is no viostor/w10/amd64"),
        ("w10", [one for one in disc() if not one.endswith(".sys")], "there is no viostor/w10/amd64"),
    ],
)
def test_a_disc_without_the_driver_of_the_disk_is_refused(release: str, listing: list[str], why: str):
    with pytest.raises(ImageError, match="no viostor") as caught:
        decide(windows(release), listing)
    assert caught.value.why == why
    assert "virtio-win.iso" in caught.value.fix


@pytest.mark.parametrize(
    ("found", "what"),
    [
        (windows("w10", unfit="it is hibernated"), "Windows 10 Pro cannot be changed now"),
        (windows("w10", "arm64"), "Windows 10 Pro cannot be given drivers"),
        (windows("w10", ""), "Windows 10 Pro cannot be given drivers"),
        (dataclasses.replace(windows("w10"), version=(5, 1)), "no drivers are known for this Windows"),
        (dataclasses.replace(windows("w10"), product=""), "no drivers are known for this Windows"),
    ],
)
def test_a_windows_that_may_not_be_changed_is_refused(found: WindowsFacts, what: str):
    with pytest.raises(ImageError) as caught:
        decide(found, disc())
    assert caught.value.what == what
    assert caught.value.why


def test_what_to_do_about_one_that_is_unfit():
    assert "shutdown /s /t 0" in windows("w10", unfit="it is hibernated").fix
    assert "sound copy" in windows("w10", unfit="its registry is damaged (SYSTEM): it ends").fix


def test_windows_11_is_told_by_its_build():
    assert windows("w11").name == "Windows 11 Home"
    assert windows("w10").name == "Windows 10 Pro"


def test_keys_are_made_where_they_are_not_and_values_beside_stay():
    done = decide(windows("w10", device_path="a"), disc())
    there = {
        "SOFTWARE\\Microsoft": {},
        "SOFTWARE\\Microsoft\\Windows": {},
        "SOFTWARE\\Microsoft\\Windows\\CurrentVersion": {"devicepath": (2, b"a\0\0\0"), "ProgramFilesDir": (1, b"C\0\0\0")},
    }
    lines = hive_commands(done.edits, "SOFTWARE", there).splitlines()
    assert lines[0] == "cd \\Microsoft\\Windows\\CurrentVersion"
    assert lines[1:5] == ["setval 2", "ProgramFilesDir", "hex:1:43,00,00,00", "DevicePath"]
    assert lines[-1] == "commit"
    made = hive_commands(done.edits, "SOFTWARE", {}).splitlines()
    assert made[:6] == [
        "cd \\ ",
        "add Microsoft",
        "cd \\Microsoft",
        "add Windows",
        "cd \\Microsoft\\Windows",
        "add CurrentVersion",
    ]
    assert hive_commands((), "SYSTEM", {}) == ""


@pytest.mark.parametrize("name", ["Größe", "two\nlines", " ", "@"])
def test_a_value_whose_name_cannot_be_said_is_refused(name: str):
    key = "SOFTWARE\\Microsoft\\Windows\\CurrentVersion"
    with pytest.raises(ImageError, match="cannot be changed"):
        hive_commands(decide(windows("w10"), disc()).edits, "SOFTWARE", {key: {name: (1, b"")}})


def test_the_script_of_the_first_boot_removes_its_service():
    lines = first_boot("qemu-ga-x86_64.msi").split("\r\n")
    assert lines[-2] == f"sc delete {SERVICE}"
    assert 'for %%f in ("%here%*.inf") do pnputil -i -a "%%f"' in lines
    assert any("msiexec" in line and "%here%qemu-ga-x86_64.msi" in line for line in lines)
