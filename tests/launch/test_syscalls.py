"""The filter as a program: what it answers on every architecture, for every call, with every group."""

from __future__ import annotations

import ctypes
import errno

import pytest
from bpf import ALLOW, ERRNO, KILL, verdict

from tinamou.system.syscall_numbers import AUDIT, NAMES, NEWEST, name_of, number_of
from tinamou.system.syscalls import GROUPS, READER, program
from tinamou.tuning.syscalls import EVERY, HELPERS

KEY = (0x0123456789ABCDEF, 2, 1 << 63)
ARCHES = list(AUDIT)
AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_VSOCK = 1, 2, 10, 16, 40
THREAD, NEW_USER = 0x3D0F00, 0x10000000


def answer(arch, call, *arguments, groups=EVERY, key=KEY):
    return verdict(program(arch, groups, key), number_of(call, arch), AUDIT[arch], *arguments)


@pytest.fixture(scope="session")
def resolve():
    try:
        found = ctypes.CDLL("libseccomp.so.2").seccomp_syscall_resolve_name_arch
    except OSError:
        pytest.skip("no libseccomp on this host")
    found.argtypes = [ctypes.c_uint32, ctypes.c_char_p]
    return found


@pytest.mark.parametrize("arch", ARCHES)
def test_numbers_are_the_kernels(arch, resolve):
    """Against the table of another project; it has no riscv_hwprobe yet where it is old."""
    theirs = {name: resolve(AUDIT[arch], name.encode()) for name in NAMES if name != "riscv_hwprobe"}
    assert {name: number_of(name, arch) for name in theirs} == {n: v if v >= 0 else None for n, v in theirs.items()}


def test_names():
    assert name_of(101, AUDIT["x86_64"]) == "ptrace"
    assert name_of(117, AUDIT["aarch64"]) == "ptrace"
    assert name_of(9999, AUDIT["x86_64"]) == "system call 9999"
    assert name_of(1, 7) == "system call 1"
    with pytest.raises(KeyError):
        number_of("nonesuch", "x86_64")


def test_every_group_says_why_and_names_known_calls():
    assert all(group.why and set(group.calls.split()) <= NAMES for group in GROUPS.values())
    assert set(EVERY) <= set(GROUPS)
    with pytest.raises(KeyError):
        program("x86_64", ["nonesuch"])


@pytest.mark.parametrize("arch", ARCHES)
def test_each_call_is_answered_as_its_group_says(arch):
    """What is in no group of the machine is not allowed, whatever its arguments; all others are, with the right ones."""
    every = program(arch, EVERY, KEY)
    allowed = {name for group in EVERY for name in GROUPS[group].calls.split()}
    judged = {"socketpair", "clone", "prctl", "ioctl"}
    for name in sorted(NAMES):
        number = number_of(name, arch)
        if number is None or name in judged:
            continue
        got = verdict(every, number, AUDIT[arch])
        assert (got == ALLOW) == (name in allowed), name
    others = {number_of(name, arch) for name in allowed}
    for number in set(range(NEWEST + 1)) - others:
        assert verdict(every, number, AUDIT[arch]) != ALLOW, name_of(number, AUDIT[arch])


BREAK_IN = """
ptrace execve execveat wait4 kill unshare setns mount umount2 pivot_root chroot bpf keyctl add_key request_key bind connect
name_to_handle_at perf_event_open process_vm_readv process_vm_writev pidfd_open pidfd_getfd kexec_load init_module mq_open
finit_module setuid setresuid mknodat symlinkat linkat mkdirat fchmodat chown fchownat shmget shmat msgget semget open_tree
io_uring_enter io_uring_register fsopen
"""


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("call", BREAK_IN.split())
def test_what_a_break_in_needs_ends_it(arch, call):
    if number_of(call, arch) is None:
        pytest.skip(f"{arch} has none")
    assert answer(arch, call) == KILL


@pytest.mark.parametrize("arch", ARCHES)
def test_other_architectures_are_refused(arch):
    every = program(arch, GROUPS, KEY)
    read = number_of("read", arch)
    assert verdict(every, read, AUDIT[arch]) == ALLOW
    for other in {0x40000003, 0xC00000B7, 0xC00000F3, 0xC000003E, 0x40000028} - {AUDIT[arch]}:
        assert verdict(every, read, other) == KILL


def test_the_second_interface_of_x86_is_refused():
    every = program("x86_64", GROUPS, KEY)
    assert {verdict(every, 0x40000000 + number, AUDIT["x86_64"]) for number in (0, 1, 39, 512, 547)} == {KILL}


@pytest.mark.parametrize("arch", ARCHES)
def test_calls_nobody_knew_do_not_exist(arch):
    for number in (NEWEST + 1, 462, 999, 0x3FFFFFFF):
        assert verdict(program(arch, EVERY), number, AUDIT[arch]) == ERRNO | errno.ENOSYS


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("high", [0, 1 << 32, 0xFFFFFFFF << 32])
def test_only_the_half_that_the_kernel_looks_at_counts(arch, high):
    """An ``int`` is read from the low half of a register: what is in the high half must neither help nor hurt."""
    assert answer(arch, "socket", AF_NETLINK | high, 1) == KILL
    assert answer(arch, "socket", AF_VSOCK | high, 1) == KILL
    assert answer(arch, "socket", AF_INET | high, 1) == KILL
    assert answer(arch, "socket", AF_INET | high, 1, groups=[*EVERY, "internet"]) == ALLOW
    assert answer(arch, "socket", AF_UNIX | high, 1) == ERRNO | errno.EACCES
    assert answer(arch, "socket", AF_UNIX | high, 1, groups=[*EVERY, "server"]) == ALLOW
    assert answer(arch, "socketpair", AF_UNIX | high) == ALLOW
    assert answer(arch, "socketpair", AF_INET | high) == KILL
    assert answer(arch, "ioctl", 3, 0x5412 | high) == KILL
    assert answer(arch, "ioctl", 3, 0xAE80 | high) == ERRNO | errno.ENOTTY
    assert answer(arch, "ioctl", 3, 0xAE80 | high, groups=[*EVERY, "kvm"]) == ALLOW
    assert answer(arch, "ioctl", 3, 0x3B65 | high, groups=[*EVERY, "kvm"]) == ERRNO | errno.ENOTTY
    assert answer(arch, "ioctl", 3, 0x3B65 | high, groups=[*EVERY, "vfio"]) == ALLOW
    assert answer(arch, "ioctl", 3, 0x541B | high) == ALLOW
    assert answer(arch, "clone", THREAD | high) == ALLOW
    assert answer(arch, "clone", THREAD | NEW_USER | high) == KILL
    assert answer(arch, "clone", 17 | high) == KILL
    assert answer(arch, "prctl", 15 | high) == ALLOW
    assert answer(arch, "fcntl", 3, 3 | high) == ALLOW
    assert answer(arch, "fcntl", 3, 8 | high) == answer(arch, "fcntl", 3, 1024 | high) == ERRNO | errno.EPERM
    assert answer(arch, "prctl", 35 | high) == ERRNO | errno.EINVAL


DGRAM, RAW, ICMP6 = 2, 3, 58


@pytest.mark.parametrize("arch", ARCHES)
@pytest.mark.parametrize("flags", [0, 0o2000000, 1 << 32])
def test_sockets_of_helpers(arch, flags):
    """Of netlink what tells of routes, and no raw sockets but those of ICMPv6 for who announces them."""

    def answered(helper, family, kind, protocol):
        return answer(arch, "socket", family, kind | flags, protocol, groups=HELPERS[helper])

    for helper in ("passt", "dnsmasq"):
        assert answered(helper, AF_INET, DGRAM, 0) == answered(helper, AF_NETLINK, RAW, 0) == ALLOW
        assert answered(helper, AF_NETLINK, RAW, 12) == answered(helper, AF_INET, RAW, 1) == KILL
        assert answered(helper, AF_VSOCK, 1, 0) == KILL
    assert answered("dnsmasq", AF_INET6, RAW, ICMP6) == ALLOW
    assert answered("passt", AF_INET6, RAW, ICMP6) == answered("dnsmasq", AF_INET6, RAW, 17) == KILL
    assert answered("swtpm", AF_UNIX, 1, 0) == answered("virtiofsd", AF_UNIX, 1, 0) == ALLOW
    assert answered("swtpm", AF_INET, 1, 0) == answered("virtiofsd", AF_INET, 1, 0) == KILL


@pytest.mark.parametrize("arch", ARCHES)
def test_a_device_of_the_hosts_usb_lets_libusb_listen(arch):
    """For what is plugged in, and for nothing else that netlink tells; its requests go to the device it was handed."""
    groups = (*EVERY, "usb")
    assert answer(arch, "socket", AF_NETLINK, RAW, 15, groups=groups) == ALLOW
    for protocol in (0, 9, 12, 16):
        assert answer(arch, "socket", AF_NETLINK, RAW, protocol, groups=groups) == KILL
    assert answer(arch, "socket", AF_INET, 1, 0, groups=groups) == KILL
    assert answer(arch, "ioctl", 9, 0x8038550A, groups=groups) == ALLOW  # USBDEVFS_SUBMITURB
    assert answer(arch, "ioctl", 9, 0x8038550A, groups=EVERY) != ALLOW
    assert answer(arch, "socket", AF_NETLINK, RAW, 15, groups=EVERY) == KILL


@pytest.mark.parametrize("arch", ARCHES)
def test_processes_of_helpers(arch):
    fork = 0x1200011
    assert answer(arch, "clone", fork, groups=HELPERS["dnsmasq"]) == ALLOW
    assert answer(arch, "clone", 17, groups=HELPERS["dnsmasq"]) == ALLOW, "musl"
    assert answer(arch, "clone", fork | NEW_USER, groups=HELPERS["dnsmasq"]) == KILL
    assert answer(arch, "clone", fork, groups=HELPERS["swtpm"]) == KILL
    assert answer(arch, "unshare", 0x60020000, groups=HELPERS["virtiofsd"]) == ALLOW
    assert answer(arch, "unshare", 0x60020000 | NEW_USER, groups=HELPERS["virtiofsd"]) == KILL
    assert answer(arch, "execve", 1, 2, 3, 0, 0, 0, groups=HELPERS["virtiofsd"]) == KILL


@pytest.mark.parametrize("arch", ARCHES)
def test_who_reads_files_learns_of_no_other_process(arch):
    for call in ("getsid", "getpgid", "sched_getaffinity", "prlimit64"):
        assert answer(arch, call, 0, groups=READER) == ALLOW
        assert answer(arch, call, 7, groups=READER) == ERRNO | errno.EPERM


@pytest.mark.parametrize("arch", ARCHES)
def test_a_pointer_is_nothing_only_as_a_whole(arch):
    assert answer(arch, "prlimit64", 0, 4, 0) == ALLOW
    assert answer(arch, "prlimit64", 0, 4, 1 << 32) == ERRNO | errno.EPERM
    assert answer(arch, "prlimit64", 0, 4, 1) == ERRNO | errno.EPERM
    assert answer(arch, "prlimit64", 0, 7, 1 << 32) == ALLOW


@pytest.mark.parametrize("arch", ARCHES)
def test_execve_is_for_whoever_has_the_key(arch):
    assert answer(arch, "execve", 1, 2, 3, *KEY) == ALLOW
    for place in range(3):
        for bit in (0, 31, 32, 63):
            wrong = [word ^ (1 << bit if index == place else 0) for index, word in enumerate(KEY)]
            assert answer(arch, "execve", 1, 2, 3, *wrong) == KILL
    assert answer(arch, "execve", 1, 2, 3, 0, 0, 0, key=None) == KILL
    assert answer(arch, "execve", 1, 2, 3, groups=[*EVERY, "wrapper"]) == ALLOW


@pytest.mark.parametrize("arch", ARCHES)
def test_what_is_merely_tried_gets_an_error(arch):
    assert answer(arch, "clone3") == ERRNO | errno.ENOSYS
    assert answer(arch, "io_uring_setup") == ERRNO | errno.ENOSYS
    assert answer(arch, "io_uring_setup", groups=[*EVERY, "io_uring"]) == ALLOW
    assert answer(arch, "userfaultfd") == ERRNO | errno.EPERM
    assert answer(arch, "mbind") == ERRNO | errno.EPERM
    assert answer(arch, "mbind", groups=[*EVERY, "memory nodes"]) == ALLOW
    assert answer(arch, "unlinkat") == ERRNO | errno.EACCES
