"""Nothing that is said to a QEMU is deprecated there or gone: every command, option and property, by its own schema."""

from __future__ import annotations

import json

import pytest
import recorded
from vocabulary import Said, Spoken, commands, options


@pytest.fixture
def spoken(program_of):
    """What a QEMU understands."""
    return lambda version, arch: Spoken(program_of(version, f"qemu-system-{arch}"), types(version, arch))


def types(version: str, arch: str) -> set[str]:
    """The devices and boards of the recorded plans."""
    every = list(options(version, arch))
    boards = {f"{value.partition(',')[0]}-machine" for name, value, _ in every if name == "machine"}
    return boards | {json.loads(value)["driver"] for name, value, _ in every if name == "device"}


def test_the_list_is_whole():
    """What is known to be said is in it, each found in another way."""
    said = {one.command for one in commands()}
    assert {"query-status", "add-fd", "migrate-incoming", "block-commit", "netdev_add", "migrate-set-capabilities"} <= said
    assert len(said) > 50
    assert {name for name, _, _ in options("11.1", "x86_64")} >= {"device", "object", "chardev", "machine", "sandbox"}


ASKED_IN_VAIN = {"7.2": ("query-firmware-log",), "10.0": ("query-firmware-log",)}
"""What an older QEMU refuses, and whose refusal is an answer."""


@pytest.mark.parametrize("version", recorded.VERSIONS)
def test_no_command_is_deprecated_or_gone(version, spoken):
    qemu = spoken(version, "x86_64")
    said = [one for one in commands() if one.command not in ASKED_IN_VAIN.get(version, ())]
    assert [f"{one.where}: {bad}" for one in said for bad in qemu.of_command(one.command, one.arguments)] == []


def test_what_is_asked_in_vain_is_asked_and_unknown_there(spoken):
    asked = {one.command for one in commands()}
    for version, names in ASKED_IN_VAIN.items():
        assert all(name in asked and spoken(version, "x86_64").of_command(name, {}) for name in names)


@pytest.mark.parametrize("version", recorded.VERSIONS)
@pytest.mark.parametrize("arch", recorded.ARCHES)
def test_no_option_is_deprecated_or_gone(version, arch, spoken):
    qemu = spoken(version, arch)
    found = {bad: plan for name, value, plan in options(version, arch) for bad in qemu.of_option(name, value)}
    assert found == {}


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        (Said("query-kvm", {}, ""), "query-kvm is deprecated: query-accelerators takes its place"),
        (Said("block-job-pause", {}, ""), "block-job-pause is deprecated: job-pause takes its place"),
        (Said("query-migrationthreads", {}, ""), "query-migrationthreads is unknown"),
        (Said("block-commit", {"device": "a", "top": "b"}, ""), "block-commit top is deprecated: top-node takes its place"),
        (Said("netdev_add", {"type": "stream", "id": "a", "reconnect": 1}, ""), "reconnect is unknown: reconnect-ms takes"),
        (Said("migrate-set-capabilities", {"capabilities": [{"capability": "block"}]}, ""), "capability block is unknown"),
        (Said("blockdev-add", {"driver": "gluster", "node-name": "a"}, ""), "driver gluster is unknown"),
    ],
    ids=lambda one: one.command if isinstance(one, Said) else "",
)
def test_a_command_that_is_no_more_would_be_noticed(said, expected, spoken):
    assert expected in " ".join(spoken("11.1", "x86_64").of_command(said.command, said.arguments))


@pytest.mark.parametrize(
    ("name", "value", "expected"),
    [
        ("singlestep", "", "-singlestep is unknown: -accel tcg,one-insn-per-tb=on takes its place"),
        ("name", "guest=a,debug-threads=on", "-name debug-threads is deprecated"),
        ("chardev", "socket,id=a,reconnect=1", "-chardev reconnect is unknown: reconnect-ms takes its place"),
        ("device", '{"driver":"virtio-blk-pci","scsi":true}', "virtio-blk-pci scsi is unknown"),
        ("device", '{"driver":"pvrdma"}', "device pvrdma is unknown"),
        ("audiodev", '{"driver":"none","id":"a","nosuch":1}', "audiodev nosuch is unknown"),
        ("object", '{"qom-type":"secret","id":"a","loaded":true}', "object-add loaded is unknown"),
    ],
)
def test_an_option_that_is_no_more_would_be_noticed(name, value, expected, program_of):
    qemu = Spoken(program_of("11.1", "qemu-system-x86_64"), {"virtio-blk-pci", "pvrdma"})
    assert expected in " ".join(qemu.of_option(name, value))
