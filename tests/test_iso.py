"""An ISO image made here is read back by other programs, and bad names are refused."""

import os
import shutil
import subprocess

import pytest

from tinamou.system.iso import build_iso

SEED = {
    "user-data": "#cloud-config\nhostname: größe\n",
    "meta-data": "instance-id: a\n",
    "network-config": b"version: 2\n",
    "empty": "",
    "openstack/latest/meta_data.json": "{}",
    "openstack/latest/user_data": "x" * 5000,
}


def read_with_xorriso(path, folder):
    command = ["xorriso", "-osirrox", "on", "-indev", path, "-extract", "/", folder]
    subprocess.run(command, check=True, capture_output=True)
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.rglob("*")) if file.is_file()}


@pytest.mark.skipif(not shutil.which("xorriso"), reason="xorriso is not installed")
def test_other_programs_read_it(tmp_path):
    path = tmp_path / "seed.iso"
    build_iso(path, "CIDATA", SEED)
    expected = {name: text.encode() if isinstance(text, str) else text for name, text in SEED.items()}
    assert read_with_xorriso(path, tmp_path / "out") == expected


@pytest.mark.skipif(not shutil.which("isoinfo"), reason="isoinfo is not installed")
@pytest.mark.parametrize("names", ["-R", "-J"])
def test_both_name_tables(tmp_path, names):
    path = tmp_path / "seed.iso"
    build_iso(str(path), "CIDATA", SEED)
    listed = subprocess.run(["isoinfo", names, "-f", "-i", path], check=True, capture_output=True, text=True).stdout
    assert {f"/{name}" for name in SEED} <= set(listed.split())
    about = subprocess.run(["isoinfo", "-d", "-i", path], check=True, capture_output=True, text=True).stdout
    assert "Volume id: CIDATA" in about and "Rock Ridge" in about and "Joliet" in about
    text = subprocess.run(["isoinfo", names, "-i", path, "-x", "/user-data"], check=True, capture_output=True).stdout
    assert text == SEED["user-data"].encode()


@pytest.mark.root
@pytest.mark.skipif(os.geteuid() != 0, reason="mounting needs root")
def test_the_kernel_mounts_it(tmp_path):
    path, where = tmp_path / "seed.iso", tmp_path / "mount"
    build_iso(path, "CIDATA", SEED)
    where.mkdir()
    mounted = subprocess.run(
        ["mount", "-o", "loop,ro", "-t", "iso9660", path, where], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"this kernel does not mount it: {mounted.stderr.strip()}")
    try:
        assert (where / "openstack/latest/user_data").read_text() == SEED["openstack/latest/user_data"]
    finally:
        subprocess.run(["umount", where], check=True)


def test_replaces_and_leaves_nothing(tmp_path):
    path = tmp_path / "seed.iso"
    build_iso(path, "CIDATA", {"a": "1"})
    first = path.read_bytes()
    build_iso(path, "CIDATA", {"a": "2"})
    assert path.read_bytes() != first
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("label", ["", "cidata", "A B", "ABCDEFGHIJKLMNOPQ"])
def test_label_refused(tmp_path, label):
    with pytest.raises(ValueError, match="label"):
        build_iso(tmp_path / "x.iso", label, {"a": ""})


@pytest.mark.parametrize("files", [{"": ""}, {"/etc": ""}, {"../a": ""}, {"a": "", "a/b": ""}, {"n" * 65: ""}, {"a//b": ""}])
def test_names_refused(tmp_path, files):
    with pytest.raises(ValueError, match=r"name|folder"):
        build_iso(tmp_path / "x.iso", "CIDATA", files)
    assert list(tmp_path.iterdir()) == []
