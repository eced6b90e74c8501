"""A libvirtd of the tests' own, and virsh that speaks to it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from bench.libvirt import Libvirt


@contextmanager
def virsh_here(scratch: Path, seconds: float) -> Iterator[Callable[..., str]]:
    """``virsh(words…)``, each time within so many seconds; skips where there is no libvirtd."""
    if os.geteuid() != 0 or not shutil.which("libvirtd"):
        pytest.skip("libvirtd, as root (script/packages bench)")
    with ExitStack() as stack:
        found = Libvirt.prepare(stack, scratch, "/usr/bin/qemu-system-x86_64", Path("/none"), Path("/none"))
        if isinstance(found, str):
            pytest.skip(f"libvirt: {found}")

        def run(*words: str) -> str:
            done = subprocess.run(["virsh", "--connect", found.uri, *words], capture_output=True, text=True, timeout=seconds)
            assert done.returncode == 0, done.stderr
            return done.stdout

        yield run
