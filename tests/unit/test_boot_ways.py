"""What is said about starting is in effect, by whichever way the guest starts, or refused by name."""

from __future__ import annotations

import dataclasses

import pytest
from made_facts import DEBIAN, OVMF, TINY, facts

from tinamou.errors import PlanError, SpecError
from tinamou.facts import ImageFacts
from tinamou.launch.argv import argv
from tinamou.parts.boot import guest_of
from tinamou.parts.net import NetSpec, mac_of
from tinamou.planner import plan
from tinamou.spec import load_spec

KERNEL = {"kernel": "/mine/vmlinuz"}
BOTH = {**KERNEL, "initrd": "/mine/initrd"}
FROM_A_DISK = dataclasses.replace(DEBIAN, boots=("bios", "uefi", "direct"))


def started(image, boot, *, throwaway=False, **more):
    known = dataclasses.replace(facts(image), firmware=(OVMF,))
    known = dataclasses.replace(known, place=dataclasses.replace(known.place, throwaway=throwaway))
    return plan(load_spec({"boot": boot, **more}), known)


def after(made, flag):
    line = argv(made)
    return [line[index + 1] for index, word in enumerate(line) if word == flag]


@pytest.mark.parametrize("image", [TINY, DEBIAN])
def test_a_kernel_of_ones_own_takes_the_place_of_the_images_and_of_nothing_else(image):
    made = started(image, KERNEL)
    assert (after(made, "-kernel"), after(made, "-initrd")) == (["/mine/vmlinuz"], ["/images/initrd"])
    assert image.cmdline in after(made, "-append")[0]
    assert any("modules are those of another" in note.text for note in made.notes)
    made = started(DEBIAN, BOTH)
    assert (after(made, "-initrd"), DEBIAN.cmdline in after(made, "-append")[0]) == (["/mine/initrd"], True)


def test_of_a_guest_in_its_initrd_nothing_is_left_beside_another_initrd():
    made = started(TINY, BOTH)
    assert after(made, "-append") == [" ".join(word for word in ("console=ttyS0", "no_timer_check"))]
    assert not guest_of(load_spec({"boot": BOTH}), TINY).agent
    assert guest_of(load_spec({"boot": BOTH}), DEBIAN).agent


def test_no_image_at_all():
    made = started(ImageFacts("none", "x86_64", boots=("direct",)), {**KERNEL, "cmdline": "panic=1"})
    assert not after(made, "-initrd")
    assert after(made, "-append")[0].endswith("panic=1")


@pytest.mark.parametrize("throwaway", [True, False])
def test_uefi_starts_a_kernel_that_qemu_hands_it(throwaway):
    made = started(DEBIAN, {**KERNEL, "firmware": "uefi", "cmdline": "a=b"}, throwaway=throwaway, disk={"size": "1G"})
    assert (after(made, "-kernel"), after(made, "-initrd")) == (["/mine/vmlinuz"], ["/images/initrd"])
    assert after(made, "-append")[0].endswith("a=b")
    nodes = [element.props.get("node-name") for element in made.elements]
    assert {"flash0", "flash1", "disk1"} <= set(nodes)
    assert not any("bootindex" in element.props for element in made.elements)  # the first is the kernel's, QEMU refuses two
    assert [flag.why.asked_by for flag in made.flags if flag.name == "kernel"] == ["spec boot.kernel"]
    made = started(DEBIAN, KERNEL, throwaway=throwaway)  # nobody asked for UEFI
    assert "flash0" not in [element.props.get("node-name") for element in made.elements]


@pytest.mark.parametrize("throwaway", [True, False])
@pytest.mark.parametrize(
    ("boot", "flag"), [({"cmdline": "a=b"}, "-append"), ({"menu": True}, "-boot"), ({"order": "disk0"}, "-boot")]
)
def test_what_only_one_way_does_decides_for_it(boot, flag, throwaway):
    for image in (DEBIAN, FROM_A_DISK):
        made = started(image, boot, throwaway=throwaway)
        assert bool(after(made, "-kernel")) == (flag == "-append")
        assert "a=b" in after(made, flag)[0] if flag == "-append" else not after(made, "-append")
    assert ("menu=on" in " ".join(after(made, "-boot"))) == ("menu" in boot)


@pytest.mark.parametrize("firmware", ["bios", "uefi"])
def test_the_menu_of_either_firmware(firmware):
    assert "menu=on" in after(started(DEBIAN, {"firmware": firmware, "menu": True}), "-boot")


@pytest.mark.parametrize(
    ("boot", "path"),
    [
        ({"cmdline": "a=b", "firmware": "bios"}, "boot.cmdline"),
        ({"cmdline": "a=b", "secure": True}, "boot.cmdline"),
        ({"menu": True, "firmware": "direct"}, "boot.menu"),
        ({"order": "disk0", "cmdline": "a=b"}, "boot.order"),
        ({"order": "disk0", **KERNEL}, "boot.order"),
    ],
)
def test_what_the_chosen_way_does_not_do_is_refused(boot, path):
    with pytest.raises(SpecError) as error:
        load_spec({"boot": boot})
    assert [problem.path for problem in error.value.problems] == [path]


@pytest.mark.parametrize(("boot", "path"), [({"menu": True}, "boot.menu"), ({"order": "disk0"}, "boot.order")])
def test_what_no_way_of_the_image_does_is_refused(boot, path):
    with pytest.raises(PlanError) as error:
        started(TINY, boot)
    assert [problem.path for problem in error.value.problems] == [path]


def test_a_fixed_address_reaches_every_guest():
    net = [{"type": "user", "address": "10.0.2.9/24", "gateway": "10.0.2.2"}]
    said = "ip=10.0.2.9::10.0.2.2:255.255.255.0::{}:off:"
    mac = mac_of(NetSpec(), "web", 0).replace(":", "-")
    assert said.format(mac) in after(started(TINY, {}, net=net), "-append")[0]
    assert (
        said.format("eth0") in after(started(ImageFacts("none", "x86_64", boots=("direct",)), KERNEL, net=net), "-append")[0]
    )
    stranger = dataclasses.replace(DEBIAN, seed="", ssh=False)
    for image in (DEBIAN, stranger):
        made = started(image, {"firmware": "bios"}, net=net)
        assert (
            "10.0.2.9/24" in next(step for step in made.steps if type(step).__name__ == "BuildIso").files["network-config"]
        )
