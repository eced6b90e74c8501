"""The verbs of the command line: what each is for, and where its function is."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinamou.cli.grammar import Group, Verb

__all__ = ["ABOUT", "GROUPS", "USAGE", "VERBS", "function_of", "module_of"]

ABOUT = "Starts QEMU virtual machines the right way and keeps them right."
VERBS = {
    "run": "Start a machine: with its console here, in the background, or for one command.",
    "install": "Install a guest from a disc.",
    "ls": "List machines.",
    "show": "Show one machine.",
    "logs": "Print what a guest said on its console, or QEMU.",
    "console": "Attach to a machine's console; Ctrl-] detaches.",
    "ssh": "Open a shell in a machine, or run a command, by ssh.",
    "exec": "Run a command in a machine.",
    "cp": "Copy files and folders into and out of a machine.",
    "screenshot": "Show what a machine's screen shows.",
    "type": "Type a text to a machine.",
    "keys": "Press keys of a machine.",
    "display": "Open a machine's screen in a viewer, or say where it is.",
    "monitor": "Say something to a machine's QEMU.",
    "gdb": "Debug a machine's guest.",
    "trace": "Print what a machine's QEMU does, as its trace events tell.",
    "dump": "Write a guest's memory and registers into a file.",
    "allow": "Let other users of this host use a machine of root's.",
    "set": "Change what a machine is: memory, CPUs, disks, networks, and the rest.",
    "edit": "Edit what a machine is, as a machine file.",
    "rename": "Give a machine another name.",
    "clone": "Make a machine with another's disks and an identity of its own.",
    "template": "Make a machine what others are cloned from.",
    "commit": "Make an image of a machine's disk.",
    "export": "Write a whole machine to one file.",
    "import": "Make a machine of a file that was exported.",
    "start": "Start a stopped machine again.",
    "restart": "Shut a machine down and start it again.",
    "autostart": "Have machines start with this host, and end in order with it.",
    "stop": "Shut machines down.",
    "kill": "Cut the power of machines.",
    "reset": "Press a machine's reset button.",
    "pause": "Freeze a machine.",
    "suspend": "Save a machine to disk and end it.",
    "resume": "Let a frozen machine run on, or take a suspended one up.",
    "upgrade": "Put another QEMU under machines while they run.",
    "move": "Move a running machine to another host.",
    "copy": "Copy a machine that is off to another host.",
    "evacuate": "Move every running machine to another host.",
    "replicate": "Keep a copy of a machine's disks on another host.",
    "replica": "List the replicas other hosts keep here, and make machines of them.",
    "settle": "Decide whose a machine is whose move was cut short.",
    "receive": "Take in a machine that another host moves here.",
    "rm": "Remove machines and their disks.",
    "checkpoint": "Save the whole state of a running machine, which goes on.",
    "checkpoints": "List, show, restore, remove and move checkpoints.",
    "pool": "Keep machines waiting that any command can take.",
    "fork": "Start running copies of a running machine, or of a checkpoint.",
    "confine": "Show the walls around a running machine.",
    "plan": "Show what would be done, and why.",
    "place": "Say on which of several hosts a machine belongs, and why.",
    "cluster": "Write machines as resources of a Pacemaker cluster.",
    "convert": "Make a machine file of another tool's machine.",
    "attest": "Judge what a processor's report proves of a guest, offline.",
    "accel": "Try every accelerator and report.",
    "image": "Build, download, examine and remove images.",
    "snapshot": "Take snapshots of a machine's disks and go back to them.",
    "disk": "Change a machine's disks, while it runs where that can be.",
    "check": "Check a machine's disks.",
    "backup": "Copy machines to a folder, and prove the copies.",
    "pci": "Show the host's devices, and take them from it for guests.",
    "stats": "Show what machines use of processor, memory, disks and network.",
    "top": "Show what machines use, again and again.",
    "ui": "Show all machines on the terminal, and drive them by keys.",
    "watch": "Say what begins and ends to be wrong with machines, and balance their memory.",
    "doctor": "Examine this host, or a machine on it.",
    "net": "Look at machines' networks, find what slows them down, capture.",
    "tune": "Measure which choices make a machine faster here.",
    "host": "Show what machines took from this host, and give it back; know other hosts.",
    "serve": "Serve machines to programs and browsers: an API, a page, metrics.",
    "token": "Make, list and revoke the tokens by which the service knows programs.",
    "mcp": "Serve machines as tools of a language model, by the Model Context Protocol.",
    "completion": "Print the completion script of a shell.",
    "schema": "Print the JSON Schema of machine files.",
}
"""Verb → one line of help; its module below tinamou.cli has a function ``command`` or, for a group, a `Group` ``app``.

``completion`` is in the parser's app: it reads all the others.
"""

USAGE = {
    "run": "[OPTIONS] [IMAGE | FILE.toml] [-- COMMAND…]",
    "exec": "[OPTIONS] NAME -- COMMAND…",
    "allow": "[OPTIONS] [NAME [USER | @GROUP]…]",
    "ssh": "[OPTIONS] NAME [-- COMMAND…]",
    "place": "[OPTIONS] FILE.toml",
    "convert": "[OPTIONS] [SOURCE] [-- QEMU-COMMAND…]",
    "set": "[OPTIONS] NAME FIELD=VALUE…",
    "keys": "NAME KEYS…",
    "monitor": "[OPTIONS] NAME [COMMAND [NAME=VALUE…]]",
    "gdb": "[OPTIONS] NAME [-- GDB-OPTIONS…]",
    "trace": "[OPTIONS] NAME [EVENT…]",
    "autostart": "[OPTIONS] [NAME]",
    "stats": "[OPTIONS] [NAME…]",
    "top": "[OPTIONS] [NAME…]",
    "watch": "[OPTIONS] [NAME…]",
}
"""Where the parser does not know all: it never sees what stands behind ``--``, and calls a list of names ``ARGS``."""

GROUPS = frozenset(
    {
        "attest",
        "backup",
        "checkpoints",
        "cluster",
        "disk",
        "host",
        "image",
        "net",
        "pci",
        "pool",
        "replica",
        "snapshot",
        "token",
    }
)


def module_of(verb: str) -> Any:
    """Where a verb of `VERBS` is. Raises LookupError for any other word."""
    for known in VERBS:
        if known == verb:
            return __import__(f"tinamou.cli.{known}", fromlist=[known])
    raise LookupError(verb)


def function_of(words: Sequence[str]) -> tuple[Verb, Sequence[str]] | None:
    """The function that a line is about, and the words for it; None where it names no verb, or the parser's own."""
    if not words or words[0] not in VERBS or words[0] == "completion":
        return None
    if words[0] not in GROUPS:
        return module_of(words[0]).command, words[1:]
    group: Group = module_of(words[0]).app
    if len(words) > 1 and words[1] in group.verbs:
        return group.verbs[words[1]], words[2:]
    alone = len(words) == 1 or words[1].startswith("-")
    return (group.default, words[1:]) if group.default and alone else None
