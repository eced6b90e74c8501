"""What every check of the doctor is shown, and what it must find: good, bad and unknown."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tinamou.doctor.finding import Severity
from tinamou.facts import AccelFacts, Firmware, Permits, QemuFacts, Trial, WallFacts
from tinamou.facts.host import Grouping
from tinamou.probe.firmware import FirmwareScan
from tinamou.system.disk import Folder
from tinamou.units import CpuSet, Size

CPU = "/sys/devices/system/cpu"
KSM = "/sys/kernel/mm/ksm"
MIB2, GIB = 2 << 20, 1 << 30
GOOD, INFO, WARNING, BAD, UNKNOWN = Severity.GOOD, Severity.INFO, Severity.WARNING, Severity.BAD, Severity.UNKNOWN


def firmware(*features, executable="/code.fd", template="/vars.fd"):
    targets = (("x86_64", ("pc-q35-*",)),)
    return Firmware("d", "text", frozenset({"uefi"}), "flash", executable, "raw", template, targets, frozenset(features))


def scan(*found, notes=()):
    return lambda: FirmwareScan(found, tuple(notes))


READERS = {"apparmor": "AppArmor profile", "selinux": "SELinux label"}


def walls(**readers):
    return {
        "walls": lambda: WallFacts({}, False, 7),
        "readers": lambda: {READERS[module]: why for module, why in readers.items()},
    }


def trials(*pairs):
    return lambda: AccelFacts(
        "x86_64", tuple(Trial(accel, works, 5.0, "micro guest", fix="a fix") for accel, works in pairs)
    )


def qemu(
    types=("virtio-blk-pci", "virtio-net-pci", "virtio-rng-pci"),
    accels=("tcg",),
    netdevs=("stream",),
    options=("sandbox",),
    share=("share", "rom"),
):
    properties = {"memory-backend-file": frozenset(share)}
    facts = QemuFacts(
        "qemu",
        (7, 2, 0),
        "x86_64",
        (),
        frozenset(),
        frozenset(types),
        frozenset(),
        accels,
        frozenset(options),
        properties,
        frozenset(netdevs),
    )
    return lambda: facts


def folder(**change):
    usual = Folder("/vm", "ext4", Size.parse("100G"), Size.parse("50G"), 10**6, reflink=False, copy_on_write=False)
    return lambda: replace(usual, **change)


def answers(**by_name):
    return lambda argv: by_name.get(Path(argv[0]).name.replace("-", "_"))


def flags(text):
    return {"/proc/cpuinfo": f"processor\t: 0\nflags\t\t: {text}\n"}


def limits(name, value):
    return {"/proc/self/limits": f"{'Limit':26}{'Soft Limit':21}Hard Limit\n{name:26}{value:21}{value:21}"}


def pci(group, *devices):
    files = {}
    for address, kind in devices:
        files[f"/sys/kernel/iommu_groups/{group}/devices/{address}/x"] = ""
        files[f"/sys/bus/pci/devices/{address}/class"] = kind
    return files


ETHTOOL = "tcp-segmentation-offload: {0}\ngeneric-segmentation-offload: on\ngeneric-receive-offload: on\n"
CARD = {"/sys/class/net/eth0/device/x": ""}
V2 = dict.fromkeys(("cpu", "memory", "io", "pids"), "v2")
GROUPED = {"grouping": Grouping("kernel", frozenset(V2), "")}
UNGROUPED = {"grouping": Grouping(fault="not you")}

# check → [(expected severity, words in the evidence, files, facts, inspection)]
CASES = {
    "virtualization": [
        (GOOD, "svm", flags("fpu lm svm"), {}, {}),
        (WARNING, "itself a guest", flags("fpu lm hypervisor"), {}, {}),
        (WARNING, "kvm_pvm", flags("fpu lm") | {"/sys/module/kvm_pvm/x": ""}, {}, {}),
        (WARNING, "neither", flags("fpu lm"), {}, {}),
        (UNKNOWN, "no flags", {}, {}, {}),
        (UNKNOWN, "architecture", flags("fp asimd"), {}, {}),
    ],
    "kvm_device": [
        (GOOD, "opens", {}, {"devices": frozenset({"/dev/kvm"})}, {"openable": lambda path: True}),
        (
            WARNING,
            "only root may",
            {},
            {"devices": frozenset({"/dev/kvm"}), "device_groups": {"/dev/kvm": None}},
            {"openable": lambda path: True},
        ),
        (BAD, "may not be opened", {}, {"devices": frozenset({"/dev/kvm"})}, {"openable": lambda path: False}),
        (BAD, "missing", {}, {}, {}),
        (UNKNOWN, "not tried", {}, {"devices": frozenset({"/dev/kvm"})}, {}),
    ],
    "accelerator": [
        (GOOD, "kvm works", {}, {}, {"accel": trials(("kvm", True), ("tcg", True))}),
        (WARNING, "emulated: kvm fails", {}, {}, {"accel": trials(("kvm", False), ("tcg", True))}),
        (WARNING, "tcg fails", {}, {}, {"accel": trials(("tcg", False))}),
        (UNKNOWN, "nothing was tried", {}, {}, {}),
    ],
    "nested": [
        (GOOD, "kvm_amd.nested = 1", {"/sys/module/kvm_amd/parameters/nested": "1"}, {}, {}),
        (INFO, "= N", {"/sys/module/kvm_intel/parameters/nested": "N"}, {}, {}),
        (UNKNOWN, "no KVM module", {}, {}, {}),
    ],
    "smt": [
        (GOOD, "off", {f"{CPU}/smt/active": "0"}, {}, {}),
        (INFO, "on", {f"{CPU}/smt/active": "1"}, {}, {}),
        (INFO, "on", {}, {"threads": 2}, {}),
        (UNKNOWN, "neither", {}, {"cores": 0}, {}),
    ],
    "governor": [
        (
            GOOD,
            "performance on 2",
            {f"{CPU}/cpu{n}/cpufreq/scaling_governor": "performance" for n in (0, 1)},
            {"cores": 2},
            {},
        ),
        (INFO, "powersave", {f"{CPU}/cpu0/cpufreq/scaling_governor": "powersave"}, {}, {}),
        (UNKNOWN, "no frequency driver", {}, {}, {}),
    ],
    "mitigations": [
        (GOOD, "1 known", {f"{CPU}/vulnerabilities/mds": "Not affected"}, {}, {}),
        (WARNING, "mds (Vulnerable)", {f"{CPU}/vulnerabilities/mds": "Vulnerable"}, {}, {}),
        (
            WARNING,
            "no_guest_host",
            {f"{CPU}/vulnerabilities/mds": "Not affected", "/proc/cmdline": "quiet mitigations=auto,no_guest_host"},
            {},
            {},
        ),
        (UNKNOWN, "missing", {}, {}, {}),
    ],
    "kernel_parameters": [
        (GOOD, "nothing", {"/proc/cmdline": "quiet root=/dev/vda -- iommu=off"}, {}, {}),
        (INFO, "iommu=pt", {"/proc/cmdline": "quiet iommu=pt"}, {}, {}),
        (WARNING, "mds=off, mitigations=off", {"/proc/cmdline": "mds=off mitigations=off"}, {}, {}),
        (UNKNOWN, "cannot be read", {}, {}, {}),
    ],
    "isolated_cpus": [
        (GOOD, "none", {f"{CPU}/isolated": ""}, {}, {}),
        (GOOD, "without tick", {f"{CPU}/isolated": "2"}, {"isolated": {2}, "nohz_full_cpus": CpuSet({2})}, {}),
        (INFO, "tick goes on", {f"{CPU}/isolated": "2"}, {"isolated": {2}}, {}),
        (UNKNOWN, "missing", {}, {}, {}),
    ],
    "sev": [
        (
            GOOD,
            "no SEV-ES: the kernel has no parameter kvm_amd.sev_es; no SEV-SNP: /proc/cpuinfo does not show sev_snp",
            flags("sev sev_es") | {"/sys/module/kvm_amd/parameters/sev": "Y"},
            {"devices": frozenset({"/dev/sev"})},
            {"command": answers(dmesg="[1.0] ccp 0000:22:00.1: SEV API:1.55\n")},
        ),
        (
            WARNING,
            "speaks of a failure: [1.0] SEV-SNP: failed to INIT",
            flags("sev sev_es sev_snp") | {"/sys/module/kvm_amd/parameters/sev_snp": "Y"},
            {"devices": frozenset({"/dev/sev"})},
            {"command": answers(dmesg="[0.5] SEV-SNP: RMP table physical range\n[1.0] SEV-SNP: failed to INIT error 0x3\n")},
        ),
        (INFO, "kvm_amd: none", flags("sev"), {}, {}),
        (INFO, "not offered", flags("lm"), {}, {}),
        (UNKNOWN, "no flags", {}, {}, {}),
    ],
    "tdx": [
        (GOOD, "kvm_intel.tdx = Y", flags("tdx_host_platform") | {"/sys/module/kvm_intel/parameters/tdx": "Y"}, {}, {}),
        (
            INFO,
            "kernel log",
            flags("lm"),
            {},
            {"command": answers(dmesg="virt/tdx: BIOS enabled: private KeyID range [32, 64)")},
        ),
        (INFO, "not offered", flags("lm"), {}, {}),
        (UNKNOWN, "no flags", {}, {}, {}),
    ],
    "memory": [
        (GOOD, "8192 of 16384", {}, {"free": "8G"}, {}),
        (WARNING, "control group 1024", {}, {"free": "100M", "memory_limit": Size.parse("1G")}, {}),
        (UNKNOWN, "cannot be read", {}, {"memory": "0", "free": "0"}, {}),
    ],
    "huge_pages": [
        (GOOD, "node 0: 4 of 8 × 2M free", {}, {"pages0": {MIB2: (8, 4)}}, {}),
        (INFO, "none reserved; sizes of this host: 2M, 1G", {}, {}, {}),
        (UNKNOWN, "no huge page pools", {}, {"pages0": {}}, {}),
    ],
    "transparent_huge_pages": [
        (GOOD, "madvise", {}, {"thp": "madvise"}, {}),
        (WARNING, "never", {}, {"thp": "never"}, {}),
        (UNKNOWN, "missing", {}, {"thp": ""}, {}),
    ],
    "ksm": [
        (GOOD, "no page", {f"{KSM}/run": "0", f"{KSM}/pages_sharing": "0"}, {}, {}),
        (WARNING, "merging, 7", {f"{KSM}/run": "1", f"{KSM}/pages_sharing": "7"}, {}, {}),
        (WARNING, "stopped, 7", {f"{KSM}/run": "0", f"{KSM}/pages_sharing": "7"}, {}, {}),
        (UNKNOWN, "no KSM", {}, {}, {}),
    ],
    "numa_balancing": [
        (GOOD, "one memory node", {}, {}, {}),
        (GOOD, "off on 2", {"/proc/sys/kernel/numa_balancing": "0"}, {"nodes": 2}, {}),
        (INFO, "on (1)", {"/proc/sys/kernel/numa_balancing": "1"}, {"nodes": 2}, {}),
        (UNKNOWN, "missing", {}, {"nodes": 2}, {}),
    ],
    "iommu": [
        (GOOD, "dmar0, 1 groups", {"/sys/class/iommu/dmar0": "", "/sys/kernel/iommu_groups/0/x": ""}, {}, {}),
        (INFO, "off, though", {"/sys/class/x": "", "/sys/firmware/acpi/tables/DMAR": ""}, {}, {}),
        (INFO, "none", {"/sys/class/x": ""}, {}, {}),
        (UNKNOWN, "neither", {}, {}, {}),
    ],
    "iommu_groups": [
        (GOOD, "1 devices", pci(1, ("0000:00:01.0", "0x060400"), ("0000:01:00.0", "0x020000")), {}, {}),
        (INFO, "0000:01:00.1", pci(1, ("0000:01:00.0", "0x030000"), ("0000:01:00.1", "0x040300")), {}, {}),
        (
            WARNING,
            "pretended (pcie_acs_override=downstream)",
            {**pci(1, ("0000:01:00.0", "0x030000")), "/proc/cmdline": "quiet pcie_acs_override=downstream"},
            {},
            {},
        ),
        (UNKNOWN, "no groups", {}, {}, {}),
    ],
    "vhost_net": [
        (GOOD, "present", {}, {"devices": frozenset({"/dev/vhost-net"})}, {}),
        (INFO, "missing", {"/sys/module/x": "", "/proc/modules": ""}, {}, {}),
        (INFO, "loads no modules", {"/sys/module/x": "", "/proc/modules": "", "/proc/cmdline": "nomodule"}, {}, {}),
        (UNKNOWN, "/sys/module", {}, {}, {}),
    ],
    "offloads": [
        (GOOD, "on for eth0", CARD, {}, {"command": answers(ethtool=ETHTOOL.format("on"))}),
        (INFO, "tcp-segmentation-offload off", CARD, {}, {"command": answers(ethtool=ETHTOOL.format("off [fixed]"))}),
        (UNKNOWN, "ethtool", CARD, {}, {}),
        (UNKNOWN, "no physical", {"/sys/class/net/lo/x": ""}, {}, {}),
    ],
    "qemu": [
        (GOOD, "package qemu-system-modules-spice", {}, {}, {"qemu": qemu()}),
        (WARNING, "virtio-net-pci", {}, {}, {"qemu": qemu(types=("virtio-blk-pci", "virtio-rng-pci"))}),
        (WARNING, "no passt", {}, {}, {"qemu": qemu(netdevs=())}),
        (WARNING, "without seccomp", {}, {}, {"qemu": qemu(options=())}),
        (WARNING, "cannot (9.1", {"/sys/module/kvm_amd/parameters/sev_snp": "Y"}, {}, {"qemu": qemu()}),
        (WARNING, "cannot (10.1", {"/sys/module/kvm_intel/parameters/tdx": "Y"}, {}, {"qemu": qemu()}),
        (WARNING, "vhost=off", {}, {"devices": frozenset()}, {"qemu": qemu(share=("share",))}),
        (BAD, "no accelerator", {}, {}, {"qemu": qemu(accels=())}),
        (UNKNOWN, "no QEMU", {}, {}, {}),
    ],
    "firmware": [
        (GOOD, "1 kinds of firmware for x86_64", {}, {}, {"firmware": scan(firmware())}),
        (
            INFO,
            "names /vars.fd",
            {},
            {},
            {"firmware": scan(firmware(), notes=["50-x.json: names /vars.fd, not there"])},
        ),
        (BAD, "names /vars.fd", {}, {}, {"firmware": scan(notes=["50-x.json: names /vars.fd, not there"])}),
        (WARNING, "no firmware", {}, {}, {"firmware": scan()}),
        (UNKNOWN, "not read", {}, {}, {}),
    ],
    "secure_boot": [
        (GOOD, "/code.fd", {}, {}, {"firmware": scan(firmware("secure-boot", "enrolled-keys"))}),
        (INFO, "no variable store", {}, {}, {"firmware": scan(firmware("secure-boot"))}),
        (INFO, "none for", {}, {}, {"firmware": scan(firmware())}),
        (UNKNOWN, "not read", {}, {}, {}),
    ],
    "swtpm": [
        (GOOD, "emulator 0.7", {}, {"tools": {"swtpm": "/b/swtpm"}}, {"command": answers(swtpm="TPM emulator 0.7\nmore")}),
        (INFO, "not installed", {}, {}, {}),
        (UNKNOWN, "does not say", {}, {"tools": {"swtpm": "/b/swtpm"}}, {}),
    ],
    "passt": [
        (GOOD, "passt 2024", {}, {"tools": {"passt": "/b/passt"}}, {"command": answers(passt="passt 2024")}),
        (INFO, "not installed", {}, {}, {}),
        (INFO, "does not know", {}, {"tools": {"passt": "/b/passt"}}, {"command": answers(passt="passt unknown version")}),
        (UNKNOWN, "does not say", {}, {"tools": {"passt": "/b/passt"}}, {}),
    ],
    "open_vswitch": [
        (
            GOOD,
            "kernel's datapath",
            {"/sys/module/openvswitch/x": ""},
            {"tools": {"ovs-vsctl": "/b/ovs-vsctl"}},
            {"command": answers(ovs_vsctl="x")},
        ),
        (
            INFO,
            "userspace",
            {"/sys/module/x": ""},
            {"tools": {"ovs-vsctl": "/b/ovs-vsctl"}},
            {"command": answers(ovs_vsctl="x")},
        ),
        (WARNING, "does not answer", {"/sys/module/x": ""}, {"tools": {"ovs-vsctl": "/b/ovs-vsctl"}}, {}),
        (INFO, "not installed", {}, {}, {}),
        (UNKNOWN, "/sys/module", {}, {"tools": {"ovs-vsctl": "/b/ovs-vsctl"}}, {}),
    ],
    "disk_space": [
        (GOOD, "51200 of 102400", {}, {}, {"folder": folder()}),
        (WARNING, "2048 of", {}, {}, {"folder": folder(free=Size.parse("2G"))}),
        (WARNING, "5 inodes", {}, {}, {"folder": folder(inodes_free=5)}),
        (BAD, "10 of", {}, {}, {"folder": folder(free=Size.parse("10M"))}),
        (UNKNOWN, "cannot", {}, {}, {}),
    ],
    "filesystem": [
        (GOOD, "full copies", {}, {}, {"folder": folder()}),
        (GOOD, "share their blocks", {}, {}, {"folder": folder(kind="xfs", reflink=True)}),
        (WARNING, "new place", {}, {}, {"folder": folder(kind="btrfs", reflink=True, copy_on_write=True)}),
        (WARNING, "nfs4", {}, {}, {"folder": folder(kind="nfs4")}),
        (INFO, "tmpfs", {}, {}, {"folder": folder(kind="tmpfs")}),
        (UNKNOWN, "nothing was tried", {}, {}, {"folder": folder(reflink=None)}),
    ],
    "locked_memory": [
        (GOOD, "unlimited", limits("Max locked memory", "unlimited"), {"is_root": False}, {}),
        (
            GOOD,
            "8M, raised for machines",
            {**limits("Max locked memory", "8388608"), "/proc/self/status": "CapEff:\t000001ffffffffff"},
            {},
            {},
        ),
        (
            INFO,
            "root may not raise it",
            {**limits("Max locked memory", "8388608"), "/proc/self/status": "CapEff:\t000001fffeffffff"},
            {},
            {},
        ),
        (INFO, "8M for this user", limits("Max locked memory", "8388608"), {"is_root": False}, {}),
        (UNKNOWN, "cannot be read", {}, {}, {}),
    ],
    "open_files": [
        (GOOD, "20000", limits("Max open files", "20000"), {}, {}),
        (WARNING, "256", limits("Max open files", "256"), {}, {}),
        (UNKNOWN, "cannot be read", {}, {}, {}),
    ],
    "queued_requests": [
        (GOOD, "io_uring: works; native: works", {}, {}, {"permits": lambda: Permits(io_uring="", native="")}),
        (INFO, "io_uring: switched off", {}, {}, {"permits": lambda: Permits(io_uring="switched off", native="")}),
        (UNKNOWN, "nothing was tried", {}, {}, {}),
    ],
    "real_time": [
        (GOOD, "may be given", {}, {}, {"permits": lambda: Permits(real_time="", real_time_in_groups="")}),
        (INFO, "RLIMIT_RTPRIO", {}, {}, {"permits": lambda: Permits(real_time="RLIMIT_RTPRIO is 0")}),
        (INFO, "with limits: none", {}, {}, {"permits": lambda: Permits(real_time="", real_time_in_groups="none")}),
        (UNKNOWN, "nothing was tried", {}, {}, {}),
    ],
    "control_groups": [
        (GOOD, "cpu v2, memory v2, io v2, pids v2", {}, {"cgroups": V2, **GROUPED}, {}),
        (INFO, "version 1 works", {}, {"cgroups": V2 | {"cpu": "v1"}, **GROUPED}, {}),
        (INFO, "io v1", {}, {"cgroups": {"cpu": "v1", "memory": "v1", "blkio": "v1", "pids": "v1"}, **GROUPED}, {}),
        (INFO, "without io", {}, {"cgroups": {"cpu": "v2", "memory": "v2", "pids": "v2"}, **GROUPED}, {}),
        (INFO, "nothing bounds what its QEMU takes of the host: not you", {}, {"cgroups": V2, **UNGROUPED}, {}),
        (UNKNOWN, "no control group", {}, {}, {}),
    ],
    "walls": [
        (GOOD, "mount, pid, ipc, uts, cgroup, net; Landlock 7", {}, {}, {"walls": lambda: WallFacts({}, False, 7)}),
        (GOOD, "inside a user namespace; no Landlock", {}, {}, {"walls": lambda: WallFacts({}, True, 0)}),
        (WARNING, "no namespace for net: EPERM", {}, {}, {"walls": lambda: WallFacts({"net": "EPERM"}, False, 7)}),
        (UNKNOWN, "no process was started", {}, {}, {}),
        (GOOD, "Landlock 7; an AppArmor profile for qemu-img", {}, {}, walls(apparmor="")),
        (GOOD, "net; Landlock 7", {}, {}, walls()),
        (WARNING, "no AppArmor profile for qemu-img: odd", {}, {}, walls(apparmor="odd")),
        (GOOD, "Landlock 7; SELinux labels; an SELinux label for qemu-img", {}, {"selinux": "u:r"}, walls(selinux="")),
        (WARNING, "no SELinux label for qemu-img: odd", {}, {"selinux": "u:r"}, walls(selinux="odd")),
    ],
}
