"""What ``--all-hosts`` prints: this host's part and that of every other, asked at once; silence is shown as silence."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinamou.cli import output
from tinamou.cli.loop import run_until_done
from tinamou.errors import HostError, Problem, SpecError
from tinamou.fleet import asking, hosts
from tinamou.fleet.asking import Answer
from tinamou.fleet.ssh import SilentHostError
from tinamou.machine import listing
from tinamou.monitor.states import states_of
from tinamou.state.index import look

__all__ = ["examine_all", "list_machines", "twice"]

HERE = "here"
"""What this host is called beside the others."""
_DOCTOR_TIMES = 6.0
"""How often the patience with a host its doctor may take."""


def list_machines(*, quiet: bool, json: bool) -> int:
    """Print the machines of all hosts; the exit status."""
    answers = _everywhere(["ls"], 1.0, _listed_here())
    for name, where in twice(answers).items():
        said = f"{name} runs on {' and '.join(where)}: machines of one name have the same hardware addresses"
        output.warn(f"{said}, which clash on one network; tinamou rename, or net[].mac, for one of them")
    if json:
        output.print_json([_plain(one, "machines") for one in answers])
        return _status(answers)
    machines = [(answer.host, row) for answer in answers for row in answer.data or ()]
    for host, row in machines:
        if row["late"]:
            output.warn(f"{row['name']} on {host}: {row['late']}")
    if quiet:
        names = [f"{host}:{row['name']}" for host, row in machines]
        print(*names, sep="\n", end="\n" if names else "")
    else:
        cells = listing.lines([row for _, row in machines])
        rows = [[host, *line] for (host, _), line in zip(machines, cells, strict=True)]
        silent = [[one.host, "", _manner(one), *[""] * (len(listing.COLUMNS) - 2)] for one in answers if one.error]
        output.lines(("host", *listing.COLUMNS), rows + silent)
    return _status(answers)


def twice(answers: Sequence[Answer]) -> dict[str, list[str]]:
    """The hosts on which a machine of that name runs, for names that run on several."""
    found: dict[str, list[str]] = {}
    for answer in answers:
        for row in answer.data or ():
            if row["state"] == "running":
                found.setdefault(row["name"], []).append(answer.host)
    return {name: where for name, where in found.items() if len(where) > 1}


def examine_all(*, apart: bool, json: bool) -> int:
    """Print what the doctor finds on all hosts; the exit status."""
    if apart:
        problem = Problem("--all-hosts", True, "it is about every host, and changes nothing", "tinamou -H HOST doctor …")
        raise SpecError("that is not said together", problems=[problem])
    answers = _everywhere(["doctor"], _DOCTOR_TIMES, _examined_here())
    if json:
        output.print_json([_plain(one, "doctor") for one in answers])
    else:
        rows = [(one.host, *_row(found)) for one in answers if one.data for found in one.data["findings"]]
        output.lines(("host", "", "check", "what was found"), [row for row in rows if row[1] != "good"])
        for one in answers:
            if one.data:
                print(f"{one.host}: {_counted(one.data['findings'])}")
    bad = any(one.data["status"] for one in answers if one.data)
    return _status(answers) or int(bad)


def _row(finding: dict[str, Any]) -> tuple[str, str, str]:
    fix = f" → {finding['fix']}" if finding["fix"] else ""
    return str(finding["severity"]), str(finding["title"]), f"{finding['evidence']}{fix}"


def _counted(findings: Sequence[dict[str, Any]]) -> str:
    kinds = ("good", "info", "warning", "bad", "unknown")
    return ", ".join(f"{sum(one['severity'] == kind for one in findings)} {kind}" for kind in kinds)


def _everywhere(words: Sequence[str], times: float, here: Any) -> list[Answer]:
    """This host's answer and those of the others, who are asked at the same time; who is silent is said on stderr."""
    answers = run_until_done(asking.ask_all(hosts.every(), words, times=times))
    for one in answers:
        if one.error:
            output.warn(f"{one.host} is silent: {one.why}" if _manner(one) == "silent" else f"{one.host}: {one.why}")
    return [Answer(HERE, here), *answers]


def _manner(answer: Answer) -> str:
    """What is shown in place of a state: a host that says nothing, or one that answers otherwise than it should."""
    return "silent" if isinstance(answer.error, SilentHostError) else "error"


def _listed_here() -> Any:
    from tinamou.machine.reconcile import reconcile
    from tinamou.state import machines

    found = look()
    output.warn(*reconcile(found))
    records = machines.awake(found)
    return listing.rows(found, records, run_until_done(states_of(records)))


def _examined_here() -> Any:
    from tinamou.doctor.examine import examine
    from tinamou.doctor.report import to_json
    from tinamou.doctor.this_host import this_host

    return to_json(examine(this_host()))


def _plain(answer: Answer, key: str) -> dict[str, Any]:
    return (
        {"host": answer.host, "error": answer.error.to_json()} if answer.error else {"host": answer.host, key: answer.data}
    )


def _status(answers: Sequence[Answer]) -> int:
    return HostError.code if any(one.error for one in answers) else 0
