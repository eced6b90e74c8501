"""Descriptions from elsewhere that would have files of this host opened: each is refused, and names what it wanted."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from appliances import as_vmdk, ova, ovf, vbox, vmx
from greeting import greeting_disk

from tinamou.convert import files, kinds, writing
from tinamou.errors import ImageError, SpecError
from tinamou.images import part

BOMB = '<!DOCTYPE x [<!ENTITY a "aaaaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">]>'
EXTERNAL = '<!DOCTYPE x [<!ENTITY c SYSTEM "file:///etc/passwd">]>'
OUTSIDE = ["/etc/passwd", "../../etc/passwd", "sub/../../x", "file:///etc/passwd", "http://x.org/d", "C:\\d.vmdk", "..\\d"]
LIBVIRT = "<domain type='kvm'><name>&c;</name></domain>"
TEXTS = [LIBVIRT, ovf().partition("?>")[2], vbox().partition("?>")[2]]


def looked(text: str, folder: Path, *trusted: Path):
    draft = kinds.read(text)
    return files.look(draft, folder, trusted)


@pytest.mark.parametrize("document", [BOMB, EXTERNAL, '<!DOCTYPE x SYSTEM "http://example.org/x.dtd">'])
@pytest.mark.parametrize(
    "text", [LIBVIRT, ovf().partition("?>")[2], vbox().partition("?>")[2]], ids=["libvirt", "ovf", "vbox"]
)
def test_document_types_and_entities(document, text):
    with pytest.raises(SpecError, match="is refused"):
        kinds.read(document + text)


@pytest.mark.parametrize("href", OUTSIDE)
def test_references_of_an_ovf(href):
    with pytest.raises(ImageError) as refused:
        kinds.read(ovf(href))
    assert href in str(refused.value)


@pytest.mark.parametrize("source", [vmx, vbox])
@pytest.mark.parametrize("name", ["/etc/passwd", "../secret.img"])
def test_disks_outside_the_folder(source, name, tmp_path):
    folder = tmp_path / "machine"
    folder.mkdir()
    greeting_disk(tmp_path / "secret.img")
    with pytest.raises(ImageError) as refused:
        looked(source(name), folder)
    assert name in str(refused.value) and "--trust" in str(refused.value)


def test_a_trusted_folder(tmp_path):
    folder = tmp_path / "machine"
    folder.mkdir()
    greeting_disk(tmp_path / "other.img")
    seen = looked(vmx("../other.img"), folder, tmp_path)
    assert seen["../other.img"].boots == ("bios",)


def test_a_link_that_leads_outside(tmp_path):
    folder = tmp_path / "machine"
    folder.mkdir()
    greeting_disk(tmp_path / "secret.img")
    (folder / "web.vmdk").symlink_to(tmp_path / "secret.img")
    with pytest.raises(ImageError, match=r"web\.vmdk"):
        looked(vmx(), folder)


def descriptor(extent: str) -> str:
    lines = ["# Disk DescriptorFile", "version=1", "CID=fffffffe", "parentCID=ffffffff", 'createType="monolithicFlat"']
    return "\n".join([*lines, f'RW 8192 FLAT "{extent}" 0', ""])


def test_an_extent_and_a_backing_file_outside(tmp_path):
    folder = tmp_path / "machine"
    folder.mkdir()
    secret = greeting_disk(tmp_path / "secret.img")
    (folder / "web.vmdk").write_text(descriptor(str(secret)))
    with pytest.raises(ImageError, match=r"secret\.img"):
        looked(vmx(), folder)
    words = ["qemu-img", "create", "-q", "-f", "qcow2", "-b", str(secret), "-F", "raw", str(folder / "web.vmdk")]
    subprocess.run(words, check=True)
    with pytest.raises(ImageError, match=r"secret\.img"):
        looked(vmx(), folder)


def test_a_raw_disk_whose_guest_wrote_a_header_into_it(tmp_path):
    disk = tmp_path / "d.img"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", str(disk), "1M"], check=True)
    source = f"<disk type='file'><driver type='raw'/><source file='{disk}'/><target dev='vda' bus='virtio'/></disk>"
    with pytest.raises(ImageError, match="said to be raw"):
        looked(f"<domain type='kvm'><name>a</name><devices>{source}</devices></domain>", tmp_path)


def disk_of(path: Path) -> tuple[Path, tuple[int, int]]:
    """The first disk of an OVA: the archive, and where the disk lies in it."""
    _, draft = files.read_source(path)
    assert draft is not None
    [disk] = [one for one in draft.disks if one.part]
    return Path(disk.file), disk.part


def test_a_disk_of_an_ova_is_checked_where_it_lies(tmp_path):
    whole = as_vmdk(greeting_disk(tmp_path / "d.img"), tmp_path / "d.vmdk")
    assert part.check_part(*disk_of(ova(tmp_path / "a.ova", whole))) == "vmdk"


def test_a_disk_of_an_ova_that_is_a_description_of_another_file(tmp_path):
    planted = tmp_path / "d.vmdk"
    planted.write_text(descriptor("/etc/passwd"))
    with pytest.raises(ImageError, match="other files"):
        part.check_part(*disk_of(ova(tmp_path / "a.ova", planted)))


def test_a_disk_of_an_ova_with_a_parent(tmp_path):
    whole = as_vmdk(greeting_disk(tmp_path / "d.img"), tmp_path / "d.vmdk", "monolithicSparse")
    data = bytearray(whole.read_bytes())
    at = data.index(b"parentCID=ffffffff")
    hint = b'parentCID=00000001\nparentFileNameHint="/etc/passwd"\n'
    data[at : at + len(hint)] = hint
    whole.write_bytes(data)
    with pytest.raises(ImageError, match="/etc/passwd"):
        part.check_part(*disk_of(ova(tmp_path / "a.ova", whole)))


def test_a_disk_of_an_ova_of_another_format(tmp_path):
    secret = greeting_disk(tmp_path / "secret.img")
    planted = tmp_path / "d.qcow2"
    subprocess.run(["qemu-img", "create", "-q", "-f", "qcow2", "-b", secret, "-F", "raw", planted], check=True)
    with pytest.raises(ImageError, match="not vmdk"):
        part.check_part(*disk_of(ova(tmp_path / "a.ova", planted)))


def test_a_damaged_ova(tmp_path):
    whole = as_vmdk(greeting_disk(tmp_path / "d.img"), tmp_path / "d.vmdk")
    with pytest.raises(ImageError, match=r"disk1\.vmdk.* is damaged"):
        files.read_source(ova(tmp_path / "a.ova", whole, digest="0" * 64))
    with pytest.raises(ImageError, match=r"other\.vmdk"):
        files.read_source(ova(tmp_path / "b.ova", whole, ovf("other.vmdk")))
    cut = ova(tmp_path / "c.ova", whole)
    cut.write_bytes(cut.read_bytes()[:3000])
    with pytest.raises((SpecError, ImageError)):
        files.read_source(cut)


def test_what_would_move_the_cursor_of_a_reader():
    escape = chr(27) + "[2J"
    draft = kinds.read(vmx(more=f'strange.key = "{escape}"'))
    assert all(escape not in str(note) for note in draft.notes)
    assert escape not in writing.text(draft.machine, f"a{escape}\nb = 1")
    assert "\nb = 1" not in writing.text({}, "a\nb = 1")


def test_an_image_is_no_description(tmp_path):
    with pytest.raises(SpecError, match="describes no machine"):
        files.read_source(greeting_disk(tmp_path / "d.img"))
