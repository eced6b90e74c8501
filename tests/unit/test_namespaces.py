"""The trial of user namespaces says the same as the kernel, also where they are refused."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tinamou.system.namespaces import may_make_user_namespace, may_unshare


def test_as_the_kernel_says():
    done = subprocess.run(["unshare", "--user", "true"], stderr=subprocess.DEVNULL, check=False)
    assert may_make_user_namespace() == (done.returncode == 0)


def test_without_the_command(monkeypatch):
    monkeypatch.setattr(os, "defpath", "/nonexistent")
    may_unshare.cache_clear()
    assert not may_make_user_namespace()
    may_unshare.cache_clear()


@pytest.mark.root
def test_refused_in_a_chroot(tmp_path):
    """The kernel refuses a user namespace to a process whose root is not that of its mount namespace."""
    if not may_make_user_namespace():
        pytest.skip("user namespaces are refused here anyway")
    program = tmp_path / "program.py"
    program.write_text(
        "import os, sys\n"
        "from tinamou.system.namespaces import may_make_user_namespace\n"
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
