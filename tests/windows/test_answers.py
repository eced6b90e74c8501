"""Answers to the setup of Windows: known settings in known passes, for any description; the disc by another reader."""

from __future__ import annotations

import dataclasses
import io
import re
import subprocess
from pathlib import Path
from xml.etree.ElementTree import fromstring

import pytest
from hypothesis import given
from hypothesis import strategies as st
from made_facts import DEBIAN, TCG, facts
from unattend import SPACE, faults, password

from tinamou.convert.out import formats
from tinamou.convert.out.asked import Place as OutPlace
from tinamou.errors import PlanError, SpecError
from tinamou.facts import Place
from tinamou.parts.answers import SCRIPT, Target, computer_name, documents, hidden, quoted
from tinamou.parts.windows import RELEASES
from tinamou.parts.windows_spec import WindowsSpec
from tinamou.planner import plan
from tinamou.prepare.apply import apply
from tinamou.spec import load_spec

ISO = dataclasses.replace(
    DEBIAN, disk="/images/win.iso", format="iso", boots=("bios", "uefi"), seed="", ssh=False, agent=False
)
KEY = "ssh-ed25519 AAAA"
USER = WindowsSpec(user="ada", password_file="/p")
names = st.text(
    st.characters(min_codepoint=32, max_codepoint=0x2FFF, exclude_characters='"/\\[]:;|=,+*?%<>@'), min_size=1, max_size=20
)


def written(spec: WindowsSpec, os: str = "windows-11", *, uefi: bool = True, drivers: bool = True) -> dict[str, str]:
    found = documents(spec, Target(os, "web-1", uefi, drivers))
    return {name: text.replace("@PASSWORD@", hidden("secret")) for name, text in found.items()}


@pytest.mark.parametrize("os", RELEASES)
@pytest.mark.parametrize("uefi", [True, False])
@pytest.mark.parametrize("drivers", [True, False])
def test_windows_knows_all_of_it(os: str, uefi: bool, drivers: bool):
    assert faults(written(USER, os, uefi=uefi, drivers=drivers)["autounattend.xml"]) == []


@given(
    names,
    st.text(min_size=1),
    st.sampled_from(["", "2", "Windows 11 Pro & <N>"]),
    st.text(st.sampled_from("az-09"), min_size=1),
)
def test_of_any_description(user: str, secret: str, edition: str, name: str):
    spec = dataclasses.replace(USER, user=user, edition=edition)
    text = documents(spec, Target("windows-11", name, True, True))["autounattend.xml"].replace("@PASSWORD@", hidden(secret))
    said = [fault for fault in faults(text) if "ComputerName" not in fault]
    assert said == []
    root = fromstring(text)
    assert root.findtext(f".//{SPACE}LocalAccount/{SPACE}Name") == user
    assert password(root.findtext(f".//{SPACE}LocalAccount/{SPACE}Password/{SPACE}Value") or "") == secret


@pytest.mark.parametrize(
    ("was", "becomes", "fault"),
    [
        ('pass="specialize"', 'pass="oobe"', "passes"),
        ('name="Microsoft-Windows-Setup"', 'name="Microsoft-Windows-Nosuch"', "is not read in windowsPE"),
        ("amd64", "x86", "has attributes"),
        ("<WillWipeDisk>true", "<WillWipeDisk>yes", "WillWipeDisk = 'yes'"),
        ("<Order>2</Order>", "<Order>3</Order>", "orders"),
        ("AcceptEula", "AcceptAll", "AcceptAll is unknown"),
        (' wcm:action="add" wcm:keyValue="1"', "", "wcm:action=add"),
        ("<ComputerName>web-1", "<ComputerName>web.example.org", "ComputerName"),
        ("<ComputerName>web-1", "<ComputerName>12345", "ComputerName"),
        ("<SanPolicy>1", "<SanPolicy>4", "SanPolicy"),
    ],
)
def test_a_wrong_one_would_be_noticed(was: str, becomes: str, fault: str):
    text = written(USER)["autounattend.xml"]
    assert was in text
    assert any(fault in one for one in faults(text.replace(was, becomes)))


@given(st.text(st.sampled_from("abc123-"), min_size=1, max_size=48).map(lambda text: text.strip("-")).filter(bool))
def test_names_fit(name: str):
    text = f"<r xmlns='{SPACE[1:-1]}'>{computer_name(name)}</r>"
    assert re.fullmatch(r"(?!\d+$)[a-zA-Z0-9-]{1,15}", computer_name(name)), text


def test_partitions_are_those_of_the_firmware():
    for uefi, kinds, into in ((True, ["EFI", "MSR", "Primary"], "3"), (False, ["Primary", "Primary"], "2")):
        root = fromstring(written(USER, uefi=uefi)["autounattend.xml"])
        assert [one.text for one in root.iter(f"{SPACE}Type")] == kinds
        assert root.findtext(f".//{SPACE}InstallTo/{SPACE}PartitionID") == into


def test_drivers_are_of_the_release():
    for os, folder in (("windows-10", "w10"), ("windows-server-2019", "2k19"), ("windows-server-2025", "2k25")):
        paths = [one.text or "" for one in fromstring(written(USER, os)["autounattend.xml"]).iter(f"{SPACE}Path")]
        assert f"E:\\viostor\\{folder}\\amd64" in paths and len(set(paths)) * 2 == len(paths)
    assert "DriverPaths" not in written(USER, drivers=False)["autounattend.xml"]


def test_the_script_is_powershell_whatever_a_key_says():
    spec = dataclasses.replace(USER, ssh=True, ssh_keys=("ssh-ed25519 AAAA it's $(me)",), firstboot=("echo one", "echo two"))
    text = written(spec)[SCRIPT]
    assert "'@MACHINE_KEY@', 'ssh-ed25519 AAAA it''s $(me)'" in text
    assert text.index("Start-Service sshd") < text.index("echo one") < text.index("echo two")
    assert "\n" not in text.replace("\r\n", "")
    assert text.encode().startswith(b"\xef\xbb\xbf$"), "PowerShell 5.1 takes a script without a mark for the code page's"
    assert quoted("‘a’'") == "'‘‘a’’'''"


@pytest.mark.parametrize(
    ("windows", "field"),
    [
        ({"user": "ada"}, "windows.password_file"),
        ({"user": "a:b", "password_file": "p"}, "windows.user"),
        ({"user": "NONE", "password_file": "p"}, "windows.user"),
        ({"edition": "Pro"}, "windows.edition"),
        ({"user": "ada", "password_file": "p", "firstboot": ["a\nb"]}, "windows.firstboot[0]"),
        ({"user": "ada", "password_file": "p", "ssh_keys": ["k"]}, "windows.ssh_keys"),
        ({"user": "ada", "password_file": "p", "ssh": True, "ssh_keys": ["key"]}, "windows.ssh_keys[0]"),
        ({"user": "ada", "password_file": "p", "ssh": True, "ssh_keys": [f"{KEY} me\n{KEY}"]}, "windows.ssh_keys[0]"),
        ({"user": "ada", "password_file": "p", "product_key": "123"}, "windows.product_key"),
        ({"user": "ada", "password_file": "p", "locale": "german"}, "windows.locale"),
    ],
)
def test_what_cannot_be_is_refused_by_name(windows: dict[str, object], field: str):
    with pytest.raises(SpecError) as error:
        load_spec({"os": "windows-11", "windows": windows})
    assert field in str(error.value)


@pytest.mark.parametrize(("zone", "base"), [("UTC", "utc"), ("W. Europe Standard Time", "localtime")])
def test_the_clock_is_in_the_zone_that_is_answered(zone: str, base: str):
    """QEMU's localtime is the host's zone: a guest whose zone is UTC would be hours off."""
    windows = {"user": "ada", "password_file": "/p", "timezone": zone}
    spec = load_spec({"os": "windows-10", "memory": "2G", "disk": [{"size": "40G"}], "windows": windows})
    made = plan(spec, facts(ISO, TCG))
    flags = [flag for flag in made.flags if flag.name == "rtc"]
    assert any(zone in note.text for note in made.notes) == (base == "localtime")
    assert [flag.options["base"] for flag in flags] == [base]
    assert ("RealTimeIsUniversal" in written(spec.windows)[SCRIPT]) == (base == "utc")
    for to, text in (("qemu", f"base={base}"), ("libvirt", f'<clock offset="{base}">')):
        assert text in formats.write(spec, OutPlace("/a.iso", "iso"), to).text
    for spoken in ({"base": "localtime"}, {"base": "utc"}):
        said = plan(load_spec({"os": "windows-10", "memory": "2G", "windows": windows, "clock": spoken}), facts(ISO, TCG))
        bases = [flag.options.get("base", "utc") for flag in said.flags if flag.name == "rtc"]
        assert bases == [spoken["base"]]


def test_a_windows_that_is_none_has_no_setup():
    with pytest.raises(PlanError, match=r"windows\.drivers"):
        plan(load_spec({"windows": {"drivers": "/v.iso"}}), facts(DEBIAN, TCG))


def test_the_disc_is_read_by_another_program(tmp_path: Path):
    """Written by the plan's own steps; the password is on the disc alone."""
    (tmp_path / "password").write_text("pass wörd\n")
    windows = {"user": "ada", "password_file": str(tmp_path / "password"), "drivers": "/v.iso", "ssh": True}
    spec = load_spec({"os": "windows-10", "memory": "2G", "disk": [{"size": "40G"}], "windows": windows})
    made = plan(spec, dataclasses.replace(facts(ISO, TCG, uid=None), place=Place("web", str(tmp_path), None, 0)))
    assert "wörd" not in repr(made)
    apply([step for step in made.steps if type(step).__name__ in ("BuildIso", "MakeSshKey")], tmp_path)
    done = subprocess.run(
        ["isoinfo", "-J", "-i", tmp_path / "answers.iso", "-x", "/autounattend.xml"], capture_output=True, check=True
    )
    text = io.TextIOWrapper(io.BytesIO(done.stdout), "utf-8").read()
    assert faults(text) == []
    value = fromstring(text).findtext(f".//{SPACE}LocalAccount/{SPACE}Password/{SPACE}Value") or ""
    assert password(value) == "pass wörd"
    drives = [one.props for one in made.elements if str(one.props.get("driver", "")).startswith("ide-")]
    assert [one["bus"] for one in drives] == ["ide.0", "ide.1", "ide.2"]
    disk = next(one.props["driver"] for one in made.elements if one.props.get("drive") == "disk1")
    assert disk == "virtio-blk-pci", "the setup loads its driver from the disc"
