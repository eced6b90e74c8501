"""The interpreter's own SHA-256 is that of OpenSSL, which nothing before QEMU's start loads."""

from __future__ import annotations

import hashlib
import subprocess
import sys

import pytest

from tinamou.digest import sha256


@pytest.mark.parametrize("data", [b"", b"tinamou", bytes(range(256)) * 1000])
def test_same_as_openssl(data):
    assert sha256(data).hexdigest() == hashlib.sha256(data).hexdigest()


@pytest.mark.parametrize("module", ["tinamou.cli.run", "tinamou.machine.starting", "tinamou.cli.ls"])
def test_the_way_to_qemu_loads_no_openssl(module):
    heavy = {"_hashlib", "hashlib", "dataclasses", "inspect", "ssl", "ctypes"}
    code = f"import sys, {module}; print(*sorted(set(sys.modules) & {heavy!r}))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == []
