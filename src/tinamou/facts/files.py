"""The names of the files and sockets in a machine's folder, each written here once."""

from __future__ import annotations

__all__ = [
    "AGENT",
    "ASKED",
    "AUTOSTART",
    "CHECKPOINTING",
    "CLEARED",
    "CONSOLE",
    "COPYING",
    "GDB",
    "IMAGE",
    "JOURNAL",
    "LOCK",
    "MONITOR_LOG",
    "MOVING",
    "OEM",
    "OPERATION",
    "PLAN",
    "QEMU_LOG",
    "QMP",
    "QMP_VISITORS",
    "RECORD",
    "RENAMED",
    "RESIDENT",
    "RESIDENT_SHARED",
    "SEALS",
    "SEED",
    "SEEDS",
    "SERIAL_LOG",
    "SNAPSHOTS",
    "SUSPENDED",
    "TLS",
    "UEFI_VARS",
    "UID",
]

RECORD = "machine.json"
"""The machine's record (`tinamou.state.record`); a folder without it is no machine."""
LOCK = "machine.lock"
"""Held for the moment in which one of the machine's JSON files is read and replaced."""
OPERATION = "operation.lock"
"""Held by whoever changes the machine's disks, cards or shares; says who that is."""
PLAN = "plan.json"
"""The plan of its last start, with what was plugged in since (`tinamou.blueprint.stored`)."""
IMAGE = "image.json"
"""The facts of the image it was made from."""
JOURNAL = "journal.jsonl"
"""What it took from the host (`tinamou.prepare.journal`)."""
UID = "uid"
"""The user id leased to its QEMU."""
STAGING = ".part"
"""How the name of a folder in it ends that is there while an operation lasts, which one cut short leaves behind."""
SNAPSHOTS = "snapshots.json"
"""The history of its disks (`tinamou.snapshots.history`)."""
SEALS = "seals.json"
"""How the files its disks rest on looked when they were first used."""
SUSPENDED = "suspended"
"""The folder of the state it was suspended with."""
ASKED = "asked-to-end"
"""There when somebody had the machine end, until its next start (`tinamou.machine.life`)."""
MOVING = "moving"
"""The folder of the sockets through which it moves to another host."""
AUTOSTART = "autostart.json"
"""How it starts with the host (`tinamou.machine.autostart`)."""
RENAMED = "renamed"
"""There until all that named it by a name it had names it by its folder's: those names, a line each."""
CLEARED = "cleared"
"""There while a folder without a record is being removed, by whoever holds the folder."""
CHECKPOINTING = "checkpointing"
"""There while its state is being saved: the process that does it."""
COPYING = "copy.lock"
"""Held by the copy that has a port of its own to the guest (`tinamou.guest.carry.port`)."""

QMP = "qmp.sock"
"""QEMU's monitor for the process that owns the machine."""
QMP_VISITORS = "qmp2.sock"
"""QEMU's monitor for everybody else, one after another."""
AGENT = "agent.sock"
"""The guest's agent."""
CONSOLE = "console.sock"
"""The guest's serial console."""
RESIDENT = "resident.sock"
"""The resident program in the guest."""
RESIDENT_SHARED = "resident-shared.sock"
"""Where the process that speaks to the resident lets others do so too."""
GDB = "gdb.sock"
"""QEMU's gdb server, while there is one (`tinamou.machine.debugging`)."""

MONITOR_LOG = "monitor.log"
"""What was said to QEMU by hand (`tinamou.machine.by_hand`)."""
SERIAL_LOG = "serial.log"
"""What the guest printed on its console."""
QEMU_LOG = "qemu.log"
"""What QEMU printed."""
SEED = "seed.iso"
"""First-boot configuration for the guest."""
SEEDS = ("ignition", "combustion")
"""First-boot configurations that the firmware hands on."""
OEM = tuple(f"oem-{number}" for number in range(255))
"""Strings of SMBIOS for the guest, a file each: SMBIOS counts at most 255 (DMTF DSP0134, type 11)."""
TLS = "tls"
"""The folder of its screen's certificate and key."""
UEFI_VARS = "vars.fd"
"""The guest's UEFI variables."""
