"""Runs the tests marked lab inside the lab, all in one go, and gives each its result here."""

from __future__ import annotations

import functools
import os
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from xml.etree import ElementTree

import pytest

if TYPE_CHECKING:
    from tinamou.facts import AccelFacts

ROOT = Path(__file__).parent.parent.parent


@functools.cache
def results() -> dict[str, tuple[str, str]]:
    """Test name → (``passed``, ``failed`` or ``skipped``; what it said), from the report the lab's pytest wrote."""
    from tinamou.system.paths import cache_dir

    place = cache_dir() / "lab" / "state"
    place.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "TINAMOU_STATE": str(place)}
    with tempfile.TemporaryDirectory() as folder:
        report = Path(folder) / "lab.xml"
        done = subprocess.run(
            [str(ROOT / "script/lab"), "test", "--report", str(report)],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip
        subprocess.run([str(ROOT / "script/lab"), "down"], env=environment, capture_output=True, check=False)
        if not report.exists():
            pytest.fail(f"the lab wrote no report:\n{done.stdout}\n{done.stderr}", pytrace=False)
        return dict(_cases(ElementTree.parse(report)))


def _cases(tree: ElementTree.ElementTree) -> Iterator[tuple[str, tuple[str, str]]]:
    for case in tree.iter("testcase"):
        bad = [*case.iter("failure"), *case.iter("error")]
        left_out = [*case.iter("skipped")]
        text = "\n".join((node.text or "") + node.get("message", "") for node in [*bad, *left_out])
        yield case.get("name", ""), ("failed" if bad else "skipped" if left_out else "passed", text)


@pytest.hookimpl(tryfirst=True)
def pytest_pyfunc_call(pyfuncitem: pytest.Function) -> bool | None:
    if os.environ.get("TINAMOU_LAB") or pyfuncitem.get_closest_marker("lab") is None:
        return None
    outcome, text = results().get(pyfuncitem.name, ("failed", "the lab did not run this test"))
    if outcome == "failed":
        pytest.fail(text, pytrace=False)
    if outcome == "skipped":
        pytest.skip(text)
    return True


@pytest.fixture(autouse=True)
def trial() -> AccelFacts | None:
    """A trial that ran late says nothing and is not kept: an emulated machine on a busy host may need several."""
    if not os.environ.get("TINAMOU_LAB"):
        return None
    from tinamou.probe.accel import probe_accel
    from tinamou.probe.qemu import find_binary, probe_qemu

    facts = probe_accel(probe_qemu(find_binary("x86_64")))
    for _ in range(29):
        if (best := facts.best()) and best.accel == "kvm":
            break
        facts = probe_accel(probe_qemu(find_binary("x86_64")))
    return facts
