"""Parts of NVIDIA cards (MIG): through nvidia-ml-py to a stand-in for the driver's library. No such card is at hand."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from made_hosts import build

from tinamou.errors import PrepareError
from tinamou.facts.pci import PciDevice
from tinamou.machine import gpu_instances
from tinamou.machine.passthrough import card_called
from tinamou.state import ledger
from tinamou.system import nvml
from tinamou.system.rooted import Rooted
from tinamou.units import PciAddress, Size

pynvml = pytest.importorskip("pynvml")
CARD = "0000:65:00.0"
A100 = PciDevice(PciAddress.parse(CARD), "10de", "20b0", "0302", kind="graphics")


@pytest.fixture
def driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in, built anew so that it has no parts; a card of which division is on."""
    if shutil.which("cc") is None:
        pytest.skip("no C compiler (apt-get install gcc): the stand-in of the driver's library is built")
    library = tmp_path / "libnvidia-ml.so.1"
    source = Path(__file__).with_name("nvml_stand_in.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source], check=True)
    monkeypatch.setattr(pynvml, "nvmlLib", ctypes.CDLL(str(library)))
    monkeypatch.setattr(pynvml, "_nvmlGetFunctionPointer_cache", {})
    monkeypatch.setenv("STAND_IN_MODE", "on")
    monkeypatch.setattr(gpu_instances, "card_called", lambda name, files: A100)


@pytest.mark.usefixtures("driver")
def test_they_are_listed_made_and_removed(monkeypatch: pytest.MonkeyPatch) -> None:
    first, second, third = gpu_instances.profiles("65:00.0")
    assert (first.number, first.name, first.free, first.most, first.memory) == (19, "1g.5gb", 7, 7, Size(4864 << 20))
    assert (second.slices, third.free) == (2, 2)
    number = gpu_instances.create("65:00.0", "3g.20gb")
    other = gpu_instances.create("65:00.0", "9")
    assert ledger.look().gpu_instances == {f"{CARD}/{number}": "3g.20gb", f"{CARD}/{other}": "3g.20gb"}
    assert [(one.number, one.profile) for one in nvml.instances(CARD)] == [(number, 9), (other, 9)]
    with pytest.raises(PrepareError) as refused:
        gpu_instances.create("65:00.0", "3g.20gb")
    assert "no more of it" in str(refused.value) and "1g.5gb (1 more)" in str(refused.value)
    monkeypatch.setenv("STAND_IN_USED", "yes")
    with pytest.raises(PrepareError) as refused:
        gpu_instances.remove("65:00.0", number)
    assert "In use" in str(refused.value.why)
    assert f"{CARD}/{number}" in ledger.look().gpu_instances
    monkeypatch.delenv("STAND_IN_USED")
    for one in (number, other):
        gpu_instances.remove("65:00.0", one)
    assert ledger.look().empty
    assert nvml.instances(CARD) == []


@pytest.mark.usefixtures("driver")
def test_each_refusal_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PrepareError, match="no such profile"):
        gpu_instances.create("65:00.0", "9g.90gb")
    nvml.create(CARD, 19)
    with pytest.raises(PrepareError, match="was not made by tinamou"):
        gpu_instances.remove("65:00.0", 1)
    with pytest.raises(PrepareError, match="is not divided"):
        nvml.profiles("0000:66:00.0")
    monkeypatch.setenv("STAND_IN_MODE", "off")
    with pytest.raises(PrepareError, match="is not divided") as refused:
        gpu_instances.profiles("65:00.0")
    assert refused.value.fix == f"nvidia-smi -i {CARD} -mig 1"


@pytest.mark.skipif(os.path.exists("/proc/driver/nvidia"), reason="this host has the driver")  # noqa: PTH110
def test_without_a_driver_and_without_the_library(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(PrepareError, match="does not answer"):
        nvml.profiles(CARD)
    monkeypatch.setitem(sys.modules, "pynvml", None)
    with pytest.raises(PrepareError, match="need a library") as refused:
        nvml.profiles(CARD)
    assert "tinamou" in str(refused.value.fix)


def test_a_card_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(PrepareError, match="no device"):
        card_called("99:00.0", Rooted(str(build(tmp_path, "workstation"))))
