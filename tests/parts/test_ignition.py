"""Ignition and Combustion: checked before the boot, handed on by the firmware; and guests without any agent."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest
from made_facts import DEBIAN, TINY, facts
from typed import call

from tinamou.blueprint import BuildIso, HandOver, MakeSshKey, Plan, WriteText
from tinamou.errors import PlanError
from tinamou.launch.argv import argv
from tinamou.launch.handover import with_descriptors
from tinamou.parts.ignition import with_key
from tinamou.parts.seed import MACHINE_KEY, SeedSpec
from tinamou.planner import plan
from tinamou.prepare.apply import apply
from tinamou.spec import load_spec

CONFIG = json.dumps({"ignition": {"version": "3.3.0"}, "storage": {"files": [{"path": "/x"}]}})
OLD = '{"ignition": {"version": "2.3.0"}}'
UNKNOWN = dataclasses.replace(DEBIAN, seed="", agent=False)


def made(image=UNKNOWN, **seed: str) -> Plan:
    return plan(load_spec({"seed": seed}), facts(image))


@pytest.mark.parametrize(
    ("seed", "reason"),
    [
        ({"ignition": '{"ignition": {\n"version" "3"}}'}, "line 2, column 11"),
        ({"ignition": "variant: fcos\nversion: 1.5.0\n"}, "butane --strict"),
        ({"ignition": "{}"}, "names no version"),
        ({"ignition": '{"ignition": 5}'}, "names no version"),
        ({"ignition": "[" * 100000}, "not JSON"),
        ({"ignition": '{"ignition": {"version": "1.0.0"}}'}, "names no version"),
        ({"ignition": '{"ignition": {"version": "3"}}'}, "no such version"),
        ({"ignition": '{"ignition": {"version": "3.3"}}'}, "write it as in 3.3.0"),
        ({"ignition": '{"ignition": {"version": "2.x.0"}}'}, "ignition.version"),
        ({"ignition": '{"ignition": {"version": "3.-3.0"}}'}, "no such version"),
        ({"ignition": '{"ignition": {"version": "3.0.0\\n"}}'}, "no such version"),
        ({"combustion": "echo hi\n"}, "not a script"),
    ],
)
def test_what_would_stop_the_boot_is_refused(seed: dict[str, str], reason: str) -> None:
    assert reason in " ".join(str(one) for one in SeedSpec(**seed).problems())


@pytest.mark.parametrize(
    ("version", "said"),
    [
        ("3.0.0", ""),
        ("3.6.0", ""),
        ("2.0.0", "format 2.0.0 is read by Flatcar, but stops the boot of Fedora CoreOS"),
        ("2.4.0", "which of them this image has is not known"),
        ("2.5.0", "format 2.5.0 is not known here (2.0.0 to 2.4.0 and 3.0.0 to 3.6.0 are)"),
        ("3.7.0", "format 3.7.0 is not known here"),
        ("3.3.1", "format 3.3.1 is not known here"),
        ("3.3.0+own", "format 3.3.0+own is not known here"),
        ("3.03.00", ""),
        ("3.7.0-experimental", "format 3.7.0-experimental is not final"),
        ("2.3.0-experimental", "format 2.3.0-experimental is not final"),
    ],
)
def test_a_version_not_every_ignition_reads_is_said_in_the_plan(version: str, said: str) -> None:
    config = json.dumps({"ignition": {"version": version}})
    assert not list(SeedSpec(ignition=config).problems())
    notes = [one for one in made(ignition=config).notes if one.why.asked_by == "spec seed.ignition"]
    assert [said in one.text for one in notes] == [True] * bool(said)
    assert {one.level for one in notes} <= {"warning"}


def test_every_way_to_a_plan_says_it(tmp_path: Path) -> None:
    """The command, by its option, by --set and by a machine file."""
    (tmp_path / "old.ign").write_text(OLD)
    (tmp_path / "m.toml").write_text(f"image = 'debian'\n[seed]\nignition = '{OLD}'\n")
    said = "tinamou: Ignition's format 2.3.0 is read by Flatcar"
    for words in (("debian", "--ignition", str(tmp_path / "old.ign")), ("debian", "--set", f"seed.ignition={OLD}")):
        assert call("plan", *words).stderr.startswith(said)
    assert call("plan", str(tmp_path / "m.toml")).stderr.startswith(said)
    notes = json.loads(call("plan", "--json", str(tmp_path / "m.toml")).stdout)["notes"]
    assert [one["text"].partition(",")[0] for one in notes if "Ignition" in one["text"]] == [said.partition(": ")[2]]


def test_both_are_handed_on_by_firmware() -> None:
    found = made(ignition=CONFIG, combustion="#!/bin/bash\necho ä\n")
    texts = {Path(one.path).name: one.text for one in found.steps if isinstance(one, WriteText)}
    assert texts["combustion"] == "#!/bin/bash\necho ä\n"
    config = json.loads(texts["ignition"])
    assert config["storage"] == {"files": [{"path": "/x"}]}
    assert config["passwd"]["users"] == [{"name": "core", "sshAuthorizedKeys": [MACHINE_KEY]}]
    assert [type(one) for one in found.steps if isinstance(one, (MakeSshKey, BuildIso))] == [MakeSshKey]
    paths = [one.path for one in found.steps if isinstance(one, HandOver) and one.access == "secret"]
    handed = with_descriptors(found, {path: number for number, path in enumerate(paths, 40)})
    words = argv(handed)
    said = [words[at + 1] for at, word in enumerate(words) if word == "-fw_cfg"]
    assert said == ["name=opt/com.coreos/config,file=/dev/fd/40", "name=opt/org.opensuse.combustion/script,file=/dev/fd/41"]


def test_the_key_joins_those_of_the_user() -> None:
    theirs = {"ignition": {"version": "3.0.0"}, "passwd": {"users": [{"name": "ada", "sshAuthorizedKeys": ["a"]}]}}
    found = json.loads(with_key(json.dumps(theirs), "ada", "b"))
    assert found["passwd"]["users"] == [{"name": "ada", "sshAuthorizedKeys": ["a", "b"]}]


def test_the_key_is_put_in_its_place(tmp_path: Path) -> None:
    step = next(one for one in made(ignition=CONFIG).steps if isinstance(one, WriteText))
    (tmp_path / "id_ed25519.pub").write_text("ssh-ed25519 AAAA tinamou\n")
    apply([dataclasses.replace(step, path=str(tmp_path / "ignition"))], tmp_path)
    config = json.loads((tmp_path / "ignition").read_text())
    assert config["passwd"]["users"][0]["sshAuthorizedKeys"] == ["ssh-ed25519 AAAA tinamou"]
    assert (tmp_path / "ignition").stat().st_mode & 0o077 == 0


def test_a_guest_in_its_initrd_reads_neither() -> None:
    with pytest.raises(PlanError) as error:
        made(TINY, ignition=CONFIG)
    assert "reads no first-boot configuration" in str(error.value)


def test_no_agent_means_no_seed_but_what_is_asked_for() -> None:
    assert [one for one in made(DEBIAN).steps if isinstance(one, BuildIso)]
    assert not [one for one in made(DEBIAN, agent="none").steps if isinstance(one, BuildIso)]
    asked = made(DEBIAN, agent="none", user_data="#!/bin/sh\n")
    [disc] = [one for one in asked.steps if isinstance(one, BuildIso)]
    assert "qemu-guest-agent" not in disc.files["user-data"]
    made(TINY, agent="none")


def test_a_command_needs_the_agent() -> None:
    done = call("run", "--no-agent", "tiny", "--", "true")
    assert done.returncode == 110
    assert "seed.agent = none" in done.stderr
