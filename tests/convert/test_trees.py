"""Sources that are nested data or settings of clusters and small monitors: what becomes of them, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from reading import converted, said

from tinamou.convert import kinds, tree, xl
from tinamou.convert.assemble import assemble
from tinamou.errors import SpecError
from tinamou.machine import inward

CORPUS = Path(__file__).parent / "corpus"
STORES = """dir: local
\tpath /var/lib/vz
\tcontent iso,vztmpl

lvmthin: local-lvm
\tvgname pve
\tthinpool data

zfspool: tank
\tpool rpool/data

nfs: far
\tserver 10.0.0.1
"""


def of(name: str):
    return converted((CORPUS / name).read_text())


@pytest.mark.parametrize(
    ("name", "kind", "fields"),
    [
        ("kubevirt.yaml", "kubevirt", {"name": "testvm", "memory": {"size": "2G"}}),
        ("incus.yaml", "incus", {"name": "web", "memory": {"size": "4G"}}),
        ("lima.yaml", "lima", {"memory": {"size": "2G"}, "cpu": {"count": 2}}),
        ("web.pve", "proxmox", {"name": "web", "memory": {"size": "4G"}}),
        ("guest.xl", "xl", {"name": "debian", "memory": {"size": "2G"}}),
        ("machine.ini", "readconfig", {"memory": {"size": "2G"}, "cpu": {"count": 2}}),
        ("podman.json", "podman", {"name": "podman-machine-default", "memory": {"size": "2G"}}),
        ("firecracker.json", "firecracker", {"image": "none", "cpu": {"count": 2}}),
        ("cloud-hypervisor.json", "cloud-hypervisor", {"image": "none", "memory": {"size": "1G"}}),
    ],
)
def test_each_is_known_by_its_content(name, kind, fields):
    text = (CORPUS / name).read_text()
    assert kinds.kind_of(text) == kind
    machine = of(name).machine
    assert {key: machine[key] for key in fields} == fields


def test_a_volume_of_proxmox_is_a_path_by_its_storage(tmp_path):
    text = (CORPUS / "web.pve").read_text() + ""
    more = (
        "scsi2: tank:vm-1-disk-9,size=1G\nscsi3: far:1/a.raw\nscsi4: /dev/disk/by-id/x\nide3: local:iso/i.iso,media=cdrom\n"
    )
    draft = kinds.read(text.replace("scsihw:", f"{more}scsihw:"), companion=lambda name: STORES * (name == "storage.cfg"))
    files = {disk.where: disk.file for disk in draft.disks}
    assert files == {
        "scsi0": "/dev/pve/vm-100-disk-0",
        "scsi1": "/var/lib/vz/images/100/vm-100-disk-0.qcow2",
        "scsi2": "/dev/zvol/rpool/data/vm-1-disk-9",
        "scsi3": "/mnt/pve/far/images/1/a.raw",
        "scsi4": "/dev/disk/by-id/x",
        "ide3": "/var/lib/vz/template/iso/i.iso",
    }
    assert not said(assemble(draft, {}), "storage.cfg")
    (tmp_path / "100.conf").write_text(text)
    assert said(inward.of_file(tmp_path / "100.conf"), "storage.cfg", rank="check")
    (tmp_path / "storage.cfg").write_text(STORES)
    made = inward.of_file(tmp_path / "100.conf")
    assert made.machine["image"] == "/dev/pve/vm-100-disk-0" and not said(made, "storage.cfg")


def test_what_is_pending_or_a_snapshots_is_told_and_not_taken():
    made = converted(
        "cores: 2\nmemory: 1024\nscsihw: lsi\n[PENDING]\nmemory: 2048\n[special:cloudinit]\ncipassword: hunter2\n"
    )
    assert made.machine["memory"]["size"] == "1G"
    assert said(made, "PENDING", "2048", rank="check")
    assert not said(made, "hunter2")


def test_user_data_reaches_the_guest_and_secrets_stay_out_of_notes():
    assert of("kubevirt.yaml").machine["seed"]["user_data"].startswith("#cloud-config\n")
    assert of("incus.yaml").machine["seed"]["user_data"].startswith("#cloud-config\n")
    assert not said(of("guest.xl"), "hunter2")


def test_a_container_and_a_machine_without_a_description_are_refused():
    with pytest.raises(SpecError, match="container"):
        converted("architecture: x86_64\nconfig: {}\ntype: container\nname: c\n")
    with pytest.raises(SpecError, match="nothing tinamou converts"):
        converted("kind: Pod\nmetadata:\n  name: a\n")


@pytest.mark.timeout(120)
@pytest.mark.parametrize(
    "text",
    [
        "a: &a [x, x, x, x, x, x, x, x, x]\n"
        + "".join(f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join([f'*{chr(97 + i)}'] * 9)}]\n" for i in range(9)),
        "a: &a [*a]\n",
        "{" * 5000,
        "a: " + "[" * 400 + ", ".join("x" * 60000) + "]" * 400,
        "? {a: b}\n: c\n",
        "a: 1\na: 2\n",
        "a: !!python/object/apply:os.system [x]\n  b",
        "x" * (300 << 10),
    ],
    ids=["grows", "within itself", "deep", "deep and long", "key", "twice", "tag", "large"],
)
def test_yaml_that_grows_or_says_a_thing_twice_is_refused_at_once(text):
    with pytest.raises(SpecError):
        tree.of_yaml(text, "it")


def test_yaml_is_texts_and_json_has_each_key_once():
    [node] = tree.of_yaml("mac: 52:54:00:12:34:56\non: yes\nnone: ~\nempty: {}\nquoted: '~'\n", "it")
    assert node.text_at("mac") == "52:54:00:12:34:56" and node.text_at("on") == "yes" and node.text_at("quoted") == "~"
    assert not node.at("none") and node.has("empty")
    assert list(node.unread()) == []
    with pytest.raises(SpecError, match="twice"):
        tree.of_json('{"a": 1, "a": 2}', "it")


def test_what_nobody_asked_of_a_tree_is_left_with_its_place():
    [node] = tree.of_yaml("a: {b: [x, {c: 1}], d: {}}\n", "it")
    assert node.at("a.b").items()[0].text == "x"
    assert list(node.unread()) == [("a.b[1].c", "1"), ("a.d", "{}")]


XL_VALUES = {
    "'a'": "a",
    '"a\\"b"': 'a"b',
    "0x10": "16",
    "010": "8",
    "-5 # five": "-5",
    "1.5": "1.5",
    "['a', \"b\",] # two": ["a", "b"],
    "['a',\n# not yet\n'b']": ["a", "b"],
    "[]": [],
    "1if 2else 3": None,
    "12abc": None,
    "1_000": None,
    "['a'": None,
    "[,]": None,
    "['a' 'b']": None,
    "f(1)": None,
    "": None,
    "0x": None,
}


def test_a_damaged_value_of_xen_is_none_and_prints_nothing(recwarn: pytest.WarningsRecorder) -> None:
    """Python's own reader warns on stderr of what a foreign file has: "invalid decimal literal"."""
    assert {text: xl._value(text) for text in XL_VALUES} == XL_VALUES
    # an earlier test's open transport may be collected here: of no interest
    assert [str(one.message) for one in recwarn if not issubclass(one.category, ResourceWarning)] == []
