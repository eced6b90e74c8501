"""The table of fields is whole: whoever adds a field says how it shows, or why it cannot be looked at."""

from __future__ import annotations

from pathlib import Path

import pytest
from booting import FIRMWARE, OWN_KERNEL, WINDOWS
from converted import CONVERTED, OTHERS, UNSAID
from fields import Group, every_field, said_by
from hardware import HARDWARE
from persistent import PERSISTENT
from placed import IN_PARTS, PLACED, TOO_LARGE
from switched import SWITCHED
from wires import WIRES

GROUPS = {
    "hardware": HARDWARE,
    "placed": PLACED,
    "in parts": IN_PARTS,
    "too large": TOO_LARGE,
    "persistent": PERSISTENT,
    "own kernel": OWN_KERNEL,
    "firmware": FIRMWARE,
    "windows": WINDOWS,
    "wires": WIRES,
    "switched": SWITCHED,
    "converted": CONVERTED,
}

ELSEWHERE = {
    "devices.vsock": "needs /dev/vhost-vsock: tests/unit/test_extra.py; refused here",
    **dict.fromkeys(
        (
            *("windows.user", "windows.password_file", "windows.edition", "windows.product_key", "windows.locale"),
            *(
                "windows.keyboard",
                "windows.timezone",
                "windows.agent",
                "windows.ssh",
                "windows.ssh_keys",
                "windows.firstboot",
            ),
            "windows.drivers",
        ),
        "needs the setup of a Windows: tests/windows/test_answers.py; refused without os here",
    ),
    "cpu.hyperv": "needs KVM: tests/golden/test_windows_plans.py, tests/unit/test_hyperv.py; refused here",
    "windows.virtio": "needs a Windows that has the drivers: tests/golden/test_windows_plans.py",
    "boot.secure": "needs an image that is signed: tests/e2e/test_secure_boot.py; refused here",
    "boot.secure_keys": "needs an image signed by such a key: tests/e2e/test_secure_boot.py; refused here",
    "cpu.latency": "differs only where cores have several threads: tests/unit/test_cpu_pinning.py, on recorded hosts",
    "cpu.near": "differs only where there are several memory nodes: tests/unit/test_cpu_pinning.py; refused here",
    "pci[].device": "needs an IOMMU: tests/lab/test_lab_pci.py; refused here",
    "pci[].alone": "needs an IOMMU: tests/unit/test_passthrough.py; refused with its device here",
    "pci[].rom": "needs an IOMMU: tests/unit/test_passthrough.py; refused with its device here",
    "pci[].rom_file": "needs an IOMMU: tests/lab/test_lab_sriov.py; refused with its device here",
    "pci[].region": "needs a card with one: tests/unit/test_card_room.py; refused with its device here",
    "pci[].reset": "needs a card with several: tests/lab/test_lab_pci.py; refused with its device here",
    "pci[].together": "needs cards behind switches: tests/unit/test_card_room.py; refused with its device here",
    "devices.iommufd": "needs an IOMMU: tests/lab/test_lab_sriov.py; refused without a device here",
    **dict.fromkeys(
        ("pci[].mac", "pci[].vlan", "pci[].trust", "pci[].spoof_check", "pci[].rate"),
        "needs a card with virtual functions: tests/unit/test_virtual_functions.py; refused with its device here",
    ),
    "confidential.type": "needs SEV or TDX: tests/golden/test_confidential_plans.py; refused here",
    "security.sched_core": "needs cores with several threads: tests/unit/test_security.py; refused here",
    "security.selinux": "needs SELinux: tests/lab/test_lab_selinux.py; refused here",
    "security.apparmor": "needs AppArmor: tests/lab/test_lab_apparmor.py; refused here",
    **dict.fromkeys(
        ("confidential.id_block", "confidential.id_auth", "confidential.host_data"),
        "needs SEV-SNP: tests/golden/test_id_blocks.py; refused here",
    ),
    **dict.fromkeys(
        ("confidential.dh_cert", "confidential.session"),
        "needs SEV: tests/attest/test_sev_session.py; refused here",
    ),
    **dict.fromkeys(
        ("placement.spread", "placement.together", "placement.near"),
        "is asked where a host is chosen: tests/fleet/test_placement.py; a host by itself says so",
    ),
    **dict.fromkeys(
        ("replicate.to", "replicate.every"),
        "is about a machine that stays: tests/fleet/test_replicated.py; refused for one that is thrown away",
    ),
    "usb[].device": "needs a USB device: tests/lab/test_lab_usb.py; refused here",
    "confidential.debug": "needs SEV or TDX: tests/golden/test_confidential_plans.py; refused here",
}
"""What a host without the hardware cannot show, and where it is tried."""


def test_every_field_is_looked_at() -> None:
    looked = {field for group in GROUPS.values() for field in group.looks}
    assert (looked | set(ELSEWHERE)) - set(every_field()) == set(), "no such fields"
    assert set(every_field()) - looked - set(ELSEWHERE) == set(), "fields nobody looks at"
    assert looked & set(ELSEWHERE) == set()
    assert all(
        (Path(__file__).parents[2] / why.split(":")[1].split(";")[0].split(",")[0].strip()).exists()
        for why in ELSEWHERE.values()
    )


def test_what_other_tools_can_say() -> None:
    """Each field is in the converted machine, in another one of tests/convert, or none that another tool has a word for."""
    assert sorted([*CONVERTED.looks, *OTHERS, *UNSAID]) == sorted(every_field())


@pytest.mark.parametrize("name", GROUPS)
def test_what_is_looked_at_is_asked_for(name: str, tmp_path: Path) -> None:
    """A look at a default shows nothing; one whose field the host cannot have is left out with the field."""
    group: Group = GROUPS[name]
    idle = set(group.looks) - said_by(group.describe(tmp_path))
    limits = {f"limits.{name}" for name in ("cpu", "memory", "read", "write", "pids")}
    screen = {"display.type", "display.clipboard", "display.redirected_usb"}
    assert idle <= {*limits, *screen, "net[].type", "net[].host"}
