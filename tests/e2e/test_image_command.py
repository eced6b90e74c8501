"""``tinamou image``: what is here, what could be, and what may not be removed."""

from __future__ import annotations

import json

import pytest
from typed import call


def test_names_that_are_here_and_that_could_be():
    rows = json.loads(call("image", "ls", "--all", "--json").stdout)
    names = {row["name"] for row in rows}
    assert {"tiny", "debian", "ubuntu:24.04"} <= names
    here = json.loads(call("image", "ls", "--json").stdout)
    assert all(row["path"] for row in here)


def test_what_is_not_here_cannot_be_removed():
    done = call("image", "rm", "nosuch")
    assert done.returncode == 118
    assert "nosuch" in done.stderr


def test_a_file_is_examined(tmp_path):
    (tmp_path / "bad.qcow2").write_bytes(b"QFI\xfb" + bytes(100))
    assert call("image", "check", str(tmp_path / "bad.qcow2")).returncode == 117
    assert call("image", "show", str(tmp_path / "none.qcow2")).returncode == 117


@pytest.mark.vm
def test_an_image_machines_rest_on_stays():
    assert call("run", "-d", "--name", "user").returncode == 0
    try:
        done = call("image", "rm", "tiny")
        assert done.returncode == 118
        assert "user" in done.stderr
    finally:
        call("rm", "-f", "user")
