"""A machine's AppArmor profiles as text: the real parser takes them for every kind of machine, and they name what it has."""

from __future__ import annotations

import dataclasses
import shutil
import subprocess
from pathlib import Path

import pytest
from golden.cases import CASES, Case, facts, image_of, spec_of

from tinamou.blueprint import Element, HandOver, LoadProfiles, Plan, Why
from tinamou.errors import PlanError
from tinamou.facts import Place
from tinamou.planner import plan
from tinamou.prepare import profiles
from tinamou.prepare.journal import Journal
from tinamou.spec import load_spec
from tinamou.system import apparmor
from tinamou.tuning.apparmor import confined, of_network

UID = 1_900_000_002
ODD = '/machines/a "name" [with] {every} *sign? @{PROC} \\ and\nmore'
SPECS = sorted({(case.spec, case.version) for case in CASES if case.arch == "x86_64"})


def planned(
    case: Case, directory: str = "/machines/web", *, active: bool = True, refused: str = "", **security: str
) -> Plan:
    known = facts(case, image_of(case), Place("web", directory, UID, 0))
    known = dataclasses.replace(known, host=dataclasses.replace(known.host, apparmor=active, apparmor_refused=refused))
    spec = spec_of(case)
    return plan(dataclasses.replace(spec, security=load_spec({"security": security}).security), known)


def case_of(spec: str, version: str) -> Case:
    return next(case for case in CASES if (case.spec, case.version, case.arch) == (spec, version, "x86_64"))


def step_of(made: Plan) -> LoadProfiles:
    return next(step for step in made.steps if isinstance(step, LoadProfiles))


def parsed(text: str) -> subprocess.CompletedProcess[str]:
    if not shutil.which("apparmor_parser"):
        pytest.skip("apparmor_parser is not installed (package apparmor)")
    words = ["apparmor_parser", "--skip-kernel-load", "--skip-cache"]
    return subprocess.run(words, input=text, capture_output=True, text=True, check=False)


@pytest.mark.parametrize(("spec", "version"), SPECS)
@pytest.mark.parametrize("directory", ["/machines/web", ODD], ids=["plain", "odd"])
def test_the_real_parser_takes_it(spec, version, directory):
    try:
        made = planned(case_of(spec, version), directory)
    except PlanError as error:
        pytest.skip(f"the recorded host cannot have it: {error}")
    done = parsed(step_of(made).text)
    assert done.returncode == 0, done.stderr


def test_the_real_parser_refuses_what_is_none():
    assert parsed('profile "x" {\n  "/a" nonsense,\n}\n').returncode != 0


def test_it_names_what_the_machine_has():
    made = planned(case_of("everything", "7.2"))
    assert made.confinement.profile == f"tinamou-web-{UID}"
    assert made.steps[0] == step_of(made), "before any helper starts"
    qemu, swtpm, *_ = step_of(made).text.split("\nprofile ")[1:]
    handed = [s.path for s in made.steps if isinstance(s, HandOver) and s.access in ("read", "write")]
    outside = [path for path in handed if not path.startswith("/machines/web/")]
    assert outside
    assert all(f'"{path}" ' in qemu for path in outside)
    assert '"/machines/web/**" rwk' in qemu
    assert '"/machines/web/**"' not in swtpm
    assert '"/machines/web/tpm/{,**}" rwk' in swtpm


def test_devices_and_networks_only_where_they_are_needed():
    bare = step_of(planned(case_of("bare", "7.2"))).text.split("\nprofile ")[1]
    assert "/dev/kvm" not in bare
    assert "/dev/vfio" not in bare
    assert "network inet" not in bare
    assert "  / rw,\n" not in bare


def test_memory_on_large_pages_may_be_made():
    """The kernel tells of it by the name of the root of a file system nobody sees."""
    made = planned(case_of("bare", "7.2"))
    memory = Element(
        "object", {"qom-type": "memory-backend-memfd", "id": "ram0", "hugetlb": True}, Why("test", "large pages")
    )
    large = dataclasses.replace(made, elements=(*made.elements, memory))
    place = Place("web", "/machines/web", UID, 0)
    told = [step_of(confined(one, place)).text.split("\nprofile ")[1] for one in (made, large)]
    assert ["  / rw,\n" in one for one in told] == [False, True]


def test_it_can_be_left_out_and_required():
    case = case_of("tiny", "7.2")
    assert planned(case, active=False).confinement.profile == ""
    assert planned(case, apparmor="off").confinement.profile == ""
    with pytest.raises(PlanError, match="cannot be planned") as told:
        planned(case, active=False, apparmor="require")
    assert told.value.problems[0].path == "security.apparmor"


def test_where_tinamou_is_held_itself_there_is_none_and_it_is_said():
    case, why = case_of("tiny", "7.2"), "tinamou itself runs under the profile lxd-web (enforce)"
    made = planned(case, refused=why)
    assert made.confinement.profile == "" and not any(isinstance(step, LoadProfiles) for step in made.steps)
    assert f"no AppArmor profile: {why}" in [note.text for note in made.notes]
    with pytest.raises(PlanError) as told:
        planned(case, refused=why, apparmor="require")
    assert (told.value.problems[0].path, told.value.problems[0].reason) == ("security.apparmor", why)


class Loaded:
    """Stands where the parser is: what was loaded."""

    def __init__(self) -> None:
        self.texts: list[str] = []

    def __call__(self, argv, **_: object) -> str:
        self.texts.append(Path(argv[-1]).read_text())
        return ""


@pytest.fixture
def loaded(monkeypatch) -> Loaded:
    stand_in = Loaded()
    monkeypatch.setattr(profiles, "run", stand_in)
    return stand_in


def test_what_is_plugged_in_later_is_let_in(tmp_path, loaded):
    journal, why = Journal(tmp_path), Why("a test", "it is tried")
    mine, more = HandOver(f"{tmp_path}/disk1.qcow2", "write", why), HandOver('/the "other" disk', "write", why)
    profiles.admit(more, journal)
    assert loaded.texts == [], "a machine without profiles"
    assert profiles.entering("swtpm", journal) == ""
    text = step_of(planned(case_of("tiny", "7.2"), str(tmp_path))).text
    profiles.load(LoadProfiles(f"tinamou-web-{UID}", text, why), journal)
    profiles.admit(mine, journal)
    assert len(loaded.texts) == 1, "its own folder is its own"
    profiles.admit(more, journal)
    profiles.admit(more, journal)
    assert len(loaded.texts) == 2
    qemu, *helpers = loaded.texts[-1].split("\nprofile ")[1:]
    assert '"/the \\"other\\" disk" rwk,' in qemu
    assert not any("other" in one for one in helpers)
    assert parsed(loaded.texts[-1]).returncode == 0
    assert profiles.entering("virtiofsd-0", journal) == f"tinamou-web-{UID}-virtiofsd"
    assert profiles.entering("unknown", journal) == ""


def test_it_is_in_the_journal_before_it_is_loaded(tmp_path, monkeypatch):
    def fails(*_: object, **__: object) -> str:
        assert [one["kind"] for one in Journal(tmp_path).open_entries().values()] == ["profiles"]
        raise OSError("gone")

    monkeypatch.setattr(profiles, "run", fails)
    with pytest.raises(OSError, match="gone"):
        profiles.load(LoadProfiles("x", "", Why("a test", "it is tried")), Journal(tmp_path))


def test_a_network_has_one_too():
    done = parsed(of_network("tinamou-net-tina1", ODD))
    assert done.returncode == 0, done.stderr
    if not Path("/sys/kernel/security/apparmor/.remove").exists():
        assert profiles.serving("tinamou-net-tina1", Path("/nowhere")) == "", "nothing is loaded without AppArmor"
    apparmor.remove("tinamou-net-tina1")
