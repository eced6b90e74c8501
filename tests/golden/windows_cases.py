"""Windows on hosts of Intel and AMD: what was decided, one file for each release, its plans as differences to the first.

No such host was at hand: the facts are made by hand as kernel and QEMU document them.
"""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import made_facts
import recorded
from made_facts import host

from tinamou.blueprint import Plan
from tinamou.errors import PlanError
from tinamou.facts import Facts, HyperVFacts, ImageFacts, PciFacts, Place
from tinamou.facts.hyperv import BITS
from tinamou.facts.keys import Certificate, KeyFacts
from tinamou.launch.argv import argv
from tinamou.parts.windows import RELEASES
from tinamou.planner import plan
from tinamou.spec import load_spec
from tinamou.units import Size

FOLDER = Path(__file__).parent / "windows"
PLACE = Place("web", "/var/lib/tinamou/machines/web", 1_900_000_000, 2222)

_EVERY = frozenset(BITS)
_BEFORE_5_17 = _EVERY - {"tlbflush-ext", "xmm-input", "tlbflush-direct"}

HOSTS = {
    "intel": HyperVFacts("GenuineIntel", nested=True, apic=True, offered=_EVERY),
    "intel-old-kernel": HyperVFacts("GenuineIntel", nested=True, apic=False, offered=None),
    "intel-not-nested": HyperVFacts("GenuineIntel", nested=False, apic=True, offered=_BEFORE_5_17 - {"evmcs"}),
    "amd": HyperVFacts("AuthenticAMD", nested=True, apic=True, offered=_EVERY - {"evmcs"}),
    "amd-old-kernel": HyperVFacts("AuthenticAMD", nested=True, apic=False, offered=None),
}

_SIZE = Size.parse("64G")
IMAGES = {
    "setup": ImageFacts("win", "x86_64", "/images/win.iso", "iso", boots=("bios", "uefi")),
    "installed": ImageFacts("win", "x86_64", "/images/win.qcow2", "qcow2", _SIZE, ("uefi", "bios")),
    "gpu": ImageFacts("win", "x86_64", "/images/win.qcow2", "qcow2", _SIZE, ("uefi", "bios")),
}

SHAPES = {
    "setup": {"disk": [{"size": "64G"}], "display": "vnc"},
    "installed": {"windows": {"virtio": True}, "cpu": {"count": 4, "cores": 2, "threads": 2}},
    "gpu": {"windows": {"virtio": True}, "pci": ["65:00.0"]},
}

MICROSOFT = KeyFacts(
    {
        "/usr/share/OVMF/OVMF_VARS_4M.ms.fd": tuple(
            Certificate(variable, name, "2038-06-13", "0" * 64)
            for variable, name in (("KEK", "Microsoft KEK 2K CA 2023"), ("db", "Windows UEFI CA 2023"))
        )
    }
)


class Case(NamedTuple):
    """One plan."""

    release: str
    version: str
    host: str
    shape: str

    def __str__(self) -> str:
        return f"{self.release} {self.shape} on {self.host}, QEMU {self.version}"


CASES = [
    Case(release, version, name, shape)
    for release in RELEASES
    for version in recorded.VERSIONS
    for name in HOSTS
    for shape in SHAPES
    if shape != "gpu" or name in ("intel", "amd")
]


def facts(case: Case) -> Facts:
    """A host with KVM; its firmware trusts the certificates of 2023."""
    devices = frozenset({"/dev/kvm", "/dev/net/tun", "/dev/vfio/vfio"})
    return Facts(
        host=dataclasses.replace(host(), devices=devices, device_groups={"/dev/kvm": 104, "/dev/vfio/vfio": 104}),
        qemu=recorded.qemu(case.version, "x86_64"),
        accel=recorded.accel("kvm-works", "x86_64"),
        firmware=recorded.firmware(),
        image=IMAGES[case.shape],
        place=PLACE,
        pci=made_facts.PCI if case.shape == "gpu" else PciFacts(),
        hyperv=HOSTS[case.host],
        keys=MICROSOFT,
    )


def described(case: Case) -> dict[str, Any]:
    """Its description."""
    cpus = {} if "cpu" in SHAPES[case.shape] else {"cpus": 4}
    return {"os": case.release, "memory": "8G", "net": "user", **cpus, **SHAPES[case.shape]}


def planned(case: Case) -> Plan:
    return plan(load_spec(described(case)), facts(case))


def lines_of(case: Case) -> list[str]:
    """The command line, a line for each option, and what was said about it."""
    try:
        made = planned(case)
    except PlanError as error:
        return [f"refused: {error}"]
    words = argv(made)
    options = [" ".join(words[at : at + 2]) if at + 1 < len(words) and words[at + 1][0] != "-" else words[at]
               for at, word in enumerate(words) if word.startswith("-")]  # fmt: skip
    return [*(f"# {note.level}: {note.text}" for note in made.notes), words[0], *options]


def text_of(release: str) -> str:
    """Every plan of a release: the first of each shape, the others as what takes the place of which of its lines."""
    return "".join(f"{line}\n" for line in _text(release))


def _text(release: str) -> Iterator[str]:
    first: dict[str, list[str]] = {}
    for case in (one for one in CASES if one.release == release):
        lines = lines_of(case)
        yield f"== {case}"
        if case.shape in first:
            differences = list(difflib.unified_diff(first[case.shape], lines, n=0, lineterm=""))[2:]
            yield from (line for line in differences if not line.startswith("-"))
        else:
            first[case.shape] = lines
            yield from lines


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for release in RELEASES:
        (FOLDER / f"{release}.txt").write_text(text_of(release))
