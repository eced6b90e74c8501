"""The SELinux label of what was shut in: asked of the kernel, none where it cannot be entered, and a word why."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from tinamou.system import reader_label, selinux, shut_in

MINE = "unconfined_u:unconfined_r:unconfined_t:s0-s0:c0.c1023"


def label(number: int) -> str:
    pair = f"c{number % 512},c{512 + number // 512 % 512}"
    return f"unconfined_u:unconfined_r:tinamou_reader_t:s0:{pair}"


@pytest.fixture
def policy(monkeypatch: pytest.MonkeyPatch) -> dict[str, bool]:
    """Stands in the kernel's place: whether it knows the label, lets this process become it, and the file begin it."""
    said = {"known": True, "transition": True, "nnp_transition": True, "entrypoint": True}

    def allows(source: str, target: str, kind: str, right: str, place: Path = selinux.SELINUXFS) -> bool:
        assert (source == MINE and "tinamou_reader_t" in target) or (kind, right) == ("file", "entrypoint")
        return said[right]

    monkeypatch.setattr(selinux, "context", lambda: (MINE, "unconfined_u:unconfined_r"))
    monkeypatch.setattr(selinux, "has_label", lambda label: said["known"])
    monkeypatch.setattr(selinux, "allows", allows)
    monkeypatch.setattr(selinux, "label_of", lambda path: "system_u:object_r:bin_t:s0")
    monkeypatch.setattr(reader_label, "find_tool", lambda name: f"/usr/bin/{name}")
    monkeypatch.setattr(reader_label.os, "getpid", lambda: 70_000)
    reader_label._asked.cache_clear()
    yield said
    reader_label._asked.cache_clear()


def given(monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(shut_in, "_filter", lambda pid, program: "/proc/1/fd/3")
    words = shut_in.shut_in(["env"])
    own = words[: words.index("--")]
    return own[own.index("-e") + 1] if "-e" in own else ""


def test_it_is_what_readers_start_under(policy: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    assert given(monkeypatch) == label(70_000) and label(70_000).endswith(":c368,c648")
    assert reader_label.missing() == ""


def test_two_processes_have_no_categories_in_common() -> None:
    assert len({label(number) for number in range(1, 262_144, 7)}) == len(range(1, 262_144, 7))


@pytest.mark.parametrize(
    ("answer", "why"),
    [
        ("known", "the policy has no label unconfined_u:unconfined_r:tinamou_reader_t:s0:c368,c648"),
        ("transition", f"the policy does not let {MINE} become unconfined_u:unconfined_r:tinamou_reader_t"),
        ("nnp_transition", f"the policy does not let {MINE} become "),
        (
            "entrypoint",
            "/usr/bin/qemu-img has the label system_u:object_r:bin_t:s0, and the policy lets no program",
        ),
    ],
)
def test_where_it_cannot_be_entered_there_is_none_and_a_word_why(
    policy: dict[str, bool], monkeypatch: pytest.MonkeyPatch, answer: str, why: str
) -> None:
    policy[answer] = False
    assert given(monkeypatch) == ""
    assert (reader_label.missing() or "").startswith(why)


def test_nothing_is_asked_without_selinux(policy: dict[str, bool], monkeypatch: pytest.MonkeyPatch) -> None:
    asked: Callable[[str], bool] = pytest.fail
    monkeypatch.setattr(selinux, "context", lambda: ("", ""))
    monkeypatch.setattr(selinux, "has_label", asked)
    assert given(monkeypatch) == "" and reader_label.missing() is None
