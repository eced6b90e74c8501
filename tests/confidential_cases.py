"""Machines with encrypted memory on hosts that have it: facts as kernel and QEMU document them, recorded on no hardware."""

from __future__ import annotations

import base64
import dataclasses
from pathlib import Path
from typing import NamedTuple

import recorded
from made_facts import DEBIAN, TINY, host

from tinamou.errors import PlanError
from tinamou.facts import EncryptionFacts, Facts, Firmware, ImageFacts, Place
from tinamou.launch.argv import argv, shell_line
from tinamou.planner import plan
from tinamou.spec import load_spec

FOLDER = Path(__file__).parent / "golden" / "confidential"
PLACE = Place("web", "/var/lib/tinamou/machines/web", 1_900_000_000, 2222)

_SEV_KINDS = ("sev", "sev-es", "sev-snp")

HOSTS = {
    "epyc-7001": EncryptionFacts(
        flags=frozenset({"sev"}),
        processor=frozenset({"sev"}),
        parameters={"sev": True, "sev-es": False},
        cbit=47,
        keys=15,
    ),
    "epyc-7003": EncryptionFacts(
        flags=frozenset(_SEV_KINDS),
        processor=frozenset(_SEV_KINDS),
        parameters=dict.fromkeys(_SEV_KINDS, True),
        cbit=51,
        keys=509,
        keys_es=99,
    ),
    "xeon": EncryptionFacts(flags=frozenset({"tdx"}), processor=frozenset(), parameters={"tdx": True}),
}
"""Made by hand: which leaf, flag and parameter says what is documented, these numbers are examples of it."""

_Q35 = (("x86_64", ("pc-q35-*",)),)
_FEATURES = {"amd-sev", "amd-sev-es", "amd-sev-snp", "verbose-dynamic"}
AMDSEV, INTELTDX, GENERIC = "/usr/share/ovmf/OVMF.amdsev.fd", "/usr/share/ovmf/OVMF.inteltdx.fd", "/usr/share/ovmf/OVMF.fd"


def _firmware(description: str, file: str, features: set[str]) -> Firmware:
    made = Firmware("/made/by/hand.json", description, frozenset({"uefi"}), "memory", file, "raw", "", _Q35, frozenset())
    return dataclasses.replace(made, features=frozenset(features))


FIRMWARE = (
    _firmware("OVMF that verifies kernels", AMDSEV, _FEATURES),
    _firmware("OVMF without variable store", GENERIC, _FEATURES),
    _firmware("OVMF for trust domains", INTELTDX, {"intel-tdx", "verbose-dynamic"}),
)
"""As docs/interop/firmware.json of QEMU describes such files; made by hand: no package of the recorded systems has them."""


class Case(NamedTuple):
    """One plan: its file is named like it."""

    requested: str
    boot: str
    host: str
    version: str

    def __str__(self) -> str:
        return "-".join(self)

    @property
    def file(self) -> Path:
        return FOLDER / f"{self}.args"


CASES = [
    *(Case("sev", boot, "epyc-7001", version) for boot in ("direct", "uefi") for version in recorded.VERSIONS),
    *(Case("sev-es", boot, "epyc-7003", version) for boot in ("direct", "uefi") for version in recorded.VERSIONS),
    *(Case("sev-snp", boot, "epyc-7003", version) for boot in ("direct", "uefi") for version in recorded.VERSIONS),
    *(Case("tdx", boot, "xeon", version) for boot in ("direct", "uefi") for version in ("10.0", "11.1")),
    *(Case("auto", "direct", name, version) for name in HOSTS for version in recorded.VERSIONS),
    Case("sev-snp", "everything", "epyc-7003", "10.0"),
    *(Case("sev", "session", "epyc-7001", version) for version in recorded.VERSIONS),
    *(Case("sev-es", "session", "epyc-7003", version) for version in recorded.VERSIONS),
    Case("tdx", "direct", "epyc-7003", "11.1"),
]

EVERYTHING = {
    "cpus": 4,
    "memory": "2G",
    "disk": [{"size": "1G", "interface": one} for one in ("virtio", "scsi", "nvme")],
    "net": [{"type": "user"}, {"type": "user", "model": "e1000e"}],
    "display": "vnc",
    "confidential": {"debug": True},
}


SESSION = {"dh_cert": base64.b64encode(bytes(2084)).decode(), "session": base64.b64encode(bytes(128)).decode()}
"""As long as an owner's session is: QEMU and the plan look no further."""


def spec_of(case: Case):
    more = {"everything": EVERYTHING, "session": {"confidential": SESSION}}.get(case.boot, {})
    data = {**more, "confidential": {"type": case.requested, **more.get("confidential", {})}}
    if case.boot not in ("everything", "session"):
        data["firmware"] = case.boot
    return load_spec(data)


def image_of(case: Case) -> ImageFacts:
    return TINY if case.boot in ("direct", "session") else DEBIAN


def facts(case: Case, image: ImageFacts, place: Place = PLACE) -> Facts:
    """KVM with a processor feature less, as the recording of such a host; the secure processor's device is a group's."""
    devices = frozenset({"/dev/kvm", "/dev/net/tun", *(["/dev/sev"] if case.host != "xeon" else [])})
    groups = {name: number for name, number in (("/dev/kvm", 104), ("/dev/sev", 105)) if name in devices}
    known = HOSTS[case.host]
    return Facts(
        host=dataclasses.replace(host(), devices=devices, device_groups=groups),
        qemu=recorded.qemu(case.version, "x86_64"),
        accel=recorded.accel("kvm-needs", "x86_64"),
        firmware=FIRMWARE,
        image=image,
        place=place,
        encryption=dataclasses.replace(known, hashing=frozenset({AMDSEV})),
    )


def text_of(case: Case) -> str:
    """The command line, what was said about it, how much memory may be locked; a refusal is golden too."""
    try:
        made = plan(spec_of(case), facts(case, image_of(case)))
    except PlanError as error:
        return f"refused: {error}\n"
    notes = "".join(f"# {note.level}: {note.text}\n" for note in made.notes)
    confined = f"# groups {made.confinement.groups}, may lock {(made.confinement.locked or 0) >> 20} MiB\n"
    return f"{notes}{confined}{shell_line(argv(made))}\n"


if __name__ == "__main__":
    FOLDER.mkdir(exist_ok=True)
    for case in CASES:
        case.file.write_text(text_of(case))
