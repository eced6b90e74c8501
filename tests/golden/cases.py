"""The golden cases: machine files × recorded QEMU binaries × accelerators, and how each becomes text."""

from __future__ import annotations

import dataclasses
import tomllib
from pathlib import Path
from typing import NamedTuple

import made_facts
import recorded
from made_facts import DEBIAN, TINY, host

from tinamou.errors import PlanError
from tinamou.facts import ChainFile, Facts, ImageFacts, PciFacts, Place
from tinamou.launch.argv import argv, shell_line
from tinamou.planner import plan
from tinamou.spec import load_spec

FOLDER = Path(__file__).parent
SPECS = sorted(path.stem for path in (FOLDER / "specs").glob("*.toml"))
FILES = {"pmem": {f"pmem{number}": (ChainFile(f"/srv/{number}", "raw", size=64 << 20),) for number in range(2)}}
"""What is known of files that a spec names."""
EVERYWHERE = ("tiny", "two-cpus")
"""Specs whose plan is recorded for every accelerator; the others under TCG only."""


class Case(NamedTuple):
    """One plan: its file in ``plans/`` is named like it."""

    spec: str
    version: str
    arch: str
    accel: str

    def __str__(self) -> str:
        return f"{self.spec}-{self.version}-{self.arch}-{self.accel}"

    @property
    def file(self) -> Path:
        return FOLDER / "plans" / f"{self}.args"


CASES = [
    Case(spec, version, arch, accel)
    for spec in SPECS
    for version in recorded.VERSIONS
    for arch in recorded.ARCHES
    for accel in (("kvm-works", "kvm-needs", "hvf", "tcg") if spec in EVERYWHERE else ("tcg",))
]


def facts(case: Case, image: ImageFacts, place: Place) -> Facts:
    """The recorded facts of a case; the host is of the guest's architecture unless it emulates."""
    native = case.arch if case.accel != "tcg" else "x86_64"
    return Facts(
        host=dataclasses.replace(host(), arch=native, system="Darwin" if case.accel == "hvf" else "Linux"),
        qemu=recorded.qemu(case.version, case.arch),
        accel=recorded.accel(case.accel, case.arch),
        firmware=recorded.firmware(),
        image=image,
        place=place,
        pci=made_facts.PCI if case.spec == "passthrough" else PciFacts(),
        chains=FILES.get(case.spec, {}),
    )


def spec_of(case: Case):
    return load_spec(tomllib.loads((FOLDER / "specs" / f"{case.spec}.toml").read_text()))


def image_of(case: Case) -> ImageFacts:
    fast = case.arch == "x86_64"
    base = DEBIAN if "debian" in (spec_of(case).image,) else TINY
    boots = base.boots if fast else tuple(way for way in base.boots if way != "bios")
    return dataclasses.replace(base, arch=case.arch, boots=boots, fast_kernel=base.fast_kernel if fast else "")


def text_of(case: Case) -> str:
    """The command line and what was said about it; a refusal is golden too."""
    place = Place("web", "/var/lib/tinamou/machines/web", 1_900_000_000, 2222)
    try:
        made = plan(spec_of(case), facts(case, image_of(case), place))
    except PlanError as error:
        return f"refused: {error}\n"
    notes = "".join(f"# {note.level}: {note.text}\n" for note in made.notes)
    return f"{notes}{shell_line(argv(made))}\n"


if __name__ == "__main__":
    (FOLDER / "plans").mkdir(exist_ok=True)
    for case in CASES:
        case.file.write_text(text_of(case))
