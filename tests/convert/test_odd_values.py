"""Descriptions with odd values in odd places: what comes out loads, or there is a reason why nothing does."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from appliances import ovf, vbox, vmx
from hypothesis import given, settings
from hypothesis import strategies as st

from tinamou.convert import files, kinds, writing
from tinamou.convert.assemble import assemble
from tinamou.errors import ImageError, SpecError
from tinamou.spec import load_spec

DOMAINS = Path(__file__).parent / "domains"
SOURCES = {
    "vmx": vmx(more='sata0:1.fileName = "i.iso"\nsharedFolder0.hostPath = "/x"\nethernet1.connectionType = "hostonly"'),
    "ovf": ovf(),
    "vbox": vbox(),
    "server": (DOMAINS / "fedora-server.xml").read_text(),
    "windows": (DOMAINS / "windows.xml").read_text(),
    "quickemu": 'guest_os="linux"\ndisk_img="d"\ndisk_size="1G"\nram="4G"\ncpu_cores="2"\nport_forwards="1:2"\nboot="efi"\n',
    "qemu": 'qemu-system-x86_64 -m "1" -smp "2" -hda "a" -numa "node,cpus=0" -nic "user" -object "memory-backend-ram,id=m"',
}
ODD = ["-1", "0", "0x", "a,b", "0-4294967295", "~nosuch/x", "|00", "1e9", "é\u2028", "../x", "TRUE"]
ODD += ["", "9" * 400, "byte * 2^999999999"]
VALUE = re.compile(r"""(?<=["'>])[^"'<>\n]*(?=["'<])""")


def changed(text: str, places: list[int], values: list[str]) -> str:
    found = list(VALUE.finditer(text))
    for place, value in zip(places, values, strict=False):
        match = found[place % len(found)]
        text = text[: match.start()] + value + text[match.end() :]
        found = list(VALUE.finditer(text))
    return text


@pytest.mark.parametrize("name", SOURCES)
@settings(deadline=None, max_examples=150)
@given(st.lists(st.integers(0, 500), min_size=1, max_size=4), st.lists(st.sampled_from(ODD), min_size=4, max_size=4))
def test_a_machine_that_loads_or_a_reason(name, places, values):
    try:
        draft = kinds.read(changed(SOURCES[name], places, values))
        files.absolute(draft, Path("/nonexistent"))
        result = assemble(draft, files.look(draft, Path("/nonexistent")))
    except (SpecError, ImageError):
        return
    load_spec(tomllib.loads(writing.text(result.machine, result.source)))
    assert all(note.where and note.reason for note in result.notes)


@pytest.mark.parametrize("line", ["-name 'a", "-name a\\", '"', "a 'b\\", "-name 'a b'"])
def test_a_line_that_no_shell_would_take_is_kept_as_it_is(line: str) -> None:
    draft = kinds.read(f"args: {line}\nmemory: 512\nostype: l26\nscsi0: local:100/vm-100-disk-0.raw,size=1G\n")
    result = assemble(draft, files.look(draft, Path("/nonexistent")))
    assert result.machine["qemu_args"] == (["-name", "a b"] if line == "-name 'a b'" else [line])
