"""Five questions about a report, and what is an answer: yes, no, or not judged, each with what it rests on."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from tinamou import late
from tinamou.late import dataclass

__all__ = ["QUESTIONS", "Answer", "Verdict", "no", "not_judged", "yes"]

QUESTIONS = {
    "genuine": "the key that must have signed it did, and no certificate on the way was revoked",
    "fresh": "it was made for this question, after it was asked",
    "expected": "it measured what this machine must be",
    "policy": "the guest runs under the policy that is demanded",
    "tcb": "firmware and microcode of the host are new enough",
}
"""The questions, in the order they are asked."""


@dataclass(frozen=True)
class Answer:
    """``evidence`` is what it rests on, line by line; ``why`` says what is wrong or missing, ``fix`` what helps."""

    question: str
    answer: Literal["yes", "no", "not judged"]
    evidence: tuple[str, ...] = ()
    why: str = ""
    fix: str = ""


@dataclass(frozen=True)
class Verdict:
    """What a report says (``kind``: sev-snp, tdx, tpm), by name, and the five answers; only what was judged counts."""

    kind: str
    says: dict[str, str]
    answers: tuple[Answer, ...]

    @property
    def proven(self) -> bool:
        """Whether all five are yes."""
        return all(one.answer == "yes" for one in self.answers)

    def of(self, question: str) -> Answer:
        """The answer to one of `QUESTIONS`."""
        return next(one for one in self.answers if one.question == question)

    def plain(self) -> dict[str, object]:
        """The verdict as it is printed with ``--json``."""
        return {
            "kind": self.kind,
            "proven": self.proven,
            "says": self.says,
            "answers": {
                one.question: {k: v for k, v in late.asdict(one).items() if k != "question"} for one in self.answers
            },
        }


def yes(question: str, evidence: Iterable[str]) -> Answer:
    """It holds, by this."""
    return Answer(question, "yes", tuple(evidence))


def no(question: str, why: str, fix: str = "", evidence: Iterable[str] = ()) -> Answer:
    """It does not hold."""
    return Answer(question, "no", tuple(evidence), why, fix)


def not_judged(question: str, why: str, fix: str, evidence: Iterable[str] = ()) -> Answer:
    """Something is missing that would tell."""
    return Answer(question, "not judged", tuple(evidence), why, fix)
