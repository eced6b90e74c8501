"""Persistent memory: what QEMU is told, who may open the file, and what is refused by name."""

from __future__ import annotations

import dataclasses
import os
import struct
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from made_facts import DEBIAN, OVMF, TCG, TINY, facts, of_arch
from recorded import qemu

from tinamou.blueprint import HandOver, LendFile, Why
from tinamou.errors import ImageError, LaunchError, PlanError, PrepareError, SpecError, StateError
from tinamou.facts import ChainFile, Facts, PciFacts
from tinamou.launch.argv import argv
from tinamou.launch.handover import open_all, with_descriptors
from tinamou.machine import persistent
from tinamou.machine.disks import existing_chains
from tinamou.parts.protocol import Encryption
from tinamou.planner import plan
from tinamou.prepare import apply, lent_files
from tinamou.prepare.journal import Journal
from tinamou.spec import dump_spec, load_spec
from tinamou.system import acl, image_locks

MIB = 1 << 20
WHY = Why("test", "a test wants it")


def known(*sizes: int, arch: str = "x86_64", version: str = "11.1", uid: int | None = 1_900_000_000) -> Facts:
    chains = {f"pmem{number}": (ChainFile(f"/srv/{number}", "raw", size=size),) for number, size in enumerate(sizes)}
    there = facts(of_arch(TINY, arch), TCG, uid=uid)
    return dataclasses.replace(there, qemu=qemu(version, arch), chains=chains)


def refusal(description: dict[str, Any], there: Facts) -> str:
    with pytest.raises(PlanError) as error:
        plan(load_spec(description), there)
    return str(error.value)


def test_a_file_is_memory_of_the_guest():
    spec = load_spec({"memory": "256M", "pmem": ["/srv/0", {"path": "/srv/1", "readonly": True}]})
    made = plan(spec, known(64 * MIB, 2 * MIB))
    [backend, second] = [one.props for one in made.elements if one.id in ("pmem0", "pmem1")]
    assert backend == {
        **{"qom-type": "memory-backend-file", "id": "pmem0", "size": 64 * MIB, "mem-path": "/srv/0"},
        **{"share": True, "align": 2 * MIB},
    }
    assert second["readonly"] is True and second["share"] is True
    devices = {one.id: one.props for one in made.elements if one.props.get("driver") == "virtio-pmem-pci"}
    assert {name: props["memdev"] for name, props in devices.items()} == {"pmem0-dev": "pmem0", "pmem1-dev": "pmem1"}
    assert len({props["addr"] for props in devices.values()}) == 2
    words = argv(made)
    assert words[words.index("-m") + 1] == "256M,maxmem=322M"
    steps = [step for step in made.steps if getattr(step, "path", "").startswith("/srv/")]
    kinds = [(type(step), getattr(step, "access", getattr(step, "write", None))) for step in steps]
    assert kinds == [(LendFile, True), (HandOver, "write"), (LendFile, False), (HandOver, "read")]
    assert ["/srv/1 is not changed" in note.text for note in made.notes if "/srv/" in note.text] == [True]


def test_a_qemu_that_is_the_user_needs_no_more_rights():
    made = plan(load_spec({"pmem": ["/srv/0"]}), known(2 * MIB, uid=None))
    assert not [step for step in made.steps if isinstance(step, LendFile)]


def test_nothing_changes_without():
    words = argv(plan(load_spec({"memory": "256M"}), known()))
    assert words[words.index("-m") + 1] == "256M" and not any("pmem" in word for word in words)


def test_it_is_opened_by_its_descriptor():
    made = plan(load_spec({"pmem": ["/srv/0"]}), known(2 * MIB))
    spelled = with_descriptors(made, {"/srv/0": 7})
    assert next(one.props["mem-path"] for one in spelled.elements if one.id == "pmem0") == "/dev/fd/7"
    assert not any(flag.name == "add-fd" for flag in spelled.flags)


@pytest.mark.parametrize(
    ("size", "fix"),
    [(0, f"truncate -s {2 * MIB} /srv/0"), (MIB, "2097152"), (3 * MIB, "4194304"), (2 * MIB + 512, "4194304")],
)
def test_a_length_that_linux_leaves_out_is_refused(size: int, fix: str):
    said = refusal({"pmem": ["/srv/0"]}, known(size))
    assert "pmem[0].path = '/srv/0'" in said and "2 MiB" in said and fix in said


@pytest.mark.parametrize("arch", ["aarch64", "riscv64"])
def test_a_qemu_without_the_device_is_refused(arch: str):
    for version in ("7.2", "10.0", "11.1"):
        assert "pmem: " in (said := refusal({"pmem": ["/srv/0"]}, known(2 * MIB, arch=arch, version=version)))
        assert "has no virtio-pmem-pci" in said and "[[disk]]" in said


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"memory": {"forkable": True}}, "a fork would write"),
        ({"replicate": {"to": "b", "every": "5m"}}, "would not be in the replica"),
        ({"pmem": ["/srv/0", "/srv/0"]}, "named twice"),
        ({"pci": ["65:00.0"]}, "pins no page of a file"),
    ],
)
def test_what_does_not_go_with_it_is_refused_by_name(more: dict[str, Any], said: str):
    told = refusal({"pmem": ["/srv/0"], **more}, dataclasses.replace(known(2 * MIB, 2 * MIB), pci=PciFacts()))
    assert "pmem" in told and said in told


def test_windows_has_no_driver():
    there = dataclasses.replace(known(2 * MIB), image=DEBIAN)
    assert "Windows has no driver" in refusal({"pmem": ["/srv/0"], "os": "windows-10", "image": "debian"}, there)


def test_under_selinux_it_is_refused_unless_labels_are_off():
    there = known(2 * MIB)
    there = dataclasses.replace(there, host=dataclasses.replace(there.host, selinux="system_u:system_r"))
    assert "SELinux policy lets it open none" in refusal({"pmem": ["/srv/0"]}, there)
    assert plan(load_spec({"pmem": ["/srv/0"], "security": {"selinux": "off"}}), there)


def test_encrypted_memory_has_none(monkeypatch: pytest.MonkeyPatch):
    from tinamou.parts import pmem

    spec = load_spec({"pmem": ["/srv/0"]})
    made = dataclasses.replace(_resolved(spec, known(2 * MIB)), encryption=Encryption("sev-snp", OVMF))
    assert any("the guest's is encrypted" in problem.reason for problem in pmem.check(made))


def _resolved(spec: Any, there: Facts) -> Any:
    from tinamou import planner

    return planner._resolved(spec, there)


def test_a_file_must_be_named():
    with pytest.raises(SpecError) as error:
        load_spec({"pmem": [{"readonly": True}]})
    assert "pmem[0].path" in str(error.value)


def test_a_bare_path_stands_for_it():
    spec = load_spec({"pmem": ["/srv/0"]})
    assert load_spec(dump_spec(spec)) == spec and spec.pmem[0].path == "/srv/0"


def test_what_is_no_raw_file_is_refused(tmp_path: Path):
    image = tmp_path / "disk"
    image.write_bytes(b"QFI\xfb" + (3).to_bytes(4, "big") + bytes(16) + (16).to_bytes(4, "big") + bytes(1 << 17))
    with pytest.raises(ImageError):
        existing_chains(load_spec({"pmem": [str(image)]}), TINY, tmp_path)
    image.write_bytes(b"KDMV" + bytes(1 << 16))
    with pytest.raises(ImageError, match="qemu-img convert -O raw"):
        existing_chains(load_spec({"pmem": [str(image)]}), TINY, tmp_path)
    with pytest.raises(ImageError, match="does not exist"):
        existing_chains(load_spec({"pmem": ["/nosuch"]}), TINY, tmp_path)
    image.write_bytes(bytes(3 << 20))
    chains = existing_chains(load_spec({"pmem": [str(image)]}), TINY, tmp_path)
    assert chains == {"pmem0": (ChainFile(str(image), "raw", size=3 << 20),)}


def test_two_do_not_write_to_one_file(tmp_path: Path):
    """Nor does one read what another one writes; and a disk of QEMU's is told from it by the same locks."""
    file = tmp_path / "memory"
    file.write_bytes(bytes(4096))

    def opened(access: Any):
        return open_all([HandOver(str(file), access, WHY, locked=True)], ())

    with opened("write"):
        assert image_locks.written_by_others(file)
        for other in ("write", "read"):
            with pytest.raises(LaunchError, match="another machine or program uses it"):
                opened(other)
    assert not image_locks.written_by_others(file)
    with opened("read"), opened("read"):
        assert not image_locks.written_by_others(file)
        with pytest.raises(LaunchError, match="another machine or program"):
            opened("write")
    with opened("write"):
        pass


def entries(file: Path) -> list[tuple[int, int, int]]:
    return list(struct.iter_unpack("<HHI", os.getxattr(file, "system.posix_acl_access")[4:]))


def test_a_file_is_lent_to_one_more_user_and_taken_back(tmp_path: Path, state: Path):
    file = tmp_path / "memory"
    file.touch(0o640)
    file.chmod(0o640)
    journal = Journal(tmp_path)
    step = LendFile(str(file), True, WHY, 1_900_000_001)
    lent_files.lend(step, journal)
    lent_files.lend(dataclasses.replace(step, write=False, owner=1_900_000_002), journal)
    nobody = 0xFFFFFFFF
    assert entries(file) == [
        *[(1, 6, nobody), (2, 6, 1_900_000_001), (2, 4, 1_900_000_002), (4, 4, nobody), (16, 6, nobody), (32, 0, nobody)]
    ]
    first, second = journal.open_entries().values()
    apply.undo(first)
    assert [one for one in entries(file) if one[0] == 2] == [(2, 4, 1_900_000_002)]
    apply.undo(second)
    apply.undo(second)
    with pytest.raises(OSError):
        entries(file)
    assert file.stat().st_mode & 0o777 == 0o640


def test_what_others_may_is_neither_more_nor_less_than_before(tmp_path: Path):
    """Rights that a mask holds back are not let loose by another's."""
    file = tmp_path / "memory"
    file.touch(0o600)
    acl.allow(file, {1234: acl.READ_WRITE}, {})
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.setxattr(file, "system.posix_acl_access", _with_mask(file, 4))
        acl.lend(descriptor, 4321, acl.READ_WRITE)
        assert {(who, rights) for tag, rights, who in entries(file) if tag == 2} == {(1234, 4), (4321, 6)}
        acl.take_back(descriptor, 9999)
        acl.take_back(descriptor, 4321)
        assert {(who, rights) for tag, rights, who in entries(file) if tag == 2} == {(1234, 4)}
    finally:
        os.close(descriptor)


def _with_mask(file: Path, mask: int) -> bytes:
    changed = [(tag, mask if tag == 16 else rights, who) for tag, rights, who in entries(file)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHI", *one) for one in changed)


def test_a_file_that_took_its_name_is_left_alone(tmp_path: Path, state: Path):
    file = tmp_path / "memory"
    file.touch()
    journal = Journal(tmp_path)
    lent_files.lend(LendFile(str(file), True, WHY, 4321), journal)
    [entry] = journal.open_entries().values()
    other = tmp_path / "other"
    other.touch()
    acl.allow(other, {4321: acl.READ_WRITE}, {})
    other.replace(file)
    apply.undo(entry)
    assert any(one[2] == 4321 for one in entries(file))
    file.unlink()
    apply.undo(entry)


def test_a_file_system_without_such_rights_is_told(tmp_path: Path, state: Path, monkeypatch: pytest.MonkeyPatch):
    def refused(*_: object) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(acl.os, "setxattr", refused)
    (tmp_path / "memory").touch()
    with pytest.raises(PrepareError, match="ext4, xfs or btrfs"):
        lent_files.lend(LendFile(str(tmp_path / "memory"), True, WHY, 1), Journal(tmp_path))


def test_what_lacks_it_is_not_made():
    after = {"pmem": [{"path": "/srv/1"}, {"path": "/srv/2", "readonly": True}]}
    record: Any = SimpleNamespace(name="web", running=False, spec={"pmem": ["/srv/0"]}, next_spec=after)
    assert persistent.written(record) == "/srv/1"
    record.running = True
    assert persistent.written(record) == "/srv/1, /srv/0"
    with pytest.raises(StateError, match="web cannot be cloned") as error:
        persistent.refuse(record, "cloned", "both machines would write to it")
    assert "/srv/1" in error.value.why and "readonly = true" in error.value.fix
    record.running, record.next_spec = False, {"pmem": [{"path": "/srv/2", "readonly": True}]}
    persistent.refuse(record, "cloned", "")
