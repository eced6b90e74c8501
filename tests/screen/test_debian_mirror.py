"""What the mirror for Debian's installer leaves out, and what it does not: on an index made by hand, with no network."""

from __future__ import annotations

import lzma
import urllib.error
import urllib.request

import pytest
from debian_mirror import Mirror, loaded, parts_of, served, without

INDEX = """
Package: base
Version: 2
Priority: standard
Depends: lib (>= 1), shell | other-shell
Filename: pool/main/b/base_2_amd64.udeb

Package: lib
Version: 1
Priority: optional
Filename: pool/main/l/lib_1_amd64.udeb

Package: ash
Version: 5
Provides: shell
Priority: optional
Filename: pool/main/a/ash_5_amd64.udeb

Package: disk-modules-6.1-di
Version: 6.1
Kernel-Version: 6.1
Priority: standard
Filename: pool/main/d/disk-modules-6.1-di_amd64.udeb

Package: disk-modules-6.2-di
Version: 6.2
Kernel-Version: 6.2
Priority: standard
Filename: pool/main/d/disk-modules-6.2-di_amd64.udeb

Package: rescue
Version: 1
Priority: optional
Depends: lib, tool
Filename: pool/main/r/rescue_1_amd64.udeb

Package: tool
Version: 1
Priority: optional
Filename: pool/main/t/tool_1_amd64.udeb
"""


def parts():
    return parts_of(lzma.compress(INDEX.encode()))


def test_what_is_loaded_is_what_is_standard_and_its_needs_for_one_kernel():
    assert set(loaded(parts(), [], "6.1")) == {"base", "lib", "ash", "disk-modules-6.1-di"}
    assert set(loaded(parts(), ["ash", "lib"], "6.2")) == {"base", "disk-modules-6.2-di"}
    assert "disk-modules-6.1-di" not in loaded(parts(), [], "6.3")


def test_what_is_missing_goes_with_all_that_needs_it():
    assert [one.name for one in without(parts(), ["tool"])] == [
        "base",
        "lib",
        "ash",
        "disk-modules-6.1-di",
        "disk-modules-6.2-di",
    ]
    assert [one.name for one in without(parts(), ["lib"])] == ["ash", "disk-modules-6.1-di", "disk-modules-6.2-di", "tool"]
    assert "base" in [one.name for one in without(parts(), ["shell"])]  # another would do
    assert [one.text() for one in without(parts(), [])] == [f"{one.strip()}\n" for one in INDEX.split("\n\n")]


class Upstream:
    """One file, and nothing else."""

    def __init__(self, file):
        self._file = file

    def get(self, path):
        return self._file if path == "pool/main/l/lib_1+2_amd64.udeb" else None


@pytest.fixture
def mirror(tmp_path):
    (tmp_path / "file").write_bytes(b"udeb")
    made = Mirror.__new__(Mirror)
    made._own, made.upstream = {"dists/trixie/Release": b"own"}, Upstream(tmp_path / "file")
    return made


def test_it_is_asked_as_any_mirror(mirror):
    with served(mirror) as (port, log):
        for path, body in (("dists/trixie/Release", b"own"), ("pool/main/l/lib_1%2b2_amd64.udeb", b"udeb")):
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/debian/{path}", timeout=60) as answer:
                assert answer.read() == body
        for path in ("pool/main/../../etc/passwd", "pool/none", "etc/passwd"):
            with pytest.raises(urllib.error.HTTPError, match="404"):
                urllib.request.urlopen(f"http://127.0.0.1:{port}/debian/{path}", timeout=60)
    assert log[:2] == ["200 dists/trixie/Release", "200 pool/main/l/lib_1+2_amd64.udeb"]
    assert [line[:3] for line in log[2:]] == ["404"] * 3
