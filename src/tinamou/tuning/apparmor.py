"""AppArmor profiles of one machine: what its QEMU and its helper processes may open, whatever their user could.

One text has them all, loaded before the first of them starts and removed after the last has ended (prepare/profiles.py).
Helpers that may be plugged in later have theirs from the start. Source: apparmor.d(5).
"""

from __future__ import annotations

from collections.abc import Sequence

from tinamou import late
from tinamou.blueprint import HandOver, LoadProfiles, Plan, Why
from tinamou.facts import Place
from tinamou.parts.display_tcp import SERVER

__all__ = ["HELPERS", "confined", "of_network", "rule"]

HELPERS = ("swtpm", "passt", "virtiofsd")
"""Helper processes of a machine, by the first part of their names; each has the profile ``NAME-HELPER``."""

_QUOTED = str.maketrans({character: f"\\{character}" for character in '"\\*?[]{}^@$'})
_DEVICES = {"kvm": "/dev/kvm", "vfio": "/dev/vfio/**", "encryption": "/dev/sev"}
"""What groups of system calls go with."""

_HEAD = """abi <abi/3.0>,
include <tunables/global>
"""
_FRAME = """
profile "{name}" flags=(attach_disconnected) {{
  include <abstractions/base>
  signal (receive) peer=unconfined,
  network unix,
  unix,
{rules}}}
"""
_QEMU = """
  deny capability,
  /{,usr/}{,local/}{bin,lib,lib64,libexec,share}/** mr,
  /etc/{resolv.conf,hosts,host.conf,gai.conf,nsswitch.conf,services,localtime,qemu/**,selinux/config,libnl*/**,sasl2/**} r,
  /dev/{null,zero,urandom,random,hugepages/**} rw,
  /dev/{vhost-net,vhost-vsock,net/tun} rw,
  @{sys}/{bus,class,devices,kernel,module}/** r,
  @{PROC}/{cpuinfo,meminfo,stat,devices,filesystems,sys/**} r,
  owner @{PROC}/{@{pid},self}/** r,
"""
_SWTPM = """
  deny capability,
  /{,usr/}{,local/}bin/swtpm mr,
  /etc/ssl/** r,
"""
_PASST = """
  capability net_bind_service setuid setgid sys_admin setpcap net_admin sys_ptrace,
  / r,
  mount "" -> "/",
  mount "" -> "/tmp/",
  pivot_root "/tmp/" -> "/tmp/",
  umount "/",
  network netlink raw,
  network inet,
  network inet6,
  /{,usr/}{,local/}bin/passt{,.avx2} mrix,
  /etc/** r,
  @{PROC}/** rw,
"""
_VIRTIOFSD = """
  capability chown dac_override dac_read_search fowner fsetid setgid setuid sys_admin setpcap sys_resource sys_chroot,
  mount,
  umount,
  pivot_root,
  network netlink raw,
  /{,usr/}{,local/}{bin,sbin,lib,libexec}/** mrix,
  /{,**} rwkl,
"""
"""It makes the shared folder its root, and its files' names begin there: no rule can tell them from the host's by then."""


_DNSMASQ = """
  capability net_bind_service net_raw,
  network inet,
  network inet6,
  network netlink raw,
  network packet,
  /{,usr/}{,local/}sbin/dnsmasq mr,
  /**/tinamou/images/programs/claims.* mr,
  /etc/{resolv.conf,hosts,host.conf,nsswitch.conf,group,services,localtime} r,
  /{,var/}run/{systemd/resolve/,resolvconf/,NetworkManager/}{stub-,}resolv.conf r,
  @{PROC}/sys/net/ipv[46]/** rw,
  owner @{PROC}/{@{pid},self}/** r,
"""


def of_network(name: str, directory: str) -> str:
    """The profile of the one process that serves a network's names and addresses, whose files are in that folder."""
    return _HEAD + _framed(name, [_DNSMASQ, rule(f"{directory}/", "rw", "{,**}")])


def confined(plan: Plan, place: Place) -> Plan:
    """The same plan under profiles of the machine's own."""
    if place.uid is None:
        return plan
    name = f"tinamou-{place.name}-{place.uid}"
    why = Why("host", "AppArmor is active: QEMU and its helper processes may open what is this machine's, and nothing else")
    step = LoadProfiles(name, _text(name, plan, place.directory), why)
    steps = tuple(one for one in plan.steps if not isinstance(one, LoadProfiles))
    return late.replace(plan, steps=(step, *steps), confinement=late.replace(plan.confinement, profile=name))


def _text(name: str, plan: Plan, directory: str) -> str:
    groups = {one.group for one in plan.confinement.calls}
    qemu = [rule(plan.binary, "mr"), rule(f"{directory}/", "r"), rule(f"{directory}/", "rwk", "**")]
    qemu += [rule(step.path, "r" if step.access in ("read", "secret") else "rwk") for step in _outside(plan, directory)]
    qemu += [f"  {path} rw,\n" for group, path in _DEVICES.items() if group in groups or not groups]
    screen = any(flag.name == "vnc" and flag.options.get("id") == SERVER for flag in plan.flags)
    qemu += ["  network inet,\n  network inet6,\n"] if "internet" in groups or not groups or screen else []
    qemu += ["  network netlink raw,\n"] if "usb" in groups else []
    large = any(element.props.get("hugetlb") for element in plan.elements)
    qemu += ["  / rw,\n"] if large else []  # the name of memory without one on large pages, as the kernel tells it
    own = {
        "swtpm": [_SWTPM, rule(f"{directory}/tpm/", "rwk", "{,**}")],
        "passt": [_PASST, rule(f"{directory}/", "rw", "net*/{,**}")],
        "virtiofsd": [_VIRTIOFSD],
    }
    whole = [_framed(name, [_QEMU, *dict.fromkeys(qemu)])]
    whole += [_framed(f"{name}-{helper}", own[helper]) for helper in HELPERS]
    return _HEAD + "".join(whole)


def _outside(plan: Plan, directory: str) -> list[HandOver]:
    """Open files that are not below the machine's folder."""
    handed = (step for step in plan.steps if isinstance(step, HandOver) and step.access in ("read", "write", "secret"))
    return [step for step in handed if not step.path.startswith(f"{directory}/")]


def _framed(name: str, rules: Sequence[str]) -> str:
    return _FRAME.format(name=name, rules="".join(rules))


def rule(path: str, rights: str, below: str = "") -> str:
    """One line of a profile; no sign in the path means anything but itself. ``below`` is a pattern of what lies below it."""
    return f'  "{path.translate(_QUOTED)}{below}" {rights},\n'
