"""The commands that stand around a QEMU command line in scripts and articles: what each was for, and what does it here."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from tinamou.convert.qemu_cpu import pinned
from tinamou.convert.qemu_line import Line
from tinamou.convert.result import Disk, Draft
from tinamou.convert.shell import Command
from tinamou.convert.values import cpu_set, size
from tinamou.units import CpuSet

__all__ = ["MOST_WRAPPERS", "before", "known", "precedes", "read"]

MOST_WRAPPERS = 32
"""Words before a command, such as ``sudo taskset -c 0-3``."""
_WRAPPERS = (
    "sudo",
    "doas",
    "exec",
    "nohup",
    "setsid",
    "nice",
    "ionice",
    "time",
    "env",
    "taskset",
    "numactl",
    "chrt",
    "command",
)
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=")
_SHELL = frozenset((
    "for", "case", "[", "[[", "test", "set", "echo", "printf", "cd", "export", "source", ".", "exit", "sleep",
    "wait", "shift", "true", "false", "read", "return", "local", "declare", "readonly", "function", "mkdir", "trap",
    "eval"
))  # fmt: skip

_BOUND = ("devices of the host are taken by address, with their whole group, and given back", 'set pci = ["ADDRESS"]')
_WRITES = {
    "new_id": ("changed", *_BOUND),
    "unbind": ("changed", *_BOUND),
    "bind": ("changed", *_BOUND),
    "driver_override": ("changed", *_BOUND),
    "ksm/run": ("done", "a machine's memory is not merged with others' unless memory.merge says so", ""),
    "smt/control": ("done", "a setting of the host", "tinamou doctor says what it means here"),
    "transparent_hugepage": ("done", "a setting of the host", "tinamou doctor says which are wrong"),
    "drop_caches": ("done", "not needed: memory is counted before a machine starts", ""),
    "scaling_governor": ("done", "a setting of the host", "tinamou doctor says which are wrong"),
}
"""A file of the kernel's → rank, reason and fix of the note on writing to it."""


def precedes(words: Sequence[str]) -> bool:
    """Whether words before a command are of those that start another one."""
    if len(words) > MOST_WRAPPERS:
        return False
    return not words or words[0].rsplit("/", 1)[-1] in _WRAPPERS or bool(_ASSIGNMENT.match(words[0]))


def known(command: Command) -> bool:
    """Whether a command alone says something about a machine."""
    return _command(command)[0] in ("taskset", "qemu-img", "virsh") or _nr_hugepages(command)


def _command(command: Command) -> tuple[str, list[str]]:
    own = (at for at, word in enumerate(command.words) if word not in ("sudo", "doas") and not _ASSIGNMENT.match(word))
    at = next(own, None)
    return ("", []) if at is None else (command.words[at].rsplit("/", 1)[-1], list(command.words[at + 1 :]))


def before(draft: Draft, words: Sequence[str]) -> None:
    """Words such as sudo and taskset in front of the binary's name."""
    for at, word in enumerate(words):
        name, rest = word.rsplit("/", 1)[-1], list(words[at + 1 :])
        if name in ("sudo", "doas"):
            draft.done(name, "", "a user without rights can start machines; QEMU itself never runs as root")
        elif name == "taskset":
            _taskset(draft, "taskset", rest)
        elif name == "numactl":
            _numactl(draft, rest)
        elif name == "chrt":
            draft.changed(
                name, " ".join(rest), "real-time priority is for the virtual CPUs alone", "set cpu.pin and cpu.realtime"
            )
        elif name in ("nice", "ionice"):
            draft.changed(name, " ".join(rest[:2]), "what a machine may use at most is set in [limits]", "set limits.cpu")


def read(draft: Draft, command: Command) -> None:
    """One command that is not QEMU's. None is dropped: each is carried over, or named."""
    name, words = _command(command)
    where = f"line {command.line}"
    if _nr_hugepages(command):
        reason = "these pages are gone whether a machine runs or not; here they are reserved on demand, and returned"
        draft.put("memory.hugepages", draft.get("memory.hugepages") or "auto")
        draft.changed(where, " ".join([*command.words, command.target]).strip(), reason, "set memory.hugepages")
    elif _written(draft, where, command):
        return
    elif name in _READERS:
        _READERS[name](draft, where, words)
    elif name in _SAID:
        draft.done(where, " ".join([name, *words])[:120], *_SAID[name])
    elif name in _SHELL or not name:
        draft.done(where, " ".join(command.words)[:80], "a step of the script that is not run here")
    else:
        draft.check(
            where,
            " ".join(command.words)[:120],
            "what it does for the machine is not known",
            "do it by hand if it is needed",
        )


def _nr_hugepages(command: Command) -> bool:
    return "nr_hugepages" in " ".join([*command.words, command.target])


def _written(draft: Draft, where: str, command: Command) -> bool:
    """A value written to a file of the kernel's, by echo or tee; False for any other command."""
    name, words = _command(command)
    file = command.target if name in ("echo", "printf") else words[-1] if name == "tee" and words else ""
    known = next((key for key in _WRITES if key in file), "")
    if known:
        rank, reason, fix = _WRITES[known]
        getattr(draft, rank)(
            where, f"{' '.join(command.words)} > {file}" if command.target else " ".join(words), reason, fix
        )
    return bool(known)


def _taskset(draft: Draft, where: str, words: list[str]) -> None:
    lists = any(word.startswith("-") and "c" in word for word in words)
    text = next((word for word in words if not word.startswith("-")), "")
    try:
        mask = 0 if lists else int(text, 16)
        cpus = cpu_set(text) if lists else CpuSet.of(n for n in range(4096) if mask >> n & 1)
    except ValueError:
        cpus = CpuSet()
    if not cpus:
        draft.lost(where, " ".join(["taskset", *words]), "it names no CPUs", "set cpu.pin")
        return
    if "pgrep" in " ".join(words):
        reason = "pgrep finds whichever machine's QEMU comes first, and taskset -p moves one of its threads"
        draft.check(where, " ".join(["taskset", *words]), reason, "not needed any more")
    pinned(Line(draft), where, cpus, "taskset")


def _numactl(draft: Draft, words: list[str]) -> None:
    text = " ".join(words)
    match = re.search(r"(?:--physcpubind|-C)[= ](\S+)", text)
    if match and (cpus := cpu_set(match[1])):
        pinned(Line(draft), "numactl", cpus, "numactl")
        return
    reason = "which CPUs a memory node has, is known on the host alone"
    draft.put("cpu.pin", "auto")
    draft.changed(
        "numactl", text, reason + "; CPUs and memory of one node are chosen there", "name the node's CPUs in cpu.pin"
    )


def _qemu_img(draft: Draft, where: str, words: list[str]) -> None:
    text = " ".join(["qemu-img", *words])
    if not words or words[0] != "create":
        fix = {"check": "tinamou check NAME", "snapshot": "tinamou snapshot create NAME", "convert": "tinamou image convert"}
        draft.done(
            where,
            text,
            "a tool's work on a file, not a machine's",
            fix.get(words[0] if words else "", "tinamou image --help"),
        )
        return
    flags, names = _flags(words[1:])
    disk = next((one for one in draft.disks if names and one.file == names[0]), None)
    if base := flags.get("b"):
        if "F" not in flags:
            reason = "-b without -F fails with today's qemu-img: what the base is, must be said, and is not guessed"
            draft.check(where, text, reason, f"qemu-img create -f qcow2 -b {base} -F FORMAT {names[0] if names else ''}")
        reason = f"every machine made from {base} gets such a layer by itself; {base} stays as it is"
        draft.changed(where, text, reason, "tinamou snapshot create NAME takes a snapshot later")
        _put_base(draft, disk, where, base, flags)
        return
    amount = size(names[1], unit="B") if len(names) > 1 else None
    if amount is None:
        draft.lost(where, text, "no size for the new disk", "set size = …")
        return
    disk = disk or _added(draft, where, names[0])
    disk.size = str(amount)
    draft.changed(where, text, f"an empty disk of {amount} is made with the machine, if {names[0]} is not there by then")


def _put_base(draft: Draft, disk: Disk | None, where: str, base: str, flags: dict[str, str]) -> None:
    below = next((one for one in draft.disks if one.file == base and one is not disk), None)
    if disk is None and below is None:
        disk = _added(draft, where, base)
    elif below is not None and disk is None:
        return
    if disk is not None:
        if below is not None:
            draft.disks.remove(below)
            disk.size = below.size
        disk.file, disk.format = base, flags.get("F", "")


def _added(draft: Draft, where: str, name: str) -> Disk:
    disk = Disk(where, name)
    draft.disks.append(disk)
    return disk


def _flags(words: list[str]) -> tuple[dict[str, str], list[str]]:
    flags: dict[str, str] = {}
    names, rest = [], iter(words)
    for word in rest:
        if word in ("-f", "-b", "-F", "-o"):
            flags[word[1:]] = next(rest, "")
        elif not word.startswith("-"):
            names.append(word)
    return flags, names


def _virsh(draft: Draft, where: str, words: list[str]) -> None:
    does = {
        "snapshot-create-as": ("a snapshot here is one transaction over all disks", "tinamou snapshot create NAME"),
        "dommemstat": ("the balloon is there, and says what the guest uses", "tinamou stats NAME"),
        "vcpupin": ("each virtual CPU has its place from the start", "set cpu.pin"),
    }
    reason, fix = does.get(
        words[0] if words else "", ("libvirt's command about a machine of its own", "virsh dumpxml NAME, then convert that")
    )
    draft.done(where, " ".join(["virsh", *words]), reason, fix)


_READERS: dict[str, Callable[[Draft, str, list[str]], None]] = {"taskset": _taskset, "qemu-img": _qemu_img, "virsh": _virsh}
"""Command → how it is carried over."""

_SAID: dict[str, tuple[str, ...]] = {
    "modprobe": (
        "a module of the host",
        "tinamou doctor says which are missing",
    ),
    "ip": (
        "tinamou makes the interfaces it needs, and removes them",
        "see docs/guides/network.md",
    ),
    "brctl": (
        "tinamou makes the interfaces it needs, and removes them",
        "see docs/guides/network.md",
    ),
    "tunctl": (
        "tinamou makes the interfaces it needs, and removes them",
        "see docs/guides/network.md",
    ),
    "ovs-vsctl": (
        "tinamou makes the ports it needs, and removes them",
        "see type = ovs",
    ),
    "ethtool": (
        "offloads are set as the machine's network needs them",
        "tinamou net diagnose NAME",
    ),
    "sysctl": (
        "a setting of the host",
        "tinamou doctor says which are wrong",
    ),
    "mount": (
        "a file system of the host",
        "for huge pages nothing needs to be mounted",
    ),
    "umount": ("a file system of the host",),
    "dmesg": (
        "a look at the host",
        "tinamou doctor",
    ),
    "lspci": (
        "a look at the host",
        "tinamou doctor",
    ),
    "grep": (
        "a look at the host",
        "tinamou doctor",
    ),
    "cat": (
        "a look at the host",
        "tinamou doctor",
    ),
    "swtpm": (
        "the TPM's process is started and ended with the machine",
        "set tpm = true",
    ),
    "swtpm_setup": (
        "the TPM's state is made with the machine",
        "set tpm = true",
    ),
    "virtiofsd": (
        "the process behind a share is started and ended with the machine",
        "set share = …",
    ),
    "tail": (
        "a look at a log",
        "tinamou logs NAME",
    ),
    "kill": (
        "the end of a process",
        "tinamou stop NAME",
    ),
    "pkill": (
        "the end of a process, and of every other of that name",
        "tinamou stop NAME",
    ),
    "remote-viewer": ("a viewer",),
    "vncviewer": ("a viewer",),
}
"""Command → what does it here, and where to look."""
