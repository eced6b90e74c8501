"""Encrypted memory: all that speaks against it is said at once, auto takes the best, and what it rules out is refused."""

from __future__ import annotations

import dataclasses
import resource
import subprocess

import pytest
import recorded
from confidential_cases import AMDSEV, HOSTS, PLACE, Case, facts
from made_facts import DEBIAN, PCI, TINY, of_arch

from tinamou.errors import PlanError, SpecError, StateError
from tinamou.facts import EncryptionFacts
from tinamou.facts.host import EVERYBODY
from tinamou.machine import encrypted
from tinamou.parts.confidential import encrypted_by
from tinamou.planner import disk_alone, plan, plan_card
from tinamou.spec import dump_spec, load_spec
from tinamou.state.record import Record
from tinamou.system import memlock
from tinamou.system.jail import Jail
from tinamou.system.own_programs import own_program
from tinamou.tuning.confidential import why_not

EPYC = Case("sev-snp", "direct", "epyc-7003", "10.0")
XEON = Case("tdx", "direct", "xeon", "11.1")


def known(case=EPYC, image=TINY, **change):
    encryption = {name: change.pop(name) for name in list(change) if name in EncryptionFacts.__dataclass_fields__}
    whole = facts(case, image)
    host = {name: change.pop(name) for name in list(change) if name in ("devices", "device_groups")}
    return dataclasses.replace(
        whole,
        encryption=dataclasses.replace(whole.encryption, **encryption),
        host=dataclasses.replace(whole.host, **host),
        **change,
    )


def refused(spec, some):
    with pytest.raises(PlanError) as error:
        plan(load_spec(spec), some)
    assert all(problem.reason and problem.fix for problem in error.value.problems)
    paths = dict.fromkeys(problem.path for problem in error.value.problems)
    return {path: "; ".join(one.reason for one in error.value.problems if one.path == path) for path in paths}


def object_of(made):
    return next(one for one in made.elements if encrypted_by([one]))


def test_shorthand_and_table():
    assert load_spec({"confidential": "sev-snp"}) == load_spec({"confidential": {"type": "sev-snp"}})
    assert dump_spec(load_spec({"confidential": {"type": "tdx", "debug": False}})) == {"confidential": {"type": "tdx"}}
    with pytest.raises(SpecError) as error:
        load_spec({"confidential": "sev-snap"})
    assert "did you mean sev-snp" in error.value.problems[0].fix


HOST_SAYS = [
    ("sev-snp", {"processor": frozenset({"sev"})}, "processor does not have it"),
    ("sev-snp", {"flags": frozenset({"sev"})}, "/proc/cpuinfo does not show sev_snp"),
    ("sev-snp", {"parameters": {}}, "no parameter kvm_amd.sev_snp"),
    ("sev-es", {"parameters": {"sev-es": False}}, "kvm_amd.sev_es is off"),
    ("sev-es", {"keys_es": 0}, "all 509 keys of the processor are set aside for plain SEV"),
    ("sev", {"keys_es": 509}, "all 509 keys of the processor are set aside for SEV-ES"),
    ("sev", {"cbit": None}, "CPUID 0x8000001F could not be asked"),
    ("sev", {"devices": frozenset()}, "there is no /dev/sev"),
    ("sev", {"device_groups": {"/dev/kvm": 104, "/dev/sev": None}}, "only its owner may open /dev/sev"),
    ("tdx", {}, "the kernel found no TDX"),
]


@pytest.mark.parametrize(("kind", "change", "reason"), HOST_SAYS)
def test_what_the_host_lacks(kind, change, reason):
    said = refused({"confidential": kind}, known(**change))
    assert reason in said["confidential.type"]


def test_a_host_with_it_has_nothing_against_it():
    assert [why_not(kind, HOSTS["epyc-7003"]) for kind in ("sev", "sev-es", "sev-snp")] == [None] * 3
    assert why_not("tdx", HOSTS["xeon"]) is None
    assert "switch TDX on" in why_not("tdx", HOSTS["epyc-7003"])[1]


def test_everything_that_is_wrong_is_said_at_once():
    spec = {
        "confidential": {"type": "tdx", "debug": True},
        "memory": {"forkable": True, "merge": True},
        "boot": {"secure": True},
        "tpm": True,
        "share": ["/srv:/mnt"],
        "cpu": {"model": "EPYC"},
    }
    some = known(Case("tdx", "uefi", "epyc-7001", "7.2"), DEBIAN, firmware=recorded.firmware())
    said = refused(spec, some)
    assert set(said) == {
        *("confidential.type", "confidential.debug", "boot.firmware", "boot.secure", "memory.forkable", "memory.merge"),
        *("tpm", "share", "cpu.model"),
    }
    assert "system management mode" in said["boot.secure"]


def test_huge_pages_lie_below_what_is_pinned_only():
    huge = {"memory": {"hugepages": "2M"}}
    assert "guest_memfd" in refused({"confidential": "sev-snp", **huge}, known())["memory.hugepages"]


def test_another_process_may_not_share_the_memory():
    net = [{"type": "vhost-user", "socket": "/run/switch.sock"}]
    assert "another process" in refused({"confidential": "sev", "net": net}, known())["net"]


def test_a_device_of_the_host_is_not_given_away():
    said = refused({"confidential": "sev", "pci": ["65:00.0"]}, known(pci=PCI))
    assert "only what the guest shares" in said["pci"]


def test_other_architectures_have_none():
    some = known(image=of_arch(TINY, "aarch64"))
    some = dataclasses.replace(some, qemu=recorded.qemu("10.0", "aarch64"), accel=recorded.accel("tcg", "aarch64"))
    assert "no aarch64 processor has it" in refused({"confidential": "sev"}, some)["confidential.type"]
    made = plan(load_spec({"confidential": "auto"}), some)
    assert any("NOT encrypted" in note.text and "no aarch64 processor" in note.text for note in made.notes)


def test_emulation_has_none():
    some = known(accel=recorded.accel("kvm-fails", "x86_64"))
    assert "it needs KVM" in refused({"confidential": "sev-snp"}, some)["confidential.type"]
    made = plan(load_spec({"confidential": "auto"}), some)
    assert sum("not SEV-SNP, TDX, SEV-ES, SEV: it needs KVM" in note.text for note in made.notes) == 1
    assert made == dataclasses.replace(plan(load_spec({}), some), notes=made.notes)


def test_seabios_starts_none():
    said = refused({"confidential": "sev-snp", "firmware": "bios"}, known(image=DEBIAN))
    assert "UEFI firmware alone" in said["boot.firmware"]
    only_bios = dataclasses.replace(DEBIAN, boots=("bios",))
    assert "UEFI firmware alone" in refused({"confidential": "sev-snp"}, known(image=only_bios))["boot.firmware"]


def test_firmware_in_two_parts_and_firmware_that_verifies_no_kernel_are_refused():
    said = refused({"confidential": "sev", "firmware": "uefi"}, known(image=DEBIAN, firmware=recorded.firmware()))
    assert "OVMF_CODE_4M" in said["boot.firmware"] and "one image" in said["boot.firmware"]
    said = refused({"confidential": "sev"}, known(hashing=frozenset()))
    assert AMDSEV in said["boot.firmware"] and "does not verify a kernel" in said["boot.firmware"]


def test_firmware_without_the_feature_is_refused():
    old = tuple(dataclasses.replace(one, features=frozenset({"amd-sev"})) for one in known().firmware)
    assert "amd-sev-snp" in refused({"confidential": "sev-snp"}, known(firmware=old))["boot.firmware"]
    assert "amd-sev-snp" in refused({"confidential": "sev-snp"}, known(firmware=()))["boot.firmware"]


def test_what_is_pinned_must_be_lockable():
    said = refused({"confidential": "sev"}, known(lockable=8 << 20))
    assert "768 MiB" in said["memory.size"] and "8 MiB" in said["memory.size"]
    assert plan(load_spec({"confidential": "sev"}), known(lockable=1 << 30)).confinement.locked == 768 << 20
    assert plan(load_spec({"confidential": "sev-snp"}), known(lockable=0)).confinement.locked is None


def test_auto_takes_the_best_and_says_what_kept_it_from_better():
    assert object_of(plan(load_spec({"confidential": "auto"}), known())).props["qom-type"] == "sev-snp-guest"
    assert object_of(plan(load_spec({"confidential": "auto"}), known(XEON))).props["qom-type"] == "tdx-guest"
    made = plan(load_spec({"confidential": "auto"}), known(parameters={"sev": True, "sev-es": True, "sev-snp": False}))
    assert object_of(made).props["policy"] == 0b1111
    assert any("encrypted by SEV-ES (not SEV-SNP: kvm_amd.sev_snp is off" in note.text for note in made.notes)
    made = plan(load_spec({"confidential": "auto", "forkable": True}), known())
    assert not any(encrypted_by([one]) for one in made.elements)
    assert any("NOT encrypted" in note.text and "cannot be copied" in note.text for note in made.notes)


def test_policies_forbid_what_nobody_asked_for():
    kinds = ("sev", "sev-es", "sev-snp")
    policies = [object_of(plan(load_spec({"confidential": kind}), known())).props["policy"] for kind in kinds]
    assert policies == [0b1011, 0b1111, 0x30000]
    spec = {"confidential": {"type": "sev-snp", "debug": True}}
    made = plan(load_spec(spec), known())
    assert object_of(made).props["policy"] == 0xB0000
    assert any("allows debugging" in note.text for note in made.notes)


def test_the_device_of_the_secure_processor_is_opened_through_its_group():
    assert plan(load_spec({"confidential": "sev"}), known()).confinement.groups == (104, 105)
    open_to_all = {"/dev/kvm": 104, "/dev/sev": EVERYBODY}
    assert plan(load_spec({"confidential": "sev"}), known(device_groups=open_to_all)).confinement.groups == (104,)
    both = {"/dev/kvm": 104, "/dev/sev": 105}
    assert plan(load_spec({"confidential": "tdx"}), known(XEON, device_groups=both)).confinement.groups == (104,)


def test_who_is_not_root_must_be_able_to_open_it():
    own = dataclasses.replace(PLACE, uid=None)
    said = refused({"confidential": "sev"}, known(place=own, opens=False))
    assert "you may not open /dev/sev" in said["confidential.type"]
    assert plan(load_spec({"confidential": "sev"}), known(place=own, opens=True)).confinement.groups == ()


def test_what_is_plugged_in_uses_shared_memory_too():
    spec = load_spec({"confidential": "sev-snp", "disk": [{"size": "1G", "port": 1}], "net": [{"type": "user"}]})
    for part in (disk_alone(spec, known(), 0), plan_card(spec, known(), 0)):
        devices = [one.props for one in part.elements if one.kind == "device"]
        assert [(one["iommu_platform"], one["disable-legacy"]) for one in devices] == [(True, "on")]
    bare = load_spec({"disk": [{"size": "1G", "port": 1}]})
    assert all("iommu_platform" not in one.props for one in disk_alone(bare, known(), 0).elements)


def test_what_could_not_be_copied_and_what_gives_memory_back_is_left_out():
    made = plan(load_spec({"confidential": "sev"}), known())
    assert not {"vmgenid", "balloon0"} & {one.id for one in made.elements}
    assert {"vmgenid", "balloon0"} <= {one.id for one in plan(load_spec({}), known()).elements}


def test_who_did_not_ask_gets_the_plan_as_ever():
    assert plan(load_spec({}), known()) == plan(load_spec({}), dataclasses.replace(known(), encryption=EncryptionFacts()))


def record(by):
    return Record(name="web", directory="/nowhere", spec={}, encrypted=by)


@pytest.mark.parametrize("case", [EPYC, XEON])
def test_saving_and_resetting_are_refused(case):
    kind = encrypted_by(plan(load_spec({"confidential": case.requested}), known(case)).elements)
    assert kind.lower() == case.requested
    with pytest.raises(StateError, match="web cannot be suspended") as error:
        encrypted.refuse(record(kind), "suspended")
    assert f"encrypted by {kind}" in error.value.why
    with pytest.raises(StateError, match="cannot be reset"):
        encrypted.refuse_reset(record(kind))


def test_saving_others_is_not():
    assert encrypted_by(plan(load_spec({}), known()).elements) == ""
    encrypted.refuse(record(""), "suspended")
    encrypted.refuse_reset(record(""))


def test_qemu_may_lock_as_much_as_is_pinned():
    """The limit is set in the process that becomes QEMU, where it counts: it has no right to exceed it."""
    wanted = memlock.lockable() or 768 << 20
    words = ["--", "/bin/sh", "sh", "-c", "ulimit -l; ulimit -H -l"]
    said = subprocess.run(
        [own_program("jail"), *Jail(limits={resource.RLIMIT_MEMLOCK: wanted}).words(), *words],
        capture_output=True,
        text=True,
        check=True,
    )
    assert said.stdout.split() == [str(wanted >> 10)] * 2
    assert Jail().words() == []
