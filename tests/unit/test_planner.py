"""The planner decides the same from the same facts, gives every decision its reason, and refuses what cannot be."""

import dataclasses

import pytest
import recorded
from made_facts import DEBIAN, KVM_FAILS, KVM_WORKS, OVMF, TCG, TINY, facts, of_arch

from tinamou.blueprint import StartHelper
from tinamou.blueprint.stored import plain, plan_from
from tinamou.errors import PlanError, SpecError
from tinamou.launch.argv import argv, keyval, shell_line, spelled
from tinamou.launch.handover import with_descriptors
from tinamou.planner import plan
from tinamou.spec import load_spec


def words(spec=None, some=None):
    return argv(plan(load_spec(spec or {}), some or facts()))


def after(flag, line):
    return [line[index + 1] for index, word in enumerate(line) if word == flag]


@pytest.mark.parametrize("arch", ["x86_64", "aarch64", "riscv64"])
@pytest.mark.parametrize("accel", [KVM_WORKS, TCG])
@pytest.mark.parametrize("image", [TINY, DEBIAN])
def test_no_argument_without_a_reason(arch, accel, image):
    known = facts(of_arch(image, arch), accel)
    if arch == "riscv64":
        known = dataclasses.replace(
            known, qemu=dataclasses.replace(known.qemu, machines=(dataclasses.replace(known.qemu.machines[0]),))
        )
    made = plan(load_spec({"disk": [{"size": "1G"}], "display": "vnc"}), known)
    assert all(why.reason and why.asked_by for _, why in spelled(made))
    assert all(step.why.reason for step in made.steps)
    assert plan(load_spec({"disk": [{"size": "1G"}], "display": "vnc"}), known) == made


@pytest.mark.parametrize(("version", "modules"), [("7.2", True), ("10.0", False), ("11.1", True)])
def test_spice_needs_its_modules(version, modules):
    """QEMU 10 was recorded without them, and knows the option all the same."""
    known = dataclasses.replace(facts(), qemu=recorded.qemu(version, "x86_64"))
    assert known.qemu.has("option:spice")
    if modules:
        assert "-spice" in words({"display": "spice"}, known)
    else:
        with pytest.raises(PlanError, match=r"has no SPICE.*qemu-system-modules-spice"):
            words({"display": "spice"}, known)


def thrown_away(known):
    return dataclasses.replace(known, place=dataclasses.replace(known.place, throwaway=True))


def test_fast_direct_boot():
    line = words({}, thrown_away(facts()))
    assert after("-kernel", line) == ["/images/vmlinux"]
    assert after("-kernel", words({"forkable": True}, thrown_away(facts()))) == ["/images/vmlinux"]
    assert after("-kernel", words()) == ["/images/vmlinuz"]
    assert "hpet=off" in after("-machine", line)[0]
    assert "no_timer_check" in after("-append", line)[0].split()


def test_the_image_is_never_written():
    made = plan(load_spec({}), facts(DEBIAN))
    base = next(e for e in made.elements if e.id == "disk0-base")
    assert base.props["read-only"] is True
    assert {s.path: s.access for s in made.steps if type(s).__name__ == "HandOver"}["/images/debian.qcow2"] == "read"


def test_uefi_has_a_variable_store_of_its_own():
    line = words({"firmware": "uefi"}, facts(DEBIAN))
    assert any("/var/lib/tinamou/machines/web/vars.fd" in word for word in after("-blockdev", line))
    assert "pflash0=flash0" in after("-machine", line)[0]


def test_uefi_without_firmware_is_refused():
    bare = dataclasses.replace(facts(DEBIAN), firmware=())
    with pytest.raises(PlanError) as error:
        plan(load_spec({"firmware": "uefi"}), bare)
    assert error.value.problems[0].path == "boot.firmware"


SECURE = dataclasses.replace(
    OVMF,
    executable="/usr/share/OVMF/OVMF_CODE_4M.ms.fd",
    template="/usr/share/OVMF/OVMF_VARS_4M.ms.fd",
    features=frozenset({"enrolled-keys", "requires-smm", "secure-boot"}),
)


def test_secure_boot_takes_enrolled_keys_and_guards_them():
    known = dataclasses.replace(facts(DEBIAN), firmware=(OVMF, SECURE))
    line = words({"boot": {"secure": True}}, known)
    assert any("OVMF_CODE_4M.ms.fd" in word for word in after("-blockdev", line))
    assert "smm=on" in after("-machine", line)[0].split(",") and "smm=off" not in after("-machine", line)[0]
    assert after("-global", line) == [
        "driver=cfi.pflash01,property=secure,value=on",
        "driver=ICH9-LPC,property=disable_s3,value=1",
    ]
    plain = words({"firmware": "uefi"}, dataclasses.replace(known, firmware=(SECURE, OVMF)))
    assert any("OVMF_CODE_4M.fd" in word for word in after("-blockdev", plain)) and "-global" not in plain


def test_secure_boot_takes_no_firmware_without_a_store_for_its_keys():
    measured = dataclasses.replace(
        SECURE, device="memory", template="", features=frozenset({"enrolled-keys", "secure-boot", "intel-tdx"})
    )
    with pytest.raises(PlanError):
        plan(load_spec({"boot": {"secure": True}}), dataclasses.replace(facts(DEBIAN), firmware=(measured,)))
    known = dataclasses.replace(facts(DEBIAN), firmware=(measured, SECURE))
    assert SECURE.executable in " ".join(words({"boot": {"secure": True}}, known))


def test_secure_boot_without_firmware_for_it_is_refused():
    with pytest.raises(PlanError) as error:
        plan(load_spec({"boot": {"secure": True}}), facts(DEBIAN))
    assert error.value.problems[0].path == "boot.secure" and "ovmf" in error.value.problems[0].fix


@pytest.mark.parametrize("beside", [{"firmware": "bios"}, {"firmware": "direct"}, {"kernel": "/boot/vmlinuz"}])
def test_secure_boot_beside_what_checks_nothing_is_refused(beside):
    with pytest.raises(SpecError) as error:
        load_spec({"boot": {"secure": True, **beside}})
    assert error.value.problems[0].path == "boot.secure"


def test_secure_boot_of_a_guest_without_boot_loader_is_refused():
    with pytest.raises(PlanError) as error:
        plan(load_spec({"boot": {"secure": True}}), dataclasses.replace(facts(TINY), firmware=(SECURE,)))
    assert "tiny" in error.value.problems[0].reason


@pytest.mark.parametrize(("arch", "device"), [("x86_64", "tpm-crb"), ("aarch64", "tpm-tis-device")])
def test_a_tpm_has_an_emulator_under_a_user_of_its_own(arch, device):
    made = plan(load_spec({"tpm": True}), facts(of_arch(TINY, arch)))
    assert [e.props["driver"] for e in made.elements if e.props.get("tpmdev") == "tpm0"] == [device]
    helper = next(step for step in made.steps if isinstance(step, StartHelper) and step.name == "swtpm")
    assert helper.owner not in (None, made.confinement.uid)
    assert not any("tpm" in word for word in words({"tpm": False}))


def test_a_tpm_is_no_hindrance_to_a_copy_but_another_helper_is():
    saved = plain(plan(load_spec({"tpm": True, "net": []}), facts()))
    assert saved["outside"] == []
    assert [step.name for step in plan_from(saved).steps if isinstance(step, StartHelper)] == ["swtpm"]
    assert plain(plan(load_spec({"tpm": True, "net": [{"type": "passt"}]}), facts()))["outside"] == ["net (passt)"]


def test_a_tpm_keeps_the_initrd_away_from_its_tables():
    """Entered through PVH, QEMU would put the initrd over the ACPI tables, which a TPM's log moves down."""
    assert after("-kernel", words({"tpm": True}, thrown_away(facts()))) == ["/images/vmlinuz"]


def test_a_tpm_without_its_emulator_is_refused():
    bare = facts()
    bare = dataclasses.replace(bare, host=dataclasses.replace(bare.host, tools={}))
    with pytest.raises(PlanError) as error:
        plan(load_spec({"tpm": True, "net": []}), bare)
    assert "swtpm and swtpm_setup" in error.value.problems[0].reason
    assert "install swtpm" in error.value.problems[0].fix


def test_an_image_that_cannot_start_this_way_is_refused():
    with pytest.raises(PlanError) as error:
        plan(load_spec({"firmware": "bios"}), facts(TINY))
    assert "direct" in error.value.problems[0].reason


def test_an_image_on_which_nothing_boots_is_refused_as_such():
    with pytest.raises(PlanError) as error:
        plan(load_spec({"image": "data.img"}), facts(dataclasses.replace(DEBIAN, name="data.img", boots=())))
    assert error.value.problems[0].path == "image"
    assert "no boot loader" in error.value.problems[0].reason


def test_an_accelerator_that_failed_is_refused_when_named():
    with pytest.raises(PlanError) as error:
        plan(load_spec({"accel": "kvm"}), facts(TINY, KVM_FAILS, TCG))
    assert "POPCNT" in str(error.value)
    assert "enable nesting" in error.value.fix
    with pytest.raises(PlanError, match="not available"):
        plan(load_spec({"accel": "hvf"}), facts(TINY, TCG))


def test_auto_that_lands_on_emulation_says_so():
    assert [note.level for note in plan(load_spec({}), facts(TINY, KVM_FAILS, TCG)).notes] == ["warning"]
    assert not plan(load_spec({}), facts(TINY, KVM_WORKS, TCG)).notes


def test_what_the_trial_found_is_dropped_from_the_cpu():
    needy = dataclasses.replace(KVM_WORKS, needs=("-arch-capabilities",))
    assert after("-cpu", words({}, facts(TINY, needy))) == ["host,-arch-capabilities"]


def test_kvm_is_reached_through_its_group():
    assert plan(load_spec({}), facts(TINY, KVM_WORKS)).confinement.groups == (104,)
    assert plan(load_spec({}), facts(TINY, TCG)).confinement.groups == ()
    assert plan(load_spec({}), facts(TINY, KVM_WORKS, uid=None)).confinement.groups == ()


def test_parallel_vcpus_where_the_memory_order_allows():
    assert "thread=multi" in after("-accel", words({"cpus": 2}))[0]
    weak = facts()
    weak = dataclasses.replace(weak, host=dataclasses.replace(weak.host, arch="aarch64"))
    assert "thread=single" in after("-accel", words({"cpus": 2}, weak))[0]


def test_too_many_devices_and_cpus():
    with pytest.raises(PlanError, match="do not fit on the PCI bus"):
        plan(load_spec({"disk": ["/a.raw"] * 40}), facts())
    with pytest.raises(PlanError) as error:
        plan(load_spec({"cpus": 1000}), facts())
    assert error.value.problems[0].path == "cpu.count"


def test_the_escape_hatch_is_shown():
    made = plan(load_spec({"qemu_args": ["-watchdog-action", "pause"]}), facts())
    assert argv(made)[-2:] != ["-watchdog-action"]
    assert "-watchdog-action" in argv(made)
    assert any("unchecked" in note.text for note in made.notes)


def test_a_port_leads_to_the_ssh_server_of_a_guest_that_may_have_one():
    assert plan(load_spec({}), facts(DEBIAN)).ssh_port == 2222
    assert plan(load_spec({}), facts(TINY)).ssh_port is None


def test_spelling():
    assert keyval({"a": "x,y", "b": True, "c": 3}) == ["a=x,,y", "b=on", "c=3"]
    assert shell_line(["qemu", "-m", "1 G", "-S"]) == "qemu \\\n  -m '1 G' \\\n  -S"


def test_descriptors_take_the_place_of_paths():
    made = plan(load_spec({}), facts(DEBIAN))
    paths = [s.path for s in made.steps if type(s).__name__ == "HandOver"]
    numbers = {path: 100 + index for index, path in enumerate(paths)}
    line = argv(with_descriptors(made, numbers))
    assert after("-kernel", line) == [f"/dev/fd/{numbers['/images/vmlinuz']}"]
    nodes = " ".join(after("-blockdev", line) + after("-chardev", line))
    assert "/var/lib/tinamou" not in nodes
    assert "/dev/fdset/" in nodes
    assert f"fd={numbers['/var/lib/tinamou/machines/web/qmp.sock']}" in nodes


def test_a_seed_where_it_is_known_to_be_read_or_asked_for():
    stranger = dataclasses.replace(DEBIAN, seed="", ssh=False)
    disc = "/var/lib/tinamou/machines/web/seed.iso"
    assert not any(disc in word for word in words({}, facts(stranger)))
    assert any(disc in word for word in words({"seed": {"user": "ada"}}, facts(stranger)))
    with pytest.raises(PlanError) as error:
        plan(load_spec({"seed": {"user": "ada"}}), facts(TINY))
    assert error.value.problems[0].path == "seed.user"


def devices(spec, some=None):
    return {e.id: e.props for e in plan(load_spec(spec), some or facts()).elements if e.kind == "device"}


def test_slots_for_hot_plugging_stay_where_they_are_and_move_nobody():
    stays, more = devices({}), devices({"devices": {"hotplug": 9}, "disk": [{"size": "1G"}]})
    ports = {name: props["addr"] for name, props in stays.items() if name.startswith("plug")}
    assert ports == {"plug1": "0x1d.0x0", "plug2": "0x1d.0x1", "plug3": "0x1d.0x2", "plug4": "0x1d.0x3"}
    assert {name: more[name]["addr"] for name in ports} == ports
    assert more["plug9"]["addr"] == "0x1c.0x0"
    assert len({props["chassis"] for name, props in more.items() if name.startswith("plug")}) == 9


@pytest.mark.parametrize(
    ("spec", "some"),
    [({}, thrown_away(facts())), ({"forkable": True}, facts()), ({"devices": {"hotplug": 0}}, facts())],
)
def test_no_slots_where_nothing_is_ever_plugged_in(spec, some):
    assert not [name for name in devices(spec, some) if name.startswith("plug")]


def test_a_disk_in_a_hot_plug_slot_leaves_the_others_addresses_alone():
    alone, joined = (
        devices({}),
        devices({"disk": [{"size": "1G", "port": 2}, {"size": "1G", "port": 6, "interface": "scsi"}]}),
    )
    assert joined["disk0-dev"]["bus"] == "plug2"
    assert joined["disk1-bus"]["bus"] == "plug6"
    assert "plug6" in joined
    assert {name: props.get("addr") for name, props in alone.items()}.items() <= {
        name: props.get("addr") for name, props in joined.items()
    }.items()


def test_two_disks_in_one_hot_plug_slot_are_refused():
    with pytest.raises(PlanError) as error:
        plan(load_spec({"disk": [{"size": "1G", "port": 1}, {"size": "1G", "port": 1}]}), facts())
    assert "another device" in error.value.problems[0].reason


def test_disks_keep_their_numbers_when_one_before_them_is_gone():
    there = devices({"disk": [{"size": "1G", "number": 2}, {"size": "1G"}]})
    assert [name for name in there if name.startswith("disk")] == ["disk2-dev", "disk3-dev"]
    with pytest.raises(PlanError) as error:
        plan(load_spec({"disk": [{"size": "1G"}, {"size": "1G", "number": 0}]}), facts())
    assert error.value.problems[0].path == "disk[1].number"


def test_a_guest_whose_memory_may_be_taken_takes_it_back_before_it_ends_a_process():
    def balloon(**memory):
        return devices({"memory": memory})["balloon0"]

    assert balloon(floor="128M")["deflate-on-oom"] is True
    assert "deflate-on-oom" not in balloon()
