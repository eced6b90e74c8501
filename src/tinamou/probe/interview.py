"""Ask one QEMU process many QMP questions in one write, and go on after a question that kills it."""

from __future__ import annotations

import json
from collections.abc import Mapping

from tinamou.errors import ProbeError
from tinamou.late import dataclass, field
from tinamou.probe.questions import Question

__all__ = ["MINIMAL", "Interview", "ask"]

_PATIENCE = 60.0
MINIMAL = ("-M", "none", "-nodefaults", "-display", "none", "-S", "-qmp", "stdio")


@dataclass
class Interview:
    """The answers by the name of the question, the errors by it too, and the questions that killed the process."""

    answers: dict[str, object] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)
    deadly: dict[str, str] = field(default_factory=dict)

    def missing(self, asked: list[Question]) -> list[Question]:
        """The questions that have had no reply so far."""
        seen = self.answers.keys() | self.refused.keys() | self.deadly.keys()
        return [question for question in asked if question.name not in seen]


def ask(binary: str, asked: list[Question]) -> Interview:
    """Every question in one process; when one kills it, the rest in another. Raises ProbeError when it is no QEMU."""
    interview = Interview()
    while left := interview.missing(asked):
        status, stdout, stderr = _run(binary, left)
        if not _read(stdout, interview):
            raise _no_greeting(binary, status, stdout, stderr)
        after = interview.missing(asked)
        if status != 0 and after:
            interview.deadly[after[0].name] = _tail(stderr, 3)
        elif after == left:
            raise _no_greeting(binary, status, stdout, stderr)
    return interview


def _run(binary: str, asked: list[Question]) -> tuple[int, str, str]:
    from tinamou.system.exec import CommandError, TimeoutExpired, run

    batch = [{"execute": "qmp_capabilities", "id": ""}]
    batch += [{"execute": q.command, "arguments": q.arguments, "id": q.name} for q in asked]  # type: ignore[dict-item]
    batch.append({"execute": "quit", "id": ""})
    try:
        return 0, run([binary, *MINIMAL], input="\n".join(map(json.dumps, batch)), timeout=_PATIENCE), ""
    except CommandError as died:
        return died.status, died.stdout, died.stderr
    except TimeoutExpired as late:
        raise ProbeError(
            f"{binary} does not answer",
            why=f"no end of its QMP dialogue within {_PATIENCE:.0f} s; it is no QEMU system emulator, or it hangs",
            fix=f"try it by hand: {_replay(binary)}",
        ) from late
    except OSError as refused:
        raise ProbeError(
            f"{binary} cannot be started",
            why=refused.strerror or str(refused),
            fix="check that it is a program for this machine and that every directory above it may be entered",
        ) from refused


def _read(stdout: str, interview: Interview) -> bool:
    greeted = False
    for line in stdout.splitlines():
        try:
            message = json.loads(line)
        except ValueError:
            continue
        if not isinstance(message, dict):
            continue
        greeted = greeted or isinstance(message.get("QMP"), dict)
        _file(message, interview)
    return greeted


def _file(message: Mapping[str, object], interview: Interview) -> None:
    name = message.get("id")
    if not isinstance(name, str) or not name:
        return
    if "return" in message:
        interview.answers[name] = message["return"]
    elif isinstance(error := message.get("error"), dict):
        interview.refused[name] = str(error.get("desc", ""))


def _no_greeting(binary: str, status: int, stdout: str, stderr: str) -> ProbeError:
    if status < 0:
        what, why = f"{binary} died of signal {-status} before it greeted", "the program crashed as it started"
    elif status:
        what, why = (
            f"{binary} ended with status {status} before it greeted",
            "it is no QEMU system emulator, or a broken one",
        )
    else:
        what, why = f"{binary} is not a QEMU system emulator", "it does not speak QMP"
    return ProbeError(
        what,
        why=why,
        fix=f"run it by hand, or name another binary with TINAMOU_QEMU: {_replay(binary)}",
        evidence={"argv": _replay(binary), "stderr": _tail(stderr, 15), "stdout": _tail(stdout, 5)},
    )


def _replay(binary: str) -> str:
    return " ".join((binary, *MINIMAL))


def _tail(text: str, lines: int) -> str:
    return "\n".join(text.strip().splitlines()[-lines:])
