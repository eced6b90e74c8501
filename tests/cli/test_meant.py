"""Lines in the words of other tools do what they mean, or are answered with the line that does."""

from __future__ import annotations

import pytest
from typed import call

from tinamou.cli import meant
from tinamou.cli.app import app
from tinamou.cli.described import described
from tinamou.cli.verbs import GROUPS, VERBS
from tinamou.errors import SpecError


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
