"""A QEMU binary is found, asked, believed while it stays the same, and named when it is none."""

import dataclasses
import json
from pathlib import Path

import pytest
import recorded

from tinamou.errors import ProbeError
from tinamou.facts.stored import accel_from, qemu_from, to_plain
from tinamou.probe import cache, interview
from tinamou.probe.qemu import find_binary, probe_qemu
from tinamou.probe.questions import FINGERPRINT
from tinamou.probe.schema import option_names

FAKE = """#!/usr/bin/python3 -I
import json, os, sys
if "-help" in sys.argv:
    print("-machine [type=]name\\n-fda/-fdb file  two\\n-h or -help  this"); sys.exit()
if "help" in sys.argv:
    print("/share"); sys.exit()
answers = {
    "query-version": {"qemu": {"major": 9, "minor": 1, "micro": 0}, "package": "fake"},
    "query-target": {"arch": "x86_64"},
    "query-machines": [{"name": "pc-q35-9.1", "alias": "q35", "cpu-max": 4}],
    "query-commands": [{"name": "quit"}],
    "query-command-line-options": [{"option": "machine", "parameters": [{"name": "hpet"}]}],
    "query-qmp-schema": [],
    "query-cpu-definitions": [{"name": "max"}],
    "qom-list-types": [{"name": "nvme"}, {"name": "max-x86_64-cpu"}, {"name": "device with blank"}],
}
print(json.dumps({"QMP": {"version": {}}}), flush=True)
print(json.dumps({"event": "RESUME"}))
for line in sys.stdin:
    asked = json.loads(line)
    if asked["execute"] == DEADLY:
        print("a module is of another build", file=sys.stderr); sys.stdout.flush(); os.abort()
    if asked["execute"] == "qom-list-properties" and asked["arguments"]["typename"] not in ("nvme", "tcg-accel"):
        print(json.dumps({"id": asked["id"], "error": {"class": "DeviceNotFound", "desc": "no"}})); continue
    print(json.dumps({"id": asked["id"], "return": answers.get(asked["execute"], [{"name": "serial"}])}))
"""


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TINAMOU_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("TINAMOU_QEMU", raising=False)
    return tmp_path / "cache"


def _script(tmp_path, text, name="qemu-system-x86_64"):
    path = tmp_path / name
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


def _fake(tmp_path, deadly=""):
    return _script(tmp_path, FAKE.replace("DEADLY", repr(deadly)))


def test_facts_are_read_from_the_answers(tmp_path):
    facts = probe_qemu(_fake(tmp_path), "x86_64")
    assert (facts.version, facts.arch, facts.package, facts.notes) == ((9, 1, 0), "x86_64", "fake", ())
    assert facts.types == {"nvme", "max-x86_64-cpu"}
    assert facts.accels == ("tcg",)
    assert facts.data_dirs == ("/share",)
    for feature in ("option:machine.hpet", "option:fdb", "option:h", "cpu:max", "machine:q35", "property:nvme.serial"):
        assert facts.has(feature), feature
    for feature in ("option:machine.smm", "cpu:host", "netdev:user", "property:vfio-pci.host", "accel:kvm"):
        assert not facts.has(feature), feature


def test_a_question_that_kills_is_noted_and_left_out(tmp_path):
    facts = probe_qemu(_fake(tmp_path, "qom-list-types"))
    assert facts.types == {"nvme", "tcg-accel", "pc-q35-9.1-machine"}
    assert facts.cpu_models == {"max"}
    assert "types (a module is of another build)" in facts.notes[0]
    assert probe_qemu(_fake(tmp_path, "qom-list-properties")).properties == {}


def test_a_binary_that_does_not_say_what_it_is(tmp_path):
    with pytest.raises(ProbeError, match="does not say what it is"):
        probe_qemu(_fake(tmp_path, "query-version"))


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("#!/bin/sh\nexit 0\n", "is not a QEMU system emulator"),
        ("#!/bin/sh\necho oops >&2\nexit 3\n", "status 3"),
        ("#!/bin/sh\nkill -SEGV $$\n", "signal 11"),
        ("#!/bin/sh\ncat\n", "is not a QEMU system emulator"),
        ("#!/bin/sh\necho '[]'\necho '{\"QMP\": 1}'\n", "is not a QEMU system emulator"),
        ("#!/bin/sh\necho '{\"QMP\": {}}'\n", "is not a QEMU system emulator"),
        ("#!/nonexistent/interpreter\n", "cannot be started"),
        ("\0\0 not a program", "cannot be started"),
    ],
)
def test_what_is_no_qemu_is_an_error(tmp_path, text, what):
    with pytest.raises(ProbeError, match=what) as caught:
        probe_qemu(_script(tmp_path, text))
    assert caught.value.why
    assert caught.value.fix
    if "status 3" in what:
        assert "oops" in str(caught.value)
        assert "-qmp stdio" in str(caught.value)


def test_a_program_that_hangs_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr(interview, "_PATIENCE", 0.2)
    with pytest.raises(ProbeError, match="does not answer"):
        probe_qemu(_script(tmp_path, "#!/bin/sh\nexec sleep 30\n"))


def test_missing_and_not_executable(tmp_path):
    with pytest.raises(ProbeError, match="does not exist"):
        probe_qemu(str(tmp_path / "nothing"))
    plain = tmp_path / "plain"
    plain.write_text("x")
    for path in (plain, tmp_path):
        with pytest.raises(ProbeError, match="not an executable file"):
            probe_qemu(str(path))


def test_another_architecture_is_an_error(tmp_path):
    with pytest.raises(ProbeError, match="emulates x86_64, not riscv64") as caught:
        probe_qemu(_fake(tmp_path), "riscv64")
    assert "{arch}" in caught.value.fix


def test_the_wish_may_be_a_binary_a_directory_or_a_pattern(tmp_path, monkeypatch):
    binary = _fake(tmp_path)
    for wish in (binary, str(tmp_path), f"{tmp_path}/qemu-system-{{arch}}"):
        monkeypatch.setenv("TINAMOU_QEMU", wish)
        assert find_binary("x86_64") == binary
    for wish, what in (
        (binary, "emulates x86_64, not aarch64"),
        (str(tmp_path), "does not exist"),
        ("/no/{arch}", "/no/aarch64"),
    ):
        monkeypatch.setenv("TINAMOU_QEMU", wish)
        with pytest.raises(ProbeError, match=what) as caught:
            find_binary("aarch64")
        assert caught.value.fix
    monkeypatch.setenv("TINAMOU_QEMU", _script(tmp_path, FAKE, "my-qemu"))
    assert find_binary("aarch64").endswith("my-qemu")


def test_without_a_wish_the_path_is_searched(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("tinamou.probe.qemu._ELSEWHERE", ())
    with pytest.raises(ProbeError, match="qemu-system-x86_64 was not found") as caught:
        find_binary("x86_64")
    assert "apt install" in caught.value.fix
    binary = _fake(tmp_path)
    assert find_binary("x86_64") == binary


def test_answers_are_believed_until_the_binary_changes(tmp_path, monkeypatch):
    binary = _fake(tmp_path)
    first = probe_qemu(binary)
    monkeypatch.setattr(interview, "ask", lambda *_: pytest.fail("asked again"))
    assert probe_qemu(binary) == first
    monkeypatch.undo()
    monkeypatch.setenv("TINAMOU_CACHE", str(tmp_path / "cache"))
    stat = Path(binary).stat()
    Path(binary).write_text(FAKE.replace("DEADLY", "'n'").replace('"minor": 1', '"minor": 2'))
    Path(binary).write_text(Path(binary).read_text().ljust(stat.st_size)[: stat.st_size])
    import os

    os.utime(binary, ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert probe_qemu(binary).version == (9, 2, 0)


@pytest.mark.parametrize("damage", [b"", b"{", b"{}\n{}", b"\xff", None])
def test_a_damaged_cache_is_probed_anew(tmp_path, own_cache, damage):
    binary = _fake(tmp_path)
    first = probe_qemu(binary)
    [stored] = (own_cache / "facts").glob("qemu-*.json")
    content = stored.read_bytes()
    stored.write_bytes(content.replace(b"nvme", b"nvmf") if damage is None else damage)
    assert probe_qemu(binary) == first
    assert stored.read_bytes() == content


def test_facts_of_another_format_or_shape_are_probed_anew(tmp_path, own_cache, monkeypatch):
    binary = _fake(tmp_path)
    identity = [*cache.binary_identity(binary), FINGERPRINT]
    first = probe_qemu(binary)
    assert cache.load("qemu", binary, identity, qemu_from) == first
    assert cache.load("qemu", binary, [*identity[:-1], 0], qemu_from) is None
    for odd in ([], {"version": 3}, None, {**to_plain(first), "types": 3}, {**to_plain(first), "machines": [{"x": 1}]}):
        cache.store("qemu", binary, identity, odd)
        assert cache.load("qemu", binary, identity, qemu_from) is None
        assert probe_qemu(binary) == first
    monkeypatch.setattr(cache, "FORMAT", 999)
    assert cache.load("qemu", binary, identity, qemu_from) is None
    assert [path.name for path in (own_cache / "facts").iterdir() if path.name.startswith(".")] == []


def test_a_cache_that_cannot_be_written_is_no_error(tmp_path, own_cache):
    own_cache.write_text("in the way")
    assert probe_qemu(_fake(tmp_path)).version == (9, 1, 0)


def test_options_of_the_help():
    assert option_names("-a x  text -no\n\n        -indented\n-b/-c y\n-d or -e\n--double") == {"a", "b", "c", "d", "e"}


@pytest.mark.parametrize("version", recorded.VERSIONS)
@pytest.mark.parametrize("arch", recorded.ARCHES)
def test_recordings_are_whole(version, arch):
    facts = recorded.qemu(version, arch)
    assert qemu_from(json.loads(json.dumps(to_plain(facts)))) == facts
    assert facts.arch == arch
    assert facts.notes == ()
    assert all(facts.has(f"type:{name}") for name in facts.properties if not name.endswith("-machine"))
    for feature in ("netdev:user", "blockdev:qcow2", "chardev:socket", "display:none", "migration:events", "accel:tcg"):
        assert facts.has(feature), feature
    assert facts.has("property:memory-backend-file.rom") == (version != "7.2")
    assert facts.has("option:run-with") == (version != "7.2")
    assert facts.has("migration:mapped-ram") == (version != "7.2")


def test_the_other_recordings_are_whole():
    assert {one.targets[0][0] for one in recorded.firmware()} == set(recorded.ARCHES)
    for name in recorded.ACCELS:
        facts = recorded.accel(name, "x86_64")
        assert accel_from(to_plain(facts)) == facts
        assert facts.best()


OF_OTHER_PACKAGES = {
    *(
        "audio-dbus",
        "audio-spice",
        "chardev-dbus",
        "chardev-spiceport",
        "chardev-spicevmc",
        "dbus-display",
        "qxl",
        "qxl-vga",
    ),
    *("virtio-gpu-gl-device", "virtio-gpu-gl-pci", "virtio-gpu-virgl-hostmem-region", "virtio-vga-gl"),
}
"""Types of Debian's qemu-system-modules-opengl and -spice, which a binary has where these are installed."""


@pytest.mark.parametrize("version", recorded.VERSIONS)
@pytest.mark.parametrize("arch", recorded.ARCHES)
def test_the_real_binary_says_what_was_recorded(version, arch, program_of):
    real, known = probe_qemu(program_of(version, f"qemu-system-{arch}"), cached=False), recorded.qemu(version, arch)
    if real.package != known.package:
        pytest.skip(f"recorded from {known.package}, here is {real.package}")
    told = {field.name for field in dataclasses.fields(real)} - {"binary", "data_dirs", "loads", "notes", "types"}
    if real.notes:
        assert real.types < known.types
    else:
        assert real.types ^ known.types <= OF_OTHER_PACKAGES
    kinds = real.properties.keys() | known.properties.keys()
    here, recording = ({kind: facts.properties.get(kind) for kind in kinds} for facts in (real, known))
    assert {kind: (here[kind], recording[kind]) for kind in kinds if here[kind] != recording[kind]} == {}
    assert {name for name in told if getattr(real, name) != getattr(known, name)} == set()
