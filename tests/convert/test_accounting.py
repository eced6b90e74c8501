"""Nothing of a source is passed over: whatever is dropped from one, or changed in it, is seen in the result or its notes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from changing import of_install, of_lines, of_settings, of_tree, of_words, of_xml, outcome

CORPUS = Path(__file__).parent / "corpus"
WAYS = {
    ".xml": of_xml,
    ".ovf": of_xml,
    ".vbox": of_xml,
    ".pvs": of_xml,
    ".vmx": of_lines,
    ".conf": of_lines,
    ".sh": of_words,
}
WAYS |= {
    ".virt": of_install,
    ".yaml": of_tree,
    ".json": of_tree,
    ".pve": of_settings,
    ".xl": of_settings,
    ".ini": of_settings,
    ".plist": of_tree,
    ".gns3a": of_tree,
    ".hyperv": lambda text: (one for one in of_xml(text) if "@type" not in one[0]),  # Windows' type of a value
}
LIBVIRT = Path(os.environ.get("TINAMOU_LIBVIRT_SOURCE", "/nonexistent")) / "tests" / "qemuxml2argvdata"


def unnoticed(text: str, suffix: str) -> list[str]:
    before = outcome(text)
    if not before.startswith("("):
        return []  # refused, whatever else it says
    return [what for what, changed in WAYS[suffix](text) if outcome(changed) == before]


@pytest.mark.parametrize("path", sorted(one for one in CORPUS.iterdir() if one.suffix in WAYS), ids=lambda one: one.name)
def test_every_value_counts(path: Path) -> None:
    assert unnoticed(path.read_text(), path.suffix) == []


@pytest.mark.slow
@pytest.mark.skipif(not LIBVIRT.is_dir(), reason="TINAMOU_LIBVIRT_SOURCE names no unpacked source package of libvirt")
def test_every_value_of_libvirts_own_domains_counts() -> None:
    wrong = {}
    for path in sorted(LIBVIRT.glob("*.xml")):
        text = path.read_text()
        if "<domain" in text and "<!DOCTYPE" not in text and (found := unnoticed(text, ".xml")):
            wrong[path.name] = found
    assert wrong == {}
