"""A real ssh server that the tests of other hosts share."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from sshd_here import Sshd, sshd


@pytest.fixture(scope="session")
def server() -> Iterator[Sshd]:
    with tempfile.TemporaryDirectory(prefix="sshd-") as folder, sshd(Path(folder)) as running:
        yield running
