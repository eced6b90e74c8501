"""The trial of user namespaces says the same as the kernel, also where they are refused."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tinamou.probe import place
from tinamou.probe.net import may_make_user_namespace
from tinamou.system.namespaces import may_unshare


def test_as_the_kernel_says():
    done = subprocess.run(["unshare", "--user", "true"], stderr=subprocess.DEVNULL, check=False)
    assert may_make_user_namespace() == (done.returncode == 0)


@pytest.fixture
def own_cache(tmp_path, monkeypatch):
    """What was found out by others does not count."""
    monkeypatch.setenv("TINAMOU_CACHE", str(tmp_path / "cache"))
    may_unshare.cache_clear()
    yield
    may_unshare.cache_clear()


def test_tried_once_for_one_place(own_cache, monkeypatch):
    """Nothing is started to know it again, until anything has changed that it may depend on."""
    first, tried = may_make_user_namespace(), []
    monkeypatch.setattr("tinamou.probe.net.may_unshare", lambda *kinds: tried.append(kinds) or not first)
    assert (may_make_user_namespace(), tried) == (first, [])
    setting = place.setting
    monkeypatch.setattr(place, "setting", lambda name: "0" if name == "user/max_user_namespaces" else setting(name))
    assert (may_make_user_namespace(), tried) == (not first, [("--user",)])


def test_without_the_command(own_cache, monkeypatch):
    monkeypatch.setattr(os, "defpath", "/nonexistent")
    assert not may_make_user_namespace()


@pytest.mark.root
def test_refused_in_a_chroot(tmp_path):
    """The kernel refuses a user namespace to a process whose root is not that of its mount namespace."""
    if not may_make_user_namespace():
        pytest.skip("user namespaces are refused here anyway")
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys\n"
        "from tinamou.probe.net import may_make_user_namespace\n"
        "os.chroot(sys.argv[1])\n"
        "sys.exit(may_make_user_namespace())\n"
    )
    for folder in ("usr", "bin", "lib", "lib64", "dev"):
        (tmp_path / folder).mkdir()
    mounts = " && ".join(f"mount --rbind /{folder} {tmp_path}/{folder}" for folder in ("usr", "bin", "lib", "lib64", "dev"))
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", f"{mounts} && exec {sys.executable} {program} {tmp_path}"],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
