"""Every golden spec, written for libvirt: a real libvirtd takes it, starts it, and its guest answers."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from golden_domains import NOT_STARTED, SPECS, exported, startable
from typed import eventually
from virsh_here import virsh_here

from tinamou.convert.out import formats
from tinamou.convert.out.asked import Place
from tinamou.facts.image import ImageFacts
from tinamou.images.resolve import resolve
from tinamou.spec import load_spec

REFUSED = (
    ("'backend': 'passt'", r"<portForward .*?</portForward>|<backend type=.passt. ?/>", "passt"),
    ("validate against schema", r'<sound model="virtio" ?/>', "10.4"),
)
"""What Debian 12's libvirt says of words that later ones have; what is taken out; a word of the note on it."""


@pytest.fixture(scope="module")
def tiny() -> ImageFacts:
    return resolve("tiny", "x86_64")


@pytest.fixture(scope="module")
def virsh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[..., str]]:
    """``virsh(words…)`` on a libvirtd of the tests' own."""
    with virsh_here(tmp_path_factory.mktemp("virt"), 300) as run:
        yield run


def _defined(virsh: Callable[..., str], text: str, notes: list[str], folder: Path) -> str:
    """The text as libvirt takes it: whole, or without words that a note has told an older one refuses."""
    for _ in range(len(REFUSED) + 1):
        (folder / "a.xml").write_text(text)
        try:
            virsh("define", "--validate", str(folder / "a.xml"))
        except AssertionError as error:
            known = [one for one in REFUSED if one[0] in str(error) and re.search(one[1], text, re.DOTALL)]
            if not known:
                raise
            _, pattern, word = known[0]
            assert any(word in note for note in notes), error
            text = re.sub(pattern, "", text, flags=re.DOTALL)
        else:
            return text
    raise AssertionError(text)


@pytest.mark.slow
@pytest.mark.vm
@pytest.mark.parametrize("spec", SPECS, ids=lambda path: path.stem)
def test_libvirt_starts_every_golden_spec(
    spec: Path, virsh: Callable[..., str], tiny: ImageFacts, open_folder: Path
) -> None:
    written = exported(spec, tiny)
    text = _defined(virsh, written.text, [str(note) for note in written.notes], open_folder)
    virsh("undefine", "--nvram", spec.stem)
    (open_folder / "b.xml").write_text(startable(text, tiny, open_folder))
    virsh("define", "--validate", str(open_folder / "b.xml"))
    try:
        if spec.stem in NOT_STARTED:
            with pytest.raises(AssertionError, match="passthrough"):
                virsh("start", spec.stem)
            return
        virsh("start", spec.stem)

        def answers() -> bool:
            try:
                return virsh("qemu-agent-command", spec.stem, '{"execute": "guest-ping"}').strip() == '{"return":{}}'
            except AssertionError:
                return False

        eventually(answers, "the guest's agent", 240)
        virsh("destroy", spec.stem)
    finally:
        virsh("undefine", "--nvram", spec.stem)


def _libvirt(**fields: object) -> formats.Written:
    return formats.write(load_spec({"image": "/srv/a.qcow2", **fields}), Place(image="/srv/a.qcow2"), "libvirt")


def test_ports_lead_into_an_interface_of_type_user_alone() -> None:
    """libvirt: The 'passt' backend can only be used with interface type='user'."""
    net = {"type": "bridge", "network": "lab", "forward": ["8080:80"]}
    written = _libvirt(net=[net])
    assert "passt" not in written.text and "portForward" not in written.text
    [note] = [one for one in written.notes if one.where == "net[0].forward"]
    assert note.rank == "lost" and note.value == "8080:80"
    assert "<portForward" in _libvirt(net=[{"forward": ["8080:80"]}]).text


@pytest.mark.parametrize(("net", "there"), [({}, 0), ({"type": "passt"}, 0), ({"type": "bridge", "bridge": "br0"}, 1)])
def test_an_mtu_is_written_where_libvirt_sets_one(net: dict[str, str], there: int) -> None:
    written = _libvirt(net=[{**net, "mtu": 1400}])
    assert written.text.count('<mtu size="1400"') == there
    assert [one.rank for one in written.notes if one.where == "net[0].mtu"] == ["lost"] * (1 - there)


def test_sound_that_is_new_in_libvirt_is_told() -> None:
    assert [one.rank for one in _libvirt(devices={"sound": "virtio"}).notes if one.where == "devices.sound"] == ["check"]
    assert not [one for one in _libvirt(devices={"sound": "hda"}).notes if one.where == "devices.sound"]


@pytest.mark.parametrize(("video", "model"), [("ramfb", "ramfb"), ("std", "vga"), ("auto", "none")])
def test_a_card_without_a_screen_is_written(video: str, model: str) -> None:
    written = _libvirt(display={"video": video})
    assert f'<model type="{model}"' in written.text
    assert not [one for one in written.notes if one.where == "display.video"]
