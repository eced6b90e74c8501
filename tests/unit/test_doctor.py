"""Every check tells good from bad from unknown, over files written on the spot."""

import json
from pathlib import Path

import pytest
from doctor_cases import BAD, CASES, GOOD, INFO, UNKNOWN, WARNING
from host_trees import make_host

import tinamou.doctor.checks
from tinamou.doctor import remedies
from tinamou.doctor.examine import CHECKS, examine, examine_one
from tinamou.doctor.finding import Finding, Remedy
from tinamou.doctor.inspection import Inspection
from tinamou.doctor.report import exit_status, summary, table, to_json
from tinamou.doctor.this_host import this_host
from tinamou.errors import PrepareError
from tinamou.system.exec import CommandError
from tinamou.system.rooted import Rooted


def inspection(root, files, facts, more):
    for path, text in files.items():
        target = root / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text)
    return Inspection(Rooted(str(root)), make_host(**facts), **more)


@pytest.mark.parametrize("name", CHECKS)
def test_check(name, tmp_path):
    seen = []
    for number, (severity, words, files, facts, more) in enumerate(CASES[name]):
        root = tmp_path / str(number)
        root.mkdir()
        finding = examine_one(name, inspection(root, files, facts, more))
        assert (finding.severity, words in finding.evidence) == (severity, True), finding
        assert finding.title
        assert finding.check == name
        assert finding.fix or severity in (GOOD, UNKNOWN) or "not offered" in finding.evidence or name == "kernel_parameters"
        seen.append(severity)
    assert GOOD in seen
    assert UNKNOWN in seen
    assert {INFO, WARNING, BAD} & set(seen)


def test_checks_and_files_agree():
    files = {path.stem for path in Path(tinamou.doctor.checks.__path__[0]).glob("*.py")} - {"__init__"}
    assert files == set(CHECKS) == set(CASES)


def test_unreadable_file_is_unknown(tmp_path):
    def fails(argv):
        raise PermissionError("no")

    seen = Inspection(Rooted(str(tmp_path)), make_host(tools={"swtpm": "/b/swtpm"}), command=fails)
    assert examine_one("swtpm", seen).severity is UNKNOWN


def test_report():
    findings = [Finding(GOOD, "fine", check="a", title="A"), Finding(BAD, "broken", "mend it", check="b", title="B")]
    assert exit_status(findings) == 1
    assert exit_status(findings[:1]) == 0
    assert summary(findings) == "2 checks: 1 good, 0 info, 0 warning, 1 bad, 0 unknown"
    assert json.loads(json.dumps(to_json(findings)))["findings"][1]["fix"] == "mend it"
    assert table(findings).row_count == 2


def test_fix_writes_and_runs_and_reports(tmp_path):
    (tmp_path / "run").write_text("1\n")
    ran = []
    findings = [
        Finding(WARNING, "x", "y", Remedy(("/run",), "2"), title="KSM"),
        Finding(BAD, "x", "y", Remedy(argv=("modprobe", "kvm_amd")), title="kvm"),
        Finding(INFO, "x", "y", Remedy(argv=("never",)), title="only info"),
    ]
    lines = remedies.apply(findings, Rooted(str(tmp_path)), lambda argv: ran.append(argv) or "")
    assert (tmp_path / "run").read_text() == "2"
    assert ran == [("modprobe", "kvm_amd")]
    assert "was 1" in lines[0]
    assert len(lines) == 2


def test_fix_that_fails_says_why(tmp_path):
    def fails(argv):
        raise CommandError(tuple(argv), 1, "", "FATAL: not found")

    with pytest.raises(PrepareError, match="not found"):
        remedies.apply([Finding(BAD, "x", "y", Remedy(argv=("modprobe", "x")))], Rooted(str(tmp_path)), fails)
    with pytest.raises(PrepareError, match="No such file"):
        remedies.apply([Finding(BAD, "x", "y", Remedy(("/missing",), "1"))], Rooted(str(tmp_path)))


def test_this_host():
    findings = examine(this_host())
    assert [finding.check for finding in findings] == list(CHECKS)
    assert all(finding.evidence for finding in findings)
