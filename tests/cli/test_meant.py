"""Lines in the words of other tools do what they mean, or are answered with the line that does."""

from __future__ import annotations

import subprocess

import pytest
from typed import call

from tinamou import late
from tinamou.cli import meant
from tinamou.cli.app import app
from tinamou.cli.described import assignment, described
from tinamou.cli.options import MachineOptions
from tinamou.cli.verbs import GROUPS, VERBS
from tinamou.errors import SpecError
from tinamou.machine.assignments import assign
from tinamou.spec import load_spec


@pytest.mark.parametrize("word", sorted(meant.SAME))
def test_every_word_leads_to_a_verb(word):
    verb, *rest = meant.SAME[word]
    assert verb in VERBS and word not in VERBS
    if verb in GROUPS:
        assert rest[0] in app[verb]


@pytest.mark.parametrize(
    ("words", "own"),
    [
        ("ps -q", "ls -q"),
        ("inspect web", "show --json web"),
        ("run --rm -p 8080:80 -v /a:/b -m 1G tiny", "run --publish 8080:80 --share /a:/b --memory 1G tiny"),
        ("run -d --rm tiny", "run -d --rm tiny"),
        ("exec -v web", "exec -v web"),
        ("", ""),
    ],
)
def test_spelled(words, own):
    assert meant.spelled(words.split()) == own.split()


@pytest.mark.parametrize(
    ("word", "answer"),
    [
        ("save", "tinamou suspend NAME"),
        ("qmp", "tinamou monitor"),
        ("migrate", "tinamou move NAME HOST"),
        ("record", "does not bear virtio"),
        ("replay", "tinamou checkpoint NAME"),
        ("resart", "did you mean restart?"),
        ("inspekt", "did you mean inspect?"),
        ("frobnicate", "tinamou --help"),
    ],
)
def test_an_unknown_verb_is_answered_by_meaning(word, answer):
    done = call(word)
    assert done.returncode == 2
    assert done.stdout == ""
    assert answer in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("words", "line"),
    [
        ("exec web ls /", "tinamou exec web -- ls /"),
        ("run tiny echo hi", "tinamou run tiny -- echo hi"),
        ("pool run web uname", "tinamou pool run web -- uname"),
    ],
)
def test_a_command_without_dashes_is_answered_with_the_line(words, line):
    done = call(*words.split())
    assert done.returncode == 2
    assert done.stderr.strip().endswith(line)


def test_options_that_do_not_exist_are_one_line():
    done = call("run", "--bogus", "tiny")
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "--bogus" in done.stderr


@pytest.mark.parametrize("words", ["run --record f -- true", "run --record=f tiny", "run tiny --replay f", "run --replay"])
def test_a_run_is_not_recorded_and_says_why(words):
    done = call(*words.split())
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert "there is no --re" in done.stderr and "0115-record-and-replay.md" in done.stderr


def test_other_verbs_have_no_such_answer():
    assert meant.option(["plan", "--record"]) == "" and meant.option(["run", "--bogus"]) == ""


def test_published_ports_lead_into_the_first_network():
    assert described("tiny", {"publish": ("8080:80", "127.0.0.1:53:53/udp")}).net[0].forward == (
        "8080:80",
        "udp:127.0.0.1:53:53",
    )
    both = described("tiny", {"net": ("type=user,model=e1000,forward=1:2", "user"), "publish": ("3:4",)}).net
    assert [len(one.forward) for one in both] == [2, 0] and both[0].model == "e1000"
    assert described("tiny", {"publish": ("3:4",)}, apart=True).net[0].forward
    with pytest.raises(SpecError, match="without a network"):
        described("tiny", {"net": ("none",), "publish": ("3:4",)})


@pytest.mark.parametrize(
    ("words", "lines"),
    [
        ("start web --memory 2G", "tinamou set web memory=2G"),
        ("start web memory=2G", "tinamou set web memory=2G"),
        ("start -m 2G web --cpus=4 --no-wait --timeout 5", "tinamou set web memory=2G cpus=4"),
        ("set web --memory 2G cpus=3", "tinamou set web memory=2G cpus=3"),
        ("restart web --grace 3 --tpm --display vnc", "tinamou set web tpm=true display=vnc"),
        ("edit web --net none", "tinamou set web 'net=[]'"),
        ("resume web --set boot.menu=true", "tinamou set web boot.menu=true"),
        ("clone web two --cpus 2", "tinamou set two cpus=2"),
        ("start web --name two --cpus 2", "tinamou set web cpus=2 and tinamou rename web two"),
        ("start --memory", "tinamou set NAME memory=VALUE"),
        ("start --bogus web --memory 2G", "tinamou set web memory=2G"),
    ],
)
def test_what_run_is_given_leads_to_set(words, lines):
    done = call(*words.split())
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert done.stderr.strip().endswith(f"is changed by: {lines}")


@pytest.mark.parametrize("words", ["start web --bogus 2G", "stop web --memory 2G", "start web --timeout x", "start a b"])
def test_what_is_no_field_does_not(words):
    done = call(*words.split())
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "tinamou set" not in done.stderr


GIVEN = {
    "os": "windows-11",
    "arch": "aarch64",
    "cpus": "3",
    "memory": "3G",
    "pin": "8-11",
    "hugepages": "2M",
    "accel": "tcg",
    "firmware": "uefi",
    "kernel": "/k of mine",
    "initrd": "/i",
    "cmdline": "quiet a=b 'c'",
    "disk": "size=10G,format=raw",
    "pmem": "path=/p,readonly=true",
    "share": "here:/mnt:ro",
    "publish": "127.0.0.1:53:53/udp",
    "pci": "65:00.0",
    "usb": 'type=stick,path=/a "b" é',
    "display": "spice",
    "confidential": "sev-snp",
    "secure_boot_keys": "/keys",
    "set": "devices.serial=2",
}
"""What an option is given, as written; switches, nets and files are below."""


def as_set(option, value):
    """The plain spec of a machine that was set by what the option's answer has, as a shell reads it."""
    word = subprocess.run(["sh", "-c", f"printf %s {assignment(option, value)}"], capture_output=True, text=True, check=True)
    data = {"image": "tiny"} | ({"kernel": "/k"} if option == "initrd" else {})
    assign(data, [word.stdout])
    return load_spec(data)


@pytest.mark.parametrize("option", sorted(GIVEN))
def test_every_option_means_the_same_to_set(option):
    value, one = GIVEN[option], next(one for one in late.fields(MachineOptions) if one.name == option)
    value = int(value) if option == "cpus" else (value,) if one.default == () else value
    beside = {"kernel": "/k"} if option == "initrd" else {}
    assert as_set(option, GIVEN[option]) == described("tiny", {**beside, option: value}) != described("tiny", beside)


@pytest.mark.parametrize("option", ["tpm", "secure_boot", "no_agent"])
def test_switches_too(option):
    assert as_set(option, "") == described("tiny", {option: True}) != described("tiny", {})


@pytest.mark.parametrize("option", ["user_data", "ignition", "combustion"])
def test_files_too(option, tmp_path):
    path = tmp_path / "a file"
    path.write_text('{"ignition": {"version": "3.0.0"}}' if option == "ignition" else "#!/bin/sh\necho 'é' \"$x\"")
    assert as_set(option, str(path)) == described("tiny", {option: str(path)}) != described("tiny", {})


def test_networks_are_added():
    assert as_set("net", "none") == described("tiny", {"net": ("none",)})
    both = as_set("net", "type=user,model=e1000").net
    assert [one.model for one in both] == [described("tiny", {}).net[0].model, "e1000"]


def test_none_is_forgotten():
    others = {"name", "net", "tpm", "secure_boot", "no_agent", "user_data", "ignition", "combustion"}
    assert {one.name for one in late.fields(MachineOptions)} == set(GIVEN) | others
