"""An accelerator counts as working when a guest ran in it, and every failure has its reason and its fix."""

import dataclasses
import errno
import shutil

import pytest
from typed import limits

from tinamou.facts import QemuFacts
from tinamou.facts.qemu import MachineType
from tinamou.probe import accel_host, microguest
from tinamou.probe.accel import probe_accel
from tinamou.probe.kvm_reasons import explain, missing
from tinamou.probe.qemu import find_binary, probe_qemu
from tinamou.system import kvm, kvm_trial
from tinamou.system.kvm import KvmOutcome
from tinamou.system.rooted import Rooted

ARCHES = ("x86_64", "aarch64", "riscv64")
PLAIN = accel_host.AccelHost("Linux", "x86_64", frozenset({"vmx"}), frozenset({"kvm", "kvm_intel"}), True, 0, False, [])
GOOD = KvmOutcome("done", steps="abcd", version=12, exit=5)


def _host(**changes):
    return dataclasses.replace(PLAIN, **changes)


@pytest.mark.parametrize(
    ("outcome", "what", "why", "fix"),
    [
        (KvmOutcome("open", errno.EACCES), "Permission denied", "this user", "udev rule"),
        (KvmOutcome("open", errno.ENODEV), "No such device", "no module", "turn on nested"),
        (KvmOutcome("open", errno.EIO), "Input/output", "kernel refused", "dmesg"),
        (KvmOutcome("open", errno.ENOENT), "does not exist", "virtual machine", "nested"),
        (KvmOutcome("version", version=11), "version 11", "12", "newer kernel"),
        (KvmOutcome("vm", errno.EBUSY, version=12), "make a virtual machine", "another hypervisor", "stop"),
        (KvmOutcome("vm", errno.ENOMEM, version=12), "memory", "short of something", "try again"),
        (KvmOutcome("vcpu", errno.EINVAL, version=12), "make a virtual CPU", "does not work", "tcg"),
        (KvmOutcome("run", errno.EFAULT, version=12), "run a virtual CPU", "does not work", "tcg"),
        (
            KvmOutcome("run", steps="a", version=12, exit=17, suberror=1, instruction="f3"),
            "POPCNT (f3)",
            "interprets",
            "tcg",
        ),
        (
            KvmOutcome("run", steps="ab", version=12, exit=17, suberror=9),
            "PXOR ended in KVM_EXIT_INTERNAL_ERROR (suberror 9)",
            "",
            "",
        ),
        (KvmOutcome("run", version=12, exit=8), "its first instruction ended in KVM_EXIT_SHUTDOWN", "", ""),
        (KvmOutcome("run", version=12, exit=9), "KVM_EXIT_FAIL_ENTRY", "", ""),
        (KvmOutcome("run", version=12, exit=99), "exit reason 99", "", ""),
        (
            KvmOutcome("run", steps="abc", late=True, version=12, milliseconds=100.4),
            "loop of a million rounds when its time was up (100 ms)",
            "",
            "",
        ),
        (KvmOutcome("done", steps="a!", version=12, exit=5), "POPCNT gave a wrong result", "", ""),
        (KvmOutcome("child", late=True), "did not end", "hung", ""),
        (KvmOutcome("child", message="signal 9"), "signal 9", "died", ""),
    ],
)
def test_every_outcome_is_explained(outcome, what, why, fix):
    host = _host(flags=frozenset({"hypervisor"}), modules=frozenset({"kvm"}))
    failure = explain(outcome, host)
    assert what in failure.what
    assert why in failure.why
    assert fix in failure.fix
    assert failure.why and failure.fix


def test_good_outcomes_need_no_explanation():
    assert explain(GOOD, PLAIN) is None
    assert explain(KvmOutcome("created", version=12), PLAIN) is None


def test_passing_failures_are_not_settled():
    assert not explain(KvmOutcome("vm", errno.EBUSY, version=12), PLAIN).settled
    assert not explain(KvmOutcome("run", steps="abc", late=True, version=12), PLAIN).settled
    assert explain(KvmOutcome("run", steps="a", version=12, exit=17, suberror=1), PLAIN).settled


def test_group_is_named_where_joining_it_helps():
    assert "usermod -aG" in explain(KvmOutcome("open", errno.EACCES), _host(group=1, group_may=True)).fix
    assert "udev rule" in explain(KvmOutcome("open", errno.EACCES), _host(group=1, group_may=False)).fix


def test_para_virtual_kvm_is_named():
    outcome = KvmOutcome("run", steps="a", version=12, exit=17, suberror=1)
    assert "kvm_pvm" in explain(outcome, _host(modules=frozenset({"kvm", "kvm_pvm"}))).why


@pytest.mark.parametrize(
    ("changes", "why", "fix"),
    [
        ({"modules": frozenset({"kvm", "kvm_amd"})}, "container", "pass /dev/kvm"),
        ({"flags": frozenset({"vmx"}), "modules": frozenset()}, "kvm_intel is not loaded", "modprobe kvm_intel"),
        ({"flags": frozenset({"svm"}), "modules": frozenset({"kvm"})}, "kvm_amd is not loaded", "modprobe kvm_amd"),
        ({"flags": frozenset({"hypervisor"}), "modules": frozenset()}, "virtual machine", "nested"),
        ({"flags": frozenset(), "modules": frozenset()}, "turned off in the firmware", "VT-x"),
        ({"flags": frozenset(), "modules": frozenset(), "machine": "aarch64"}, "no KVM", "EL2"),
    ],
)
def test_why_there_is_no_device(changes, why, fix):
    failure = missing(_host(device=False, **changes))
    assert why in failure.why
    assert fix in failure.fix


def test_host_hints_are_read_below_a_root(tmp_path):
    assert not accel_host.look(Rooted(str(tmp_path))).device
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/kvm").touch(mode=0o660)
    (tmp_path / "dev/kvm").chmod(0o660)
    (tmp_path / "sys/module/kvm_amd/parameters").mkdir(parents=True)
    (tmp_path / "sys/module/kvm_amd/parameters/nested").write_text("1\n")
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/cpuinfo").write_text("processor: 0\nflags\t: fpu svm\ncpu MHz: 1\n\nprocessor: 1\nflags: vmx\n")
    host = accel_host.look(Rooted(str(tmp_path)))
    assert (host.flags, host.modules, host.device, host.group_may) == ({"svm"}, {"kvm_amd"}, True, True)
    (tmp_path / "proc/cpuinfo").write_text("processor: 0\nflags\t: fpu svm\ncpu MHz: 2\n\nprocessor: 1\nflags: vmx\n")
    assert accel_host.look(Rooted(str(tmp_path))).identity == host.identity
    (tmp_path / "sys/module/kvm_amd/parameters/nested").write_text("0\n")
    assert accel_host.look(Rooted(str(tmp_path))).identity != host.identity


def test_the_real_device_gives_an_outcome_that_is_understood():
    outcome = kvm.try_kvm()
    assert outcome.stage in ("open", "vm", "vcpu", "run", "created", "done")
    failure = explain(outcome, accel_host.look(Rooted()))
    assert failure is None or (failure.why and failure.fix)


def test_what_is_no_kvm_is_found_out():
    assert kvm.try_kvm("/nonexistent").errno == errno.ENOENT
    outcome = kvm.try_kvm("/dev/null")
    assert (outcome.stage, outcome.errno, outcome.steps) == ("version", errno.ENOTTY, "")


def test_a_child_that_dies_or_talks_nonsense_is_an_outcome(monkeypatch, tmp_path):
    for script in ("#!/bin/sh\nkill -9 $$\n", "#!/bin/sh\necho nonsense\n"):
        child = tmp_path / "python"
        child.write_text(script)
        child.chmod(0o755)
        monkeypatch.setattr("sys.executable", str(child))
        assert kvm.try_kvm().stage == "child"


def test_code_is_what_the_letters_say():
    assert kvm_trial.CODE.count(b"\xe6\xe9") == 5
    assert kvm_trial.CODE.find(b"\xf3\x48\x0f\xb8\xc0") < kvm_trial.CODE.find(b"\x66\x0f\xef\xc0")


def _fake(tmp_path, body, arch="x86_64", accels=("kvm", "tcg")):
    """A QEMU that is a shell script, and the facts of one."""
    binary = tmp_path / f"qemu-system-{arch}"
    binary.write_text(f"#!/bin/sh\n{body}\n")
    binary.chmod(0o755)
    machines = (MachineType("pc-q35-7.2", "q35"), MachineType("virt-7.2", "virt"))
    nothing = frozenset()
    return QemuFacts(str(binary), (7, 2, 0), arch, machines, frozenset({"host", "max"}), nothing, nothing, accels, nothing)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv("TINAMOU_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def linux_with_kvm(monkeypatch):
    monkeypatch.setattr("tinamou.probe.accel.look", lambda _files: PLAIN)
    monkeypatch.setattr(kvm, "try_kvm", lambda **_: GOOD)


@pytest.mark.usefixtures("linux_with_kvm")
def test_kvm_that_works(tmp_path):
    facts = probe_accel(_fake(tmp_path, "printf tinamou; exit 33"))
    assert [(trial.accel, trial.works) for trial in facts.trials] == [("kvm", True), ("tcg", True)]
    assert facts.best().accel == "kvm"
    assert facts.best().needs == ()


@pytest.mark.usefixtures("linux_with_kvm")
def test_what_qemu_must_do_without_is_recorded(tmp_path):
    body = """case "$*" in
        *host,-arch-capabilities*) printf tinamou; exit 33;;
        *"accel kvm"*) echo "qemu-system-x86_64: error: failed to set MSR 0x10a to 0x69" >&2; kill -ABRT $$;;
        esac
        printf tinamou; exit 33"""
    trial = probe_accel(_fake(tmp_path, body)).of("kvm")
    assert trial.works
    assert trial.needs == ("-arch-capabilities",)


@pytest.mark.parametrize(
    ("body", "what", "why"),
    [
        ("echo 'qemu: HV_DENIED' >&2; exit 1", "status 1: qemu: HV_DENIED", "signed programs"),
        ("echo 'Could not access KVM kernel module: Permission denied' >&2; exit 1", "Permission denied", "may not use"),
        ("kill -SEGV $$", "signal 11: it said nothing", "cannot run a guest"),
        ("printf tinamou; exit 35", "status 35", "cannot run a guest"),
        ("printf tinamo; exit 33", "status 33", "cannot run a guest"),
        ("echo 'failed to set MSR 0x10a to 0x69' >&2; kill -ABRT $$", "signal 6", "cannot run a guest"),
        ("echo 'failed to set MSR 0x345 to 0x69' >&2; kill -ABRT $$", "0x345", "cannot run a guest"),
    ],
)
@pytest.mark.usefixtures("linux_with_kvm")
def test_an_accelerator_that_fails_in_qemu(tmp_path, body, what, why):
    facts = probe_accel(_fake(tmp_path, body))
    assert facts.best() is None
    for trial in facts.trials:
        assert what in trial.what
        assert why in trial.why
        assert trial.fix
    assert not list((tmp_path / "cache").rglob("accel-*")), "a broken tcg is tried again"


@pytest.mark.usefixtures("linux_with_kvm")
def test_a_guest_that_never_answers(tmp_path, monkeypatch):
    for limit in limits():
        monkeypatch.setattr("tinamou.probe.accel._PATIENCE", limit)
        what = probe_accel(_fake(tmp_path, "echo 'KVM internal error' >&2; exec sleep 300"), cached=False).of("kvm").what
        assert "did not answer in time" in what
        if "error" in what:
            break
    assert "did not answer in time: KVM internal error" in what


@pytest.mark.usefixtures("linux_with_kvm")
def test_a_guest_late_on_a_busy_host_gets_a_second_chance(tmp_path, monkeypatch):
    given = []

    def slow(seconds=0.1):
        given.append(seconds)
        return GOOD if seconds > 0.1 else KvmOutcome("run", steps="abc", late=True, version=12)

    monkeypatch.setattr(kvm, "try_kvm", slow)
    assert probe_accel(_fake(tmp_path, "printf tinamou; exit 33")).best().accel == "kvm"
    monkeypatch.setattr(kvm, "try_kvm", lambda **_: KvmOutcome("run", steps="abc", late=True, version=12))
    assert "time was up" in probe_accel(_fake(tmp_path, "printf tinamou; exit 33"), cached=False).of("kvm").what
    assert len(given) == 2


@pytest.mark.parametrize("accels", [("hvf", "tcg"), ("whpx", "tcg"), ("nvmm", "tcg"), ("mshv", "tcg")])
@pytest.mark.parametrize("body", ["printf tinamou; exit 33", "echo 'WHPX: No accelerator found' >&2; exit 1"])
def test_the_accelerators_of_other_systems_go_through_qemu(tmp_path, monkeypatch, accels, body):
    monkeypatch.setattr("tinamou.probe.accel.look", lambda _files: _host(system="Darwin", device=False))
    facts = probe_accel(_fake(tmp_path, body, accels=accels))
    assert [trial.accel for trial in facts.trials] == list(accels)
    assert facts.trials[0].works == body.startswith("printf")


@pytest.mark.usefixtures("linux_with_kvm")
def test_kvm_is_named_even_where_it_cannot_be(tmp_path):
    foreign = probe_accel(_fake(tmp_path, "printf tinamou", arch="aarch64", accels=("tcg",)))
    assert "aarch64 on x86_64" in foreign.of("kvm").why
    assert foreign.best().accel == "tcg"
    without = probe_accel(_fake(tmp_path, "printf tinamou; exit 33", accels=("tcg",)))
    assert "built without" in without.of("kvm").why


def test_without_trial_guest_only_emulation_is_trusted(tmp_path, monkeypatch):
    monkeypatch.setattr("tinamou.probe.accel.look", lambda _files: _host(machine="s390x"))
    monkeypatch.setattr(kvm, "try_kvm", lambda **_: KvmOutcome("created", version=12))
    facts = probe_accel(_fake(tmp_path, "exit 1", arch="s390x"))
    assert [(trial.accel, trial.works) for trial in facts.trials] == [("kvm", False), ("tcg", True)]


@pytest.mark.usefixtures("linux_with_kvm")
def test_an_earlier_trial_counts_until_something_changes(tmp_path, monkeypatch):
    count = tmp_path / "count"
    fake = _fake(tmp_path, f"echo x >>{count}; printf tinamou; exit 33")
    first = probe_accel(fake)
    assert probe_accel(fake) == first
    assert count.read_text() == "x\nx\n"
    monkeypatch.setattr("tinamou.probe.accel.look", lambda _files: _host(identity=["another boot"]))
    probe_accel(fake)
    probe_accel(fake, cached=False)
    assert count.read_text() == "x\n" * 6


@pytest.mark.parametrize("arch", ARCHES)
def test_tcg_runs_the_trial_guest_of_every_architecture(arch):
    if not shutil.which(f"qemu-system-{arch}"):
        pytest.skip(f"no qemu-system-{arch} in PATH")
    facts = probe_accel(probe_qemu(find_binary(arch), arch), cached=False)
    assert facts.of("tcg").works, facts.of("tcg")
    assert all(trial.why and trial.fix for trial in facts.trials if not trial.works)


def test_trial_guests_are_not_left_behind(monkeypatch, tmp_path):
    monkeypatch.delattr("os.memfd_create", raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with microguest._image(b"code") as (path, descriptors):
        assert (tmp_path / path).read_bytes() == b"code"
        assert descriptors == ()
    assert list(tmp_path.iterdir()) == []
