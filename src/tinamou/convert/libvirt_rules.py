"""What a libvirt domain says that no field of a machine holds, by its place: why nothing need be done, or what is lost.

Source: libvirt's documentation, *Domain XML format*; what libvirt adds by itself to a domain that is defined.
"""

from __future__ import annotations

from tinamou.convert.account import Rules

__all__ = ["RULES"]

_SPEC = "see docs/reference/spec.md"

RULES: Rules = (
    (
        r"(.*/)?(address|alias)(/.*)? (.*/)?target/address(/.*)? devices/controller/(@.*|target|master|pcihole64)(/.*)?"
        r" devices/controller/model/@name",
        "done",
        "where a device sits, and what libvirt calls it, is tinamou's to choose",
        "",
    ),
    ("uuid", "done", "a machine is known by its name; its guest's identity changes with it", ""),
    ("@id", "done", "what libvirt calls a running machine", ""),
    ("metadata(/.*)?", "done", "what other tools noted about the machine", ""),
    ("genid", "done", "the generation id is there", ""),
    ("features/(acpi|apic|pae|gic|smm|ioapic|vmcoreinfo)(/.*)?", "done", "the board has what the machine needs", ""),
    ("features/vmport(/.*)?", "changed", "QEMU decides about VMware's port", "keep it with qemu_args"),
    ("pm(/.*)?", "done", "the machine can be shut down and suspended", ""),
    ("seclabel(/.*)?", "done", "QEMU runs confined: no rights, a user id of its own", ""),
    ("resource(/.*)?", "done", "a machine has a control group of its own", ""),
    ("description title", "done", "a machine file has comments", ""),
    ("(default)?iothread(s|ids)?(/.*)?", "done", "a disk asks for a thread of its own: iothread = true", ""),
    (
        "cpu/(vendor|@check|@migratable|@match|@mode|model/@fallback|@deprecated_features)",
        "done",
        "it follows from the CPU's model",
        "",
    ),
    ("cpu/(cache|numa)(/.*)?", "changed", "it follows from the host, with pin", 'set cpu.pin = "auto"'),
    ("memory/@dumpCore", "done", "tinamou dump writes the guest's memory where that is asked", ""),
    (
        "cputune/(shares|period|quota|emulator_.*|iothread_.*|global_shares)",
        "lost",
        "what a machine may use is set in [limits]",
        "set limits.cpu",
    ),
    ("maxMemory(/.*)?", "lost", "memory is not plugged in while the machine runs", "set memory = …"),
    ("devices/rng/backend(/.*)?", "done", "random numbers of the host are there", ""),
    (
        "devices/disk/iotune/.*",
        "lost",
        "limits count reads and writes together, without bursts",
        "iops, bandwidth in [[disk]]",
    ),
    ("devices/disk/serial", "lost", "a disk has the serial number of its place", "find it by its UUID"),
    ("devices/controller/(model|driver)(/.*)?", "done", "controllers are there where devices need them", ""),
    ("devices/disk/@model", "done", "the disk is a virtio disk as QEMU has it", ""),
    ("devices/disk/source/seclabel(/.*)?", "done", "QEMU runs confined: no rights, a user id of its own", ""),
    (
        "features/(pvspinlock|kvm|pmu|hap|privnet|hpt|htm|nested-hv|ccf-assist|cfpc|sbbc|ibs|tcg)(/.*)?",
        "changed",
        "it is as QEMU has it for this CPU",
        "cpu.model takes features",
    ),
    ("capabilities(/.*)?", "done", "what libvirt is to ask of QEMU", ""),
    ("(memtune|blkiotune)(/.*)?", "lost", "what a machine may use is set in [limits]", "set limits.memory, limits.read"),
    ("devices/emulator", "done", "the QEMU in PATH is taken, or the one TINAMOU_QEMU names", ""),
    ("devices/hub(/.*)?", "done", "USB is there where a screen is", ""),
    ("devices/panic(/.*)?", "done", "a panic of the guest's kernel is told", ""),
    ("devices/memballoon(/.*)?", "done", "the balloon is there", ""),
    (
        "devices/disk/(backingStore|mirror)(/.*)?",
        "done",
        "which files a disk rests on is read from the disk itself, and each is checked",
        "",
    ),
    (
        "devices/disk/(@type|@device|@snapshot|readonly|target/@(tray|removable|bus|dev)|source/@(index|startupPolicy))"
        " devices/disk/driver/@(name|type|io|event_idx|ioeventfd|copy_on_read|cache|discard|discard_no_unref|error_policy)"
        " devices/disk/driver/metadata_cache(/.*)?",
        "done",
        "how QEMU opens a disk and where it sits is tinamou's to choose",
        "",
    ),
    (
        "devices/interface/(@trustGuestRxFilters|target|acpi|backend)(/.*)?"
        " devices/interface/source/@(portid|portgroup)"
        " devices/interface/driver/@(name|txmode|ioeventfd|event_idx|rx_queue_size|tx_queue_size|page_per_vq)"
        " devices/interface/(source/@(bridge|network|mode|type|dev)|source/local(/.*)?|virtualport(/.*)?|mac/@(type|check))",
        "done",
        "how packets are moved, and what the host calls the interface, is tinamou's to choose",
        "",
    ),
    (
        "devices/interface/boot(/.*)?",
        "lost",
        "network cards carry no boot programs",
        "boot from a disc or a disk",
    ),
    (
        "commandline/env",
        "lost",
        "QEMU starts in a clean environment; sound goes through the screen's server",
        _SPEC,
    ),
    ("devices/interface/(ip|route)(/.*)?", "lost", "an address is given in another way", "set address = …"),
    (
        "devices/hostdev/(@mode|@managed|driver/@name|source/address/@multifunction)",
        "done",
        "a device is taken from its driver at the start, and given back",
        "",
    ),
    (
        "devices/video/(driver/@name|model/(@(primary|vram|vram64|vgamem|ram|heads|blob)|resolution(/.*)?))",
        "done",
        "the display has the card every guest can drive (virtio-vga)",
        "",
    ),
    (
        "devices/graphics/@(port|tlsPort|autoport|websocket|sharePolicy|powerControl|defaultMode|socket|connected)"
        " devices/graphics/(listen|channel|image|streaming|jpeg|zlib|playback|audio|mouse)(/.*)?"
        " devices/graphics/(@keymap|@display|@xauth|@fullscreen|@multiUser|@username|@replaceUser|@passwdValidTo)",
        "done",
        "the screen is on a Unix socket of the machine",
        "",
    ),
    ("devices/graphics/@passwd", "done", "only its owner can open the screen's socket", ""),
    (
        "devices/graphics/(clipboard|filetransfer)(/.*)?",
        "done",
        "where SPICE's agent has no channel, nothing is copied from or to the guest",
        "",
    ),
    ("devices/tpm/(@model|backend/@(persistent_state|debug))", "done", "the TPM's device is the one its board has", ""),
    (
        "devices/filesystem/(@(type|accessmode|model)|driver/@(type|format|wrpolicy|queue)|binary(/.*)?)",
        "done",
        "virtio-fs, by a virtiofsd that tinamou starts",
        "",
    ),
    ("devices/filesystem/(@fmode|@dmode|space_.*_limit|idmap)(/.*)?", "lost", "a share has no such setting", _SPEC),
    ("sysinfo(/.*)?", "lost", "a machine has no such word about its maker", "-smbios in qemu_args"),
    ("(keywrap|idmap|perf|bootloader|bootloader_args)(/.*)?", "lost", "a machine has no such setting", _SPEC),
)
"""Place → rank, reason, fix. A place no rule has is lost."""
