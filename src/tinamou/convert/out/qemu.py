"""A machine as a QEMU command line that anybody can start by hand, and as a shell script with one.

Not the line tinamou starts itself, which needs its folders and sockets: `tinamou plan --argv` shows that.
Source: QEMU docs/system/invocation.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator

from tinamou.convert.out.asked import Asked, Place
from tinamou.convert.result import Note
from tinamou.parts.disk.spec import DiskSpec
from tinamou.parts.hyperv import complete
from tinamou.parts.net.spec import NetSpec
from tinamou.parts.usb import UsbSpec
from tinamou.parts.windows import clock_base, release

__all__ = ["line", "script", "write"]

_BOARDS = {"x86_64": "q35", "aarch64": "virt", "riscv64": "virt"}
_SMM = {"x86_64": ",smm=on"}
_UEFI_ALONE = {"aarch64": True}
_FIRMWARE = {
    ("x86_64", False): ("/usr/share/OVMF/OVMF_CODE_4M.fd", "/usr/share/OVMF/OVMF_VARS_4M.fd"),
    ("x86_64", True): ("/usr/share/OVMF/OVMF_CODE_4M.secboot.fd", "/usr/share/OVMF/OVMF_VARS_4M.ms.fd"),
    ("aarch64", False): ("/usr/share/AAVMF/AAVMF_CODE.fd", "/usr/share/AAVMF/AAVMF_VARS.fd"),
}
"""Architecture and Secure Boot → code and variables, as Debian lays them down."""
_USB = {"tablet": "usb-tablet", "mouse": "usb-mouse", "keyboard": "usb-kbd", "hub": "usb-hub"}
_FORWARD = re.compile(r"(?:(tcp|udp):)?(?:([0-9.]+):)?(\d+):(\d+)")


def script(asked: Asked, place: Place) -> str:
    """The line in a shell script, an option a line; the image is written through an overlay, as tinamou does."""
    words = line(asked, place)
    head = ["#!/bin/sh", f"# {asked.spec.name or 'machine'}, written by tinamou convert --to script.", "set -eu"]
    for note in [one for one in asked.notes if one.where == "image" and one.fix]:
        head.append(f"[ -e {shlex.quote(note.value)} ] || {note.fix}")
        asked.notes.remove(note)
    pieces = [words[0]]
    for word in words[1:]:
        if word.startswith("-"):
            pieces.append(shlex.quote(word))
        else:
            pieces[-1] += f" {shlex.quote(word)}"
    return "\n".join([*head, "exec " + " \\\n  ".join(pieces), ""])


def write(asked: Asked, place: Place) -> str:
    """The line as a shell reads it."""
    return shlex.join(line(asked, place)) + "\n"


def line(asked: Asked, place: Place) -> list[str]:
    """The words of the line; notes of what a line alone cannot have are added to ``asked``."""
    spec = asked.spec
    arch = spec.arch or place.arch
    words = [f"qemu-system-{arch}", "-nodefaults"]
    asked.take("arch", "image", "accel", "name")
    if spec.name:
        words += ["-name", _value(spec.name)]
    accel = spec.accel if spec.accel != "auto" else "kvm:tcg" if place.kvm else "tcg"
    board = f"{_BOARDS[arch]},accel={accel}" + (_SMM.get(arch, "") if spec.boot.checked else "")
    words += ["-machine", board + (",mem-merge=on" if spec.memory.merge else ",mem-merge=off")]
    words += [*_cpu(asked), *_memory(asked)]
    words += [*_boot(asked, arch, place), *_disks(asked, place)]
    for number, net in enumerate(spec.net):
        words += _net(asked, net, number)
    words += [] if spec.net else ["-nic", "none"]
    words += _devices(asked)
    asked.windows("the board's sleep states are left on: a Windows that sleeps does not come back")
    asked.take("qemu_args")
    return [*words, *spec.qemu_args]


def _cpu(asked: Asked) -> list[str]:
    cpu = asked.spec.cpu
    name, _, features = cpu.model.partition(",")
    name = "max" if name == "auto" else name  # the host's own where KVM runs
    said = complete(cpu.hyperv)
    shown = [f"hv-{key}={value}" for key, value in said.items()]
    smp = [str(cpu.count)]
    for key in ("sockets", "cores", "threads"):
        if value := getattr(cpu, key):
            smp.append(f"{key}={value}")
        asked.take(f"cpu.{key}")
    asked.take("cpu.count", "cpu.model")
    if said or cpu.hyperv == "off":
        asked.take("cpu.hyperv")
    if cpu.pin != "off":
        asked.note("lost", "cpu.pin", cpu.pin, "a line cannot say where its threads run", "taskset -p, thread by thread")
    return ["-cpu", ",".join([name, *([features] if features else []), *shown]), "-smp", ",".join(smp)]


def _memory(asked: Asked) -> list[str]:
    memory, cpu = asked.spec.memory, asked.spec.cpu
    asked.take("memory.size", "memory.merge", "memory.hugepages", "memory.forkable")
    words = ["-m", f"{memory.size.mib}M"]
    if memory.hugepages == "off" and not asked.shared and cpu.nodes < 2:
        return words
    amount = memory.size.mib
    count = cpu.nodes if cpu.nodes > 1 and cpu.count % cpu.nodes == 0 else 1
    for number in range(count):
        size = amount // count + (amount % count if number == 0 else 0)
        backend = f"memory-backend-memfd,id=ram{number},size={size}M,share=on"
        if memory.hugepages != "off":
            backend += ",hugetlb=on" + (f",hugetlbsize={memory.hugepages}" if memory.hugepages != "auto" else "")
        first = number * cpu.count // count
        cpus = f"{first}-{first + cpu.count // count - 1}"
        words += ["-object", backend, "-numa", f"node,memdev=ram{number},cpus={cpus}"]
    asked.take("cpu.nodes")
    return words


def _boot(asked: Asked, arch: str, place: Place) -> list[str]:
    boot = asked.spec.boot
    words: list[str] = []
    asked.take("boot.firmware", "boot.secure", "boot.menu")
    if boot.requested == "uefi" or (_UEFI_ALONE.get(arch, False) and not boot.kernel):
        code, variables = _FIRMWARE.get((arch, boot.checked), ("edk2-code.fd", "edk2-vars.fd"))
        own = f"{asked.spec.name or 'machine'}-{variables.rpartition('/')[2]}"
        words += [
            "-drive",
            f"if=pflash,format=raw,readonly=on,file={code}",
            "-drive",
            f"if=pflash,format=raw,file={_value(own)}",
        ]
        asked.notes.append(_check("boot.firmware", own, f"the machine's own variables: cp {variables} {own}"))
        if boot.checked:
            words += ["-global", "driver=cfi.pflash01,property=secure,value=on"]
    for key, value in place.started(boot).items():
        if value:
            words += ["-append" if key == "cmdline" else f"-{key}", value]
        asked.take(f"boot.{key}")
    return [*words, *(["-boot", "menu=on"] if boot.menu else [])]


def _value(text: str) -> str:
    """A value as one of QEMU's options has it: a comma in it is written twice."""
    return text.replace(",", ",,")


def _check(where: str, value: str, reason: str) -> Note:
    return Note("check", where, value, reason)


def _disks(asked: Asked, place: Place) -> list[str]:
    spec, words = asked.spec, list[str]()
    if first := asked.first(place):
        words += _disk(asked, first, "", 0)
    if any(one.interface == "scsi" for one in spec.disk):
        words += ["-device", "virtio-scsi-pci,id=scsi0"]
    for number, disk in enumerate(spec.disk, 1):
        if disk.path:
            words += _disk(asked, disk, f"disk[{number - 1}]", number)
        else:
            fix = f"qemu-img create -f qcow2 disk{number}.qcow2 {disk.size}, and name that in path"
            asked.note("lost", f"disk[{number - 1}].size", disk.size, "a line makes no disk", fix)
    return words


def _disk(asked: Asked, disk: DiskSpec, path: str, number: int) -> list[str]:
    name = f"disk{number}"
    kind = "virtio" if disk.interface == "auto" else disk.interface
    drive = [f"file={_value(disk.path)}", "if=none", f"id={name}"]
    drive += [f"format={disk.format}"] if disk.format != "auto" else []
    drive += [f"cache={disk.cache}"] if disk.cache != "writeback" else []
    drive += ["discard=unmap"] if disk.discard else ["discard=ignore"]
    drive += [f"detect-zeroes={disk.detect_zeroes}"] if disk.detect_zeroes != "off" else []
    drive += ["readonly=on"] if disk.readonly and kind != "cdrom" else []
    drive += [f"iops={disk.iops}"] if disk.iops else []
    drive += [f"bps={int(disk.bandwidth)}"] if disk.bandwidth else []
    drive += ["werror=report"] if disk.on_full == "error" else []
    drive += ["media=cdrom"] if kind == "cdrom" else []
    words: list[str] = []
    model = {"virtio": "virtio-blk-pci", "scsi": "scsi-hd", "nvme": "nvme", "sata": "ide-hd", "cdrom": "ide-cd"}[kind]
    device = [model, f"drive={name}", *([f"serial={name}"] if kind == "nvme" else []), f"bootindex={number}"]
    if kind == "virtio" and disk.queues:
        device.append(f"num-queues={disk.queues}")
    if kind == "virtio" and disk.iothread:
        words += ["-object", f"iothread,id=thread{number}"]
        device.append(f"iothread=thread{number}")
    taken = ["path", "format", "interface", "cache", "discard", "detect_zeroes", "readonly", "iops", "bandwidth", "on_full"]
    asked.take(*(f"{path}.{key}" for key in [*taken, "queues", "iothread"]))
    return [*words, "-drive", ",".join(drive), "-device", ",".join(device)]


def _net(asked: Asked, net: NetSpec, number: int) -> list[str]:
    path, name = f"net[{number}]", f"net{number}"
    if net.type == "none":
        asked.take(f"{path}.type")
        return []
    taken = ["type", "model", "mac", "queues", "mtu"]
    backend = [f"user,id={name}"]
    if net.type == "bridge" and net.bridge:
        backend = [f"bridge,id={name},br={_value(net.bridge)}"]
        taken.append("bridge")
    elif net.type == "tap" and net.interface:
        backend = [f"tap,id={name},ifname={_value(net.interface)},script=no,downscript=no"]
        taken.append("interface")
    elif net.type == "vhost-user":
        words = [
            "-chardev",
            f"socket,id=sock{number},path={_value(net.socket)}" + (",server=on,wait=off" if net.listen else ""),
        ]
        asked.take(*(f"{path}.{key}" for key in [*taken, "socket", "listen"]))
        queues = f",queues={net.queues}" if net.queues else ""
        return [*words, "-netdev", f"vhost-user,id={name},chardev=sock{number}{queues}", "-device", _card(net, name)]
    elif net.type not in ("auto", "user", "passt"):
        asked.note(
            "lost", f"{path}.type", net.type, "a line makes no network: the card is on QEMU's user network", "-netdev tap"
        )
    else:
        backend += _forwards(asked, net, path)
        backend += ["restrict=on"] if net.isolated else []
        backend += [] if net.ipv6 else ["ipv6=off"]
        taken += ["forward", "isolated", "ipv6"]
    if net.queues and net.type == "tap":
        backend.append(f"queues={net.queues}")
    asked.take(*(f"{path}.{key}" for key in taken))
    return ["-netdev", ",".join(backend), "-device", _card(net, name)]


def _forwards(asked: Asked, net: NetSpec, path: str) -> Iterator[str]:
    for one in net.forward:
        if match := _FORWARD.fullmatch(one):
            yield f"hostfwd={match[1] or 'tcp'}:{match[2] or '127.0.0.1'}:{match[3]}-:{match[4]}"
        else:
            asked.note("lost", f"{path}.forward", one, "it is no port in a form QEMU has", "hostfwd=")


def _card(net: NetSpec, name: str) -> str:
    model = "virtio-net-pci" if net.model in ("auto", "virtio") else net.model
    more = [f"mac={net.mac}"] if net.mac else []
    more += [f"host_mtu={net.mtu}"] if net.mtu and model == "virtio-net-pci" else []
    return ",".join([model, f"netdev={name}", *more])


def _of_the_host(one: UsbSpec) -> str:
    """The device for one of the host's, by its kind or its port; empty for another."""
    if one.type != "host":
        return ""
    if ":" in one.device:
        vendor, product = one.device.split(":")
        return f"usb-host,vendorid=0x{vendor},productid=0x{product}"
    bus, _, port = one.device.partition("-")
    return f"usb-host,hostbus={bus},hostport={port}"


def _devices(asked: Asked) -> list[str]:
    spec = asked.spec
    words = ["-serial", "mon:stdio"]
    kind = spec.display.type
    if kind == "none":
        words += ["-display", "none"]
    else:
        words += ["-device", "virtio-vga"] + (
            ["-vnc", "127.0.0.1:0"] if kind == "vnc" else ["-spice", "port=5900,addr=127.0.0.1,disable-ticketing=on"]
        )
        reason = "the screen is on 127.0.0.1, for every user of the host, and not on a socket of its own"
        asked.notes.append(Note("changed", "display.type", kind, reason, "-vnc unix:PATH"))
    found = {number: name for number, one in enumerate(spec.usb) if (name := _USB.get(one.type) or _of_the_host(one))}
    words += ["-device", "qemu-xhci"] if found else []
    for number, name in found.items():
        words += ["-device", name]
        asked.take(f"usb[{number}].type", f"usb[{number}].device", f"usb[{number}]")
    for number, one in enumerate(spec.pci):
        if "." not in one.device or " " in one.device:
            asked.note("lost", f"pci[{number}].device", one.device, "QEMU takes a device by its address", "lspci -D says it")
            continue
        words += ["-device", f"vfio-pci,host={one.device}" + ("" if one.rom else ",rombar=0")]
        asked.take(f"pci[{number}].device", f"pci[{number}].rom", f"pci[{number}].alone")
    if spec.tpm.enabled:
        words += ["-chardev", "socket,id=tpmsock,path=tpm.sock", "-tpmdev", "emulator,id=tpm0,chardev=tpmsock"]
        words += ["-device", "tpm-crb,tpmdev=tpm0"]
        before = "swtpm socket --tpm2 --tpmstate dir=tpm --ctrl type=unixio,path=tpm.sock"
        asked.notes.append(_check("tpm.enabled", "true", f"to be started before: {before}"))
    words += ["-device", "virtio-rng-pci"] if spec.devices.rng else []
    words += ["-device", "virtio-balloon-pci"] if spec.devices.balloon else []
    windows = release(spec)
    base = spec.clock.base
    if base == "auto":
        base = clock_base(spec)[0] if windows and not spec.clock.offset else ""
    rtc = [f"base={base}"] * bool(base) + ["driftfix=slew"] * bool(windows)
    words += ["-rtc", ",".join(rtc)] if rtc else []
    asked.take("display.type", "tpm.enabled", "devices.rng", "devices.balloon", "clock.base")
    return words
