"""The quick reader of ``tinamou run`` reads what the parser reads, and leaves it all else."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tinamou.cli import described, options, quick, running
from tinamou.cli.app import app
from tinamou.errors import SpecError

WORDS = st.sampled_from(
    [
        *(
            "debian",
            "tiny",
            "./a.qcow2",
            "web",
            "2",
            "-d",
            "--detach",
            "--timings",
            "--warm",
            "--json",
            "--no-detach",
            "--help",
        ),
        *(
            "--name",
            "--name=a",
            "--cpus",
            "--cpus=2",
            "--memory",
            "2G",
            "--disk",
            "--set",
            "cpu.model=host",
            "--net",
            "none",
        ),
        *(
            "--timeout",
            "--time-limit",
            "3.5",
            "1e3",
            "-1",
            "--",
            "",
            "--user-data",
            "--tpm",
            "--secure-boot",
            "--pin",
            "0-3",
            "--what",
            "size=1G,format=raw",
            "é",
            "a b",
        ),
    ]
)


def _by_parser(monkeypatch: pytest.MonkeyPatch, words: list[str]) -> object:
    """What the parser makes of it: image, options, and the run's own options; or that it refuses."""
    heard: list[object] = []
    monkeypatch.setattr(
        described, "described", lambda image, given, apart: (image, {k: v for k, v in given.items() if v}, apart)
    )
    monkeypatch.setattr(running, "run", lambda spec, words, how, warm: heard.append((*spec, how, warm)) or 0)
    app(words, exit_on_error=False, print_error=False)
    return heard[0]


@settings(deadline=None)
@given(st.lists(WORDS, max_size=6))
def test_same_as_parser(words):
    asked = quick.read(["run", *words])
    if asked is None:
        return
    with pytest.MonkeyPatch.context() as patch:
        image, given_options, apart, how, warm = _by_parser(patch, ["run", *words])
    assert (asked.image, asked.options) == (image, given_options)
    about = dict(asked.about)
    assert (about.pop("warm", False), running.How(**about)) == (warm, how)
    assert apart == warm


@pytest.mark.parametrize(
    "words",
    [
        ["run", "--help"],
        ["run", "debian", "tiny"],
        ["run", "--cpus", "x"],
        ["run", "--name"],
        ["run", "--name", "-d"],
        ["run", "--name", "a", "--name", "b"],
        ["run", "--timeout", "1", "--timeout", "2"],
        ["run", "--detach=yes"],
        ["run", "--unknown", "x"],
        ["ls"],
        [],
    ],
)
def test_left_to_parser(words):
    assert quick.read(words) is None


def test_plain_runs_are_read():
    asked = quick.read(["run", "debian", "--cpus", "2", "--disk", "a.raw", "--disk", "b.raw", "-d", "--timeout", "2.5"])
    assert asked == quick.Asked("debian", {"cpus": 2, "disk": ("a.raw", "b.raw")}, {"detach": True, "timeout": 2.5})


def test_every_option_of_a_machine_is_read():
    for name, kind in options.MachineOptions.__annotations__.items():
        switch = kind == "bool"
        words = ["run", f"--{name.replace('_', '-')}", *([] if switch else ["2"])]
        value = True if switch else 2 if name == "cpus" else ("2",) if kind.startswith("tuple") else "2"
        assert quick.read(words) == quick.Asked("", {name: value}, {}), name


def test_wrong_descriptions_are_refused_as_by_the_parser():
    with pytest.raises(SpecError):
        quick.run(quick.Asked("tiny", {"set": ("nothing",)}, {}), None)
