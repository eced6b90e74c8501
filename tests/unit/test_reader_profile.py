"""The AppArmor profile of what was shut in: its text, and that it is loaded once, never asked of a host that has none."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tinamou.system import apparmor, reader_profile, shut_in
from tinamou.system.exec import CommandError

REAL_TRIAL = reader_profile._tried


class Kernel:
    """Stands in the place of one with AppArmor, and of its parser: what is loaded, and how often the parser ran."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.runs, self.fails = folder, 0, ""
        (folder / "attr/apparmor").mkdir(parents=True)
        self.held("unconfined")
        (folder / ".remove").touch()
        self.holds("/usr/bin/man (enforce)\n")

    def holds(self, listed: str) -> None:
        (self.folder / "profiles").write_text(listed)

    def held(self, label: str) -> None:
        apparmor.held.cache_clear()
        (self.folder / "attr/apparmor/current").write_text(f"{label}\n")

    def run(self, argv: list[str], *, input: str, timeout: float) -> str:
        self.runs += 1
        if self.fails:
            raise CommandError(tuple(argv), 1, "", self.fails)
        assert argv[1:] == ["--replace", "--skip-cache"] and input == reader_profile.text() and timeout
        self.holds(
            f"{reader_profile.named()} (enforce)\n/usr/bin/man (enforce)\n{reader_profile.named()}-script (enforce)\n"
        )
        return ""


@pytest.fixture
def kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stand_in = Kernel(tmp_path)
    for name, value in {
        "APPARMOR": tmp_path,
        "run": stand_in.run,
        "find_tool": lambda name: f"/usr/sbin/{name}",
        "_tried": lambda: "",
    }.items():
        monkeypatch.setattr(reader_profile, name, value)
    monkeypatch.setattr(apparmor, "APPARMOR", tmp_path)
    monkeypatch.setattr(apparmor, "_OF_THIS_PROCESS", tmp_path / "attr")
    monkeypatch.setattr(os, "geteuid", lambda: 0)
    reader_profile._load.cache_clear()
    yield stand_in
    reader_profile._load.cache_clear()
    apparmor.held.cache_clear()


def parsed(text: str) -> subprocess.CompletedProcess[str]:
    if not (parser := shutil.which("apparmor_parser", path=f"{os.environ['PATH']}:/usr/sbin")):
        pytest.skip("apparmor_parser is not installed (package apparmor)")
    words = [parser, "--skip-kernel-load", "--skip-cache"]
    return subprocess.run(words, input=text, capture_output=True, text=True, check=False)


def test_it_says_what_a_reader_may() -> None:
    head, binary, script = reader_profile.text().split("\nprofile ")
    assert head == "abi <abi/3.0>,\n"
    name, _, rules = binary.partition(" flags=(attach_disconnected) {\n")
    assert name == f'"{reader_profile.named()}"'
    assert [line.strip() for line in rules.splitlines()] == [
        "capability dac_read_search,",
        "signal (receive) peer=unconfined,",
        "/{,**} mrwk,",
        "deny /{,usr/}{bin,sbin,lib,lib32,lib64,libexec}/** w,",
        "deny /{boot,etc,proc,sys}/** w,",
        "}",
    ]
    of_scripts = binary.replace(name, f'"{reader_profile.named()}-script"').replace(" w,\n}", " w,\n  /** ix,\n}")
    assert script.strip() == of_scripts.strip()


def test_the_real_parser_takes_it() -> None:
    done = parsed(reader_profile.text())
    assert done.returncode == 0, done.stderr
    assert parsed(reader_profile.text().replace("deny ", "denied ")).returncode != 0


def test_another_text_has_another_name(monkeypatch: pytest.MonkeyPatch) -> None:
    before = reader_profile.named()
    monkeypatch.setattr(reader_profile, "_SCRIPT", "")
    assert reader_profile.named.__wrapped__() != before
    assert reader_profile.named.__wrapped__().startswith("tinamou-reader-")


def test_it_is_loaded_where_it_is_missing_and_not_again(kernel: Kernel) -> None:
    name = reader_profile.named()
    assert [reader_profile.entered(script=script) for script in (False, True, False)] == [name, f"{name}-script", name]
    assert kernel.runs == 1 and reader_profile.missing() == ""
    kernel.holds(f"{name}-script (enforce)\n:container://{name} (enforce)\n")
    assert reader_profile.missing() == "" and kernel.runs == 2, "somebody removed one of them; a container's is not this one"


def test_it_is_what_readers_start_under(kernel: Kernel, tmp_path: Path) -> None:
    script = tmp_path / "qemu-img"
    script.write_text("#!/bin/sh\n")
    script.chmod(0o755)

    def under(program: str) -> str:
        words = shut_in.shut_in([program])
        return words[words.index("-a") + 1] if "-a" in words[: words.index("--")] else ""

    assert under("/usr/bin/env") == reader_profile.named()
    assert under(str(script)) == f"{reader_profile.named()}-script"
    kernel.held("docker-default (enforce)")
    assert under("/usr/bin/env") == ""


def test_a_failure_is_told_and_not_tried_again(kernel: Kernel) -> None:
    kernel.fails = "AppArmor parser error:\n  odd  rule\n"
    assert [reader_profile.entered(script=False) for _ in range(3)] == ["", "", ""]
    assert reader_profile.missing() == "it cannot be loaded: AppArmor parser error: odd rule"
    assert kernel.runs == 1


def test_a_profile_nothing_starts_under_is_removed(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_profile, "_tried", lambda: "no program starts under it: status 125")
    removed: list[str] = []
    monkeypatch.setattr(reader_profile, "remove", removed.append)
    assert reader_profile.missing() == "no program starts under it: status 125"
    assert removed == [reader_profile.named(), f"{reader_profile.named()}-script"]


@pytest.mark.skipif(apparmor.APPARMOR.exists(), reason="AppArmor is active on this host")
def test_the_trial_is_a_real_one() -> None:
    assert "the AppArmor profile cannot be entered: tinamou-reader-" in REAL_TRIAL()


def test_without_a_parser_that_is_said(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_profile, "find_tool", lambda name: None)
    assert reader_profile.missing() == "apparmor_parser is not installed (package apparmor)"


@pytest.mark.parametrize(
    ("label", "reason"),
    [
        ("unconfined", ""),
        ("editor (unconfined)", ""),
        ("docker-default (enforce)", "tinamou itself runs under the profile docker-default (enforce)"),
        (None, "what tinamou itself runs under is not known"),
    ],
)
def test_who_is_confined_enters_no_other(kernel: Kernel, label: str | None, reason: str) -> None:
    if label is None:
        (kernel.folder / "attr/apparmor/current").unlink()
    else:
        kernel.held(label)
    said = reader_profile.missing()
    assert said is not None and said.startswith(reason) and bool(said) == bool(reason)
    assert kernel.runs == (not reason)


def test_below_the_profile_of_a_container_there_is_none(kernel: Kernel) -> None:
    (kernel.folder / ".ns_stacked").write_text("yes\n")
    assert "container" in (reader_profile.missing() or "") and kernel.runs == 0
    apparmor.held.cache_clear()
    (kernel.folder / ".ns_stacked").write_text("no\n")
    assert reader_profile.missing() == "" and kernel.runs == 1


def test_nothing_is_asked_without_apparmor_or_root(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    (kernel.folder / "profiles").unlink()
    assert reader_profile.missing() is None and reader_profile.entered(script=False) == ""
    kernel.holds("")
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert reader_profile.missing() is None and reader_profile.entered(script=True) == ""
    assert kernel.runs == 0
