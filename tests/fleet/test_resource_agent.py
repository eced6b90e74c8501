"""The resource agent: Pacemaker's own tester on a real machine, and each action's answer for what tinamou may say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from sshd_here import SOURCES

AGENT = Path(__file__).parents[2] / "data/ocf/tinamou"
SHELL = Path("/usr/lib/ocf/lib/heartbeat/ocf-shellfuncs")
OK, GENERIC, ARGUMENTS, UNIMPLEMENTED, INSTALLED, CONFIGURED, NOT_RUNNING = 0, 1, 2, 3, 5, 6, 7
"""Source: OCF resource agent API."""

pytestmark = pytest.mark.skipif(not SHELL.exists(), reason="no resource-agents (script/setup installs it)")


@pytest.fixture
def agent(tmp_path: Path):
    """Runs an action with a stand-in for tinamou, whose machine is in that state; its status, and what was called."""
    stand_in = tmp_path / "stand-in"
    stand_in.write_text(
        f'#!/bin/sh\necho "$*" >>{tmp_path}/calls\n'
        f'[ "$1" != show ] || {{ cat {tmp_path}/shown; exit $(cat {tmp_path}/status); }}\n'
        f'! grep -q "^$1$" {tmp_path}/failing 2>/dev/null\n'
    )
    stand_in.chmod(0o755)

    def run(action: str, state: str | None, *, failing: str = "", **given: str) -> tuple[int, list[str]]:
        error = {"error": "there is no machine named ha", "code": 118}
        shown = error if state is None else {"name": "ha", "spec": {"state": "of a disk"}, "state": state, "why": None}
        (tmp_path / "shown").write_text(json.dumps(shown, indent=2))
        (tmp_path / "status").write_text("118" if state is None else "0" if state else "115")
        (tmp_path / "failing").write_text("".join(f"{word}\n" for word in failing.split()))
        (tmp_path / "calls").write_text("")
        said = {"OCF_RESKEY_name": "ha", "OCF_RESKEY_command": str(stand_in), **given}
        done = subprocess.run(["sh", str(AGENT), action], env={**os.environ, **said}, capture_output=True, check=False)
        return done.returncode, [
            call for call in (tmp_path / "calls").read_text().splitlines() if not call.startswith("show")
        ]

    return run


def test_it_is_plain_shell() -> None:
    if shutil.which("shellcheck") is None:
        pytest.skip("no shellcheck (script/setup installs it)")
    subprocess.run(["shellcheck", str(AGENT)], check=True)


@pytest.mark.parametrize(
    "state, status",
    [
        (None, NOT_RUNNING),
        ("stopped", NOT_RUNNING),
        ("suspended", NOT_RUNNING),
        ("running", OK),
        ("paused", OK),
        ("internal-error", GENERIC),
        ("unknown", GENERIC),
        ("", GENERIC),
    ],
)
def test_monitor(agent, state: str | None, status: int) -> None:
    assert agent("monitor", state) == (status, [])


def test_the_command_may_be_called_as_by_default(agent, tmp_path: Path) -> None:
    (tmp_path / "tinamou").symlink_to(tmp_path / "stand-in")
    path = f"{tmp_path}:{os.environ['PATH']}"
    assert agent("monitor", "running", OCF_RESKEY_command="tinamou", PATH=path) == (OK, [])


def test_what_has_moved_is_not_here(agent) -> None:
    assert agent("monitor", "moved") == (NOT_RUNNING, [])
    assert agent("monitor", "arriving") == (NOT_RUNNING, [])
    assert agent("stop", "moved") == (OK, [])


def test_a_start_where_a_move_was_cut_short(agent) -> None:
    assert agent("start", "arriving")[1][0] == "settle --other-is-off ha"
    assert agent("start", "moved", OCF_RESKEY_file=str(AGENT))[1][0] == "rm ha"
    assert agent("start", "moved")[1] == ["start --timeout 50 ha"]
    called = agent("start", "stopped", failing="start")[1]
    assert called == ["start --timeout 50 ha", "settle --other-is-off ha", "start --timeout 50 ha"]


def test_a_guest_is_asked_where_that_is_wanted(agent) -> None:
    asked = ["exec --timeout 50 ha -- true"]
    assert agent("monitor", "running", OCF_RESKEY_guest="1") == (OK, asked)
    assert agent("monitor", "running", OCF_CHECK_LEVEL="10", failing="exec") == (GENERIC, asked)


def test_start(agent) -> None:
    assert agent("start", "running") == (OK, [])
    assert agent("start", "stopped")[1] == ["start --timeout 50 ha"]
    assert agent("start", "suspended")[1] == ["resume ha"]
    assert agent("start", "stopped", failing="start")[0] == GENERIC
    assert agent("start", None)[0] == INSTALLED
    made = agent("start", None, OCF_RESKEY_file=str(AGENT), OCF_RESKEY_CRM_meta_timeout="300000")
    assert made[1] == [f"run -d --name ha --timeout 290 {AGENT}"]


CIB = """<cib crm_feature_set="3.16.1" validate-with="pacemaker-3.9" epoch="1" num_updates="0" admin_epoch="1">
<configuration><crm_config/><nodes/><resources/><constraints/></configuration><status/></cib>
"""
LAST = ("crm_attribute", "--type", "crm_config", "--set-name", "tinamou", "--name", "tinamou-ha")


@pytest.fixture
def noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """The node on which the machine ran last, as a cluster's configuration in a file has it; a name is noted there."""
    if shutil.which("crm_attribute") is None:
        pytest.skip("no crm_attribute (script/setup installs it)")
    monkeypatch.setenv("CIB_file", str(tmp_path / "cib.xml"))
    monkeypatch.setenv("OCF_RESKEY_CRM_meta_on_node", "h1")

    def last(name: str | None = None) -> str:
        if name is not None:
            (tmp_path / "cib.xml").write_text(CIB)
        if name:
            subprocess.run([*LAST, "--update", name], check=True)
        return subprocess.run([*LAST, "-q", "--query"], capture_output=True, text=True, check=False).stdout.strip()

    last("")
    return last


def test_a_start_from_a_replica_is_asked_for(agent, noted) -> None:
    given = {"OCF_RESKEY_file": str(AGENT), "OCF_RESKEY_replica": "1"}
    assert agent("start", None, **given)[1] == ["replica take ha", "start --timeout 50 ha"]
    assert agent("start", None, failing="replica", **given)[1] == [
        "replica take ha",
        f"run -d --name ha --timeout 50 {AGENT}",
    ]
    assert agent("start", "stopped", **given)[1] == ["start --timeout 50 ha"]
    assert agent("start", None, OCF_RESKEY_replica="1")[1] == ["replica take ha", "start --timeout 50 ha"]


def test_disks_that_another_node_went_on_from_a_replica_of_are_not_started(agent, noted) -> None:
    given = {"OCF_RESKEY_replica": "1"}
    for state in ("stopped", "suspended", "crashed"):
        noted("h2")
        assert agent("start", state, **given) == (INSTALLED, [])
        assert noted() == "h2"
        noted("h1")
        assert agent("start", state, **given)[1] != []
    noted("h2")
    assert agent("start", "stopped")[1] == ["start --timeout 50 ha"]  # its disks are shared: nobody has older ones
    assert agent("migrate_from", "running", **given)[0] == OK
    assert noted() == "h1"


def test_a_machine_whose_disks_are_on_another_node_is_not_made_of_its_file(agent, noted) -> None:
    given = {"OCF_RESKEY_file": str(AGENT), "OCF_RESKEY_replica": "1"}
    noted("h2")
    assert agent("start", None, failing="replica", **given) == (INSTALLED, ["replica take ha"])
    assert agent("start", None, **given)[1] == ["replica take ha", "start --timeout 50 ha"]
    assert noted() == "h1"  # what is lost is decided, whether it starts or not
    noted("h1")
    assert agent("start", None, failing="replica", **given)[1][1:] == [f"run -d --name ha --timeout 50 {AGENT}"]


def test_a_node_that_started_a_machine_is_noted(agent, noted, tmp_path: Path) -> None:
    assert agent("start", "running", OCF_RESKEY_replica="1") == (OK, [])
    assert noted() == "h1"
    noted("")
    assert agent("start", "running") == (OK, [])
    assert noted() == ""
    (tmp_path / "cib.xml").write_text("no cluster")
    assert agent("start", "stopped", OCF_RESKEY_replica="1") == (GENERIC, [])


def test_a_stop_that_does_not_stop_is_a_failure(agent) -> None:
    assert agent("stop", "stopped") == (OK, [])
    assert agent("stop", None) == (OK, [])
    assert agent("stop", "running", failing="stop") == (GENERIC, ["stop --grace 50 ha", "kill ha"])
    assert agent("stop", "") == (GENERIC, ["stop --grace 50 ha"])


def test_migration(agent) -> None:
    there = {"OCF_RESKEY_CRM_meta_migrate_target": "h2"}
    assert agent("migrate_to", "running", **there) == (OK, ["move ha h2"])
    assert agent("migrate_to", "running", failing="move", **there) == (GENERIC, ["move ha h2"])
    assert agent("migrate_to", "running") == (ARGUMENTS, [])
    assert agent("migrate_to", "stopped", **there) == (GENERIC, [])
    assert agent("migrate_from", "running")[0] == OK
    assert agent("migrate_from", None)[0] == GENERIC


def test_what_cannot_work_here_is_said(agent, tmp_path: Path) -> None:
    assert agent("validate-all", "stopped")[0] == OK
    assert agent("validate-all", None)[0] == INSTALLED
    assert agent("validate-all", None, OCF_RESKEY_file=str(tmp_path / "none"))[0] == INSTALLED
    assert agent("validate-all", "stopped", OCF_RESKEY_command="no-such-program")[0] == INSTALLED
    for name in ("", "-x", "a b", "A"):
        assert agent("validate-all", "stopped", OCF_RESKEY_name=name)[0] == CONFIGURED
    assert agent("promote", "running")[0] == UNIMPLEMENTED


@pytest.mark.vm
@pytest.mark.slow
@pytest.mark.root
@pytest.mark.skipif(
    shutil.which("ocf-tester") is None or shutil.which("xmllint") is None, reason="no ocf-tester, or no xmllint"
)
def test_ocf_tester_passes_with_a_real_machine(state: Path) -> None:
    command = state / "tinamou"
    command.write_text(f'#!/bin/sh\nexec env PYTHONPATH={SOURCES} {sys.executable} -m tinamou "$@"\n')
    command.chmod(0o755)
    (state / "ha.toml").write_text('name = "ha"\nmemory = "128M"\n')
    given = {"name": "ha", "command": str(command), "file": str(state / "ha.toml")}
    words = [word for pair in given.items() for word in ("-o", "=".join(pair))]
    try:
        done = subprocess.run(["ocf-tester", "-n", "ha", *words, str(AGENT)], capture_output=True, text=True, check=False)
        assert "passed all tests" in done.stdout, done.stdout + done.stderr
    finally:
        subprocess.run([str(command), "rm", "--force", "ha"], check=False)
