"""Files and folders a description names: whole paths, and every one that is not there told by its field."""

from __future__ import annotations

from pathlib import Path

import pytest
from typed import call

from tinamou.errors import PrepareError
from tinamou.machine import named
from tinamou.machine.named import absolute, check
from tinamou.spec import load_spec

MISSING = {
    "boot.kernel": {"kernel": "/nosuch/vmlinuz"},
    "boot.initrd": {"kernel": "/dev/null", "initrd": "/nosuch/initrd"},
    "disk[0].key": {"disk": [{"size": "1M", "key": "/nosuch/key"}]},
    "disk[1].path": {"disk": [{"size": "1M"}, {"path": "/nosuch.iso", "interface": "cdrom"}]},
    "share[0].path": {"share": ["/nosuch:/mnt"]},
}
"""A field, and a description in which it names what is not there."""


@pytest.mark.parametrize("field", MISSING)
def test_what_is_not_there_is_told_by_its_field(field: str) -> None:
    with pytest.raises(PrepareError) as error:
        check(load_spec(MISSING[field]))
    assert field in [problem.path for problem in error.value.problems]


def test_what_is_no_file_or_folder_is_told_from_what_is_not_there(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    spec = {
        "kernel": str(tmp_path),
        "initrd": "/nosuch",
        "share": [f"{tmp_path}/file:/x"],
        "disk": [{"path": "/nosuch.raw"}],
    }
    with pytest.raises(PrepareError, match="the machine needs what this host does not have") as error:
        check(load_spec(spec))
    told = {one.path: (one.value, one.reason, one.fix) for one in error.value.problems if one.path != "share"}
    assert told == {
        "boot.kernel": (str(tmp_path), "is not a file", "check the path"),
        "boot.initrd": ("/nosuch", "there is no such file", "check the path"),
        "share[0].path": (f"{tmp_path}/file", "is not a folder of this host", "make it first"),
    }


@pytest.mark.parametrize(("user", "tool", "said"), [(1000, "/x", ["by root"]), (0, None, ["no virtiofsd"]), (0, "/x", [])])
def test_what_a_shared_folder_needs(
    user: int, tool: str | None, said: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(named.os, "geteuid", lambda: user)
    monkeypatch.setattr(named, "find_tool", lambda _: tool)
    found = [one.reason for one in named._shares(load_spec({"share": [f"{tmp_path}:/x"]}))]
    assert len(found) == len(said) and all(word in text for word, text in zip(said, found, strict=True))
    assert list(named._shares(load_spec({}))) == []


def test_all_of_it_at_once() -> None:
    with pytest.raises(PrepareError) as error:
        check(load_spec({"kernel": "/nosuch/a", "initrd": "/nosuch/b", "share": ["/nosuch/c", "/nosuch/d"]}))
    assert {"boot.kernel", "boot.initrd", "share[0].path", "share[1].path"} <= {one.path for one in error.value.problems}


def test_paths_are_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    net = [{"type": "stream", "socket": "c"}, {"type": "user"}]
    spec = absolute(load_spec({"kernel": "k", "disk": [{"path": "d", "key": "../s"}, {"size": "1M"}], "net": net}))
    assert (spec.boot.kernel, spec.boot.initrd) == (f"{tmp_path}/k", "")
    assert [(one.path, one.key) for one in spec.disk] == [(f"{tmp_path}/d", f"{tmp_path.parent}/s"), ("", "")]
    assert [one.socket for one in spec.net] == [f"{tmp_path}/c", ""]
    assert absolute(load_spec({"kernel": "/k", "initrd": "i"})).boot.initrd == f"{tmp_path}/i"
    more = {"firmware": "uefi", "boot": {"secure": True, "secure_keys": "keys"}, "usb": [{"type": "stick", "path": "u"}]}
    spec = absolute(load_spec({**more, "windows": {"user": "ada", "drivers": "d.iso", "password_file": "p"}}))
    assert (spec.boot.initrd, spec.boot.secure_keys) == ("", f"{tmp_path}/keys")
    assert [one.path for one in spec.usb] == [f"{tmp_path}/u"]
    assert (spec.windows.drivers, spec.windows.password_file) == (f"{tmp_path}/d.iso", f"{tmp_path}/p")


@pytest.mark.parametrize("words", [("--kernel", "/nosuch"), ("--share", "nosuch:/x")])
def test_a_plan_is_not_silent_about_it(words: tuple[str, str]) -> None:
    done = call("plan", *words)
    assert (done.returncode, "nosuch" in done.stderr, done.stdout) == (113, True, "")


def test_a_folder_is_shared_by_root_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """virtiofsd 1.13 as a plain user maps the user's own number to itself and 0 to nothing."""
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(PrepareError, match="started by root") as error:
        check(load_spec({"share": [str(tmp_path)]}))
    assert "share" in [problem.path for problem in error.value.problems]
