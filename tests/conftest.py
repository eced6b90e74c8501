"""What every test stands on: its own state directory, one shared cache, recorded hosts, each QEMU, a clean host after."""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from host_trees import recorded_folder, unpack
from leftovers import Leftovers, images_left

# A runner may have been started with hang-ups and Ctrl-C ignored (nohup, &); what the tests start must hear them.
signal.signal(signal.SIGHUP, signal.SIG_DFL)
signal.signal(signal.SIGINT, signal.default_int_handler)


hypothesis.settings.register_profile("any host", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("any host")
"""A host may be slow, or busy: how long an example takes says nothing of it."""


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--slow", action="store_true", help="also run the tests marked slow (so does TINAMOU_SLOW=1)")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    slow = config.getoption("--slow") or os.environ.get("TINAMOU_SLOW") == "1"
    unmet = {
        "slow": None if slow else "slow: run with --slow or TINAMOU_SLOW=1 (script/test --all)",
        "root": None if os.geteuid() == 0 else "root: run the tests as root",
        "vm": None if shutil.which("qemu-system-x86_64") else "vm: no qemu-system-x86_64 in PATH (script/setup installs it)",
        "lab": None if os.environ.get("TINAMOU_LAB") or (slow and os.geteuid() == 0) else "lab: run with --slow, as root",
        "virtiofsd": None if _has_virtiofsd() else "virtiofsd: it is not installed (Debian 12's backports have none)",
        **{f"qemu{number}": _unnamed(number) for number in FETCHED},
    }
    for item in items:
        for marker, reason in unmet.items():
            if reason and item.get_closest_marker(marker):
                item.add_marker(pytest.mark.skip(reason=reason))


def _has_virtiofsd() -> bool:
    from tinamou.machine.named import VIRTIOFSD
    from tinamou.system.exec import find_tool

    return find_tool(VIRTIOFSD) is not None


FETCHED = ("10", "11")
"""Series of QEMU that a script fetches where the distribution has another."""


def _unnamed(number: str) -> str | None:
    """Why tests with that QEMU are skipped; None where there is one."""
    name = f"TINAMOU_QEMU{number}"
    return None if os.environ.get(name) else f"qemu{number}: {name} names no binary (script/qemu{number})"


def pytest_terminal_summary(terminalreporter: Any) -> None:
    """What the fuzzer did, reader by reader."""
    reports = [one for kind in ("passed", "failed") for one in terminalreporter.getreports(kind)]
    lines = [text for one in reports for name, text in getattr(one, "user_properties", ()) if name == "fuzzed"]
    if lines:
        terminalreporter.section("fuzzed")
        for line in sorted(lines):
            terminalreporter.write_line(line)


@pytest.fixture(scope="session", autouse=True)
def cache() -> Path:
    """The cache that all tests and the user share, so that a guest is built once; damage no file in it."""
    from tinamou.system.paths import cache_dir

    os.environ["TINAMOU_CACHE"] = str(cache_dir())
    return cache_dir()


@pytest.fixture
def own_images(cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of the test's own, for images it imports or makes; the guests that tinamou builds are those of `cache`."""
    from tinamou.images.resolve import names

    own = tmp_path / "cache"
    (own / "images").mkdir(parents=True)
    for name in dict.fromkeys(name.replace(":", "-") for name in (*names(), "windows-mender")):
        shared = cache / "images" / name
        shared.mkdir(parents=True, exist_ok=True)
        (own / "images" / name).symlink_to(shared)
    monkeypatch.setenv("TINAMOU_CACHE", str(own))
    return own


def pytest_sessionstart(session: pytest.Session) -> None:
    session.config.stash[_IMAGES] = _images_now()


def pytest_sessionfinish(session: pytest.Session) -> None:
    """No test leaves an image in the user's cache; another run beside this one may have some there for a while."""
    if hasattr(session.config, "workerinput"):
        return
    end = time.monotonic() + _OTHERS_SECONDS
    before: set[str] = session.config.stash[_IMAGES]
    while (left := _images_now() - before) and time.monotonic() < end:
        time.sleep(0.2)
    if left:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
        fix = "the test that made them needs a cache of its own: own_images"
        print(f"\nleft in the user's cache: {', '.join(sorted(left))}; {fix}", file=sys.stderr)


_IMAGES = pytest.StashKey[set[str]]()
_OTHERS_SECONDS = 60.0


def _images_now() -> set[str]:
    from tinamou.system.paths import cache_dir

    return images_left(cache_dir())


@pytest.fixture(autouse=True)
def state(monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A state directory and ledger of the test's own, its path short: the path of a unix socket has room for 107 bytes."""
    path = Path(tempfile.mkdtemp(prefix="tm-", dir="/tmp"))
    path.chmod(0o755)
    monkeypatch.setenv("TINAMOU_STATE", str(path))
    monkeypatch.setenv("TINAMOU_RUN", str(path))
    yield path
    shutil.rmtree(path, ignore_errors=True)


@pytest.fixture
def whole_host(cache: Path) -> Iterator[None]:
    """One test at a time, over all processes and checkouts, that lends CPUs or huge pages of the host.

    Each test has a ledger of its own, which cannot know of another's: what one lends would be a change by strangers there.
    """
    cache.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(cache, os.O_RDONLY | os.O_CLOEXEC)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder whose files every user may read: what stands in for a program that tinamou starts as another user."""
    with tempfile.TemporaryDirectory(prefix="open-") as name:
        Path(name).chmod(0o755)
        yield Path(name)


@pytest.fixture
def leftovers(state: Path) -> Leftovers:
    """What this test left on the host so far: ``leftovers.found()`` is a list of sentences."""
    return Leftovers(state)


@pytest.fixture(autouse=True)
def clean_host(request: pytest.FixtureRequest) -> Iterator[None]:
    """After a test that boots a guest nothing of it is left: no process, socket, claim, interface or memory."""
    if request.node.get_closest_marker("vm") is None:
        yield
        return
    left: Leftovers = request.getfixturevalue("leftovers")
    yield
    left.remove_checkpoints()
    found = left.settle()
    left.clear()
    if found:
        pytest.fail("left behind on the host:\n  " + "\n  ".join(found), pytrace=False)


@pytest.fixture(scope="session")
def hosts() -> Callable[[str], Path]:
    """Recorded trees of /proc and /sys: ``hosts("64amd64-4s2n4ca2co")`` is the root of that machine's tree, to be read."""

    def tree(name: str) -> Path:
        if recorded_folder() is None:
            pytest.skip("recorded hosts: no shared/hosts above the repository, and TINAMOU_HOST_TREES names no folder")
        return unpack(name)

    return tree


@pytest.fixture
def program_of() -> Callable[[str, str], str]:
    """The path of a program of that QEMU: ``program_of("10.0", "qemu-img")``; skips where there is none.

    It is the installed one where that is of this version, else the one a script fetched, where that is.
    """

    def binary(version: str, name: str) -> str:
        number = version.partition(".")[0]
        fetched = Path(os.environ.get(f"TINAMOU_QEMU{number}") or "nowhere").parent / name
        for found in filter(None, map(shutil.which, (name, str(fetched)))):
            if (
                f"version {version}"
                in subprocess.run([found, "--version"], capture_output=True, text=True, check=True).stdout
            ):
                return found
        reason = _unnamed(number) if number in FETCHED else None
        pytest.skip(reason or f"no {name} here is {version}")

    return binary


@pytest.fixture
def another_qemu() -> str:
    """A fetched QEMU of another package than the chosen one, as a value of TINAMOU_QEMU; skips where there is none."""
    from tinamou.probe.qemu import find_binary, probe_qemu

    here = probe_qemu(find_binary("x86_64")).package
    for found in filter(None, (os.environ.get("TINAMOU_QEMU11"), os.environ.get("TINAMOU_QEMU10"))):
        if probe_qemu(found.replace("{arch}", "x86_64")).package != here:
            return found
    pytest.skip(f"no QEMU of another package than {here} was fetched: script/qemu10, script/qemu11")


@pytest.fixture(params=["installed", *(pytest.param(one, marks=getattr(pytest.mark, f"qemu{one}")) for one in FETCHED)])
def every_qemu(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Once with the QEMU that is installed, once with each that was fetched."""
    if request.param != "installed":
        monkeypatch.setenv("TINAMOU_QEMU", os.environ[f"TINAMOU_QEMU{request.param}"])
    return str(request.param)
