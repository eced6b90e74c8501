"""Sizes, CPU sets and addresses parse, print and refuse."""

import pytest

from tinamou.units import CpuSet, Mac, PciAddress, Size


@pytest.mark.parametrize(
    ("text", "size", "shown"),
    [("4G", 4 << 30, "4G"), ("512MiB", 512 << 20, "512M"), ("1.5G", 1536 << 20, "1536M"), ("100", 100, "100"), (7, 7, "7")],
)
def test_size(text, size, shown):
    assert Size.parse(text) == size
    assert str(Size.parse(text)) == shown


@pytest.mark.parametrize("text", ["", "G", "4X", "-1", "0.3", True, -5, "9" * 400])
def test_size_refused(text):
    with pytest.raises(ValueError):
        Size.parse(text)


def test_cpu_set():
    assert CpuSet.parse("0-3,8") == {0, 1, 2, 3, 8}
    assert str(CpuSet({8, 0, 1, 2, 3})) == "0-3,8"
    assert CpuSet.parse("") == set()
    for bad in ("a", "3-1", "1-", "-1", "0:2"):
        with pytest.raises(ValueError):
            CpuSet.parse(bad)


def test_addresses():
    assert str(Mac.parse("52-54-00-12-34-5A")) == "52:54:00:12:34:5a"
    with pytest.raises(ValueError, match="multicast"):
        Mac.parse("01:00:5e:00:00:01")
    assert str(PciAddress.parse("0b:00.1")) == "0000:0b:00.1"
    with pytest.raises(ValueError):
        PciAddress.parse("0b:20.0")


@pytest.mark.parametrize(
    ("size", "shown"), [(0, "0"), (900, "900"), (2048, "2K"), (230 << 20, "230M"), (3 << 29, "1.5G"), (24152 << 20, "24G")]
)
def test_a_size_for_reading(size, shown):
    assert Size(size).short == shown
