"""The filters of system calls that QEMU and helpers run under: lists of what is allowed, in groups, each with its reason.

One is loaded before the first instruction; QEMU's own ``-sandbox`` and the helpers' own filters come on top of it. Whatever
is in no group that is allowed (tuning/syscalls.py says which) ends it with SIGSYS, which the kernel logs; what is merely
tried gets an error. The lists were made by recording machines and helpers of all kinds, and by reading QEMU, glib and the
C libraries; tests/launch/test_filtered_machines.py records again.
Source: seccomp(2), Documentation/userspace-api/seccomp_filter.rst.
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import struct
from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

from tinamou.system.syscall_numbers import AUDIT, NEWEST, Arch, number_of

__all__ = ["GROUPS", "Group", "is_script", "keyed", "program"]

Code = list[tuple[int, int, int, int]]
"""Instructions (struct sock_filter): code, how many to skip where a comparison is true, and where it is false, constant."""


class Group(NamedTuple):
    """What belongs together: why it is needed, the calls, and which arguments some of them may have.

    ``ioctls`` are the first letters of requests, ``requests`` whole ones; ``families`` those of sockets, of netlink only
    what tells of routes, and with ``hears`` of devices that come and go; ``options`` are of prctl. With ``forks`` it may
    make processes, but for those with namespaces; with ``announces`` raw sockets of ICMPv6, with ``users`` user namespaces.
    """

    why: str
    calls: str = ""
    ioctls: tuple[int, ...] = ()
    families: tuple[int, ...] = ()
    requests: tuple[int, ...] = ()
    options: tuple[int, ...] = ()
    forks: bool = False
    announces: bool = False
    users: bool = False
    hears: bool = False


AF_UNIX, AF_INET, AF_INET6, AF_NETLINK, AF_ALG = 1, 2, 10, 16, 38
_UEVENTS = 15
"""NETLINK_KOBJECT_UEVENT."""

GROUPS: Mapping[str, Group] = {
    "memory": Group(
        "guest RAM, the heap, and code that is translated; RCU waits with membarrier",
        "brk mmap munmap mprotect mremap madvise mincore msync mlock mlock2 mlockall munlock munlockall membarrier "
        "memfd_create",
    ),
    "files": Group(
        "disks, firmware, states and logs, and the libraries and modules it loads; chdir is libndctl's, at load time",
        "read readv pread64 preadv preadv2 write writev pwrite64 pwritev pwritev2 lseek fallocate ftruncate fsync fdatasync "
        "sync_file_range fadvise64 copy_file_range open openat close close_range dup dup2 dup3 fcntl flock stat lstat fstat "
        "newfstatat statx statfs fstatfs getdents64 readlink readlinkat access faccessat faccessat2 getcwd chdir fchdir "
        "umask ioctl",
        ioctls=(0x12, 0x58, 0x66),
    ),
    "events": Group(
        "the main loop and the I/O threads wait for descriptors, timers and signals",
        "poll ppoll select pselect6 epoll_create1 epoll_ctl epoll_wait epoll_pwait epoll_pwait2 eventfd2 pipe pipe2 "
        "timerfd_create timerfd_settime timerfd_gettime signalfd4",
    ),
    "threads": Group(
        "a thread for each virtual CPU and I/O thread, and a pool of workers; no processes",
        "clone futex set_robust_list get_robust_list rseq set_tid_address gettid getpid getppid getpgrp getpgid getsid "
        "getcpu sched_yield sched_getaffinity sched_getparam sched_getscheduler sched_getattr prctl arch_prctl "
        "riscv_flush_icache riscv_hwprobe exit exit_group",
    ),
    "signals": Group(
        "threads are woken by signals; coroutines have stacks of their own",
        "rt_sigaction rt_sigprocmask rt_sigreturn rt_sigpending rt_sigsuspend rt_sigtimedwait sigaltstack tgkill tkill "
        "restart_syscall",
    ),
    "time": Group(
        "clocks of the guest and of limits on speed",
        "clock_gettime clock_getres clock_nanosleep nanosleep gettimeofday time times getrusage timer_create timer_settime "
        "timer_gettime timer_getoverrun timer_delete getitimer setitimer",
    ),
    "identity": Group(
        "what it runs as and on is read; limits are read, and that of open files raised as far as it may be",
        "getuid geteuid getgid getegid getgroups getresuid getresgid getpriority uname sysinfo getrandom prlimit64 "
        "getrlimit",
    ),
    "sockets": Group(
        "monitors, consoles, helpers and switches, on sockets it was handed; pairs it makes for helpers",
        "accept accept4 listen shutdown getsockname getpeername getsockopt setsockopt sendto sendmsg sendmmsg recvfrom "
        "recvmsg recvmmsg socketpair",
    ),
    "sandbox": Group("it loads its own filter on top of this one", "seccomp"),
    "cards": Group("queues of tap interfaces and vhost channels it was handed, also while it runs", ioctls=(0xAF,)),
    "kvm": Group("guest code runs on the host's CPU, by requests to /dev/kvm", ioctls=(0xAE,)),
    "vfio": Group("devices of the host that the guest has, by requests to /dev/vfio and iommufd", ioctls=(0x3B,)),
    "usb": Group(
        "a USB device of the host that the guest has; libusb listens for others, of which QEMU's own network tells none",
        "bind",
        ioctls=(0x55,),
        hears=True,
    ),
    "encryption": Group("the secure processor is asked to encrypt the guest's memory", ioctls=(0x53,)),
    "memory nodes": Group("guest RAM is bound to memory nodes", "mbind set_mempolicy set_mempolicy_home_node"),
    "native": Group(
        "disks whose requests are queued by Linux AIO", "io_setup io_submit io_getevents io_pgetevents io_destroy io_cancel"
    ),
    "io_uring": Group("disks whose requests are queued in a ring", "io_uring_setup io_uring_enter io_uring_register"),
    "internet": Group(
        "QEMU's own network (libslirp) opens sockets for the guest", "bind connect", families=(AF_INET, AF_INET6)
    ),
    "server": Group(
        "the server of a screen or a cable makes its socket, in the machine's folder for them",
        "bind unlink unlinkat",
        families=(AF_UNIX,),
    ),
    "wrapper": Group(
        "the program is a script, which becomes it; from then on QEMU's and the helpers' own filters refuse these",
        "execve fork vfork wait4",
        forks=True,
    ),
    "own files": Group(
        "files in a folder of its own are made, named anew, removed",
        "chmod fchmod fchmodat link linkat mkdir mkdirat rename renameat renameat2 rmdir unlink unlinkat utimensat",
    ),
    "swtpm": Group("it makes the socket QEMU is connected to", "bind", families=(AF_UNIX,)),
    "passt": Group(
        "it makes the guest's connections, and at first walls of its own, whose filter refuses these calls from then on",
        "bind capget capset chown connect epoll_create mount pivot_root setgid setgroups setresgid setresuid setsid setuid "
        "splice tee umount2 unlink unlinkat unshare",
        families=(AF_UNIX, AF_INET, AF_INET6, AF_NETLINK),
        requests=(0x8910, 0x8933),  # SIOCGIFNAME, SIOCGIFINDEX
        users=True,
        options=(
            4,
            24,
            27,
            28,
            36,
            47,
        ),  # SET_DUMPABLE, CAPBSET_DROP, {GET,SET}_SECUREBITS, SET_CHILD_SUBREAPER, CAP_AMBIENT
    ),
    "dnsmasq": Group(
        "it answers by sockets of the host, watches files of names, and forks for whoever asks by TCP",
        "alarm bind connect fork inotify_add_watch inotify_init1 inotify_rm_watch wait4",
        families=(AF_INET, AF_INET6, AF_NETLINK),
        requests=(0x8910, 0x8912, 0x8913, 0x8915, 0x8921, 0x8927, 0x8933),  # SIOCGIF*
        forks=True,
        announces=True,
    ),
    "virtiofsd": Group(
        "it makes what the guest makes in the shared folder, as the guest's users; at first walls of its own",
        "bind capget capset chown chroot fork fchown fchownat fgetxattr flistxattr fremovexattr fsetxattr getxattr kill "
        "lchown lgetxattr listxattr llistxattr lremovexattr lsetxattr mknod mknodat mount name_to_handle_at "
        "open_by_handle_at pidfd_open pivot_root removexattr setfsgid setfsuid setgid setgroups setresgid setresuid setuid "
        "setxattr symlink symlinkat syncfs truncate umount2 unshare wait4",
        families=(AF_UNIX,),
        options=(1, 2, 4, 7, 8, 24, 27, 28, 47),  # {SET,GET}_PDEATHSIG, SET_DUMPABLE, {GET,SET}_KEEPCAPS, as above
        forks=True,
    ),
    "reader": Group("it reads a file and says what is in it", "unlink unlinkat"),
}
"""Every group by its name."""

READER = ("memory", "files", "events", "threads", "signals", "time", "identity", "sockets", "reader")
"""What a program is allowed that reads a file nobody vouches for."""

_PROBED: Mapping[str, int] = {
    "clone3": errno.ENOSYS,  # its flags lie in memory, where no filter sees them; C libraries fall back to clone
    "io_uring_setup": errno.ENOSYS,  # every main loop tries it, and waits by poll without
    "openat2": errno.ENOSYS,
    "userfaultfd": errno.EPERM,  # asked for where a monitor's client asks what can migrate
    "set_mempolicy": errno.EPERM,  # libnuma tries it when it is loaded
    "get_mempolicy": errno.EPERM,
    "mbind": errno.EPERM,
    "unlink": errno.EACCES,  # of the sockets it was handed, when it ends; their folder is not its own
    "unlinkat": errno.EACCES,
    **dict.fromkeys(
        ("sched_setaffinity", "sched_setattr", "sched_setparam", "sched_setscheduler", "setpriority"), errno.EPERM
    ),
}
"""What libraries or QEMU try and do without, and the error they are given where no group allows it."""

_LOAD, _EQUAL, _AT_LEAST, _AND, _JUMP, _RETURN = 0x20, 0x15, 0x35, 0x54, 0x05, 0x06
_ALLOW, _ERRNO, _KILL = 0x7FFF0000, 0x00050000, 0x80000000
_NUMBER, _ARCH, _ARGUMENTS = 0, 4, 16
"""Where struct seccomp_data has them; the low half of an argument comes first on all three architectures."""
_SECOND_TABLE: Mapping[Arch, int] = {"x86_64": 0x40000000}
"""Numbers from here on are those of another interface of the same processor (x32), which is refused."""
_THREAD = (0x3D0F00, 0x7D0F00)
"""Flags of clone(2) for a thread, as glibc and musl have them."""
_FORK = (0x1200011, 0x4111, 0x11)
"""Flags of fork() and posix_spawn() in glibc, of fork() in musl."""
_PRCTL = (15, 16, 21, 22, 29, 30, 33, 34, 38, 39, 3, 23, 0x53564D41)
"""PR_{SET,GET}_NAME, _SECCOMP, _TIMERSLACK, MCE_KILL, _NO_NEW_PRIVS; GET_DUMPABLE, CAPBSET_READ, SET_VMA."""
_NOFILE = 7
_ICMPV6 = 58
_NEW_USER = 0x10000000
_FCNTL = (8, 10, 15, 1024, 1026)
"""F_SETOWN, F_SETSIG, F_SETOWN_EX have the kernel send signals; F_SETLEASE has others wait; F_NOTIFY watches folders."""
_TELLING = (
    *("getpgid", "getsid", "get_robust_list", "sched_getaffinity", "sched_getattr", "sched_getparam"),
    "sched_getscheduler",
)
"""Calls that tell of any process, where those of the host are not hidden."""
_IOCTLS = (
    *(0x5421, 0x541B, 0x5450, 0x5451, 0x5401, 0x5413),
    *(0x800454CF, 0x800454D2, 0x400454D0, 0x400454D4, 0x800454D7),
    *(0x400454D8, 0x400454D9, 0x400454DC, 0x400454DE, 0x400454E2),
)
"""FIONBIO, FIONREAD, FIONCLEX, FIOCLEX, TCGETS, TIOCGWINSZ; of a tap its features, name, offloads, queue, …"""
_INJECTING = (0x5412, 0x541C)
"""TIOCSTI and TIOCLINUX put words into a terminal's mouth."""


def program(arch: Arch, groups: Iterable[str], key: tuple[int, int, int] | None = None) -> bytes:
    """The filter as an array of struct sock_filter, for a host of that architecture. Raises KeyError for an unknown group.

    ``key`` are three random words: execve is allowed to whoever passes them as its fourth to sixth argument, which is the
    process that becomes QEMU, and to nobody else. Without them it is allowed to nobody, but with the group ``wrapper``.
    """
    chosen = frozenset(groups)
    free = any("execve" in GROUPS[name].calls.split() for name in chosen)
    keyed = [] if key is None or free else _keyed(key)
    begun = [(_EQUAL, 0, len(keyed), number_of("execve", arch) or 0), *keyed] if keyed else []
    foreign = [(_AT_LEAST, 0, 1, _SECOND_TABLE[arch]), *_answer(_KILL)] if arch in _SECOND_TABLE else []
    start = [_load(_ARCH), (_EQUAL, 1, 0, AUDIT[arch]), *_answer(_KILL), _load(_NUMBER), *foreign]
    return _packed([*start, *begun]) + _listed(arch, chosen)


def keyed(groups: Iterable[str], program_file: str = "") -> bytes:
    """The filter for this host, and the random key to the one execve it allows; empty for an architecture without one.

    A ``program_file`` that is a script may become another program, and start some.
    """
    machine = os.uname().machine
    if machine not in AUDIT:
        return b""
    groups = (*groups, "wrapper") if program_file and is_script(program_file) else groups
    key = os.urandom(24)
    first, second, third = struct.unpack("<3Q", key)
    return program(machine, groups, (first, second, third)) + key


def is_script(path: str) -> bool:
    """Whether another program reads the file and does what it says; no where it cannot be read."""
    with contextlib.suppress(OSError), open(path, "rb") as file:  # noqa: PTH123
        return file.read(2) == b"#!"
    return False


@functools.cache
def _listed(arch: Arch, groups: frozenset[str]) -> bytes:
    """The part that is the same for every machine with these groups: the number is in the accumulator."""
    chosen = {name: GROUPS[name] for name in groups}
    allowed = {name for group in chosen.values() for name in group.calls.split()} | {"socket"}
    actions = {name: _answer(_ERRNO | error) for name, error in _PROBED.items()}
    actions |= {name: _answer(_ALLOW) for name in allowed}
    actions |= {name: code for name, code in _checks(chosen).items() if name in allowed}
    numbered = {number: code for name, code in actions.items() if (number := number_of(name, arch)) is not None}
    return _packed(_tree(_spans(numbered)))


def _packed(code: Code) -> bytes:
    return b"".join(struct.pack("<HBBI", *one) for one in code)


def _checks(chosen: Mapping[str, Group]) -> dict[str, Code]:
    """Calls that are allowed with some arguments only; where an argument is an ``int``, the kernel looks at its low half."""
    families = [family for group in chosen.values() for family in group.families]
    letters = [letter for group in chosen.values() for letter in group.ioctls]
    requests = [request for group in chosen.values() for request in group.requests]
    options = [option for group in chosen.values() for option in group.options]
    forks = any(group.forks for group in chosen.values())
    users = any(group.users for group in chosen.values())
    raw = any(group.announces for group in chosen.values())
    hears = any(group.hears for group in chosen.values())
    mine = {AF_UNIX: errno.EACCES, AF_ALG: errno.EAFNOSUPPORT}  # the C library's name service and QEMU's ciphers try these
    refused = [(family, _ERRNO | error) for family, error in mine.items() if family not in families]
    return {
        "socket": [
            *_netlink([*([0] if AF_NETLINK in families else []), *([_UEVENTS] if hears else [])]),
            *_plain(raw),
            *_by_value(_low(0), [*((one, _ALLOW) for one in families), *refused], _KILL),
        ],
        "socketpair": _by_value(_low(0), [(AF_UNIX, _ALLOW)], _KILL),
        "clone": _by_value(_low(0), [(flags, _ALLOW) for flags in (*_THREAD, *(_FORK if forks else ()))], _KILL),
        "fcntl": _by_value(_low(1), [(command, _ERRNO | errno.EPERM) for command in _FCNTL], _ALLOW),
        "unshare": [*_low(0), (_AND, 0, 0, 0 if users else _NEW_USER), (_EQUAL, 0, 1, 0), *_answer(_ALLOW), *_answer(_KILL)],
        "prctl": _by_value(_low(0), [(option, _ALLOW) for option in (*_PRCTL, *options)], _ERRNO | errno.EINVAL),
        "prlimit64": [*_of_itself(), *_low(1), (_EQUAL, 0, 1, _NOFILE), *_answer(_ALLOW), *_null(2)],
        **({name: [*_of_itself(), *_answer(_ALLOW)] for name in _TELLING} if chosen.keys() & {"reader", "swtpm"} else {}),
        "ioctl": [
            *_low(1),
            (_AND, 0, 0, 0xFF00),
            *(one for letter in letters for one in ((_EQUAL, 0, 1, letter << 8), *_answer(_ALLOW))),
            *_by_value(
                _low(1),
                [*((r, _ALLOW) for r in (*_IOCTLS, *requests)), *((r, _KILL) for r in _INJECTING)],
                _ERRNO | errno.ENOTTY,
            ),
        ],
    }


def _netlink(protocols: Sequence[int]) -> Code:
    """Of netlink these protocols alone (0: NETLINK_ROUTE): not the packet filter, audit, generic families."""
    if not protocols:
        return []
    allowed = [one for protocol in protocols for one in ((_EQUAL, 0, 1, protocol), *_answer(_ALLOW))]
    return [*_low(0), (_EQUAL, 0, len(allowed) + 2, AF_NETLINK), *_low(2), *allowed, *_answer(_KILL)]


def _plain(raw: bool) -> Code:
    """Streams, datagrams, packets in order; of raw sockets those of ICMPv6 where it announces routes."""
    kinds = [*_low(1), (_AND, 0, 0, 0xF), (_EQUAL, 3, 0, 1), (_EQUAL, 2, 0, 2), (_EQUAL, 1, 0, 5), *_answer(_KILL)]
    allowed = [*_low(0), (_EQUAL, 0, 3, AF_INET6), *_low(2), (_EQUAL, 0, 1, _ICMPV6), *_answer(_ALLOW)]
    return [*(allowed if raw else []), *kinds]


def _of_itself() -> Code:
    """An error where the first argument is the number of a process; 0 is the one that asks."""
    return [*_low(0), (_EQUAL, 1, 0, 0), *_answer(_ERRNO | errno.EPERM)]


def _load(offset: int) -> tuple[int, int, int, int]:
    return (_LOAD, 0, 0, offset)


def _low(argument: int) -> Code:
    return [_load(_ARGUMENTS + 8 * argument)]


def _answer(action: int) -> Code:
    return [(_RETURN, 0, 0, action)]


def _by_value(load: Code, answers: Iterable[tuple[int, int]], otherwise: int) -> Code:
    code = [one for value, action in answers for one in ((_EQUAL, 0, 1, value), *_answer(action))]
    return [*load, *code, *_answer(otherwise)]


def _null(argument: int) -> Code:
    """Allowed where the whole argument is 0, refused elsewhere."""
    return _whole([(argument, 0)], _ERRNO | errno.EPERM)


def _keyed(key: tuple[int, int, int]) -> Code:
    """Allowed to whoever knows the three words."""
    return _whole([(3 + index, word) for index, word in enumerate(key)], _KILL)


def _whole(wanted: Iterable[tuple[int, int]], otherwise: int) -> Code:
    halves = [(8 * argument + 4 * half, word >> 32 * half & 0xFFFFFFFF) for argument, word in wanted for half in (0, 1)]
    refuse = _answer(otherwise)
    return [
        *(one for at, half in halves for one in (_load(_ARGUMENTS + at), (_EQUAL, 1, 0, half), *refuse)),
        *_answer(_ALLOW),
    ]


def _spans(actions: Mapping[int, Code]) -> list[tuple[int, Code]]:
    """Ranges of numbers by their first one, each with what is done; the last has no end."""
    others, newer = _answer(_KILL), _answer(_ERRNO | errno.ENOSYS)
    spans: list[tuple[int, Code]] = []
    for number in range(NEWEST + 2):
        code = actions.get(number, others if number <= NEWEST else newer)
        if not spans or spans[-1][1] != code:
            spans.append((number, code))
    return spans


def _tree(spans: list[tuple[int, Code]]) -> Code:
    """The number is in the accumulator: a search by halves, so that each call costs some eight comparisons."""
    if len(spans) == 1:
        return spans[0][1]
    middle = len(spans) // 2
    low, high = _tree(spans[:middle]), _tree(spans[middle:])
    return [(_AT_LEAST, 0, 1, spans[middle][0]), (_JUMP, 0, 0, len(low)), *low, *high]
