"""Seed documents: what is in them, what is refused, and what cloud-init itself makes of them."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest

from tinamou.errors import SpecError
from tinamou.parts.seed import MACHINE_KEY, SeedSpec, documents
from tinamou.spec import load_spec

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIOMqqnkVzrm0SdG6UOoqKLsabgH5C9okWi0dh2l9GKJl anna@host"
MAC = "52:54:00:AB:00:01"
THEIRS = """#cloud-config
packages: [vim]
locale: de_DE.UTF-8
runcmd:
  - echo ä
users:
  - default
write_files:
  - {path: /x, content: "Grüße €"}
"""


def config(seed, name="vm"):
    head, _, body = documents(seed, name, {})["user-data"].partition("\n")
    assert head == "#cloud-config"
    return json.loads(body)


def test_a_user_with_a_key():
    seed = SeedSpec(user="anna", ssh_keys=(KEY,), packages=("htop",), timezone="Europe/Berlin")
    found = config(seed)
    assert found["users"] == [
        {"name": "anna", "lock_passwd": True, "ssh_authorized_keys": [MACHINE_KEY, KEY], "sudo": "ALL=(ALL) NOPASSWD:ALL"}
    ]
    assert (found["packages"], found["timezone"], found["locale"]) == (["htop"], "Europe/Berlin", "false")
    assert "ssh_authorized_keys" not in found


def test_root_and_the_images_own_user():
    root = config(SeedSpec(user="root", ssh_keys=(KEY,)))
    assert root["disable_root"] is False
    assert "sudo" not in root["users"][0]
    default = config(SeedSpec(ssh_keys=(KEY,)))
    assert default["ssh_authorized_keys"] == [MACHINE_KEY, KEY]
    assert "users" not in default


@pytest.mark.parametrize(
    ("agent", "packages", "started"),
    [("install", ["qemu-guest-agent"], True), ("start", None, True), ("leave", None, False)],
)
def test_the_agent(agent, packages, started):
    found = config(SeedSpec(agent=agent))
    assert found.get("packages") == packages
    assert ("runcmd" in found) is started


def test_interfaces_are_matched_by_address():
    network = json.loads(documents(SeedSpec(), "vm", {"net0": MAC, "net1": "52:54:00:ab:00:02"})["network-config"])
    assert network["version"] == 2
    assert network["ethernets"]["net0"] == {
        "match": {"macaddress": MAC.lower()},
        "set-name": "net0",
        "dhcp4": True,
    }
    assert list(network["ethernets"]) == ["net0", "net1"]
    assert json.loads(documents(SeedSpec(), "vm", {})["network-config"])["ethernets"] == {}


@pytest.mark.parametrize(
    ("name", "hostname", "found"),
    [("my_vm", "", "my-vm"), ("vm", "db.example.org", "db.example.org"), ("___", "", "guest"), ("a" * 70, "", "a" * 63)],
)
def test_host_name(name, hostname, found):
    assert json.loads(documents(SeedSpec(hostname=hostname), name, {})["meta-data"])["local-hostname"] == found


def test_the_instance_changes_with_the_contents_only():
    def instance(seed, name="vm", macs=(MAC,)):
        named = {f"net{number}": mac for number, mac in enumerate(macs)}
        return json.loads(documents(seed, name, named)["meta-data"])["instance-id"]

    assert instance(SeedSpec()) == instance(SeedSpec())
    others = {
        instance(SeedSpec(user="anna")),
        instance(SeedSpec(), "vm2"),
        instance(SeedSpec(), macs=()),
        instance(SeedSpec()),
    }
    assert len(others) == 4


@pytest.mark.parametrize(
    ("seed", "path"),
    [
        (SeedSpec(user="Anna Smith"), "user"),
        (SeedSpec(hostname="-x"), "hostname"),
        (SeedSpec(hostname="under_score"), "hostname"),
        (SeedSpec(ssh_keys=(KEY, "nonsense")), "ssh_keys[1]"),
        (SeedSpec(ssh_keys=("-----BEGIN OPENSSH PRIVATE KEY-----\nabc",)), "ssh_keys[0]"),
        (SeedSpec(user="anna", password_hash="secret"), "password_hash"),
        (SeedSpec(password_hash="$6$abc$def"), "password_hash"),
        (SeedSpec(user_data="packages: [vim]\n"), "user_data"),
        (SeedSpec(user_data="\n#cloud-config\n"), "user_data"),
    ],
)
def test_what_cloud_init_would_not_take_is_refused(seed, path):
    problems = seed.problems()
    assert [problem.path for problem in problems] == [path]
    assert "PRIVATE KEY" not in str(problems[0]) and "secret" not in str(problems[0])


def test_what_is_right_is_not_refused():
    keys = (
        KEY,
        KEY.partition(" anna")[0],
        "restrict ssh-rsa AAAA",
        "ecdsa-sha2-nistp256 AAAA=",
        "sk-ssh-ed25519@openssh.com AAAA",
    )
    seed = SeedSpec("anna_1", keys, "a.b-c.d", user_data="#!/bin/sh\n", password_hash="$y$j9T$x$y")
    assert seed.problems() == SeedSpec().problems() == []


def test_problems_carry_their_path_in_the_spec():
    with pytest.raises(SpecError) as caught:
        load_spec({"seed": {"user": "A B", "user_data": "x"}})
    assert [problem.path for problem in caught.value.problems] == ["seed.user", "seed.user_data"]


def test_the_place_of_the_machines_key_is_readable_text():
    """It is filled in when the seed is written, so no encoding may hide it."""
    for theirs in ("", THEIRS, "#!/bin/sh\necho €\n"):
        assert documents(SeedSpec(user_data=theirs), "vm", {})["user-data"].count(MACHINE_KEY) == 1


def merged(user_data):
    """What cloud-init itself makes of a document."""
    python = shutil.which("python3", path="/usr/bin")
    if not python or subprocess.run([python, "-c", "import cloudinit"], capture_output=True, check=False).returncode:
        pytest.skip("no cloud-init on this host (it is not installed by script/setup: it would act on the host)")
    program = Path(__file__).with_name("cloud_init_merge.py")
    done = subprocess.run([python, str(program)], input=user_data, capture_output=True, text=True, check=True)
    return json.loads(done.stdout)


SEED = SeedSpec(user="anna", ssh_keys=(KEY,), packages=("htop",), agent="install", user_data=THEIRS)


def test_the_users_document_is_joined_not_lost():
    found = merged(documents(SEED, "vm", {})["user-data"])
    config = found["config"]
    assert config["locale"] == "de_DE.UTF-8"
    assert config["packages"] == ["vim", "htop", "qemu-guest-agent"]
    assert config["runcmd"][0] == "echo ä"
    assert len(config["runcmd"]) == 2
    assert config["users"][0] == "default" and config["users"][1]["name"] == "anna"
    assert config["write_files"] == [{"path": "/x", "content": "Grüße €"}]
    assert found["others"] == []


def test_a_script_and_a_mime_document_are_kept():
    script = "#!/bin/sh\necho €\n"
    found = merged(documents(SeedSpec(user="anna", user_data=script), "vm", {})["user-data"])
    assert found["others"] == [["text/x-shellscript", script]]
    assert found["config"]["users"][0]["name"] == "anna"
    mime = documents(SeedSpec(user="bert", user_data=script), "vm", {})["user-data"]
    nested = merged(documents(SeedSpec(user="anna", user_data=mime), "vm", {})["user-data"])
    assert nested["others"] == [["text/x-shellscript", script]]
    assert [user["name"] for user in nested["config"]["users"]] == ["bert", "anna"]


def test_cloud_init_finds_nothing_wrong(tmp_path):
    if not shutil.which("cloud-init"):
        pytest.skip("no cloud-init on this host (it is not installed by script/setup: it would act on the host)")
    (tmp_path / "user-data").write_text(
        documents(SeedSpec(user="anna", ssh_keys=(KEY,), packages=("vim",)), "v", {})["user-data"]
    )
    subprocess.run(["cloud-init", "schema", "-c", str(tmp_path / "user-data")], check=True, capture_output=True)
    (tmp_path / "user-data").write_text('#cloud-config\n{"users": 5}\n')
    assert subprocess.run(["cloud-init", "schema", "-c", str(tmp_path / "user-data")], capture_output=True).returncode != 0
